"""The processes that train one model together: PyTorch's own, as torchrun starts them, on one machine or many.

Every rank holds the whole data set and the whole model, and takes its share of each global batch. The learning rate
and the batch size of a recipe mean the same for any number of ranks.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
from torch import Tensor, distributed

PATIENCE = timedelta(minutes=60)  # for rank 0, which decodes the data while the others wait


@dataclass(frozen=True, kw_only=True)
class World:
    """A process among those that train together; alone by default."""

    rank: int = 0
    size: int = 1
    restarts: int = 0  # how often torchrun has started all ranks again, after one of them died

    @property
    def leads(self) -> bool:
        """Whether this process writes and prints."""
        return self.rank == 0

    def mean(self, values: Tensor) -> Tensor:
        """The mean of the ranks' values; every rank must ask."""
        if self.size == 1:
            return values
        values = values.clone()
        distributed.all_reduce(values)
        return values / self.size

    def any(self, said: bool) -> bool:
        """Whether any rank says yes; every rank must ask."""
        if self.size == 1:
            return said
        votes = torch.tensor(int(said))
        distributed.all_reduce(votes, op=distributed.ReduceOp.MAX)
        return bool(votes)

    def wait(self) -> None:
        """Wait until every rank has come here."""
        if self.size > 1:
            distributed.barrier()

    @contextmanager
    def first(self) -> Iterator[None]:
        """A block that rank 0 runs before all others."""
        if not self.leads:
            self.wait()
        yield
        if self.leads:
            self.wait()


@contextmanager
def together(device: torch.device) -> Iterator[World]:
    """The world that torchrun's environment describes, for as long as the block runs; a world of one without it.

    `device` is what the ranks train on: on GPUs each takes the one of its number on its machine.
    """
    restarts = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0))
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        yield World(restarts=restarts)
        return
    if device.type == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    # Both: gradients travel on the GPUs' own network, a stop and other small words between CPUs.
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    store, rank, size = next(distributed.rendezvous("env://", timeout=PATIENCE))
    # Names of their own for each restart: torchrun's store outlives its processes, and has the addresses of the dead.
    store = distributed.PrefixStore(f"restart {restarts}", store)
    distributed.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=PATIENCE)
    try:
        yield World(rank=rank, size=size, restarts=restarts)
    finally:
        distributed.destroy_process_group()
