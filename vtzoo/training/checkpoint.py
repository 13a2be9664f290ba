"""Checkpoints: one safetensors file with all that a run needs to go on exactly where it stopped.

The file appears whole or not at all, and no pickle is read or written.
"""

import os
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ..errors import VtzooError
from .optim import Average

MOMENTS = ("exp_avg", "exp_avg_sq")


def save(
    path: Path, *, step: int, run: str, model: nn.Module, head: nn.Module | None, average: Average | None,
    optimizer: torch.optim.Optimizer,
) -> None:  # fmt: skip
    """Write the state after `step` steps of the run whose identity is `run`."""
    tensors = {name: tensor.contiguous() for name, tensor in _tensors(model, head, average).items()}
    for index, parameter in enumerate(_parameters(optimizer)):
        state = optimizer.state[parameter]
        tensors |= {f"optimizer.{index}.{moment}": state[moment] for moment in MOMENTS}
    partial = path.with_suffix(".partial")
    save_file(tensors, partial, metadata={"step": str(step), "run": run})
    with partial.open("rb+") as file:
        os.fsync(file.fileno())
    partial.replace(path)


def restore(
    path: Path, *, run: str, model: nn.Module, head: nn.Module | None, average: Average | None,
    optimizer: torch.optim.Optimizer,
) -> int:  # fmt: skip
    """Put a checkpoint's state back in place and return the number of steps already taken.

    A checkpoint of another recipe or seed, or a damaged one, is a VtzooError, and nothing is changed.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata()
            stored = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (not a dict)
    except (SafetensorError, OSError) as error:
        raise VtzooError(f"cannot read the checkpoint {path}: {error}", "delete it to start afresh") from error
    if metadata.get("run") != run:
        raise VtzooError(f"{path} belongs to another recipe or seed", "train into another --out folder")
    _copy(stored, _tensors(model, head, average))
    step = int(metadata["step"])
    for index, parameter in enumerate(_parameters(optimizer)):
        moments = {moment: stored[f"optimizer.{index}.{moment}"].to(parameter.device) for moment in MOMENTS}
        taken = torch.tensor(float(step), device=parameter.device)  # AdamW's own count, where its fused form wants it
        optimizer.state[parameter] = {"step": taken, **moments}
    return step


def _tensors(model: nn.Module, head: nn.Module | None, average: Average | None) -> dict[str, Tensor]:
    """Every tensor of the run but the optimizer's, by its name in the file; the tensors themselves, not copies."""
    tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    if head is not None:
        tensors |= {f"localizer.{name}": tensor for name, tensor in head.state_dict().items()}
    if average is not None:
        tensors |= {f"average.{name}": tensor for name, tensor in average.tensors.items()}
    return tensors


def _parameters(optimizer: torch.optim.Optimizer) -> list[nn.Parameter]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


@torch.no_grad()
def _copy(stored: dict[str, Tensor], tensors: dict[str, Tensor]) -> None:
    for name, tensor in tensors.items():
        tensor.copy_(stored[name])
