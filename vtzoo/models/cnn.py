"""A small CNN that trains fast on small images, the zoo's teacher: timm's `vtzoo_small_cnn`.

A 2x2 convolution whitens the pixels; then three blocks of two 3x3 convolutions each halve the grid. The architecture is
that of Keller Jordan's airbench (arXiv 2404.00498), without its test-time augmentation. 2.0M parameters at 100 classes.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Float
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import Tensor, nn
from torch.nn import functional

from vtzoo.errors import VtzooError
from vtzoo.models.whitening import whiten

WIDTHS = (64, 256, 256)  # channels of a block
SMALLEST = 9  # pixels a side: three blocks leave a single cell
NOISE = 5e-4  # variance of normalized pixels; a principal component below it counts as noise


class Block(nn.Module):
    """Two convolutions, the first followed by 2x2 max pooling: (b, channels, h, w) -> (b, width, h // 2, w // 2)."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)

    def forward(self, grid: Float[Tensor, "b _ h w"]) -> Float[Tensor, "b _ _ _"]:
        """The block's grid."""
        grid = functional.gelu(self.norm1(functional.max_pool2d(self.conv1(grid), 2)))
        return functional.gelu(self.norm2(self.conv2(grid)))


class SmallCNN(nn.Module):
    """Logits (b, num_classes) of images (b, in_chans, h, w) of 9 px or more a side.

    `widths` are the channels of the three blocks. Call `whiten` once, on training images, before training.
    """

    def __init__(
        self, num_classes: int = 1000, in_chans: int = 3, widths: Sequence[int] = WIDTHS, global_pool: str = "max"
    ) -> None:
        super().__init__()
        if len(widths) != len(WIDTHS) or min(widths) < 1:
            raise VtzooError(f"the small CNN has no widths {widths!r}", "they are the channels of its three blocks")
        self.in_chans, self.widths = in_chans, tuple(widths)
        self.num_features = self.head_hidden_size = self.widths[-1]
        whitened = 2 * 4 * in_chans  # channels: the principal components of 2x2 patches, with both signs
        self.whitening = nn.Conv2d(in_chans, whitened, 2)
        self.whitening.weight.requires_grad_(False)
        channels = (whitened, *self.widths)
        self.blocks = nn.ModuleList(Block(*pair) for pair in pairwise(channels))
        self.feature_info = [
            {"num_chs": width, "reduction": 2 ** (index + 1), "module": f"blocks.{index}"}
            for index, width in enumerate(self.widths)
        ]
        self.reset_classifier(num_classes, global_pool)

    def whiten(self, images: Float[Tensor, "b c h w"]) -> None:
        """Set the first convolution, which is never trained, to the principal components of the images' patches."""
        whiten(self.whitening, images, NOISE)

    def forward(self, images: Float[Tensor, "b _ _ _"]) -> Float[Tensor, "b _"]:
        """Logits, or the pooled features of a model without classes."""
        return self.forward_head(self.forward_features(images))

    def forward_features(self, images: Float[Tensor, "b _ _ _"]) -> Float[Tensor, "b c h w"]:
        """The grid of the last block."""
        return self.forward_intermediates(images, indices=1)[0]

    def forward_intermediates(
        self, images: Float[Tensor, "b _ _ _"], indices: int | Sequence[int] | None = None, norm: bool = False,
        output_fmt: str = "NCHW", intermediates_only: bool = False,
    ) -> Any:  # fmt: skip
        """The result of `forward_features`, and the blocks' grids (b, c, h, w); only the grids if `intermediates_only`.

        `indices` are the blocks, a number of last blocks, or None for all three. Every grid is normalized, so `norm`
        changes nothing.
        """
        if output_fmt != "NCHW":
            raise VtzooError(f"the small CNN's grids have no format {output_fmt!r}", "use NCHW")
        if min(images.shape[-2:]) < SMALLEST:
            shape = " x ".join(map(str, images.shape[-2:]))
            raise VtzooError(f"the small CNN sees nothing in {shape} pixels", f"it takes {SMALLEST} or more a side")
        images = images.contiguous(memory_format=torch.channels_last)  # 1.3 times as fast on a CPU
        grids, grid = [], functional.gelu(self.whitening(images))
        for block in self.blocks:
            grid = block(grid)
            grids.append(grid)
        if indices is not None:
            grids = grids[-indices:] if isinstance(indices, int) else [grids[index] for index in indices]
        return grids if intermediates_only else (grid, grids)

    def forward_head(self, grid: Float[Tensor, "b c h w"], pre_logits: bool = False) -> Float[Tensor, "b _"]:
        """Logits, or the pooled features (b, c) below them if `pre_logits`."""
        features = grid.amax((2, 3)) if self.global_pool == "max" else grid.mean((2, 3))
        return features if pre_logits else self.head(features)

    def get_classifier(self) -> nn.Module:
        """The last layer: linear, or the identity in a model without classes."""
        return self.head

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the classifier by a new layer, or by the identity if `num_classes` is 0."""
        if global_pool not in (None, "max", "avg"):
            raise VtzooError(f"the small CNN has no global pool {global_pool!r}", "use max or avg")
        self.num_classes, self.global_pool = num_classes, global_pool or self.global_pool
        head = nn.Linear(self.num_features, num_classes) if num_classes else nn.Identity()
        self.head = head.to(self.whitening.weight)

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """The patterns, for timm, of the layers of layer-wise learning-rate decay: the whitening, and every block."""
        return {"stem": r"^whitening", "blocks": r"^blocks\.(\d+)"}


default_cfgs = generate_default_cfgs({
    "vtzoo_small_cnn.untrained": {
        "num_classes": 1000, "input_size": (3, 32, 32), "interpolation": "bicubic", "crop_pct": 1.0,
        "mean": IMAGENET_DEFAULT_MEAN, "std": IMAGENET_DEFAULT_STD, "first_conv": "whitening", "classifier": "head",
    }
})  # fmt: skip


@register_model
def vtzoo_small_cnn(pretrained: bool = False, **arguments: Any) -> nn.Module:
    """The small CNN of `timm.create_model("vtzoo_small_cnn", ...)`, also with timm's `features_only`."""
    blocks = {"out_indices": arguments.pop("out_indices", (0, 1, 2)), "feature_cls": "getter"}
    return build_model_with_cfg(SmallCNN, "vtzoo_small_cnn", pretrained, feature_cfg=blocks, **arguments)
