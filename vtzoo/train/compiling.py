"""Compiles a model block by block, in seconds; torch.compile takes minutes for a whole model."""

import torch
from timm.layers import DropPath
from torch import Tensor, nn

from vtzoo.train.model_with_drloc import ModelWithDrloc


def compile_blocks(network: ModelWithDrloc) -> None:
    """Compile each block of the model, equal blocks once; compile a model without `blocks` whole, with its heads."""
    named = network.model.named_modules()
    blocks = [block for name, inside in named if name.rpartition(".")[2] == "blocks" for block in inside.children()]
    for block in blocks:
        for name, module in list(block.named_modules()):
            if isinstance(module, DropPath):
                block.set_submodule(name, RateAsTensor(module.drop_prob, next(block.parameters()).device))
        block.compile()
    if not blocks:
        network.compile()


class RateAsTensor(nn.Module):
    """DropPath with its rate in a tensor: a rate in a number would be compiled anew for every block."""

    keep: Tensor

    def __init__(self, rate: float, device: torch.device) -> None:
        super().__init__()
        self.register_buffer("keep", torch.tensor(1 - rate, device=device), persistent=False)

    def forward(self, inputs: Tensor) -> Tensor:
        """The inputs (b, ...); in training, whole images are dropped at the rate, and the others scaled up to match."""
        if not self.training:
            return inputs
        kept = torch.rand((len(inputs),) + (1,) * (inputs.dim() - 1), device=inputs.device) < self.keep
        return inputs * kept / self.keep
