"""Applies a function to many images in threads, in order. No torch."""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from vtzoo.base.machine import cores

Result = TypeVar("Result")
TOGETHER = 16  # images a thread takes at a time: to hand over one costs as much as to decode a small one


def in_threads(function: Callable[[int], Result], total: int) -> Iterator[list[Result]]:
    """Lists of the results of `function` for 0, 1, ... up to `total`, in order, computed on all cores.

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
