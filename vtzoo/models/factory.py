"""The zoo's visual transformers, and any other timm architecture, behind one door.

`build` makes a model, `create` makes it from a model folder's config.json, `grids` gives the token grids that dense
relative localization works on.
"""

import dataclasses
import warnings
from typing import Any

import timm
import torch
from jaxtyping import Float
from timm.models import PretrainedCfg
from torch import Tensor, nn

from vtzoo.data.transform import complete
from vtzoo.errors import VtzooError, unknown
from vtzoo.models import cnn as cnn  # importing them registers our own architectures with timm
from vtzoo.models import cvt, t2t

# Our name of each model of the paper, and of the CNN that teaches them: the name under which timm knows it.
MODELS = {
    "swin_t": "swin_tiny_patch4_window7_224",
    "cvt_13": "vtzoo_cvt_13",
    "t2t_vit_14": "vtzoo_t2t_vit_14",
    "vit_b_16": "vit_base_patch16_224",
    "resnet_50": "resnet50",
    "small_cnn": "vtzoo_small_cnn",
}
# What timm may know of a model's `pretrained_cfg`: all but the places to load from.
ELSEWHERE = {"url", "file", "state_dict", "hf_hub_id", "hf_hub_filename", "source", "custom_load"}
DESCRIBING = {field.name for field in dataclasses.fields(PretrainedCfg)} - ELSEWHERE


def build(name: str, *, num_classes: int, image_size: int, **arguments: Any) -> nn.Module:
    """A freshly initialized model, with timm's methods: forward_features, forward_head, reset_classifier.

    `name` is one of MODELS or any timm architecture; `image_size` is the side of the square images in pixels;
    `arguments` go to the architecture as they are (`patch_size`, `window_size`, `drop_path_rate`...).
    A name or an argument that nobody knows is a VtzooError.
    """
    architecture = MODELS.get(name, name)
    if not timm.is_model(architecture):
        known = [*MODELS, *timm.list_models()]
        raise unknown("model", name, known, "timm.list_models() names every other architecture")
    try:
        return timm.create_model(architecture, num_classes=num_classes, **sized(name, image_size), **arguments)
    except (TypeError, AssertionError) as error:
        raise VtzooError(
            f"{name} does not take these arguments: {error}", "check the recipe's [model] table"
        ) from error


def sized(name: str, image_size: int) -> dict[str, int]:
    """The argument that tells an architecture its image size: none for one that takes any, as convolutions do."""
    entry_point = timm.model_entrypoint(MODELS.get(name, name))
    try:
        with torch.device("meta"):  # no memory is touched, no random number drawn
            entry_point(img_size=image_size)
    except TypeError:
        return {}
    return {"img_size": image_size}


def create(config: dict[str, Any], weights: dict[str, Tensor] | None = None) -> nn.Module:
    """The model that a config.json describes, in timm's Hub format, built as timm builds it from there.

    Its weights are fresh, or those given, which timm's own filter for the architecture may then rename, reshape and
    resample, as it does for files older than its code; timm raises what it likes where they do not fit exactly.
    """
    described = {key: value for key, value in complete(config).items() if key in DESCRIBING}
    arguments = dict(config.get("model_args") or {})
    if weights is None:
        return timm.create_model(config["architecture"], pretrained_cfg=described, **arguments)
    described["state_dict"] = weights
    arguments |= {"pretrained": True, "pretrained_strict": True, "pretrained_model_args": dict(arguments)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of how timm's resampling calls torch
        model: Any = timm.create_model(config["architecture"], pretrained_cfg=described, **arguments)
    del model.pretrained_cfg["state_dict"]  # a copy
    return model


def at_size(config: dict[str, Any], image_size: int) -> dict[str, Any]:
    """The config.json of the same model for squares of another size, in pixels; `create` then resamples its weights."""
    described, arguments = complete(config), dict(config.get("model_args") or {})
    described["input_size"] = [described["input_size"][0], image_size, image_size]
    return config | {
        "model_args": arguments | sized(config["architecture"], image_size), "pretrained_cfg": described,
    }  # fmt: skip


def grids(model: nn.Module, images: Float[Tensor, "b 3 h w"]) -> list[Float[Tensor, "b c gh gw"]]:
    """The model's token grids, shallow to deep, the class token left out.

    One grid a stage for the hierarchical models, one a block for the plain ones. A model without grids is a VtzooError.
    """
    return features_and_grids(model, images, stages=None)[1]


def features_and_grids(
    model: nn.Module, images: Float[Tensor, "b 3 h w"], stages: list[int] | None
) -> tuple[Tensor, list[Float[Tensor, "b c gh gw"]]]:
    """The final feature map for `forward_head`, and the grids of some `stages`, or all for None, out of one pass.

    A grid is what its blocks put out, as released: before the final norm, but for T2T-ViT, whose grids are normalized.
    """
    if not hasattr(model, "forward_intermediates"):
        raise VtzooError(
            f"{type(model).__name__} has no token grid to localize in", "train it with the baseline objective"
        )
    forward: Any = model.forward_intermediates
    return forward(images, indices=stages, norm=isinstance(model, t2t.T2TViT), output_fmt="NCHW")


def localizable(model: nn.Module, grid: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c gh gw"]:
    """The grid to localize in: CvT's and T2T-ViT's averaged to half the side where it is over 8 cells, others as is.

    The released code pools the 14x14 grids that both have at 224 px to Swin's 7x7. At 32 px theirs has 8x8 cells, and
    halved again it would be a smaller task than Swin's.
    """
    if not isinstance(model, cvt.CvT | t2t.T2TViT) or min(grid.shape[-2:]) <= 8:
        return grid
    return nn.functional.avg_pool2d(grid, kernel_size=3, stride=2, padding=1, count_include_pad=False)


def parameter_count(model: nn.Module) -> int:
    """The number of parameters; fixed ones, as T2T-ViT's positions, count too."""
    return sum(parameter.numel() for parameter in model.parameters())


def pick_device(name: str) -> torch.device:
    """The torch device that `auto`, `cpu` or `cuda` means here; `cuda` without CUDA is a VtzooError."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise VtzooError("torch can use no CUDA device here", "run with --device cpu, or install a CUDA build of torch")
    return torch.device(name)
