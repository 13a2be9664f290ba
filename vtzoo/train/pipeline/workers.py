"""Crops decoded anew in every epoch, by processes with PIL: for a set that has no room decoded, or on demand."""

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

from vtzoo.data.decoding import Rows
from vtzoo.errors import VtzooError
from vtzoo.train.pipeline.crops import Crops

AHEAD = 2  # batches that each process prepares before they are asked for


class Request(NamedTuple):
    """One batch, or a part of one."""

    epoch: int
    images: tuple[int, ...]  # their numbers

    @classmethod
    def of(cls, epoch: int, images: Int[Tensor, " b"]) -> "Request":
        """The request for the images with these numbers."""
        return cls(epoch, tuple(images.tolist()))


class Decoder(Dataset):
    """The crops (b, 3, size, size) of a request, but for what `Crops.finish` does: what runs in each process."""

    def __init__(self, rows: Rows, crops: Crops, seed: int) -> None:
        self.rows, self.crops, self.seed = rows, crops, seed

    def __getitem__(self, request: Request) -> UInt8[Tensor, "b 3 h w"] | VtzooError:
        uniform = self.crops.uniform(self.seed, request.epoch, torch.tensor(request.images))
        pixels = np.empty((len(request.images), 3, self.crops.size, self.crops.size), np.uint8)
        try:
            for place, number in enumerate(request.images):
                pixels[place] = self.crops.of_image(self.rows[number], uniform[place : place + 1])
        except VtzooError as error:  # to be raised where it is a sentence: out of here it comes as a traceback's text
            return error
        return torch.from_numpy(pixels)


class Workers:
    """Processes that prepare the requests ahead of the one at hand; which of them prepares which changes nothing."""

    def __init__(self, decoder: Decoder, count: int, device: torch.device) -> None:
        self._plan = Plan()
        with _no_advice():
            self._loader = DataLoader(
                decoder, batch_size=None, sampler=self._plan, collate_fn=_unchanged, num_workers=count,
                prefetch_factor=AHEAD, persistent_workers=True, pin_memory=device.type == "cuda",
                worker_init_fn=_ignore_interrupts, generator=torch.Generator(),  # for torch's own must not move
                multiprocessing_context="fork" if sys.platform == "linux" else None,  # shares encoded images in memory
            )  # fmt: skip
        self._results: Iterator[Any] = iter(())

    def take(self, wanted: Request, ahead: Iterable[Request]) -> UInt8[Tensor, "b 3 h w"]:
        """The crops of a request; `ahead` is what is likely to be wanted next. Another one is a slow start afresh."""
        try:
            if not self._plan.pending or self._plan.pending[0] != wanted:
                self._plan.begin(chain([wanted], ahead))
                with _no_advice(), _no_signals():
                    self._results = iter(self._loader)
            self._plan.pending.popleft()
            found = next(self._results)
        except (RuntimeError, OSError, EOFError) as error:  # what was on its way from it is lost in one of many ways
            reason = str(error).partition("\n")[0]
            raise VtzooError(f"a process that decodes images failed: {reason}", "try fewer: --workers N") from error
        if isinstance(found, VtzooError):
            raise found
        return found


class Plan:
    """The requests that processes are given, in order; those whose result nobody has taken yet are pending."""

    def __init__(self) -> None:
        self.pending: deque[Request] = deque()
        self._requests: Iterator[Request] = iter(())

    def begin(self, requests: Iterable[Request]) -> None:
        """Forget what was planned, and plan these."""
        self.pending.clear()
        self._requests = iter(requests)

    def __iter__(self) -> Iterator[Request]:
        for request in self._requests:
            self.pending.append(request)
            yield request


@contextmanager
def _no_advice() -> Iterator[None]:
    """Ignore warnings that there are more processes than cores, and that forking a process with threads has risks.

    Its threads compute with tensors, which the forked processes do on one thread of their own.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="This DataLoader will create", category=UserWarning)
        warnings.filterwarnings("ignore", message=".*multi-threaded, use of fork", category=DeprecationWarning)
        yield


@contextmanager
def _no_signals() -> Iterator[None]:
    """Start processes that Ctrl-C does not reach, from their first moment on, and whose death raises no alarm.

    The loader would raise wherever training is when a process dies. It finds out all the same when it waits for that
    process, where the error can be told from others.
    """
    if not hasattr(signal, "pthread_sigmask") or threading.current_thread() is not threading.main_thread():
        yield
        return
    alarm = signal.getsignal(signal.SIGCHLD)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # processes inherit it; ours comes a little later
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        if alarm is not None:  # None: not Python's own, which cannot be put back
            signal.signal(signal.SIGCHLD, alarm)


def _unchanged(result: Any) -> Any:
    return result


def _ignore_interrupts(number: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process: the training one decides
