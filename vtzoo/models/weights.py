"""Weights between safetensors files and torch."""

from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor

from vtzoo.base import files
from vtzoo.zoo.safetensors_reader import Weights


def tensors(weights: Weights) -> dict[str, Tensor]:
    """The weights by name, copied: the file's bytes are read-only, and torch warns of read-only arrays."""
    return {name: torch.from_numpy(weights.array(name).copy()) for name in weights.tensors}


def write_weights(tensors: dict[str, Tensor], path: Path) -> None:
    """Write a safetensors file atomically, with floats as fp16."""
    halved = {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}
    # Not save_file, whose file only the owner can read.
    content = save({name: tensor.cpu().contiguous() for name, tensor in halved.items()}, {"format": "pt"})
    files.write(path, content)
