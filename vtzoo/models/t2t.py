"""T2T-ViT-14 with performer tokens (Yuan et al. 2021, arXiv 2101.11986): timm's `vtzoo_t2t_vit_14`.

Tokens to tokens: three soft splits cut overlapping patches, first out of the image, then out of the token grid, with a
small performer after each of the first two. Then follows timm's plain vision transformer, 14 blocks deep, 384 wide.
"""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.layers import Attention, trunc_normal_
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn import functional

from vtzoo.errors import VtzooError
from vtzoo.models.cvt import as_grid
from vtzoo.models.precision import in_float32_on_cpu

KERNELS = (7, 3, 3)  # cells a side of each soft split's patches
TOKEN_WIDTH = 64  # channels between the splits
FEATURES = 32  # random features of a performer: half of its width


def performer_attention(
    query: Float[Tensor, "b n c"], key: Float[Tensor, "b n c"], value: Float[Tensor, "b n c"],
    directions: Float[Tensor, "m c"],
) -> Float[Tensor, "b n c"]:  # fmt: skip
    """Average the values with weights kernel(query, key), at a cost linear in the number of tokens, in float32.

    A token x has a positive feature exp(w.x - |x|^2 / 2) for each direction w, and the kernel of two tokens is the dot
    product of their features (Choromanski et al. 2021): the sum over the keys is computed once, for all queries.

    The released code computes the features directly and adds 1e-8 to a sum of weights that may underflow. We move a
    factor of each direction, its largest key, to the queries, and normalize the queries. Both factors and |query|^2
    cancel in the average; no feature is above 1, and no sum of weights below 1.
    """
    with torch.autocast(query.device.type, enabled=False):  # exponentials and long sums lose too much in half precision
        query, key, value, directions = query.float(), key.float(), value.float(), directions.float()
        exponents = key @ directions.T - key.square().sum(dim=2, keepdim=True) / 2
        largest = exponents.detach().amax(dim=1, keepdim=True)
        keys = (exponents - largest).exp()
        queries = (query @ directions.T + largest).softmax(dim=2)
        weights = queries @ keys.sum(dim=1).unsqueeze(2)
        return queries @ (keys.transpose(1, 2) @ value) / weights


