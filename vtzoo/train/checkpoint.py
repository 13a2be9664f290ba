"""Checkpoints: one safetensors file with the whole state of a run, from which it resumes to the same losses.

The file appears whole or not at all. No pickle is read or written.
"""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler

from vtzoo.base import files
from vtzoo.errors import VtzooError
from vtzoo.train.early_stopping import EarlyStopping
from vtzoo.train.optim import WeightAverage, divergence_hint

MOMENTS = {True: ("momentum",), False: ("exp_avg", "exp_avg_sq")}  # of Muon's parameters, and of AdamW's


def save(
    path: Path, *, step: int, run: str, model: nn.Module, localizer: nn.Module | None,
    average: WeightAverage | None, optimizer: torch.optim.Optimizer, scaler: GradScaler,
    early_stopping: EarlyStopping | None = None,
) -> None:  # fmt: skip
    """Write the state after `step` steps; `run` is the run's identity.

    Weights that are not finite, and a disk that cannot take the file, are a VtzooError; an earlier checkpoint then
    stays as it is.
    """
    if spoiled := [group for group in optimizer.param_groups if not _finite(group, optimizer)]:
        raise VtzooError(f"the weights are not finite after step {step}", divergence_hint(optimizer, spoiled))
    tensors = {
        name: tensor.contiguous() for name, tensor in _tensors(model, localizer, average, early_stopping).items()
    }
    for index, (parameter, names) in enumerate(_moments(optimizer)):
        state = optimizer.state.get(parameter, {})  # empty before the first step, and without a gradient
        tensors |= {_moment(index, name): state[name] for name in names if name in state}
    counts = _counts(optimizer, scaler, early_stopping)
    files.remove_partials(path)
    try:
        with files.replacing(path) as partial:
            save_file(tensors, partial, metadata={"step": str(step), "run": run} | counts)
    except (SafetensorError, OSError) as error:
        raise VtzooError(f"cannot write {path}: {error}", "make room, then go on with --resume") from error


def restore(
    path: Path, *, run: str, model: nn.Module, localizer: nn.Module | None,
    average: WeightAverage | None, optimizer: torch.optim.Optimizer, scaler: GradScaler,
    early_stopping: EarlyStopping | None = None,
) -> int:  # fmt: skip
    """Restore a checkpoint's state and return the number of steps taken.

    A damaged checkpoint, or that of another run, is a VtzooError, and nothing changes.
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
    tensors, step = _tensors(model, localizer, average, early_stopping), int(metadata["step"])
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
        if len(names) > 1:  # AdamW counts its steps; the fused form wants a tensor on the parameter's device
            state["step"] = torch.tensor(float(metadata["updates"]))
        optimizer.state[parameter] = {name: tensor.to(parameter.device) for name, tensor in state.items()}
    scaler.load_state_dict(json.loads(metadata["scaler"]))
    if early_stopping:
        early_stopping.restore(json.loads(metadata["selection"]))
    return step


def _counts(
    optimizer: torch.optim.Optimizer, scaler: GradScaler, early_stopping: EarlyStopping | None
) -> dict[str, str]:
    """The numbers beside the tensors: the scale of fp16 losses, AdamW's count of its steps, early stopping's state.

    AdamW's count is the smaller one where it skipped steps whose scaled gradients overflowed.
    """
    updates = max((int(state["step"]) for state in optimizer.state.values() if "step" in state), default=0)
    counts = {"updates": str(updates), "scaler": json.dumps(scaler.state_dict())}
    return counts | ({"selection": json.dumps(early_stopping.state())} if early_stopping else {})


def _moment(index: int, name: str) -> str:
    """The name in the file of a moment of the parameter at `index`."""
    return f"optimizer.{index}.{name}"


def _refuse_misfit(stored: dict[str, Tensor], wanted: dict[str, Tensor], path: Path) -> None:
    """Raise unless the file holds exactly the wanted tensors, with their shapes and types."""
    if stored.keys() != wanted.keys():
        raise VtzooError(
            f"{path} has not the tensors of this run: {min(stored.keys() ^ wanted.keys())}", "delete it to start afresh"
        )
    for name, tensor in wanted.items():
        if stored[name].shape != tensor.shape or stored[name].dtype != tensor.dtype:
            raise VtzooError(f"{name} in {path} does not fit the model of this run", "delete it to start afresh")


def _tensors(
    model: nn.Module, localizer: nn.Module | None, average: WeightAverage | None,
    early_stopping: EarlyStopping | None = None,
) -> dict[str, Tensor]:  # fmt: skip
    """The run's own tensors by their names in the file, without copies; the optimizer's are not among them."""
    tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    if localizer is not None:
        tensors |= {f"localizer.{name}": tensor for name, tensor in localizer.state_dict().items()}
    if average is not None:
        tensors |= {f"average.{name}": tensor for name, tensor in average.tensors.items()}
    if early_stopping is not None:
        tensors |= {f"best.{name}": tensor for name, tensor in early_stopping.tensors.items()}
    return tensors


def _moments(optimizer: torch.optim.Optimizer) -> list[tuple[nn.Parameter, tuple[str, ...]]]:
    """The optimizer's parameters, each with the names of its moments."""
    groups = optimizer.param_groups
    return [(parameter, MOMENTS["matrices" in group]) for group in groups for parameter in group["params"]]


def _finite(group: dict[str, Any], optimizer: torch.optim.Optimizer) -> bool:
    """Whether a group's weights and their moments are finite."""
    return all(
        tensor.isfinite().all()
        for parameter in group["params"]
        for tensor in (parameter, *optimizer.state.get(parameter, {}).values())
    )


@torch.no_grad()
def _copy(stored: dict[str, Tensor], tensors: dict[str, Tensor]) -> None:
    for name, tensor in tensors.items():
        tensor.copy_(stored[name])
