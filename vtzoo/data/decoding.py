"""A function applied to many images by threads, in order. No torch."""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from vtzoo.base.machine import cores

Result = TypeVar("Result")
TOGETHER = 16  # images per task: one task per image would cost as much as decoding a small image


def in_threads(function: Callable[[int], Result], total: int) -> Iterator[list[Result]]:
    """The results of `function` for 0, 1, ... up to `total`, in order, in lists, computed on all cores.

    Threads stay only a little ahead of the consumer, because waiting results need memory.
    """
    waiting: deque[Future[list[Result]]] = deque()
    with ThreadPoolExecutor(cores()) as pool:
        try:
            for first in range(0, total, TOGETHER):
                numbers = range(first, min(first + TOGETHER, total))
                waiting.append(pool.submit(lambda numbers: [function(number) for number in numbers], numbers))
                if len(waiting) > 2 * cores():
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
