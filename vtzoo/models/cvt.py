"""CvT-13, the convolutional vision transformer (Wu et al. 2021, arXiv 2103.15808): timm's `vtzoo_cvt_13`.

Each of the three stages is an overlapping convolutional embedding and transformer blocks whose queries, keys and
values come from depth-wise convolutions. The convolutions replace position embeddings. Only the last stage has a class
token. The code released with drloc (yhlleo/VTs-Drloc) has another variant, with mean pooling and no class token.
"""

from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Float
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.layers import DropPath, Mlp, QuickGELU, global_pool_nlc, trunc_normal_
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import Tensor, nn
from torch.nn import functional

from vtzoo.errors import VtzooError, unknown
from vtzoo.models.precision import in_float32_on_cpu

WIDTHS = (64, 192, 384)  # channels of a stage's tokens
HEADS = (1, 3, 6)  # a stage
DEPTHS = (1, 2, 10)  # blocks of a stage
MLP_RATIO = 4
ACTIVATIONS = {"gelu": nn.GELU, "quick_gelu": QuickGELU}
# Kernel by the first embedding's stride: 4 is the paper's, 2 ours for small images, 8 ours for fewer tokens.
FIRST_KERNEL = {4: 7, 2: 3, 8: 15}


class Embedding(nn.Module):
    """Overlapping patches as a grid of normalized tokens: (b, channels, h, w) -> (b, width, h / stride, w / stride)."""

    def __init__(self, channels: int, width: int, kernel: int, stride: int) -> None:
        super().__init__()
        # A kernel of 7 with stride 4 is padded by 2, one of 3 with stride 2 by 1, as in the paper; 15 with 8 by 4.
        self.proj = nn.Conv2d(channels, width, kernel, stride, padding=(kernel - stride + 1) // 2)
        self.norm = nn.LayerNorm(width)

    def forward(self, images: Float[Tensor, "b _ _ _"]) -> Float[Tensor, "b _ _ _"]:
        """The token grid of images, or of an earlier grid."""
        return self.norm(self.proj(images).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Projection(nn.Module):
    """Queries, keys or values of all heads, (b, heads, n, d), from a grid and an optional class token."""

    def __init__(self, width: int, heads: int, stride: int) -> None:
        super().__init__()
        self.heads = heads
        self.conv = nn.Conv2d(width, width, 3, stride, padding=1, groups=width, bias=False)
        self.bn = nn.BatchNorm2d(width)
        self.linear = nn.Linear(width, width)

    def forward(self, class_token: Tensor | None, grid: Float[Tensor, "b c _ _"]) -> Float[Tensor, "b _ _ _"]:
        """The queries, the keys or the values."""
        tokens = self.bn(in_float32_on_cpu(self.conv, grid)).flatten(2).transpose(1, 2)
        if class_token is not None:  # without neighbours, it skips the convolution
            tokens = torch.cat([class_token, tokens], dim=1)
        return self.linear(tokens).unflatten(2, (self.heads, -1)).transpose(1, 2)


class Attention(nn.Module):
    """Multi-head attention over a quarter of the keys and values: their convolutions have stride 2."""

    def __init__(self, width: int, heads: int, *, class_token: bool) -> None:
        super().__init__()
        self.has_class_token = class_token
        self.scale = width**-0.5  # the whole width, not a head's: the released weights were trained so
        self.q = Projection(width, heads, stride=1)
        self.k = Projection(width, heads, stride=2)
        self.v = Projection(width, heads, stride=2)
        self.proj = nn.Linear(width, width)

    def forward(self, tokens: Float[Tensor, "b n c"], height: int, width: int) -> Float[Tensor, "b n c"]:
        """The attended tokens of a height x width grid, in the same order."""
        class_token = tokens[:, :1] if self.has_class_token else None
        grid = as_grid(tokens, height, width)
        query, key, value = (project(class_token, grid) for project in (self.q, self.k, self.v))
        attend = partial(functional.scaled_dot_product_attention, scale=self.scale)
        mixed = in_float32_on_cpu(attend, query, key, value)
        return self.proj(mixed.transpose(1, 2).flatten(2))


class Block(nn.Module):
    """Attention, then an MLP, each with pre-normalization, drop path and a residual connection."""

    def __init__(self, width: int, heads: int, *, class_token: bool, drop_path: float, act_layer: str) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attn = Attention(width, heads, class_token=class_token)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = Mlp(width, MLP_RATIO * width, act_layer=ACTIVATIONS[act_layer])
        self.drop_path = DropPath(drop_path)

    def forward(self, tokens: Float[Tensor, "b n c"], height: int, width: int) -> Float[Tensor, "b n c"]:
        """The block's tokens, for a height x width grid."""
        tokens = tokens + self.drop_path(self.attn(self.norm1(tokens), height, width))
        return tokens + self.drop_path(self.mlp(self.norm2(tokens)))


class Stage(nn.Module):
    """Tokens (b, n, width), with a class token first in the last stage, and their grid."""

    def __init__(self, embed: Embedding, blocks: list[Block], class_token: Tensor | None) -> None:
        super().__init__()
        self.embed = embed
        self.cls_token = None if class_token is None else nn.Parameter(class_token)
        self.blocks = nn.ModuleList(blocks)

    def forward(self, images: Float[Tensor, "b _ _ _"]) -> tuple[Float[Tensor, "b n c"], Float[Tensor, "b c h w"]]:
        """The stage's tokens, and their grid, the input of the next stage."""
        grid = self.embed(images)
        height, width = grid.shape[2:]
        tokens = grid.flatten(2).transpose(1, 2)
        if self.cls_token is not None:
            tokens = torch.cat([self.cls_token.expand(grid.shape[0], -1, -1), tokens], dim=1)
        for block in self.blocks:
            tokens = block(tokens, height, width)
        return tokens, as_grid(tokens, height, width)


class CvT(nn.Module):
    """Logits (b, num_classes) of images (b, in_chans, h, w) of any size, square or not.

    `patch_size` is the stride of the first embedding: 4 is the paper's (kernel 7, padding 2), 2 (kernel 3, padding 1)
    suits images of about 32 px, and 8 (kernel 15, padding 4) makes a quarter of the tokens. The strides of the three
    grids are 1, 2 and 4 times `patch_size`.
    `img_size` changes nothing: timm records it as the nominal input. The drop path rate rises linearly from 0 to
    `drop_path_rate` over the ten blocks of the last stage; the three earlier blocks drop no path, as released.
    `act_layer` "gelu" is transformers' CvT; microsoft/CvT trained its ImageNet weights with "quick_gelu".
    `global_pool` is "token" (the class token) or "avg" (the mean of the last grid).
    """

    def __init__(
        self, num_classes: int = 1000, in_chans: int = 3, img_size: int | Sequence[int] | None = None,
        patch_size: int = 4, drop_path_rate: float = 0.0, act_layer: str = "gelu", global_pool: str = "token",
    ) -> None:  # fmt: skip
        super().__init__()
        if patch_size not in FIRST_KERNEL:
            hint = "use 4 (the paper's), 2 (images of 32 px) or 8 (fewer tokens)"
            raise VtzooError(f"CvT-13 has no patch size {patch_size}", hint)
        if act_layer not in ACTIVATIONS:
            raise unknown("activation", act_layer, ACTIVATIONS)
        self.in_chans = in_chans
        self.num_features = self.head_hidden_size = WIDTHS[-1]
        self.stages = nn.ModuleList(build_stages(in_chans, patch_size, drop_path_rate, act_layer))
        self.feature_info = [
            {"num_chs": width, "reduction": patch_size * 2**index, "module": f"stages.{index}"}
            for index, width in enumerate(WIDTHS)
        ]
        self.norm = nn.LayerNorm(self.num_features)
        self.apply(initialize)
        self.reset_classifier(num_classes, global_pool)

    def forward(self, images: Float[Tensor, "b _ _ _"]) -> Float[Tensor, "b _"]:
        """Logits, or the pooled features of a model without classes."""
        return self.forward_head(self.forward_features(images))

    def forward_features(self, images: Float[Tensor, "b _ _ _"]) -> Float[Tensor, "b n c"]:
        """The normalized tokens of the last stage, the class token first."""
        return self.forward_intermediates(images, indices=1)[0]

    def forward_intermediates(
        self, images: Float[Tensor, "b _ _ _"], indices: int | Sequence[int] | None = None, norm: bool = False,
        output_fmt: str = "NCHW", intermediates_only: bool = False,
    ) -> Any:  # fmt: skip
        """The result of `forward_features`, and the stages' grids (b, c, h, w); only the grids if `intermediates_only`.

        `indices` are the stages, a number of last stages, or None for all three. `norm` normalizes the last grid, the
        only grid as wide as the final norm. Grids leave out the class token.
        """
        if output_fmt != "NCHW":
            raise VtzooError(f"CvT-13's grids have no format {output_fmt!r}", "use NCHW")
        grids, tokens = [], images
        for stage in self.stages:
            tokens, images = stage(images)
            grids.append(images)
        tokens = self.norm(tokens)
        if norm:
            grids[-1] = as_grid(tokens, *images.shape[2:])
        if indices is not None:
            grids = grids[-indices:] if isinstance(indices, int) else [grids[index] for index in indices]
        return grids if intermediates_only else (tokens, grids)

    def forward_head(self, tokens: Float[Tensor, "b n c"], pre_logits: bool = False) -> Float[Tensor, "b _"]:
        """Logits, or the pooled features (b, 384) below them if `pre_logits`."""
        features = global_pool_nlc(tokens, pool_type=self.global_pool, num_prefix_tokens=1)
        return features if pre_logits else self.head(features)

    def get_classifier(self) -> nn.Module:
        """The last layer: linear, or the identity in a model without classes."""
        return self.head

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the classifier by a new layer, or by the identity if `num_classes` is 0."""
        if global_pool not in (None, "token", "avg"):
            raise VtzooError(f"CvT-13 has no global pool {global_pool!r}", "use token or avg")
        self.num_classes, self.global_pool = num_classes, global_pool or self.global_pool
        head = nn.Linear(self.num_features, num_classes) if num_classes else nn.Identity()
        self.head = head.to(self.norm.weight).apply(initialize)

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """The patterns, for timm, of the layers of layer-wise learning-rate decay: every embedding, and every block."""
        blocks = [(r"^stages\.(\d+)\.(?:embed|cls_token)", (-1,)), (r"^stages\.(\d+)\.blocks\.(\d+)", None)]
        return {"stem": r"^stages\.0\.embed", "blocks": [*blocks, (r"^norm", (99999,))]}

    def no_weight_decay(self) -> set[str]:
        """The parameters without weight decay, besides norms and biases."""
        return {"stages.2.cls_token"}


def build_stages(in_chans: int, patch_size: int, drop_path_rate: float, act_layer: str) -> list[Stage]:
    """The three stages; the last has the class token and all of the drop path."""
    kernels, strides = (FIRST_KERNEL[patch_size], 3, 3), (patch_size, 2, 2)
    stages = []
    for index, (channels, width) in enumerate(pairwise((in_chans, *WIDTHS))):
        last = index == len(WIDTHS) - 1
        drop_paths = torch.linspace(0, drop_path_rate if last else 0, DEPTHS[index], device="cpu").tolist()
        blocks = [Block(width, HEADS[index], class_token=last, drop_path=p, act_layer=act_layer) for p in drop_paths]
        class_token = trunc_normal_(torch.empty(1, 1, width), std=0.02) if last else None
        stages.append(Stage(Embedding(channels, width, kernels[index], strides[index]), blocks, class_token))
    return stages


def initialize(module: nn.Module) -> None:
    """Initialize linear layers as the released code does; convolutions and norms keep torch's initialization."""
    if isinstance(module, nn.Linear):
        trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)


def as_grid(tokens: Float[Tensor, "b _ c"], height: int, width: int) -> Float[Tensor, "b c h w"]:
    """The last height * width tokens, row by row, as a grid, without a class token before them."""
    return tokens[:, -height * width :].transpose(1, 2).unflatten(2, (height, width))


default_cfgs = generate_default_cfgs({
    "vtzoo_cvt_13.untrained": {
        "num_classes": 1000, "input_size": (3, 224, 224), "interpolation": "bicubic", "crop_pct": 0.875,
        "mean": IMAGENET_DEFAULT_MEAN, "std": IMAGENET_DEFAULT_STD, "first_conv": "stages.0.embed.proj",
        "classifier": "head",
    }
})  # fmt: skip


@register_model
def vtzoo_cvt_13(pretrained: bool = False, **arguments: Any) -> nn.Module:
    """CvT-13 of `timm.create_model("vtzoo_cvt_13", ...)`, with CvT's arguments, or timm's `features_only`."""
    stages = {"out_indices": arguments.pop("out_indices", (0, 1, 2)), "feature_cls": "getter"}
    return build_model_with_cfg(CvT, "vtzoo_cvt_13", pretrained, feature_cfg=stages, **arguments)
