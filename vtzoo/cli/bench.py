"""The command `vtzoo bench`."""

import sys
from typing import Annotated

import typer

from vtzoo.cli.options import DEFAULT_MODEL, DeviceOption, JsonOption, ModelOption, print_json


def bench(
    model: ModelOption = DEFAULT_MODEL,
    runtimes: Annotated[
        str, typer.Option(metavar="NAMES", help="What runs the model, separated by commas.")
    ] = "onnx,torch,openvino",
    precisions: Annotated[
        str, typer.Option(metavar="NAMES", help="What it computes in, separated by commas.")
    ] = "fp32,fp16,int8,bf16",
    device: DeviceOption = "auto",
    batch: Annotated[int, typer.Option("--batch", metavar="N", help="Images at once, for the images/s.")] = 32,
    seconds: Annotated[
        float, typer.Option("--seconds", metavar="S", help="Time for the latency of a row, and for its images/s.")
    ] = 3,
    rounds: Annotated[
        int, typer.Option("--rounds", metavar="N", help="Rounds to divide that time into, in which rows take turns.")
    ] = 3,
    as_json: JsonOption = False,
) -> None:
    """Measure a model on each runtime and precision here: speed, cold start, memory, file size and agreement.

    Every measurement has a process of its own, and rows take turns, in rounds. What is not installed is left out, and
    named below the table. ONNX files are exported into a temporary folder first, which needs the extra `train`;
    without it, the graph that comes with the model is measured.

    --json prints one object: {"model", "hardware", "versions", "settings", "reference", "images", "rows", "absent"}.
    Exit code 1 where a row failed, which says why.
    """
    from vtzoo.bench.measure import Settings, measure
    from vtzoo.bench.table import render

    settings = Settings(
        model=model, runtimes=_names(runtimes), precisions=_names(precisions), device=device, batch=batch,
        seconds=seconds, rounds=rounds,
    )  # fmt: skip
    report = measure(settings, _tell)
    _tell("")
    if as_json:
        told = {**vars(report), "rows": [vars(row) for row in report.rows]}
        print_json({**told, "absent": [vars(one) for one in report.absent]})
    else:
        typer.echo(render(report))
    if any(row.error for row in report.rows):
        raise typer.Exit(1)


def _names(given: str) -> tuple[str, ...]:
    """The names in a list with commas, each once."""
    return tuple(dict.fromkeys(name.strip() for name in given.split(",")))


def _tell(doing: str) -> None:
    """Say on a terminal what is being done, in one line that the next one takes the place of."""
    if sys.stderr.isatty():
        typer.echo(f"\r\x1b[K{doing}", nl=False, err=True)
