"""What several commands share: their options, and how they print JSON."""

import json
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from vtzoo.zoo.resources import DEFAULT_MODEL as DEFAULT_MODEL

ModelOption = Annotated[
    str,
    typer.Option(
        "--model", "-m", metavar="MODEL", help="Name of a model (see `vtzoo list`), its folder, or ORG/NAME on the Hub."
    ),
]
RevisionOption = Annotated[
    str | None, typer.Option("--revision", metavar="REV", help="Branch, tag or commit of a model on the Hub.")
]
BackendOption = Annotated[
    Literal["auto", "onnx", "torch"],
    typer.Option(help="What runs the model. auto: ONNX Runtime, without torch, for a model that has a graph."),
]
DeviceOption = Annotated[
    Literal["auto", "cpu", "cuda"], typer.Option(help="auto takes CUDA where it works; cuda fails where it does not.")
]
DataOption = Annotated[
    Path | None,
    typer.Option(metavar="FOLDER", help="Read the dataset from Parquet or image folders here, not from the Hub."),
]
ImageColumnOption = Annotated[
    str | None, typer.Option(metavar="NAME", help="The column of images, where it goes by no usual name.")
]
LabelColumnOption = Annotated[
    str | None, typer.Option(metavar="NAME", help="The column of labels, where it goes by no usual name.")
]
RecipeArgument = Annotated[
    str,
    typer.Argument(
        metavar="RECIPE", help="Name of a recipe (see `vtzoo list --recipes`), or a TOML file.", show_default=False
    ),
]
AccumulateOption = Annotated[
    int, typer.Option(metavar="N", min=1, help="Split each batch into N parts: the same step in less memory.")
]
CompileOption = Annotated[
    bool,
    typer.Option("--compile", help="Compile the model's blocks: a start of some seconds, then faster steps on a GPU."),
]
WorkersOption = Annotated[
    int | None, typer.Option(metavar="N", min=1, help="Decode with N processes in each epoch, not once into memory.")
]
SkipBadOption = Annotated[
    bool, typer.Option("--skip-bad", help="Leave out the training images that cannot be read, and count them.")
]
TeacherOption = Annotated[
    Path | None, typer.Option(metavar="FOLDER", help="The trained model that the recipe's [teacher] names.")
]
# What a recipe says is no option: these are parsed to say so.
EpochsOption = Annotated[str | None, typer.Option("--epochs", hidden=True)]
BatchSizeOption = Annotated[str | None, typer.Option("--batch-size", hidden=True)]
LearningRateOption = Annotated[str | None, typer.Option("--learning-rate", "--lr", hidden=True)]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]


def print_json(content: Any) -> None:
    """Print it as ASCII, hence valid in every terminal's encoding."""
    typer.echo(json.dumps(content, indent=2))


def byte_count(count: int) -> str:
    """A number of bytes for people: 1,234 bytes, 12.3 MB."""
    return f"{count / 1e6:,.1f} MB" if count >= 1e5 else f"{count:,} bytes"
