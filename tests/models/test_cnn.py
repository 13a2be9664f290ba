"""The small CNN against a chain of torch's layers, its whitening, and its interface for timm and drloc."""

import json
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.models import group_parameters
from torch import Tensor, nn

from vtzoo import models
from vtzoo.errors import VtzooError
from vtzoo.models.cnn import SmallCNN

WIDTHS = (8, 12, 16)


def small(**arguments: Any) -> Any:
    """A small CNN of ten classes with random batch statistics, ready to predict."""
    torch.manual_seed(0)
    model: Any = timm.create_model("vtzoo_small_cnn", num_classes=10, widths=WIDTHS, **arguments)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.1, 2)
    return model.eval()


@pytest.fixture(scope="module")
def shared() -> Any:
    """The model of `small()`, for tests that do not change it."""
    return small()


@pytest.fixture(scope="module")
def images() -> Tensor:
    """Four images with similar neighbouring pixels, like photographs."""
    noise = torch.randn(4, 3, 36, 36, generator=torch.Generator().manual_seed(1))
    return 3 * nn.functional.avg_pool2d(noise, 5, stride=1)


def chain() -> nn.Sequential:
    """The same network as a sequence of torch's layers, like airbench's, with the weights of `small()`."""
    layers: list[nn.Module] = [nn.Conv2d(3, 24, 2), nn.GELU()]
    for channels, width in zip((24, *WIDTHS), WIDTHS, strict=False):
        layers += [
            nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.MaxPool2d(2), nn.BatchNorm2d(width), nn.GELU(),
            nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.GELU(),
        ]  # fmt: skip
    layers += [nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(WIDTHS[-1], 10)]
    reference = nn.Sequential(*layers).eval()
    stored = small().state_dict().values()
    reference.load_state_dict(dict(zip(reference.state_dict(), stored, strict=True)))
    return reference


def test_logits_equal_those_of_torchs_layers_in_a_chain(shared: Any, images: Tensor) -> None:
    with torch.no_grad():
        torch.testing.assert_close(shared(images), chain()(images))


def test_a_step_of_training_has_the_gradients_and_the_batch_statistics_of_the_chain(images: Tensor) -> None:
    ours, theirs = small().double().train(), chain().double().train()
    for model in (ours, theirs):
        nn.functional.cross_entropy(model(images.double()), torch.arange(4)).backward()
    for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        if one.requires_grad:
            torch.testing.assert_close(one.grad, other.grad)
    for one, other in zip(ours.buffers(), theirs.buffers(), strict=True):
        torch.testing.assert_close(one, other)


def test_a_hundred_classes_take_two_million_parameters() -> None:
    whitening, head = 24 * (12 + 1), 100 * (256 + 1)
    blocks = sum(9 * width * (before + width) + 4 * width for before, width in ((24, 64), (64, 256), (256, 256)))
    model = timm.create_model("vtzoo_small_cnn", num_classes=100)
    assert models.parameter_count(model) == whitening + blocks + head == 1_995_932


@pytest.mark.parametrize(("size", "sides"), [((32, 32), [15, 7, 3]), ((64, 48), [31, 15, 7]), ((9, 9), [4, 2, 1])])
def test_each_block_halves_the_grid(size: tuple[int, int], sides: list[int], shared: Any) -> None:
    grids = shared.forward_intermediates(torch.zeros(1, 3, *size), intermediates_only=True)
    assert [tuple(grid.shape[:3]) for grid in grids] == [
        (1, width, side) for width, side in zip(WIDTHS, sides, strict=True)
    ]


def test_the_grids_are_of_the_forward_pass_that_the_logits_come_from(shared: Any, images: Tensor) -> None:
    features, grids = shared.forward_intermediates(images)
    assert torch.equal(features, grids[-1])
    assert torch.equal(shared.forward_features(images), features)
    assert torch.equal(shared.forward_head(features), shared(images))
    for indices, wanted in ((1, [2]), (2, [1, 2]), ([0], [0]), ([0, -1], [0, 2])):
        chosen = shared.forward_intermediates(images, indices=indices)[1]
        assert len(chosen) == len(wanted)
        assert all(torch.equal(grid, grids[index]) for grid, index in zip(chosen, wanted, strict=True))


def test_timm_makes_a_backbone_of_grids_of_it() -> None:
    backbone = small(features_only=True, out_indices=(0, 2))
    assert [tuple(grid.shape) for grid in backbone(torch.zeros(1, 3, 32, 32))] == [(1, 8, 15, 15), (1, 16, 3, 3)]
    assert backbone.feature_info.channels() == [8, 16]
    assert backbone.feature_info.reduction() == [2, 8]


def test_a_new_classifier_changes_the_logits_and_not_the_features(images: Tensor) -> None:
    model = small()
    before = model.forward_head(model.forward_features(images), pre_logits=True)
    model.reset_classifier(7)
    assert model(images).shape == (4, 7) == (4, model.num_classes)
    assert model.get_classifier().out_features == 7
    model.reset_classifier(0)
    assert torch.equal(model(images), before)
    assert before.shape == (4, model.head_hidden_size) == (4, model.num_features)


