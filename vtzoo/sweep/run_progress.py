"""Reads the progress of a run from the end of its metrics.jsonl."""

import json
import os
import statistics
from dataclasses import dataclass
from pathlib import Path

TAIL = 1 << 13  # bytes to read; a line has about 200, so these are more than RECENT lines
RECENT = 20  # steps that the loss is averaged over


@dataclass(frozen=True, kw_only=True)
class RunProgress:
    """How far a run is."""

    step: int
    loss: float  # the mean over RECENT steps
    seconds: float  # of training so far, without interruptions


def read_progress(folder: Path) -> RunProgress | None:
    """The progress of the run in a folder; None before its first line."""
    try:
        with (folder / "metrics.jsonl").open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL))
            whole = file.read().split(b"\n")[:-1]  # a line without a line break is still being written
        lines = [json.loads(line) for line in whole[-RECENT:]]
    except (FileNotFoundError, ValueError):
        return None
    if not lines:
        return None
    loss = statistics.fmean(line["loss"] for line in lines)
    return RunProgress(step=lines[-1]["step"], loss=loss, seconds=lines[-1]["seconds"])
