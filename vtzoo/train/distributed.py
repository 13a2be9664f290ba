"""Data-parallel training in several processes, started by torchrun, on one or several machines.

Every rank holds the whole data set and the whole model, and takes its share of each global batch. A recipe's learning
rate and batch size are global: they do not depend on the number of ranks.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
from torch import Tensor, distributed

TIMEOUT = timedelta(minutes=60)  # the other ranks wait while rank 0 decodes the data


@dataclass(frozen=True, kw_only=True)
class World:
    """A process's place among those that train together; a single process by default."""

    rank: int = 0
    size: int = 1
    restarts: int = 0  # restarts of all ranks by torchrun, after a rank died

    @property
    def leads(self) -> bool:
        """Whether this is rank 0, which alone writes and prints."""
        return self.rank == 0

    def mean(self, values: Tensor) -> Tensor:
        """The mean of the ranks' values; every rank must call it."""
        if self.size == 1:
            return values
        values = values.clone()
        distributed.all_reduce(values)
        return values / self.size

    def any(self, vote: bool) -> bool:
        """Whether any rank's vote is True; every rank must call it."""
        if self.size == 1:
            return vote
        votes = torch.tensor(int(vote))
        distributed.all_reduce(votes, op=distributed.ReduceOp.MAX)
        return bool(votes)

    def wait(self) -> None:
        """Wait until every rank calls it."""
        if self.size > 1:
            distributed.barrier()

    @contextmanager
    def first(self) -> Iterator[None]:
        """A block that rank 0 completes before the others start it."""
        if not self.leads:
            self.wait()
        yield
        if self.leads:
            self.wait()


@contextmanager
def process_group(device: torch.device) -> Iterator[World]:
    """The world of torchrun's environment, within the block; without torchrun, a single process.

    `device` is the ranks' type of device: each rank takes the GPU with its local rank.
    """
    restarts = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0))
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        yield World(restarts=restarts)
        return
    if device.type == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    # Both backends: NCCL for gradients on GPUs, Gloo for votes on CPUs.
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    store, rank, size = next(distributed.rendezvous("env://", timeout=TIMEOUT))
    # A prefix for each restart: torchrun's store outlives the processes, and holds the addresses of dead ones.
    store = distributed.PrefixStore(f"restart {restarts}", store)
    distributed.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=TIMEOUT)
    try:
        yield World(rank=rank, size=size, restarts=restarts)
    finally:
        distributed.destroy_process_group()
