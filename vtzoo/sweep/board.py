"""What a sweep shows on stderr: a line a run that has ended and, on a terminal, a live table of those at work."""

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from vtzoo.base import progress
from vtzoo.sweep.plan import Run
from vtzoo.sweep.standing import standing

HEADER = ("run", "steps", "loss", "images/s", "time left")


@dataclass(frozen=True, kw_only=True)
class Board:
    """Where a sweep shows how it goes."""

    tell: Callable[[str], None]  # print a line that stays
    show: Callable[[Iterable[Run], str], None]  # put the runs at work, and a line below, where the last ones were


@contextmanager
def board() -> Iterator[Board]:
    """The board on stderr; where that is no terminal there is no table, and no rich."""
    if not progress.watched():
        yield Board(tell=lambda line: print(line, file=sys.stderr, flush=True), show=lambda runs, below: None)
        return
    from rich.console import Console
    from rich.live import Live

    console = Console(stderr=True)
    with Live(console=console, auto_refresh=False, transient=True) as live:  # no thread: one may not be forked beside
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
    """A run's row: its name, steps, loss, images/s and the time left, as far as they are known."""
    name, now, steps = run.name, standing(run.folder), run.recipe.steps
    if now is None:
        return name, "reading the data", "", "", ""
    if now.step >= steps:
        return name, "measuring", f"{now.loss:.3f}", "", ""
    speed = now.step / now.seconds  # steps a second
    left = timedelta(seconds=round((steps - now.step) / speed))
    images = speed * run.recipe.optimizer.batch_size
    return name, f"{now.step:,}/{steps:,}", f"{now.loss:.3f}", f"{images:,.0f}", str(left)
