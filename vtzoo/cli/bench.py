"""The command `vtzoo bench`."""

import sys
from dataclasses import asdict
from typing import Annotated

import typer

from vtzoo.cli.options import DEFAULT_MODEL, DeviceOption, JsonOption, ModelOption, print_json


def bench(
    model: ModelOption = DEFAULT_MODEL,
    runtimes: Annotated[
        str, typer.Option(metavar="NAMES", help="Runtimes to measure, separated by commas.")
    ] = "onnx,torch,openvino",
    precisions: Annotated[
        str, typer.Option(metavar="NAMES", help="Precisions to measure, separated by commas.")
    ] = "fp32,fp16,int8,bf16",
    device: DeviceOption = "auto",
    batch: Annotated[int, typer.Option("--batch", metavar="N", help="Images at once, to measure images/s.")] = 32,
    seconds: Annotated[float, typer.Option(
        "--seconds", metavar="S", help="Seconds to measure the latency of a row, and again its images/s."
    )] = 3,
    rounds: Annotated[
        int, typer.Option("--rounds", metavar="N", help="Rounds that divide these seconds; rows take turns in each.")
    ] = 3,
    as_json: JsonOption = False,
) -> None:  # fmt: skip
    """Measure a model on each runtime and precision here: speed, cold start, memory, file size and agreement.

    Each measurement runs in a new process, and rows take turns in rounds. A note below the table names the runtimes
    that are not installed. ONNX files are first exported into a temporary folder, which needs the extra `train`;
    without it, the model's own graph is measured.

    --json prints one object: {"model", "hardware", "versions", "settings", "reference", "images", "rows", "absent"}.
    A failed row has its error, and the exit code is then 1.
    """
    from vtzoo.bench.measure import measure
    from vtzoo.bench.plan import Settings
    from vtzoo.bench.table import render

    settings = Settings(
        model=model, runtimes=_names(runtimes), precisions=_names(precisions), device=device, batch=batch,
        seconds=seconds, rounds=rounds,
    )  # fmt: skip
    report = measure(settings, _show_step)
    _show_step("")
    if as_json:
        print_json(asdict(report))
    else:
        typer.echo(render(report))
    if any(row.error for row in report.rows):
        raise typer.Exit(1)


def _names(given: str) -> tuple[str, ...]:
    """The names in a comma-separated list, without duplicates."""
    return tuple(dict.fromkeys(name.strip() for name in given.split(",")))


def _show_step(step: str) -> None:
    """Show the current step on a terminal, over the previous one."""
    if sys.stderr.isatty():
        typer.echo(f"\r\x1b[K{step}", nl=False, err=True)
