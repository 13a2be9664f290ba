"""The command `vtzoo doctor`."""

from typing import Annotated

import typer

from vtzoo.cli.options import DEFAULT_MODEL, JsonOption, print_json

MARKS = {"ok": "ok", "absent": "-", "warning": "!", "error": "ERROR"}


def doctor(
    everything: Annotated[
        bool, typer.Option("--all", help="Import every package, torch too, and look whether torch can use CUDA.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Say what is installed, what of it really works, where caches are, and what to do about the rest.

    It tries what it can: it runs a session on each of ONNX Runtime's providers, and classifies a picture with the
    embedded model. Exit code 1 where that last one fails on the CPU; all else that is not well (!) is worth a line,
    and what is optional and not here is marked -.

    --json prints one object: {"works", "findings": [{"group", "name", "says", "state", "advice"}]}; a state is ok,
    absent, warning or error. No token is shown.
    """
    from vtzoo.doctor.examine import examine

    findings = examine(DEFAULT_MODEL, everything=everything)
    works = not any(finding.state == "error" for finding in findings)
    if as_json:
        print_json({"works": works, "findings": [vars(finding) for finding in findings]})
    else:
        for line in _lines(findings):
            typer.echo(line)
    if not works:
        raise typer.Exit(1)


def _lines(findings: list) -> list[str]:
    """A line a finding, under its group; advice that is the same for the next one too is given once."""
    lines, width = [], max(len(finding.name) for finding in findings)
    for index, finding in enumerate(findings):
        if index == 0 or findings[index - 1].group != finding.group:
            lines.append(finding.group)
        lines.append(f"  {MARKS[finding.state]:<6}{finding.name:<{width}}  {finding.says}")
        following = findings[index + 1] if index + 1 < len(findings) else None
        if finding.advice and (following is None or following.advice != finding.advice):
            lines.append(f"        -> {finding.advice}")
    return lines
