"""The command `vtzoo predict`."""

import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated

import typer

from .options import DEFAULT_MODEL, BackendOption, DeviceOption, JsonOption, ModelOption, RevisionOption, print_json

if TYPE_CHECKING:
    from vtzoo.inference.bulk import Answer


def predict(
    images: Annotated[
        list[str], typer.Argument(metavar="IMAGE", help="Image files, folders or glob patterns.", show_default=False)
    ],
    model: ModelOption = DEFAULT_MODEL,
    revision: RevisionOption = None,
    top_k: Annotated[int, typer.Option("--top-k", "-k", metavar="N", min=1, help="Classes to show an image.")] = 5,
    backend: BackendOption = "auto",
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Name what is in images: the most probable classes of each, best first.

    Answers come in the order of the arguments. A folder stands for the images in it and below it, sorted, hidden ones
    left out. An image that cannot be read is reported by name, all others are answered, and the exit code is 1. The
    model may also be an .onnx file that `vtzoo export` wrote.

    --json prints one list with an object an image: {"image", "predictions": [{"label", "probability"}], "error"}.
    """
    from vtzoo.inference import load
    from vtzoo.inference.bulk import expand, predict_files
    from vtzoo.progress import counted

    files = expand(images)
    answers: Iterable[Answer] = predict_files(
        load(model, revision=revision, backend=backend, device=device), files, top_k
    )
    if not sys.stdout.isatty():  # on a terminal the answers themselves show how far it is
        answers = counted(answers, "predicting", len(files))
    if (_print_list(answers) if as_json else _print_answers(answers)) > 0:
        raise typer.Exit(1)


def _print_list(answers: "Iterable[Answer]") -> int:
    """Print one JSON list and return how many images failed."""
    rows = [
        {"image": answer.image, "predictions": [vars(one) for one in answer.predictions], "error": answer.error}
        for answer in answers
    ]
    print_json(rows)
    return sum(row["error"] is not None for row in rows)


def _print_answers(answers: "Iterable[Answer]") -> int:
    """Print a block an image and return how many images failed."""
    failed = 0
    for answer in answers:
        if answer.error is not None:
            failed += 1
            typer.echo(f"Error: {answer.image}: {answer.error}", err=True)
            continue
        typer.echo(answer.image)
        for one in answer.predictions:
            typer.echo(f"  {one.probability:6.1%}  {one.label}")
    return failed