class Performer(nn.Module):
    """A one-head transformer layer that narrows its tokens: (b, n, width) -> (b, n, 64).

    `directions` are random, orthogonal and never trained. Their length is sqrt(32), as in the released code. An
    unbiased estimate of softmax attention needs about sqrt(64), so this kernel is not an approximation of softmax.
    """

    def __init__(self, width: int, drop_rate: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.kqv = nn.Linear(width, 3 * TOKEN_WIDTH)
        self.proj = nn.Linear(TOKEN_WIDTH, TOKEN_WIDTH)
        self.drop = nn.Dropout(drop_rate)
        self.norm2 = nn.LayerNorm(TOKEN_WIDTH)
        self.mlp = nn.Sequential(
            nn.Linear(TOKEN_WIDTH, TOKEN_WIDTH), nn.GELU(), nn.Linear(TOKEN_WIDTH, TOKEN_WIDTH), nn.Dropout(drop_rate)
        )
        directions = nn.init.orthogonal_(torch.empty(FEATURES, TOKEN_WIDTH)) * math.sqrt(FEATURES)
        self.directions = nn.Parameter(directions, requires_grad=False)

    def forward(self, tokens: Float[Tensor, "b n _"]) -> Float[Tensor, "b n _"]:
        """The attended tokens."""
        key, query, value = self.kqv(self.norm1(tokens)).chunk(3, dim=-1)
        mixed = performer_attention(query, key, value, self.directions)
        tokens = value + self.drop(self.proj(mixed))  # values as the residual: the input has another width
        return tokens + self.mlp(self.norm2(tokens))


def soft_split(grid: Float[Tensor, "b c h w"], kernel: int, stride: int) -> Float[Tensor, "b n _"]:
    """The overlapping kernel x kernel patches at every stride-th cell, row by row, each flattened channel first."""
    return functional.unfold(grid, kernel, padding=padding(kernel, stride), stride=stride).transpose(1, 2)


def padding(kernel: int, stride: int) -> int:
    """The zero padding that makes side / stride patches: the paper's 2 for (7, 4) and 1 for (3, 2)."""
    return (kernel - stride + 1) // 2


def split_side(side: int, kernel: int, stride: int) -> int:
    """The number of patches along a side of so many cells."""
    return (side + 2 * padding(kernel, stride) - kernel) // stride + 1


class TokensToToken(nn.Module):
    """Patch tokens (b, n, embed_dim) of images: replaces a plain vision transformer's patch embedding.

    timm's VisionTransformer reads `img_size`, `grid_size`, `num_patches`, `feat_ratio` and `dynamic_feat_size`.
    """

    def __init__(
        self, img_size: tuple[int, int], in_chans: int, embed_dim: int, strides: tuple[int, ...], drop_rate: float
    ) -> None:
        super().__init__()
        self.img_size, self.strides = img_size, strides
        self.grid_size = self.dynamic_feat_size(img_size)
        self.num_patches = math.prod(self.grid_size)
        self.performer1 = Performer(in_chans * KERNELS[0] ** 2, drop_rate)
        self.performer2 = Performer(TOKEN_WIDTH * KERNELS[1] ** 2, drop_rate)
        self.project = nn.Linear(TOKEN_WIDTH * KERNELS[2] ** 2, embed_dim)

    def forward(self, images: Float[Tensor, "b _ _ _"]) -> Float[Tensor, "b _ _"]:
        """The tokens of the last grid, row by row, without positions."""
        grid, size = images, tuple(images.shape[2:])
        if size != self.img_size:  # the position table has a fixed size
            message = f"this T2T-ViT takes images of {self.img_size} (height, width) px, not {size}"
            raise VtzooError(message, "build it with that img_size")
        for performer, kernel, stride in zip((self.performer1, self.performer2), KERNELS, self.strides, strict=False):
            size = tuple(split_side(side, kernel, stride) for side in size)
            grid = as_grid(performer(soft_split(grid, kernel, stride)), *size)
        return self.project(soft_split(grid, KERNELS[2], self.strides[2]))

    def dynamic_feat_size(self, img_size: tuple[int, int]) -> tuple[int, int]:
        """The (rows, columns) of the token grid of an image of (height, width) pixels."""
        height, width = img_size
        for kernel, stride in zip(KERNELS, self.strides, strict=True):
            height, width = split_side(height, kernel, stride), split_side(width, kernel, stride)
        return height, width

    def feat_ratio(self) -> int:
        """The image's pixels per grid cell, along a side."""
        return math.prod(self.strides)


class BlockAttention(Attention):
    """timm's attention and parameters; under autocast on the CPU, fused attention runs in float32."""

    def forward(
        self, x: Float[Tensor, "b n c"], attn_mask: Tensor | None = None, is_causal: bool = False
    ) -> Float[Tensor, "b n c"]:
        """The attended tokens."""
        if not self.fused_attn:
            return super().forward(x, attn_mask, is_causal)
        drop_rate = self.attn_drop.p if self.training else 0.0
        attend = partial(
            functional.scaled_dot_product_attention, attn_mask=attn_mask, dropout_p=drop_rate, is_causal=is_causal
        )
        query, key, value = self.qkv(x).unflatten(2, (3, self.num_heads, self.head_dim)).permute(2, 0, 3, 1, 4)
        mixed = in_float32_on_cpu(attend, self.q_norm(query), self.k_norm(key), value)
        return self.proj_drop(self.proj(self.norm(mixed.transpose(1, 2).flatten(2))))


class T2TViT(VisionTransformer):
    """Logits (b, num_classes) of images (b, in_chans, h, w) of the size `img_size` it was built for, square or not.

    `strides` are those of the three soft splits: the paper's (4, 2, 2) makes a 14x14 grid at 224 px, and (1, 2, 2) an
    8x8 grid at 32 px. `token_drop_rate` is the dropout inside the two performers, 0.1 in the released code. All other
    arguments, such as `drop_path_rate` and `global_pool`, are those of timm's VisionTransformer.
    """

    def __init__(
        self, img_size: int | Sequence[int] = 224, strides: Sequence[int] = (4, 2, 2), token_drop_rate: float = 0.1,
        **arguments: Any,
    ) -> None:  # fmt: skip
        if len(strides) != len(KERNELS) or min(strides) < 1:
            hint = "give three: (4, 2, 2) at 224 px, (1, 2, 2) at 32 px"
            raise VtzooError(f"T2T-ViT has no strides {tuple(strides)}", hint)

        height, width = (img_size, img_size) if isinstance(img_size, int) else img_size

        def embed(img_size: tuple[int, int], in_chans: int, embed_dim: int, **_: Any) -> TokensToToken:
            return TokensToToken(img_size, in_chans, embed_dim, tuple(strides), token_drop_rate)

        super().__init__(
            img_size=(height, width), patch_size=math.prod(strides), embed_layer=embed, embed_dim=384, depth=14,
            num_heads=6, mlp_ratio=3.0, qkv_bias=False, attn_layer=BlockAttention,
            norm_layer=nn.LayerNorm,  # torch's, for its epsilon of 1e-5; timm's own has 1e-6
            **arguments,
        )  # fmt: skip

    def init_weights(self, mode: str = "", needs_reset: bool = True) -> None:
        """Initialize as the released code does: weights with a deviation of 0.02, and fixed, sinusoidal positions."""
        super().init_weights(mode, needs_reset)
        trunc_normal_(self.cls_token, std=0.02)
        table = sinusoid_table(1 + self.patch_embed.num_patches, self.embed_dim)
        self.pos_embed = nn.Parameter(table[None], requires_grad=False)


def sinusoid_table(positions: int, width: int) -> Float[Tensor, "positions width"]:
    """The sine (even columns) and cosine (odd ones) of position / 10000^(2i / width), the class token at position 0."""
    rates = 10000 ** (-torch.arange(0, width, 2, dtype=torch.float64) / width)
    angles = torch.arange(positions, dtype=torch.float64)[:, None] * rates
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1).float()


