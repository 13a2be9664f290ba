"""The command `vtzoo evaluate`."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from vtzoo.cli.options import (
    DEFAULT_MODEL,
    BackendOption,
    DeviceOption,
    ImageColumnOption,
    JsonOption,
    LabelColumnOption,
    ModelOption,
    RevisionOption,
    print_json,
)


def evaluate(
    model: ModelOption = DEFAULT_MODEL,
    revision: RevisionOption = None,
    data: Annotated[str | None, typer.Option(
        metavar="DATA", help="Labelled images: a folder, a CSV, Parquet, or ORG/NAME on the Hub."
    )] = None,
    split: Annotated[Literal["test", "val", "train"] | None, typer.Option(
        help="Split of the images; by default test, else val, else all images."
    )] = None,
    report: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Write report.md, tables, predictions and pictures here.")
    ] = None,
    skip_unknown: Annotated[
        bool, typer.Option("--skip-unknown", help="Leave out images of classes that the model lacks, and count them.")
    ] = False,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Exit with 0 even if some images cannot be read.")
    ] = False,
    image_column: ImageColumnOption = None,
    label_column: LabelColumnOption = None,
    backend: BackendOption = "auto",
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:  # fmt: skip
    """Measure a model on labelled images: accuracy, calibration, each class, and confusions.

    Without --data, the images are the test images of the model's own dataset, and the accuracy is the one on its card.
    Classes are matched by name. A class that the model lacks is an error; --skip-unknown leaves its images out.

    An unreadable image is reported by name and left out. The exit code is then 1, or 0 with --skip-bad.

    Needs the extra `train`: pip install "vtzoo[train]".
    """
    from vtzoo.base.progress import counting
    from vtzoo.evaluate import report as reports
    from vtzoo.evaluate.images import Request
    from vtzoo.evaluate.run import assess
    from vtzoo.evaluate.text_report import lines

    request = Request(
        data=data, split=split, skip_unknown=skip_unknown, image_column=image_column, label_column=label_column
    )
    if report:
        reports.check(report)
    with counting("evaluating") as count:
        assessment = assess(model, request, revision=revision, backend=backend, device=device, progress=count)
    for message in assessment.unreadable:
        typer.echo(f"Error: {message}", err=True)
    for note in assessment.images.images.notes:
        typer.echo(f"Note: {note}", err=True)
    written = reports.write(assessment, report) if report else None
    if as_json:
        print_json(assessment.as_json())
    else:
        for line in lines(assessment):
            typer.echo(line)
    if written:
        typer.echo(f"report: {written}", err=as_json)
    if assessment.unreadable and not skip_bad:
        raise typer.Exit(1)
