"""Progress bars on stderr, drawn by rich. Without a terminal there is no bar, and rich is not imported."""

import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

Item = TypeVar("Item")
MANY = 32  # images; up to that many need no bar


def counted(
    items: Iterable[Item],
    title: str,
    total: int | Callable[[], int | None],
    size: Callable[[Item], int] = lambda item: 1,
    *,
    done: int = 0,
) -> Iterator[Item]:
    """The same items, while a bar counts their images: `size(item)` for each item.

    `total` is the number of images, or a function that counts them if a bar is drawn; the function returns None for an
    unknown number. `done` images were finished before the first item.
    """
    known = (total() if callable(total) else total) if watched() else 0
    if known is not None and known <= MANY:
        yield from items
        return
    with counting(title, known, done=done) as count:
        for item in items:
            count(size(item))
            yield item


@contextmanager
def counting(title: str, total: int | None = None, *, done: int = 0) -> Iterator[Callable[[int], None]]:
    """A bar with the number of images, out of `total` if known, and images/s. Call the result with each new number.

    `done` images were finished before, and do not count in images/s.
    """
    if not watched():
        yield lambda images: None
        return
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"), MofNCompleteColumn(), TextColumn("{task.fields[speed]}"),
        TimeElapsedColumn() if total is None else TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=total, completed=done, speed="")
        began, counted = time.monotonic(), 0

        def count(images: int) -> None:
            nonlocal counted
            counted += images
            speed = counted / max(time.monotonic() - began, 1e-9)
            bar.update(task, advance=images, speed=f"{speed:,.0f} images/s")

        yield count


@contextmanager
def training(title: str) -> Iterator[Callable[[Any], None]]:
    """A bar with a run's steps, loss, accuracy, images/s and time left. Call it with a `train.loop.Progress`.

    Before the first step, call it with the number of images decoded since the last call.
    """
    if not watched():
        yield lambda now: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[state]}"),
        TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(title, total=None, state="reading the data")

        decoded = 0

        def report(now: Any) -> None:
            nonlocal decoded
            if isinstance(now, int):
                decoded += now
                bar.update(task, state=f"{decoded:,} images decoded")
                return
            state = f"loss {now.loss:.3f}  accuracy {now.accuracy:.1%}  {now.images_per_second:.0f} images/s"
            bar.update(task, total=now.steps, completed=now.step, state=state)

        yield report


def watched() -> bool:
    """Whether stderr is a terminal, and this is the first of torchrun's processes."""
    # rich would take FORCE_COLOR for a terminal.
    return sys.stderr is not None and sys.stderr.isatty() and os.environ.get("RANK", "0") == "0"
