"""The command `vtzoo verify`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from vtzoo.cli.options import BackendOption, DataOption, DeviceOption, JsonOption, print_json


def verify(
    model: Annotated[
        str | None, typer.Argument(metavar="[MODEL]", help="A model; by default all models here.", show_default=False)
    ] = None,
    metrics: Annotated[bool, typer.Option("--metrics", help="Measure the accuracy again, too.")] = False,
    data: DataOption = None,
    backend: BackendOption = "auto",
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Verify the hashes of a model's files, or of all models here; with --metrics, also the accuracy of the model.

    The exit code is 1 if a file is damaged, or if the accuracy is not the one on the card.
    """
    from vtzoo.errors import VtzooError
    from vtzoo.hub import fetch

    verdicts = fetch.verify(model)
    rows = [{**vars(verdict), "damaged": list(verdict.damaged)} for verdict in verdicts]
    if metrics:
        if model is None or rows[0]["damaged"]:
            raise VtzooError("--metrics measures one model, whose files are sound", "vtzoo verify MODEL --metrics")
        rows[0] |= _measure(model, data, backend, device)
    if as_json:
        print_json(rows)
    else:
        for row in rows:
            _print_row(row)
    if any(row["damaged"] or not row.get("reproduced", True) for row in rows):
        raise typer.Exit(1)


def _measure(model: str, data: Path | None, backend: str, device: str) -> dict[str, Any]:
    """The newly measured accuracy, and whether it equals the one on the card."""
    from vtzoo.base.progress import counting
    from vtzoo.evaluate.reproduce import reproduce

    with counting("evaluating") as count:
        return reproduce(model, data, backend=backend, device=device, progress=count)


def _print_row(row: dict[str, Any]) -> None:
    name = row["name"] + (f"@{row['revision'][:12]}" if row["revision"] else "")
    state = f"DAMAGED: {', '.join(row['damaged'])}" if row["damaged"] else f"{row['files']} files as they should be"
    typer.echo(f"{name}: {state}")
    if row["damaged"]:
        typer.echo(f"Hint: vtzoo pull {row['name']} downloads them again", err=True)
    for key, name in (("top1", "top-1"), ("map", "mAP")):
        if key in row:
            same = "as" if row["reproduced"] else "NOT as"
            typer.echo(f"{name} {row[key]:.2%} on {row['images']:,} images, {same} on its card: {row['stated']:.2%}")
