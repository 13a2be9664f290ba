"""Shows a sweep on stderr: a line for each ended run and, on a terminal, a live table of the runs in progress."""

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from vtzoo.base import progress
from vtzoo.sweep.plan import Run
from vtzoo.sweep.run_progress import read_progress

HEADER = ("run", "steps", "loss", "images/s", "time left")


@dataclass(frozen=True, kw_only=True)
class Board:
    """The display of a sweep's progress."""

    tell: Callable[[str], None]  # prints a line that stays
    show: Callable[[Iterable[Run], str], None]  # replaces the table by these runs, with a line below


@contextmanager
def board() -> Iterator[Board]:
    """The board on stderr. Without a terminal it has no table, and rich is not imported."""
    if not progress.watched():
        yield Board(tell=lambda line: print(line, file=sys.stderr, flush=True), show=lambda runs, below: None)
        return
    from rich.console import Console
    from rich.live import Live

    console = Console(stderr=True)
    with Live(console=console, auto_refresh=False, transient=True) as live:  # no thread, because the sweep forks
        yield Board(
            tell=lambda line: console.print(line, markup=False, highlight=False, soft_wrap=True),
            show=lambda runs, below: live.update(_table(runs, below), refresh=True),
        )


def _table(runs: Iterable[Run], below: str) -> Any:
    from rich.table import Table

    table = Table(*HEADER, box=None, caption=below, caption_justify="left")
    for column in table.columns[1:]:
        column.justify = "right"
    for run in runs:
        table.add_row(*cells(run))
    return table


def cells(run: Run) -> tuple[str, ...]:
    """A run's row: its name, and the steps, loss, images/s and time left, once they are known."""
    name, now, steps = run.name, read_progress(run.folder), run.recipe.steps
    if now is None:
        return name, "reading the data", "", "", ""
    if now.step >= steps:
        return name, "measuring", f"{now.loss:.3f}", "", ""
    speed = now.step / now.seconds  # steps per second
    left = timedelta(seconds=round((steps - now.step) / speed))
    images = speed * run.recipe.optimizer.batch_size
    return name, f"{now.step:,}/{steps:,}", f"{now.loss:.3f}", f"{images:,.0f}", str(left)
