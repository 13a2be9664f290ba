"""Attention rollout: the share of each token in the pooled token of a plain vision transformer.

Source: Abnar and Zuidema, "Quantifying Attention Flow in Transformers", ACL 2020 (arXiv 2005.00928).
"""

from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from timm.layers import Attention
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from vtzoo.drloc import SMALLEST_SIDE
from vtzoo.models.t2t import BlockAttention, T2TViT

PLAIN = (VisionTransformer, T2TViT)  # exactly these: subclasses may attend in other ways
ATTENTIONS = (Attention, BlockAttention)  # exactly these too
POOLS = ("token", "avg")


@torch.no_grad()
def attention_weights(model: nn.Module, images: Float[Tensor, "b c h w"]) -> list[Float[Tensor, "b heads n n"]] | None:
    """The attention weights of every block, first to last; None unless the model is a plain vision transformer.

    timm's fused attention computes no weights, so it is switched off during this pass.
    """
    plain: Any = model
    if type(model) not in PLAIN or plain.global_pool not in POOLS or min(_grid(model, images)) < SMALLEST_SIDE:
        return None
    layers = [getattr(block, "attn", None) for block in plain.blocks]
    if not all(type(layer) in ATTENTIONS for layer in layers):
        return None
    return _record(model, layers, images)


def _record(model: nn.Module, layers: list[Any], images: Tensor) -> list[Tensor]:
    """The attention weights of the layers in a pass over the images."""
    kept: list[Tensor] = []
    fused = [layer.fused_attn for layer in layers]
    # The weights pass through a dropout, which does nothing in evaluation mode.
    hooks = [layer.attn_drop.register_forward_hook(lambda _, __, weights: kept.append(weights)) for layer in layers]
    try:
        for layer in layers:
            layer.fused_attn = False
        model(images)
    finally:
        for layer, was, hook in zip(layers, fused, hooks, strict=True):
            layer.fused_attn = was
            hook.remove()
    return kept


def roll_out(model: nn.Module, weights: list[Tensor], images: Float[Tensor, "1 c h w"]) -> np.ndarray:
    """The share of each cell in the pooled token, float32 (rows, columns), as a multiple of an equal share.

    If the model pools all cells, the shares are the mean over the cells.
    """
    plain: Any = model
    mixed, prefix = rollout_matrix(weights)[0], plain.num_prefix_tokens
    pooled = mixed[0] if plain.global_pool == "token" else mixed[prefix:].mean(dim=0)
    cells = pooled[prefix:]
    return (cells / cells.mean()).reshape(_grid(model, images)).cpu().numpy()


def rollout_matrix(weights: list[Float[Tensor, "b heads n n"]]) -> Float[Tensor, "b n n"]:
    """The product of all blocks: row i has the share of each input token in output token i; rows sum to 1.

    A block is half the mean of its heads, and half the identity for the residual connection.
    """
    identity = torch.eye(weights[0].shape[-1], device=weights[0].device)
    product = identity.expand(len(weights[0]), -1, -1)
    for block in weights:
        product = (block.mean(dim=1) + identity) / 2 @ product
    return product


def _grid(model: nn.Module, images: Tensor) -> tuple[int, int]:
    plain: Any = model
    return plain.patch_embed.dynamic_feat_size(images.shape[-2:])
