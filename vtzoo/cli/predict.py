"""The command `vtzoo predict`."""

import sys
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import typer

from vtzoo.cli.options import DEFAULT_MODEL, BackendOption, DeviceOption, JsonOption, ModelOption, RevisionOption


def predict(
    images: Annotated[
        list[str],
        typer.Argument(
            metavar="IMAGE", show_default=False,
            help="Image files, folders, glob patterns, Parquet files, or - for a list of paths on stdin.",
        ),
    ],
    model: ModelOption = DEFAULT_MODEL,
    revision: RevisionOption = None,
    top_k: Annotated[int, typer.Option("--top-k", "-k", metavar="N", min=1, help="Classes to show per image.")] = 5,
    backend: BackendOption = "auto",
    device: DeviceOption = "auto",
    batch_size: Annotated[
        int, typer.Option("--batch-size", metavar="N", min=1, help="Images to run through the model at once.")
    ] = 32,
    as_format: Annotated[Literal["table", "json", "jsonl", "csv", "parquet"] | None, typer.Option(
        "--format", help="Format of the predictions; by default the suffix of --out, else a table."
    )] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the predictions here as they come, not to stdout.")
    ] = None,
    embeddings: Annotated[Path | None, typer.Option(
        metavar="FILE", help="Write pooled features to a .npy or .parquet file; alone, no predictions."
    )] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue the interrupted run of the same command.")
    ] = False,
    null: Annotated[bool, typer.Option("--null", "-0", help="Paths on stdin end with NUL: find -print0.")] = False,
    as_json: JsonOption = False,
) -> None:  # fmt: skip
    """Classify images: the most probable classes of each, best first.

    Predictions come in the order of the arguments. A folder gives all images in it and below it, sorted, without hidden
    files. A folder without images gives the rows of its Parquet files, named FILE#ROW. An unreadable image is reported
    by name; all others are classified, and the exit code is 1. MODEL may also be an .onnx file from `vtzoo export`.

    --json prints one list with an object for each image: {"image", "predictions": [{"label", "probability"}], "error"}.
    --format jsonl prints each object on its own line. csv has the columns image, error, label_1, probability_1, label_2
    and so on. parquet needs --out NAME.parquet, and writes numbered files NAME-00000.parquet and so on.

    A .npy file of --embeddings is a float32 array (images, width) in the order of the images, with a row of NaN for an
    unreadable image; Parquet has null there.

    After a kill or a full disk, the same command with --resume continues: no line is repeated, and none is lost.
    """
    from vtzoo.predict.run import PredictRequest, PredictRun

    if as_json and as_format not in (None, "json"):
        raise typer.BadParameter(f"--json and --format {as_format} ask for two formats")
    request = PredictRequest(
        images=tuple(images), model=model, revision=revision, backend=backend, device=device, top_k=top_k,
        batch_size=batch_size, format="json" if as_json else as_format, out=out, embeddings=embeddings, null=null,
    )  # fmt: skip
    run = PredictRun(request, resume=resume)
    for batch in run.batches(getattr(sys.stdin, "buffer", None), partial(typer.echo, nl=False)):
        for image in batch.failed:
            typer.echo(f"Error: {image.image}: {image.error}", err=True)
    position = run.outputs.position
    if not request.prints:
        counts = f"{position.images:,} images, {position.failed:,} could not be read"
        typer.echo(f"{run.outputs.names}: {counts}", err=True)
    if position.failed:
        raise typer.Exit(1)