def test_pooling_takes_the_largest_or_the_mean_of_the_grid(images: Tensor) -> None:
    model = small()
    grid = model.forward_features(images)
    assert torch.equal(model.forward_head(grid, pre_logits=True), grid.flatten(2).max(2).values)
    model.reset_classifier(10, "avg")
    torch.testing.assert_close(model.forward_head(grid, pre_logits=True), grid.flatten(2).mean(2))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"global_pool": "catavgmax"}, "no global pool 'catavgmax'"),
        ({"widths": (8, 16)}, r"no widths \(8, 16\)"),
        ({"widths": (8, 16, 0)}, r"no widths \(8, 16, 0\)"),
    ],
)
def test_a_wrong_argument_is_refused_by_its_value(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(VtzooError, match=message) as refused:
        SmallCNN(**wrong)
    assert refused.value.hint


def test_a_format_other_than_nchw_is_refused(shared: Any, images: Tensor) -> None:
    with pytest.raises(VtzooError, match="'NHWC'"):
        shared.forward_intermediates(images, output_fmt="NHWC")


@pytest.mark.parametrize(("height", "width"), [(8, 32), (32, 8)])
def test_images_that_leave_the_last_block_no_cell_are_refused(height: int, width: int, shared: Any) -> None:
    with pytest.raises(VtzooError, match=f"{height} x {width} pixels") as refused:
        shared(torch.zeros(1, 3, height, width))
    assert refused.value.hint == "it takes 9 or more a side"


# Whitening


def whitened(images: Tensor) -> Any:
    model = small()
    model.whiten(images)
    return model


def test_whitened_patches_are_uncorrelated_and_of_variance_one(images: Tensor) -> None:
    model = whitened(images)
    kernels = model.whitening.weight.flatten(1)[:12]
    patches = torch.stack(
        [images[:, :, row : row + 2, column : column + 2].flatten(1) for row in range(31) for column in range(31)]
    ).flatten(0, 1)
    answers = (patches @ kernels.T).double()
    covariance = answers.T @ answers / len(answers)
    variances = covariance.diagonal()
    torch.testing.assert_close(covariance, variances.diag(), rtol=0, atol=1e-3)
    torch.testing.assert_close(variances, torch.ones_like(variances), rtol=0, atol=0.05)  # 0.96 where noise counts
    before = (patches.T @ patches / len(patches)).double()
    assert (before / before.diagonal().mean() - torch.eye(12)).abs().max() > 0.5  # they were correlated


def test_the_convolution_is_the_whitening_of_every_patch_and_both_signs_of_it(images: Tensor) -> None:
    model = whitened(images)
    grid = nn.functional.conv2d(images, model.whitening.weight)
    torch.testing.assert_close(grid[:, :12], -grid[:, 12:])
    patch = images[2, :, 5:7, 9:11].flatten()
    torch.testing.assert_close(grid[2, :, 5, 9], model.whitening.weight.flatten(1) @ patch)
    assert grid[:, 0].abs().mean() > 0.5  # the first is no noise


def test_images_of_one_colour_alone_are_whitened_to_something_finite() -> None:
    assert whitened(torch.ones(2, 3, 16, 16)).whitening.weight.isfinite().all()


def test_the_whitening_stays_as_it_is_through_training_and_through_a_file(images: Tensor) -> None:
    model = whitened(images).train()
    before = model.whitening.weight.clone()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0, weight_decay=0.1)
    model(images).square().sum().backward()
    optimizer.step()
    assert torch.equal(model.whitening.weight, before)
    other = small()
    other.load_state_dict(model.state_dict())
    assert torch.equal(other.whitening.weight, before)
    assert not other.whitening.weight.requires_grad
    assert other.whitening.bias.requires_grad


# The interface for timm and the exporter


def test_timm_loads_a_saved_folder_by_its_config(shared: Any, images: Tensor, tmp_path: Any) -> None:
    config = {
        "architecture": "vtzoo_small_cnn",
        "num_classes": 10,
        "model_args": {"widths": list(WIDTHS)},
        "pretrained_cfg": {"input_size": [3, 32, 32], "first_conv": "whitening", "classifier": "head"},
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    save_file(shared.state_dict(), tmp_path / "model.safetensors", metadata={"format": "pt"})
    loaded = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
    assert torch.equal(loaded(images), shared(images))
    adapted = timm.create_model(f"local-dir:{tmp_path}", pretrained=True, num_classes=3)
    assert adapted(images).shape == (4, 3)


def test_layers_are_told_apart_from_the_images_to_the_head(shared: Any) -> None:
    found = group_parameters(shared, shared.group_matcher(), reverse=True)
    layers = {"whitening.weight": 0, "blocks.0.conv1.weight": 1, "blocks.2.norm2.bias": 3, "head.weight": 4}
    assert found.keys() == {name for name, _ in shared.named_parameters()}
    assert {name: found[name] for name in layers} == layers


def test_images_in_any_memory_format_have_the_same_logits(shared: Any, images: Tensor) -> None:
    assert torch.equal(shared(images.contiguous(memory_format=torch.channels_last)), shared(images))


def test_an_exported_graph_takes_any_batch(shared: Any, images: Tensor) -> None:
    batch = {0: torch.export.Dim("batch", min=1, max=64)}
    graph = torch.export.export(shared, (images[:2],), dynamic_shapes=(batch,)).module()
    torch.testing.assert_close(graph(images), shared(images))
