"""Progress bars on stderr, of rich; where stderr is no terminal there is neither a bar nor rich."""

import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

Item = TypeVar("Item")
MANY = 32  # images; fewer are done before anybody looks


def counted(
    items: Iterable[Item],
    title: str,
    total: int | Callable[[], int | None],
    size: Callable[[Item], int] = lambda item: 1,
    *,
    done: int = 0,
) -> Iterator[Item]:
    """The same items; where there are many, a bar counts the images in them, their `size`.

    `total` is how many images there are, or what says it where a bar is to be drawn, None where nobody knows before
    the end. `done` of them are done before the first item.
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
    """A bar that counts images and images/s, out of `total` where that is known; call what it gives with every further
    number. `done` images are no work of this bar's.
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
    """A bar with a run's steps, loss, accuracy, images/s and the time left; call it with a `training.loop.Progress`.

    Before the first step, call it with every further number of images that are decoded.
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
    """Whether anybody sees what is drawn on stderr: it is a terminal. Of torchrun's processes one alone draws."""
    # Asked here and not of rich, which takes FORCE_COLOR for a terminal.
    return sys.stderr is not None and sys.stderr.isatty() and os.environ.get("RANK", "0") == "0"
