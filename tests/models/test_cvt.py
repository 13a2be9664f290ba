"""CvT-13 against transformers' implementation, and its interface for timm and drloc."""

import json

import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.models import group_parameters
from torch import nn
from transformers import CvtConfig, CvtForImageClassification

from vtzoo.errors import VtzooError
from vtzoo.models.cvt_conversion import convert_transformers


def small(**arguments):
    """A CvT-13 for 32 px and ten classes, ready to predict."""
    torch.manual_seed(0)
    return timm.create_model("vtzoo_cvt_13", num_classes=10, img_size=[32, 32], patch_size=2, **arguments).eval()


@pytest.fixture(scope="module")
def shared():
    """The model of `small()`, for tests that do not change it."""
    return small()


@pytest.fixture(scope="module")
def reference():
    """The CvT-13 of transformers with random weights, batch statistics included."""
    torch.manual_seed(0)
    model = CvtForImageClassification(CvtConfig(num_labels=1000)).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d | nn.LayerNorm):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias)
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.1, 2)
    return model


@pytest.fixture(scope="module")
def images():
    return torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(1))


def load(reference, **arguments):
    model = timm.create_model("vtzoo_cvt_13", **arguments).eval()
    model.load_state_dict(convert_transformers(reference.state_dict()))
    return model


@torch.no_grad()
def test_logits_and_grids_equal_transformers(reference, images):
    ours, theirs = load(reference), reference(images, output_hidden_states=True)
    assert (ours(images) - theirs.logits).abs().max() < 1e-4
    for grid, expected in zip(ours.forward_intermediates(images)[1], theirs.hidden_states, strict=True):
        assert (grid - expected).abs().max() < 1e-4


@torch.no_grad()
def test_quick_gelu_is_the_activation_of_the_released_weights(reference, images):
    ours = load(reference, act_layer="quick_gelu")
    for stage in reference.cvt.encoder.stages:
        for layer in stage.layers:
            layer.intermediate.register_forward_hook(  # x * sigmoid(1.702 x), as in microsoft/CvT
                lambda module, inputs, _: module.dense(inputs[0]) * torch.sigmoid(1.702 * module.dense(inputs[0]))
            )
    assert (ours(images[:1]) - reference(images[:1]).logits).abs().max() < 1e-4


def test_cvt_13_has_the_parameters_of_transformers(reference):
    ours = timm.create_model("vtzoo_cvt_13")
    assert sum(p.numel() for p in ours.parameters()) == 19_997_480
    assert sum(p.numel() for p in reference.parameters()) == 19_997_480


def test_a_foreign_weight_is_refused_by_its_name():
    with pytest.raises(VtzooError, match="embeddings") as refused:
        convert_transformers({"vit.embeddings": torch.zeros(1)})
    assert "CvtForImageClassification" in refused.value.hint


@pytest.mark.parametrize(("patch_size", "sides"), [(2, [16, 8, 4]), (4, [8, 4, 2]), (8, [4, 2, 1])])
def test_the_patch_size_sets_the_grids(patch_size, sides):
    model = timm.create_model("vtzoo_cvt_13", patch_size=patch_size).eval()
    _, grids = model.forward_intermediates(torch.zeros(1, 3, 32, 32))
    assert [tuple(grid.shape) for grid in grids] == [(1, c, s, s) for c, s in zip((64, 192, 384), sides, strict=True)]
    assert [info["reduction"] for info in model.feature_info] == [32 // side for side in sides]


def test_a_grid_keeps_rows_and_columns_of_an_image_that_is_not_square(shared):
    grids = shared.forward_intermediates(torch.zeros(1, 3, 32, 48), indices=[0, -1], intermediates_only=True)
    assert [tuple(grid.shape[2:]) for grid in grids] == [(16, 24), (4, 6)]


def test_the_last_grid_can_be_had_normalized_and_is_what_the_features_hold(shared):
    tokens, [grid] = shared.forward_intermediates(torch.randn(2, 3, 32, 32), indices=1, norm=True)
    torch.testing.assert_close(grid.flatten(2).transpose(1, 2), tokens[:, 1:])


def test_the_grid_is_the_forward_pass_that_the_logits_come_from(shared):
    model, images = shared, torch.randn(2, 3, 32, 32)
    tokens, _ = model.forward_intermediates(images)
    torch.testing.assert_close(model.forward_head(tokens), model(images))
    torch.testing.assert_close(tokens, model.forward_features(images))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"patch_size": 16}, "patch size 16"),
        ({"global_pool": "max"}, "global pool 'max'"),
        ({"act_layer": "relu"}, "activation 'relu'"),
    ],
)
def test_a_wrong_argument_is_refused_by_its_value(wrong, message):
    with pytest.raises(VtzooError, match=message):
        timm.create_model("vtzoo_cvt_13", **wrong)


def test_a_format_other_than_nchw_is_refused(shared):
    with pytest.raises(VtzooError, match="'NLC'"):
        shared.forward_intermediates(torch.zeros(1, 3, 32, 32), output_fmt="NLC")


