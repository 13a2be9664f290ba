"""Compiles a model block by block: seconds, where torch.compile takes minutes over a whole model."""

import torch
from timm.layers import DropPath
from torch import Tensor, nn

from vtzoo.train.model_with_drloc import Joint


def compile_blocks(joint: Joint) -> None:
    """Compile every block of the model by itself, blocks of one shape once; a model without `blocks` with its heads."""
    named = joint.model.named_modules()
    blocks = [block for name, inside in named if name.rpartition(".")[2] == "blocks" for block in inside.children()]
    for block in blocks:
        for name, module in list(block.named_modules()):
            if isinstance(module, DropPath):
                block.set_submodule(name, RateAsTensor(module.drop_prob, next(block.parameters()).device))
        block.compile()
    if not blocks:
        joint.compile()


class RateAsTensor(nn.Module):
    """timm's DropPath, its rate a tensor: code compiled for a number would have to be compiled for every block."""

    keep: Tensor

    def __init__(self, rate: float, device: torch.device) -> None:
        super().__init__()
        self.register_buffer("keep", torch.tensor(1 - rate, device=device), persistent=False)

    def forward(self, inputs: Tensor) -> Tensor:
        """The inputs (b, ...); training drops whole images at the rate, and scales the others up to the same mean."""
        if not self.training:
            return inputs
        kept = torch.rand((len(inputs),) + (1,) * (inputs.dim() - 1), device=inputs.device) < self.keep
        return inputs * kept / self.keep
