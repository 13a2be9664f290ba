"""The command `vtzoo doctor`."""

from typing import Annotated

import typer

from vtzoo.cli.options import DEFAULT_MODEL, JsonOption, print_json


def doctor(
    everything: Annotated[
        bool, typer.Option("--all", help="Import every package, torch too, and check whether torch can use CUDA.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Check the installation: packages, ONNX Runtime, the machine, the caches and the embedded model.

    The doctor runs a session on each provider of ONNX Runtime, and classifies an image with the embedded model. Each
    problem comes with advice. "!" marks a warning; "-" marks an optional package that is not installed. The exit code
    is 1 if the embedded model cannot predict on the CPU.

    --json prints one object: {"works", "findings": [{"group", "name", "says", "state", "advice"}]}. A state is ok,
    absent, warning or error. The doctor never prints a token.
    """
    from vtzoo.doctor.diagnosis import diagnose
    from vtzoo.doctor.finding import render

    findings = diagnose(DEFAULT_MODEL, everything=everything)
    works = all(finding.state != "error" for finding in findings)
    if as_json:
        print_json({"works": works, "findings": [vars(finding) for finding in findings]})
    else:
        typer.echo(render(findings))
    if not works:
        raise typer.Exit(1)
