"""How far a run has come, as the end of its metrics.jsonl tells while it goes on."""

import json
import os
import statistics
from dataclasses import dataclass
from pathlib import Path

TAIL = 1 << 13  # bytes that are read: of some 200 each, more lines than the loss is averaged over
RECENT = 20  # steps


@dataclass(frozen=True, kw_only=True)
class Standing:
    """Where a run stands."""

    step: int
    loss: float  # the mean over the last steps
    seconds: float  # of training so far, over all interruptions


def standing(folder: Path) -> Standing | None:
    """Where the run in a folder stands; None before its first lines."""
    try:
        with (folder / "metrics.jsonl").open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL))
            whole = file.read().split(b"\n")[:-1]  # after the last line break, a line is still being written
        lines = [json.loads(line) for line in whole[-RECENT:]]
    except (FileNotFoundError, ValueError):
        return None
    if not lines:
        return None
    loss = statistics.fmean(line["loss"] for line in lines)
    return Standing(step=lines[-1]["step"], loss=loss, seconds=lines[-1]["seconds"])