def checkpoint_filter_fn(state_dict: dict[str, Tensor], model: T2TViT) -> dict[str, Tensor]:
    """The weights, with the fixed positions of `model` if their own are for another image size.

    Positions that differ only by rounding are kept: the model then is exactly as published.
    """
    stored = state_dict.get("pos_embed", torch.empty(0)).float()
    same = stored.shape == model.pos_embed.shape and torch.allclose(stored, model.pos_embed, atol=1e-3)
    return state_dict if same else {**state_dict, "pos_embed": model.pos_embed}


default_cfgs = generate_default_cfgs({
    "vtzoo_t2t_vit_14.untrained": {
        "num_classes": 1000, "input_size": (3, 224, 224), "fixed_input_size": True, "interpolation": "bicubic",
        "crop_pct": 0.9, "mean": IMAGENET_DEFAULT_MEAN, "std": IMAGENET_DEFAULT_STD, "first_conv": None,
        "classifier": "head",
    }
})  # fmt: skip


@register_model
def vtzoo_t2t_vit_14(pretrained: bool = False, **arguments: Any) -> nn.Module:
    """T2T-ViT-14 of `timm.create_model("vtzoo_t2t_vit_14", ...)`, with T2TViT's arguments, or `features_only`."""
    blocks = {"out_indices": arguments.pop("out_indices", 3), "feature_cls": "getter"}
    return build_model_with_cfg(
        T2TViT, "vtzoo_t2t_vit_14", pretrained, pretrained_filter_fn=checkpoint_filter_fn, feature_cfg=blocks,
        **arguments,
    )  # fmt: skip
