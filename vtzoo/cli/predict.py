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
            help="Image files, folders, glob patterns, Parquet files, or - for a list of them on stdin.",
        ),
    ],
    model: ModelOption = DEFAULT_MODEL,
    revision: RevisionOption = None,
    top_k: Annotated[int, typer.Option("--top-k", "-k", metavar="N", min=1, help="Classes to show an image.")] = 5,
    backend: BackendOption = "auto",
    device: DeviceOption = "auto",
    batch_size: Annotated[
        int, typer.Option("--batch-size", metavar="N", min=1, help="Images to run through the model at once.")
    ] = 32,
    as_format: Annotated[
        Literal["table", "json", "jsonl", "csv", "parquet"] | None,
        typer.Option("--format", help="How to write the answers; by default as --out is called, else as a table."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the answers here as they come, not to stdout.")
    ] = None,
    embeddings: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write pooled features to an .npy or a .parquet file, instead or as well."),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the interrupted run of the same command.")
    ] = False,
    null: Annotated[bool, typer.Option("--null", "-0", help="Paths on stdin end with NUL: find -print0.")] = False,
    as_json: JsonOption = False,
) -> None:  # fmt: skip
    """Name what is in images: the most probable classes of each, best first.

    Answers come in the order of the arguments. A folder stands for the images in it and below it, sorted, hidden ones
    left out; where it has none, for the Parquet files there, whose images are called FILE#ROW. An image that cannot be
    read is reported by name, all others are answered, and the exit code is 1. The model may also be an .onnx file that
    `vtzoo export` wrote.

    --json prints one list with an object an image: {"image", "predictions": [{"label", "probability"}], "error"}, and
    --format jsonl a line each. csv has the columns image, error, label_1, probability_1, label_2 and so on. parquet
    needs --out NAME.parquet, and writes numbered files, NAME-00000.parquet and so on.

    --embeddings alone writes no answers. An .npy file is float32 (images, width) in their order, with a row of NaN for
    one that cannot be read; Parquet has null there.

    After a kill or a full disk, the same command with --resume goes on: no line is repeated, and none is lost.
    """
    from vtzoo.base.progress import counted
    from vtzoo.predict.run import Job, Run
    from vtzoo.predict.sources import count

    if as_json and as_format not in (None, "json"):
        raise typer.BadParameter(f"--json and --format {as_format} ask for two formats")
    job = Job(
        images=tuple(images), model=model, revision=revision, backend=backend, device=device, top_k=top_k,
        batch_size=batch_size, format="json" if as_json else as_format, out=out, embeddings=embeddings, null=null,
    )  # fmt: skip
    run = Run(job, resume=resume)
    done = run.recording.place.images
    batches = run.batches(getattr(sys.stdin, "buffer", None), partial(typer.echo, nl=False))
    if not (sys.stdout.isatty() and job.prints):  # there the answers themselves show how far it is
        batches = counted(batches, "predicting", lambda: count(images), lambda batch: len(batch.answers), done=done)
    for batch in batches:
        for answer in batch.failed:
            typer.echo(f"Error: {answer.image}: {answer.error}", err=True)
    place = run.recording.place
    if not job.prints:
        typer.echo(f"{run.recording.names}: {place.images:,} images, {place.failed:,} could not be read", err=True)
    if place.failed:
        raise typer.Exit(1)
