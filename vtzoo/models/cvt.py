"""CvT-13, the convolutional vision transformer (Wu et al. 2021, arXiv 2103.15808): timm's `vtzoo_cvt_13`.

Three stages, each an overlapping convolutional embedding and transformer blocks whose queries, keys and values come
from depth-wise convolutions. There are no positions: the convolutions see them. The class token lives in the last
stage alone. The code released with drloc (yhlleo/VTs-Drloc) has another variant, with mean pooling and no class token.
"""

import re
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

WIDTHS = (64, 192, 384)  # channels of a token, a stage
HEADS = (1, 3, 6)
DEPTHS = (1, 2, 10)  # blocks
MLP_RATIO = 4
ACTIVATIONS = {"gelu": nn.GELU, "quick_gelu": QuickGELU}
# By the first embedding's stride: the paper's, and ours for small images and for few, large patches.
FIRST_KERNEL = {4: 7, 2: 3, 8: 15}


class Embedding(nn.Module):
    """Overlapping patches as a grid of normalized tokens: (b, channels, h, w) -> (b, width, h / stride, w / stride)."""

    def __init__(self, channels: int, width: int, kernel: int, stride: int) -> None:
        super().__init__()
        # A kernel of 7 with stride 4 is padded by 2, one of 3 with stride 2 by 1, as in the paper; 15 with 8 by 4.
        self.proj = nn.Conv2d(channels, width, kernel, stride, padding=(kernel - stride + 1) // 2)
        self.norm = nn.LayerNorm(width)

    def forward(self, images: Float[Tensor, "b _ _ _"]) -> Float[Tensor, "b _ _ _"]:
        """The grid of an image, or of the grid before."""
        return self.norm(self.proj(images).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Projection(nn.Module):
    """Queries, keys or values of all heads, (b, heads, n, d), from a grid and the class token where there is one."""

    def __init__(self, width: int, heads: int, stride: int) -> None:
        super().__init__()
        self.heads = heads
        self.conv = nn.Conv2d(width, width, 3, stride, padding=1, groups=width, bias=False)
        self.bn = nn.BatchNorm2d(width)
        self.linear = nn.Linear(width, width)

    def forward(self, class_token: Tensor | None, grid: Float[Tensor, "b c _ _"]) -> Float[Tensor, "b _ _ _"]:
        """One of the three inputs of attention."""
        tokens = self.bn(in_float32_on_cpu(self.conv, grid)).flatten(2).transpose(1, 2)
        if class_token is not None:  # it has no neighbours: it goes round the convolution
            tokens = torch.cat([class_token, tokens], dim=1)
        return self.linear(tokens).unflatten(2, (self.heads, -1)).transpose(1, 2)


class Attention(nn.Module):
    """Multi-head attention with a quarter of the keys and values: their convolutions have stride 2."""

    def __init__(self, width: int, heads: int, *, class_token: bool) -> None:
        super().__init__()
        self.has_class_token = class_token
        self.scale = width**-0.5  # the whole width, not one head's: what the released weights were trained with
        self.q = Projection(width, heads, stride=1)
        self.k = Projection(width, heads, stride=2)
        self.v = Projection(width, heads, stride=2)
        self.proj = nn.Linear(width, width)

    def forward(self, tokens: Float[Tensor, "b n c"], height: int, width: int) -> Float[Tensor, "b n c"]:
        """The mixed tokens of a grid of height x width, in their order."""
        class_token = tokens[:, :1] if self.has_class_token else None
        grid = as_grid(tokens, height, width)
        query, key, value = (project(class_token, grid) for project in (self.q, self.k, self.v))
        attend = partial(functional.scaled_dot_product_attention, scale=self.scale)
        mixed = in_float32_on_cpu(attend, query, key, value)
        return self.proj(mixed.transpose(1, 2).flatten(2))


class Block(nn.Module):
    """Attention and a two-layer perceptron, each normalized before, dropped by path and added to its input."""

    def __init__(self, width: int, heads: int, *, class_token: bool, drop_path: float, act_layer: str) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attn = Attention(width, heads, class_token=class_token)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = Mlp(width, MLP_RATIO * width, act_layer=ACTIVATIONS[act_layer])
        self.drop_path = DropPath(drop_path)

    def forward(self, tokens: Float[Tensor, "b n c"], height: int, width: int) -> Float[Tensor, "b n c"]:
        """The tokens of a grid of height x width, one block deeper."""
        tokens = tokens + self.drop_path(self.attn(self.norm1(tokens), height, width))
        return tokens + self.drop_path(self.mlp(self.norm2(tokens)))


class Stage(nn.Module):
    """Tokens (b, n, width), the class token first where there is one, and the same cells as a grid."""

    def __init__(self, embed: Embedding, blocks: list[Block], class_token: Tensor | None) -> None:
        super().__init__()
        self.embed = embed
        self.cls_token = None if class_token is None else nn.Parameter(class_token)
        self.blocks = nn.ModuleList(blocks)

    def forward(self, images: Float[Tensor, "b _ _ _"]) -> tuple[Float[Tensor, "b n c"], Float[Tensor, "b c h w"]]:
        """The stage's tokens, and their grid, which the next stage takes."""
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

    `patch_size` is the stride of the first embedding: 4 is the paper's (kernel 7, padding 2); 2 (kernel 3, padding 1)
    suits images of about 32 px, and 8 (kernel 15, padding 4) leaves a quarter of the tokens. The three grids have
    strides of 1, 2 and 4 times `patch_size`.
    `img_size` fixes nothing: timm records it as the nominal input. `drop_path_rate` rises linearly from 0 over the ten
    blocks of the last stage; the three blocks before it drop nothing, as in the released configuration.
    `act_layer` "gelu" is transformers' CvT; microsoft/CvT trained its ImageNet weights with "quick_gelu".
    `global_pool` is "token" (the class token) or "avg" (the mean of the last grid).
    """

    def __init__(
        self,
        num_classes: int = 1000,
        in_chans: int = 3,
        img_size: int | Sequence[int] | None = None,
        patch_size: int = 4,
        drop_path_rate: float = 0.0,
        act_layer: str = "gelu",
        global_pool: str = "token",
    ) -> None:
        super().__init__()
        if patch_size not in FIRST_KERNEL:
            raise VtzooError(
                f"CvT-13 has no patch size {patch_size}", "use 4 (the paper's), 2 (images of 32 px) or 8 (fewer tokens)"
            )
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
        """Logits, or the features where there are no classes."""
        return self.forward_head(self.forward_features(images))

    def forward_features(self, images: Float[Tensor, "b _ _ _"]) -> Float[Tensor, "b n c"]:
        """The normalized tokens of the last stage, the class token first."""
        return self.forward_intermediates(images, indices=1)[0]

    def forward_intermediates(
        self, images: Float[Tensor, "b _ _ _"], indices: int | Sequence[int] | None = None, norm: bool = False,
        output_fmt: str = "NCHW", intermediates_only: bool = False,
    ) -> Any:  # fmt: skip
        """What `forward_features` gives, and the stages' grids (b, c, h, w); the grids alone if `intermediates_only`.

        `indices` are the stages wanted, the last so many of them, or None for all three. `norm` normalizes the last
        grid, the only one whose width the final norm has. No grid holds the class token.
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
        """The last layer: linear, or the identity where there are no classes."""
        return self.head

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Put a fresh classifier in place: `num_classes` of 0 leaves the features as they are."""
        if global_pool not in (None, "token", "avg"):
            raise VtzooError(f"CvT-13 has no global pool {global_pool!r}", "use token or avg")
        self.num_classes, self.global_pool = num_classes, global_pool or self.global_pool
        head = nn.Linear(self.num_features, num_classes) if num_classes else nn.Identity()
        self.head = head.to(self.norm.weight).apply(initialize)

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """The patterns, timm's, of the layers that learning rates decay by: an embedding each, and each block."""
        blocks = [(r"^stages\.(\d+)\.(?:embed|cls_token)", (-1,)), (r"^stages\.(\d+)\.blocks\.(\d+)", None)]
        return {"stem": r"^stages\.0\.embed", "blocks": [*blocks, (r"^norm", (99999,))]}

    def no_weight_decay(self) -> set[str]:
        """The names of the parameters that weight decay would only harm, besides norms and biases."""
        return {"stages.2.cls_token"}


def build_stages(in_chans: int, patch_size: int, drop_path_rate: float, act_layer: str) -> list[Stage]:
    """The three stages, the class token and all of the path dropping in the last."""
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
    """Start linear layers as the released code does; convolutions and norms keep torch's start."""
    if isinstance(module, nn.Linear):
        trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)


def as_grid(tokens: Float[Tensor, "b _ c"], height: int, width: int) -> Float[Tensor, "b c h w"]:
    """The last height * width tokens, row by row, as a grid: a class token before them is left out."""
    return tokens[:, -height * width :].transpose(1, 2).unflatten(2, (height, width))


# transformers' names (CvtForImageClassification) and ours, applied from top to bottom.
RENAMES = (
    (r"^cvt\.encoder\.", ""),
    (r"embedding\.convolution_embeddings\.projection", "embed.proj"),
    (r"embedding\.convolution_embeddings\.normalization", "embed.norm"),
    (r"layers\.", "blocks."),
    (r"attention\.attention\.convolution_projection_(q|k|v)\w+\.convolution_projection\.convolution", r"attn.\1.conv"),
    (r"attention\.attention\.convolution_projection_(q|k|v)\w+\.convolution_projection\.normalization", r"attn.\1.bn"),
    (r"attention\.attention\.projection_(q|k|v)\w+", r"attn.\1.linear"),
    (r"attention\.output\.dense", "attn.proj"),
    (r"intermediate\.dense", "mlp.fc1"),
    (r"output\.dense", "mlp.fc2"),
    (r"layernorm_before", "norm1"),
    (r"layernorm_after", "norm2"),
    (r"^layernorm", "norm"),
    (r"^classifier", "head"),
)


def convert_transformers(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights of transformers' CvtForImageClassification (`microsoft/cvt-13`) under our names.

    No value changes. All of transformers' norms have torch's epsilon, 1e-5, ours too: its configuration's
    `layer_norm_eps` of 1e-12 is not used. Build the model with `act_layer="quick_gelu"` to run those ImageNet
    weights as they were trained. A name that is not CvT's is a VtzooError.
    """
    return {rename(name): value for name, value in state_dict.items()}


def rename(name: str) -> str:
    """Our name of one of transformers' parameters or buffers."""
    renamed = name
    for pattern, replacement in RENAMES:
        renamed = re.sub(pattern, replacement, renamed)
    if renamed == name:
        raise VtzooError(f"{name!r} is no weight of transformers' CvT", "convert a CvtForImageClassification")
    return renamed


default_cfgs = generate_default_cfgs(
    {
        "vtzoo_cvt_13.untrained": {
            "num_classes": 1000,
            "input_size": (3, 224, 224),
            "interpolation": "bicubic",
            "crop_pct": 0.875,
            "mean": IMAGENET_DEFAULT_MEAN,
            "std": IMAGENET_DEFAULT_STD,
            "first_conv": "stages.0.embed.proj",
            "classifier": "head",
        }
    }
)


@register_model
def vtzoo_cvt_13(pretrained: bool = False, **arguments: Any) -> nn.Module:
    """CvT-13, through `timm.create_model("vtzoo_cvt_13", ...)`: the arguments are CvT's, or timm's `features_only`."""
    stages = {"out_indices": arguments.pop("out_indices", (0, 1, 2)), "feature_cls": "getter"}
    return build_model_with_cfg(CvT, "vtzoo_cvt_13", pretrained, feature_cfg=stages, **arguments)
