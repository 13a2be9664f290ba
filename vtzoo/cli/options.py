"""Options and JSON printing shared by several commands."""

import json
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from vtzoo.zoo.resources import DEFAULT_MODEL as DEFAULT_MODEL

ModelOption = Annotated[str, typer.Option(
    "--model", "-m", metavar="MODEL", help="Name of a model (see `vtzoo list`), its folder, or ORG/NAME on the Hub."
)]  # fmt: skip
RevisionOption = Annotated[
    str | None, typer.Option("--revision", metavar="REV", help="Branch, tag or commit of a model on the Hub.")
]
BackendOption = Annotated[Literal["auto", "onnx", "torch"], typer.Option(
    help="Runtime of the model. auto: ONNX Runtime, without torch, for a model with a graph."
)]  # fmt: skip
DeviceOption = Annotated[Literal["auto", "cpu", "cuda"], typer.Option(
    help="auto: CUDA if it works, else the CPU. cuda: an error unless CUDA works."
)]  # fmt: skip
DataOption = Annotated[Path | None, typer.Option(
    metavar="FOLDER", help="Read the dataset from Parquet files or image folders here, not from the Hub."
)]  # fmt: skip
ImageColumnOption = Annotated[
    str | None, typer.Option(metavar="NAME", help="Column of the images, if it has no usual name.")
]
LabelColumnOption = Annotated[
    str | None, typer.Option(metavar="NAME", help="Column of the labels, if it has no usual name.")
]
RecipeArgument = Annotated[str, typer.Argument(
    metavar="RECIPE", help="Name of a recipe (see `vtzoo list --recipes`), or a TOML file.", show_default=False
)]  # fmt: skip
AccumulateOption = Annotated[
    int, typer.Option(metavar="N", min=1, help="Split each batch into N parts: the same step in less memory.")
]
CompileOption = Annotated[bool, typer.Option(
    "--compile", help="Compile the model's blocks: some seconds at the start, then faster steps on a GPU."
)]  # fmt: skip
WorkersOption = Annotated[
    int | None, typer.Option(metavar="N", min=1, help="Decode in each epoch with N processes, not once into memory.")
]
SkipBadOption = Annotated[bool, typer.Option("--skip-bad", help="Skip unreadable training images, and count them.")]
TeacherOption = Annotated[
    Path | None, typer.Option(metavar="FOLDER", help="The trained model that the recipe's [teacher] names.")
]
# Settings of the recipe, which these commands refuse with a hint.
EpochsOption = Annotated[str | None, typer.Option("--epochs", hidden=True)]
BatchSizeOption = Annotated[str | None, typer.Option("--batch-size", hidden=True)]
LearningRateOption = Annotated[str | None, typer.Option("--learning-rate", "--lr", hidden=True)]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]


def print_json(content: Any) -> None:
    """Print a value as JSON in ASCII, which is valid in every terminal's encoding."""
    typer.echo(json.dumps(content, indent=2))


def byte_count(count: int) -> str:
    """A number of bytes as text: 1,234 bytes, 12.3 MB."""
    return f"{count / 1e6:,.1f} MB" if count >= 1e5 else f"{count:,} bytes"
