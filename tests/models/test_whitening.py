"""Whitened first layers: their outputs are uncorrelated, for any kernel, stride, padding and width."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from vtzoo import models
from vtzoo.errors import VtzooError
from vtzoo.models.whitening import AT_ONCE, first_convolution, whiten


@pytest.fixture(scope="module")
def images() -> Tensor:
    """Images with similar neighbouring pixels, like photographs; more than one part of them."""
    noise = torch.randn(AT_ONCE + 6, 3, 36, 36, generator=torch.Generator().manual_seed(1))
    return 3 * nn.functional.avg_pool2d(noise, 5, stride=1)


def swin() -> Any:
    return models.build("swin_t", num_classes=10, image_size=32, patch_size=4, window_size=4)


def covariance(tokens: Tensor) -> Tensor:
    """The covariance of the channels of a grid (b, c, h, w), about 0."""
    vectors = tokens.transpose(0, 1).flatten(1).double()
    return vectors @ vectors.T / vectors.shape[1]


def test_tokens_of_whitened_patches_are_uncorrelated_and_of_variance_one(images: Tensor) -> None:
    first = first_convolution(swin())
    with torch.no_grad():
        before = covariance(first(images))
        whiten(first, images, 1e-6)
        after = covariance(first(images))[:48, :48]
    assert (before / before.diagonal().mean()).fill_diagonal_(0).abs().max() > 0.5  # they were correlated
    torch.testing.assert_close(after, torch.eye(48).double(), rtol=0, atol=0.01)


def test_every_component_comes_with_both_signs_and_no_bias(images: Tensor) -> None:
    first = first_convolution(swin())
    nn.init.ones_(first.bias)  # type: ignore[arg-type]
    whiten(first, images, 0.01)
    assert torch.equal(first.weight[:48], -first.weight[48:])
    assert not first.bias.any()  # type: ignore[union-attr]


def test_components_below_the_noise_stay_small_and_the_largest_come_first(images: Tensor) -> None:
    first = first_convolution(swin())
    whiten(first, images, 0.01)
    with torch.no_grad():
        variances = covariance(first(images)).diagonal()[:48]
    assert (variances.diff() < 1e-4).all()
    assert variances[0] > 0.99
    assert variances[-1] < 0.9


@pytest.mark.parametrize("stride", [1, 4])
def test_the_patches_are_those_that_the_convolution_sees(images: Tensor, stride: int) -> None:
    convolution = nn.Conv2d(3, 64, 7, stride=stride, padding=2)  # of 147 components the largest 32
    whiten(convolution, images, 1e-6)
    with torch.no_grad():
        found = covariance(convolution(images))[:32, :32]
    torch.testing.assert_close(found, torch.eye(32).double(), rtol=0, atol=0.01)


def test_channels_without_a_component_stay_at_random(images: Tensor) -> None:
    convolution = nn.Conv2d(3, 50, 2, bias=False)
    before = convolution.weight.clone()
    whiten(convolution, images, 0.01)
    assert torch.equal(convolution.weight[24:], before[24:])
    assert not torch.isclose(convolution.weight[:24], before[:24]).all(dim=(1, 2, 3)).any()


def test_one_colour_alone_is_whitened_to_something_finite() -> None:
    first = first_convolution(swin())
    whiten(first, torch.ones(2, 3, 32, 32), 0.01)
    assert first.weight.isfinite().all()


@pytest.mark.parametrize(("name", "where"), [("cvt_13", "stages.0.embed.proj"), ("vit_b_16", "patch_embed.proj")])
def test_the_first_convolution_is_found_where_timm_says(name: str, where: str) -> None:
    with torch.device("meta"):
        model = models.build(name, num_classes=10, image_size=224)
        assert first_convolution(model) is model.get_submodule(where)


def test_a_model_that_starts_with_no_convolution_is_refused() -> None:
    model = models.build("t2t_vit_14", num_classes=10, image_size=32, strides=[2, 2, 1])
    with pytest.raises(VtzooError, match="T2TViT starts with no convolution to whiten") as raised:
        first_convolution(model)
    assert raised.value.hint == "leave out model: whitening"
