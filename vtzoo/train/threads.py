"""How many threads work on a batch."""

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

_SMALL = 2**15  # numbers an image, as in one of 104x104 pixels


def on_one_thread(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """The function, with a single thread to work on a batch of small images that is on the CPU.

    That is hundreds of operations of some microseconds each, at whose ends threads wait for each other. With two idle
    cores for batches of 256 images of 32 pixels, two threads are 1.1 times as fast as one; where another process has
    one of the cores, a thirtieth.
    """

    @wraps(function)
    def limited(*arguments: Arguments.args, **options: Arguments.kwargs) -> Result:
        batch = next(value for value in (*arguments, *options.values()) if isinstance(value, Tensor))
        threads = torch.get_num_threads()
        if threads == 1 or batch.device.type != "cpu" or batch[:1].numel() > _SMALL:
            return function(*arguments, **options)
        torch.set_num_threads(1)
        try:
            return function(*arguments, **options)
        finally:
            torch.set_num_threads(threads)

    return limited
