"""Builds the zoo's models and any other timm architecture, and computes their token grids.

`build` makes a fresh model, `create` makes the model of a config.json, and `grids` returns the token grids for dense
relative localization.
"""

import dataclasses
import functools
import warnings
from typing import Any

import timm
import torch
from jaxtyping import Float
from timm.models import PretrainedCfg
from torch import Tensor, nn

from vtzoo.data.transform import complete
from vtzoo.errors import VtzooError, unknown
from vtzoo.models import cnn as cnn  # the import registers our architectures with timm
from vtzoo.models import cvt, t2t

# timm's name by our name: the paper's models, and the CNN that teaches them.
MODELS = {
    "swin_t": "swin_tiny_patch4_window7_224", "cvt_13": "vtzoo_cvt_13", "t2t_vit_14": "vtzoo_t2t_vit_14",
    "vit_b_16": "vit_base_patch16_224", "resnet_50": "resnet50", "small_cnn": "vtzoo_small_cnn",
}  # fmt: skip
# The keys of a `pretrained_cfg` that timm gets: all but the places to load weights from.
ELSEWHERE = {"url", "file", "state_dict", "hf_hub_id", "hf_hub_filename", "source", "custom_load"}
DESCRIBING = {field.name for field in dataclasses.fields(PretrainedCfg)} - ELSEWHERE


def build(name: str, *, num_classes: int, image_size: int, **arguments: Any) -> nn.Module:
    """A freshly initialized model, with timm's methods: forward_features, forward_head, reset_classifier.

    `name` is one of MODELS or any timm architecture; `image_size` is the side of the square images, in pixels;
    `arguments` are the architecture's own (`patch_size`, `window_size`, `drop_path_rate`...). An unknown name or
    argument is a VtzooError.
    """
    architecture = MODELS.get(name, name)
    if not timm.is_model(architecture):
        known = [*MODELS, *timm.list_models()]
        raise unknown("model", name, known, "timm.list_models() names every other architecture")
    try:
        return timm.create_model(architecture, num_classes=num_classes, **sized(name, image_size), **arguments)
    except (TypeError, AssertionError) as error:
        hint = "check the recipe's [model] table"
        raise VtzooError(f"{name} does not take these arguments: {error}", hint) from error


@functools.cache  # builds a model: 0.2 s for Swin-T
def sized(name: str, image_size: int) -> dict[str, int]:
    """The `img_size` argument of an architecture; empty if it takes images of any size, as CNNs do."""
    entry_point = timm.model_entrypoint(MODELS.get(name, name))
    try:
        with torch.device("meta"):  # allocates no memory, draws no random numbers
            entry_point(img_size=image_size)
    except TypeError:
        return {}
    return {"img_size": image_size}


def create(config: dict[str, Any], weights: dict[str, Tensor] | None = None) -> nn.Module:
    """The model of a config.json in timm's Hub format, built as timm builds it.

    Without `weights` it is freshly initialized. timm's filter for the architecture may rename, reshape and resample the
    `weights`, as it does for older files; timm raises various exceptions for weights that do not fit.
    """
    described = {key: value for key, value in complete(config).items() if key in DESCRIBING}
    arguments = dict(config.get("model_args") or {})
    if weights is None:
        return timm.create_model(config["architecture"], pretrained_cfg=described, **arguments)
    described["state_dict"] = weights
    arguments |= {"pretrained": True, "pretrained_strict": True, "pretrained_model_args": dict(arguments)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of timm's resampling
        model: Any = timm.create_model(config["architecture"], pretrained_cfg=described, **arguments)
    del model.pretrained_cfg["state_dict"]  # a copy
    return model


def at_size(config: dict[str, Any], image_size: int) -> dict[str, Any]:
    """The config.json of the same model for images of another size, in pixels; `create` then resamples its weights."""
    described, arguments = complete(config), dict(config.get("model_args") or {})
    described["input_size"] = [described["input_size"][0], image_size, image_size]
    return config | {
        "model_args": arguments | sized(config["architecture"], image_size), "pretrained_cfg": described,
    }  # fmt: skip


def grids(model: nn.Module, images: Float[Tensor, "b 3 h w"]) -> list[Float[Tensor, "b c gh gw"]]:
    """The model's token grids, shallow to deep, without the class token.

    Hierarchical models have a grid for each stage, plain models for each block. A model without grids is a VtzooError.
    """
    return features_and_grids(model, images, stages=None)[1]


def features_and_grids(
    model: nn.Module, images: Float[Tensor, "b 3 h w"], stages: list[int] | None
) -> tuple[Tensor, list[Float[Tensor, "b c gh gw"]]]:
    """The final features for `forward_head`, and the grids of `stages` (None for all), from a single forward pass.

    Grids are taken before the final norm, but after it in T2T-ViT, as in the released code.
    """
    if not hasattr(model, "forward_intermediates"):
        hint = "train it with the baseline objective"
        raise VtzooError(f"{type(model).__name__} has no token grid to localize in", hint)
    forward: Any = model.forward_intermediates
    return forward(images, indices=stages, norm=isinstance(model, t2t.T2TViT), output_fmt="NCHW")


def localizable(model: nn.Module, grid: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c gh gw"]:
    """The grid to localize in: CvT's and T2T-ViT's pooled to half the side if above 8 cells, others unchanged.

    The released code pools the 14x14 grids of both at 224 px to Swin's 7x7. At 32 px their grids have 8x8 cells and,
    pooled, would make a smaller task than Swin's.
    """
    if not isinstance(model, cvt.CvT | t2t.T2TViT) or min(grid.shape[-2:]) <= 8:
        return grid
    return nn.functional.avg_pool2d(grid, kernel_size=3, stride=2, padding=1, count_include_pad=False)


def parameter_count(model: nn.Module) -> int:
    """The number of parameters, including fixed parameters such as T2T-ViT's positions."""
    return sum(parameter.numel() for parameter in model.parameters())


def pick_device(name: str) -> torch.device:
    """The torch device of `auto`, `cpu` or `cuda`; `cuda` without CUDA is a VtzooError."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise VtzooError("torch can use no CUDA device here", "run with --device cpu, or install a CUDA build of torch")
    return torch.device(name)
