"""Processes that decode and crop in every epoch, with PIL: for `--workers`, and for sets beyond the memory budget."""

import signal
import sys
import threading
import warnings
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Int, UInt8
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from vtzoo.data.encoded_images import EncodedImages
from vtzoo.errors import VtzooError
from vtzoo.train.pipeline.crops import Crops

AHEAD = 2  # batches that each process prepares before they are asked for


class Request(NamedTuple):
    """A batch, or a part of it."""

    epoch: int
    images: tuple[int, ...]  # their numbers

    @classmethod
    def of(cls, epoch: int, images: Int[Tensor, " b"]) -> "Request":
        """The request for the images with these numbers."""
        return cls(epoch, tuple(images.tolist()))


class Decoder(Dataset):
    """The crops (b, 3, size, size) of a request, before `Crops.finish`; it runs in each process."""

    def __init__(self, encoded: EncodedImages, crops: Crops, seed: int) -> None:
        self.encoded, self.crops, self.seed = encoded, crops, seed

    def __getitem__(self, request: Request) -> UInt8[Tensor, "b 3 h w"] | VtzooError:
        uniform = self.crops.uniform(self.seed, request.epoch, torch.tensor(request.images))
        pixels = np.empty((len(request.images), 3, self.crops.size, self.crops.size), np.uint8)
        try:
            for place, number in enumerate(request.images):
                pixels[place] = self.crops.of_image(self.encoded[number], uniform[place : place + 1])
        except VtzooError as error:  # `take` raises it: from here it would arrive as the text of a traceback
            return error
        return torch.from_numpy(pixels)


class Workers:
    """Processes that prepare requests ahead; the assignment of requests to processes changes no result."""

    def __init__(self, decoder: Decoder, count: int, device: torch.device) -> None:
        self._plan = Plan()
        with _no_advice():
            self._loader = DataLoader(
                decoder, batch_size=None, sampler=self._plan, collate_fn=_unchanged, num_workers=count,
                prefetch_factor=AHEAD, persistent_workers=True, pin_memory=device.type == "cuda",
                worker_init_fn=_ignore_interrupts, generator=torch.Generator(),  # leaves torch's own generator alone
                multiprocessing_context="fork" if sys.platform == "linux" else None,  # shares the encoded images
            )  # fmt: skip
        self._results: Iterator[Any] = iter(())

    def take(self, wanted: Request, ahead: Iterable[Request]) -> UInt8[Tensor, "b 3 h w"]:
        """The crops of a request; `ahead` are the likely next ones. Any other request restarts the loader, slowly."""
        try:
            if not self._plan.pending or self._plan.pending[0] != wanted:
                self._plan.begin(chain([wanted], ahead))
                with _no_advice(), _no_signals():
                    self._results = iter(self._loader)
            self._plan.pending.popleft()
            found = next(self._results)
        except (RuntimeError, OSError, EOFError) as error:  # a dead process fails in one of several ways
            reason = str(error).partition("\n")[0]
            raise VtzooError(f"a process that decodes images failed: {reason}", "try fewer: --workers N") from error
        if isinstance(found, VtzooError):
            raise found
        return found


class Plan:
    """The requests handed to processes, in order; requests whose result is still to be taken are `pending`."""

    def __init__(self) -> None:
        self.pending: deque[Request] = deque()
        self._requests: Iterator[Request] = iter(())

    def begin(self, requests: Iterable[Request]) -> None:
        """Replace the plan by these requests."""
        self.pending.clear()
        self._requests = iter(requests)

    def __iter__(self) -> Iterator[Request]:
        for request in self._requests:
            self.pending.append(request)
            yield request


@contextmanager
def _no_advice() -> Iterator[None]:
    """Ignores two warnings: more processes than cores, and the risk of forking a process with threads.

    The threads compute with tensors; each forked process uses a single thread of its own.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="This DataLoader will create", category=UserWarning)
        warnings.filterwarnings("ignore", message=".*multi-threaded, use of fork", category=DeprecationWarning)
        yield


@contextmanager
def _no_signals() -> Iterator[None]:
    """Starts processes that ignore Ctrl-C from their first moment, and keeps the loader's SIGCHLD handler off.

    That handler would raise anywhere in the training when a process dies. The loader also notices the death when it
    waits for the process, and `take` can report that error.
    """
    if not hasattr(signal, "pthread_sigmask") or threading.current_thread() is not threading.main_thread():
        yield
        return
    alarm = signal.getsignal(signal.SIGCHLD)
    # The processes inherit the mask; this process gets a pending Ctrl-C afterwards.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        if alarm is not None:  # None: a handler from outside Python, which Python cannot restore
            signal.signal(signal.SIGCHLD, alarm)


def _unchanged(result: Any) -> Any:
    return result


def _ignore_interrupts(number: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process; the training process handles it
