"""A finding of the doctor, and the findings as text."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

# ok: works. absent: optional, and not installed. warning: does not work, or may not, and predicting does not need it.
# error: predicting on the CPU, the purpose of the package, cannot work.
State = Literal["ok", "absent", "warning", "error"]
MARKS: dict[State, str] = {"ok": "ok", "absent": "-", "warning": "!", "error": "ERROR"}


@dataclass(frozen=True, kw_only=True)
class Finding:
    """The state of one thing, with advice unless it is ok."""

    group: str
    name: str
    says: str
    state: State = "ok"
    advice: str | None = None


def render(findings: list[Finding]) -> str:
    """A line for each finding, under the name of its group; advice that the next finding repeats is left out."""
    return "\n".join(_lines(findings))


def _lines(findings: list[Finding]) -> Iterator[str]:
    width, group = max(len(finding.name) for finding in findings), None
    for finding, following in zip(findings, [*findings[1:], None], strict=True):
        if finding.group != group:
            yield (group := finding.group)
        yield f"  {MARKS[finding.state]:<6}{finding.name:<{width}}  {finding.says}"
        if finding.advice and (following is None or following.advice != finding.advice):
            yield f"        -> {finding.advice}"
