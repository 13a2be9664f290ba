"""Whitening: a first convolution whose channels are uncorrelated over the patches of training images.

Most of the variance of pixels is brightness, so the tokens of randomly initialized weights are nearly parallel, and the
differences between images are small. Whitening gives fine detail the same scale as brightness.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vtzoo.errors import VtzooError

AT_ONCE = 64  # images with patches in memory at once


@torch.no_grad()
def whiten(convolution: nn.Conv2d, images: Float[Tensor, "b c h w"], noise: float) -> None:
    """Set a convolution's kernels to the principal components of its input patches in some images, largest first.

    Each component is divided by its standard deviation and used with both signs, as in Keller Jordan's airbench (arXiv
    2404.00498). `noise`, a variance of normalized pixels, is added to the variances: components far below it stay
    small. Kernels beyond twice the number of components stay as they are; a bias becomes 0.
    """
    variances, components = torch.linalg.eigh(_covariance(convolution, images))
    kernels = (components / (variances.clamp(min=0) + noise).sqrt()).T.flip(0)[: convolution.out_channels // 2]
    both = torch.cat([kernels, -kernels]).reshape(-1, *convolution.weight.shape[1:])
    convolution.weight[: len(both)] = both
    if convolution.bias is not None:
        convolution.bias.zero_()


def _covariance(convolution: nn.Conv2d, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "d d"]:
    """The second moments, about 0, of the convolution's input patches as vectors of c * height * width."""
    unfold: Any = nn.Unfold(convolution.kernel_size, padding=convolution.padding, stride=convolution.stride)  # type: ignore[arg-type]
    dimensions = convolution.weight[0].numel()
    total, count = images.new_zeros(dimensions, dimensions), 0
    for batch in images.split(AT_ONCE):
        patches = unfold(batch).transpose(1, 2).flatten(0, 1)
        total.addmm_(patches.T, patches)
        count += len(patches)
    return total / count


def first_convolution(model: nn.Module) -> nn.Conv2d:
    """The convolution over a timm model's pixels; a model without such a convolution, as T2T-ViT, is a VtzooError."""
    name = getattr(model, "pretrained_cfg", {}).get("first_conv")
    found = model.get_submodule(name) if isinstance(name, str) else None
    if not isinstance(found, nn.Conv2d) or found.groups > 1:
        raise VtzooError(f"{type(model).__name__} starts with no convolution to whiten", "leave out model: whitening")
    return found