def test_paths_are_dropped_in_the_last_stage_alone_and_rise_to_the_rate():
    model = small(drop_path_rate=0.2)
    rates = [[block.drop_path.drop_prob for block in stage.blocks] for stage in model.stages]
    assert rates[:2] == [[0], [0, 0]]
    assert rates[2] == pytest.approx([0.2 * block / 9 for block in range(10)])


def test_dropped_paths_change_training_and_not_prediction(shared):
    model, images = small(drop_path_rate=0.9), torch.randn(4, 3, 32, 32)
    assert torch.equal(model(images), shared(images))
    model.train()
    assert not torch.equal(model(images), model(images))


def test_a_new_classifier_changes_the_logits_and_not_the_features():
    model, images = small(), torch.randn(2, 3, 32, 32)
    before = model.forward_head(model.forward_features(images), pre_logits=True)
    model.reset_classifier(7)
    assert model(images).shape == (2, 7) == (2, model.num_classes)
    assert model.get_classifier().out_features == 7
    model.reset_classifier(0)
    assert torch.equal(model(images), before)
    assert before.shape == (2, model.head_hidden_size)


def test_average_pooling_takes_the_mean_of_the_grid_without_the_class_token():
    model = small(global_pool="avg")
    tokens = model.forward_features(torch.randn(2, 3, 32, 32))
    torch.testing.assert_close(model.forward_head(tokens, pre_logits=True), tokens[:, 1:].mean(1))


def test_autocast_to_bfloat16_stays_near_float32(shared):
    model, images = shared, torch.randn(2, 3, 32, 32)
    with torch.autocast("cpu", torch.bfloat16):
        half = model(images)
    assert (half.float() - model(images)).abs().max() < 0.05


def test_every_parameter_that_the_class_token_sees_gets_a_gradient():
    model = small().train()
    (model(torch.randn(4, 3, 32, 32)) * torch.randn(4, 10)).sum().backward()
    still = {name for name, parameter in model.named_parameters() if parameter.grad is None or not parameter.grad.any()}
    # Shifting all keys changes no softmax, and the class token does not read the queries of the last block's cells.
    unseen = {name for name in still if name.endswith((".k.linear.bias", ".k.bn.bias"))}
    assert still - unseen <= {f"stages.2.blocks.9.attn.q.{name}" for name in ("conv.weight", "bn.weight", "bn.bias")}


def test_an_exported_graph_takes_any_batch(shared):
    model = shared
    batch = {0: torch.export.Dim("batch", min=1, max=64)}
    graph = torch.export.export(model, (torch.randn(2, 3, 32, 32),), dynamic_shapes=(batch,)).module()
    images = torch.randn(5, 3, 32, 32)
    torch.testing.assert_close(graph(images), model(images))


def test_timm_loads_a_saved_folder_by_its_config(shared, tmp_path):
    model, images = shared, torch.randn(2, 3, 32, 32)
    config = {
        "architecture": "vtzoo_cvt_13",
        "num_classes": 10,
        "model_args": {"img_size": 32, "patch_size": 2},
        "pretrained_cfg": {"input_size": [3, 32, 32], "first_conv": "stages.0.embed.proj", "classifier": "head"},
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    save_file(model.state_dict(), tmp_path / "model.safetensors", metadata={"format": "pt"})
    loaded = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
    assert torch.equal(loaded(images), model(images))
    adapted = timm.create_model(f"local-dir:{tmp_path}", pretrained=True, num_classes=3, in_chans=1)
    assert adapted(images[:, :1]).shape == (2, 3)


def test_timm_makes_a_backbone_of_grids_of_it():
    backbone = small(features_only=True, out_indices=(1, 2))
    assert [tuple(grid.shape) for grid in backbone(torch.zeros(1, 3, 32, 32))] == [(1, 192, 8, 8), (1, 384, 4, 4)]
    assert backbone.feature_info.channels() == [192, 384]


def test_the_class_token_is_named_for_no_weight_decay(shared):
    model = shared
    assert model.no_weight_decay() == {name for name, _ in model.named_parameters() if "cls_token" in name} != set()


def test_layers_are_told_apart_from_the_images_to_the_head(shared):
    found = group_parameters(shared, shared.group_matcher(), reverse=True)
    assert found.keys() == {name for name, _ in shared.named_parameters()}
    heads = ("stages.0.embed", "stages.0.blocks.0", "stages.1.embed", "stages.1.blocks.0", "stages.1.blocks.1")
    heads += ("stages.2.embed", *(f"stages.2.blocks.{block}" for block in range(10)))
    others = {"stages.2.cls_token": 5, "norm.weight": 15, "norm.bias": 15, "head.weight": 16, "head.bias": 16}
    for name, layer in found.items():
        expected = [number for number, head in enumerate(heads) if name.startswith(f"{head}.")]
        assert [layer] == (expected or [others[name]])
