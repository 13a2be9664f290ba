"""Converts the weights of transformers' CvT to the names of `vtzoo.models.cvt`."""

import re

from torch import Tensor

from vtzoo.errors import VtzooError

# Patterns of transformers' names, and ours, applied from top to bottom.
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
    """The weights of transformers' CvtForImageClassification (`microsoft/cvt-13`) under our names; no value changes.

    transformers' norms have torch's epsilon of 1e-5, as ours have: they ignore the configuration's `layer_norm_eps` of
    1e-12. Build the model with `act_layer="quick_gelu"` to run the ImageNet weights as they were trained. A name that
    is not CvT's is a VtzooError.
    """
    return {rename(name): value for name, value in state_dict.items()}


def rename(name: str) -> str:
    """Our name of a parameter or buffer of transformers."""
    renamed = name
    for pattern, replacement in RENAMES:
        renamed = re.sub(pattern, replacement, renamed)
    if renamed == name:
        raise VtzooError(f"{name!r} is no weight of transformers' CvT", "convert a CvtForImageClassification")
    return renamed
