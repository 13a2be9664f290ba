"""Checkpoints: one safetensors file with all that a run needs to go on exactly where it stopped.

The file appears whole or not at all, and no pickle is read or written.
"""

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler

from vtzoo.errors import VtzooError
from vtzoo.train.early_stopping import Selection
from vtzoo.train.optim import Average, slower

MOMENTS = {True: ("momentum",), False: ("exp_avg", "exp_avg_sq")}  # of what Muon moves, and of what AdamW does


def save(
    path: Path, *, step: int, run: str, model: nn.Module, head: nn.Module | None, average: Average | None,
    optimizer: torch.optim.Optimizer, scaler: GradScaler, selection: Selection | None = None,
) -> None:  # fmt: skip
    """Write the state after `step` steps of the run whose identity is `run`.

    Weights that are not finite, and a disk that cannot take the file, are a VtzooError; the checkpoint that was there
    before stays as it is.
    """
    if spoiled := [group for group in optimizer.param_groups if not _finite(group, optimizer)]:
        raise VtzooError(f"the weights are not finite after step {step}", slower(optimizer, spoiled))
    tensors = {name: tensor.contiguous() for name, tensor in _tensors(model, head, average, selection).items()}
    for index, (parameter, names) in enumerate(_moments(optimizer)):
        state = optimizer.state.get(parameter, {})  # none before the first step, nor for what no gradient reaches
        tensors |= {_moment(index, name): state[name] for name in names if name in state}
    partial = path.with_suffix(".partial")
    try:
        counts = _counts(optimizer, scaler, selection)
        save_file(tensors, partial, metadata={"step": str(step), "run": run} | counts)
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        partial.replace(path)
    except (SafetensorError, OSError) as error:
        with suppress(OSError):
            partial.unlink()
        raise VtzooError(f"cannot write {path}: {error}", "make room, then go on with --resume") from error


def restore(
    path: Path, *, run: str, model: nn.Module, head: nn.Module | None, average: Average | None,
    optimizer: torch.optim.Optimizer, scaler: GradScaler, selection: Selection | None = None,
) -> int:  # fmt: skip
    """Put a checkpoint's state back in place and return the number of steps already taken.

    A checkpoint of another run, or a damaged one, is a VtzooError, and nothing is changed.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            stored = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (not a dict)
    except (SafetensorError, OSError) as error:
        raise VtzooError(f"cannot read the checkpoint {path}: {error}", "delete it to start afresh") from error
    if metadata.get("run") != run:
        raise VtzooError(
            f"{path} belongs to another recipe, seed, data set or teacher", "train into another --out folder"
        )
    tensors, step = _tensors(model, head, average, selection), int(metadata["step"])
    moved = {
        index: (parameter, names)
        for index, (parameter, names) in enumerate(_moments(optimizer))
        if any(_moment(index, name) in stored for name in names)
    }
    moments = {_moment(index, name): parameter for index, (parameter, names) in moved.items() for name in names}
    _refuse_misfit(stored, tensors | moments, path)
    _copy(stored, tensors)
    for index, (parameter, names) in moved.items():
        state = {name: stored[_moment(index, name)] for name in names}
        if len(names) > 1:  # AdamW counts steps, by a tensor beside its parameter in the fused form
            state["step"] = torch.tensor(float(metadata["updates"]))
        optimizer.state[parameter] = {name: tensor.to(parameter.device) for name, tensor in state.items()}
    scaler.load_state_dict(json.loads(metadata["scaler"]))
    if selection:
        selection.restore(json.loads(metadata["selection"]))
    return step


def _counts(optimizer: torch.optim.Optimizer, scaler: GradScaler, selection: Selection | None) -> dict[str, str]:
    """What there is but tensors: the scale of fp16 losses, AdamW's own count of its steps, what a selection has seen.

    AdamW skips steps whose scaled gradients overflow.
    """
    updates = max((int(state["step"]) for state in optimizer.state.values() if "step" in state), default=0)
    counts = {"updates": str(updates), "scaler": json.dumps(scaler.state_dict())}
    return counts | ({"selection": json.dumps(selection.numbers())} if selection else {})


def _moment(index: int, name: str) -> str:
    """What the file calls one of the optimizer's moments of the parameter at `index`."""
    return f"optimizer.{index}.{name}"


def _refuse_misfit(stored: dict[str, Tensor], wanted: dict[str, Tensor], path: Path) -> None:
    """Raise unless the file holds the wanted tensors, each of its shape and type, and no others."""
    if stored.keys() != wanted.keys():
        raise VtzooError(
            f"{path} has not the tensors of this run: {min(stored.keys() ^ wanted.keys())}", "delete it to start afresh"
        )
    for name, tensor in wanted.items():
        if stored[name].shape != tensor.shape or stored[name].dtype != tensor.dtype:
            raise VtzooError(f"{name} in {path} does not fit the model of this run", "delete it to start afresh")


def _tensors(
    model: nn.Module, head: nn.Module | None, average: Average | None, selection: Selection | None = None
) -> dict[str, Tensor]:
    """Every tensor of the run but the optimizer's, by its name in the file; the tensors themselves, not copies."""
    tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    if head is not None:
        tensors |= {f"localizer.{name}": tensor for name, tensor in head.state_dict().items()}
    if average is not None:
        tensors |= {f"average.{name}": tensor for name, tensor in average.tensors.items()}
    if selection is not None:
        tensors |= {f"best.{name}": tensor for name, tensor in selection.tensors.items()}
    return tensors


def _moments(optimizer: torch.optim.Optimizer) -> list[tuple[nn.Parameter, tuple[str, ...]]]:
    """Every parameter that the optimizer moves, with the names of the moments that it keeps of it."""
    groups = optimizer.param_groups
    return [(parameter, MOMENTS["matrices" in group]) for group in groups for parameter in group["params"]]


def _finite(group: dict[str, Any], optimizer: torch.optim.Optimizer) -> bool:
    """Whether all weights of a group, and what the optimizer keeps of them, are finite."""
    return all(
        tensor.isfinite().all()
        for parameter in group["params"]
        for tensor in (parameter, *optimizer.state.get(parameter, {}).values())
    )


@torch.no_grad()
def _copy(stored: dict[str, Tensor], tensors: dict[str, Tensor]) -> None:
    for name, tensor in tensors.items():
        tensor.copy_(stored[name])
