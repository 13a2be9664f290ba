"""T2T-ViT-14: its performer against exact attention, its splits and positions, and its interface for timm."""

import json
import math

import pytest
import timm
import torch
from safetensors.torch import save_file

from vtzoo.errors import VtzooError
from vtzoo.models import t2t


def small(**arguments):
    """A T2T-ViT-14 for 32 px and ten classes, ready to predict."""
    torch.manual_seed(0)
    return timm.create_model("vtzoo_t2t_vit_14", num_classes=10, img_size=32, strides=(1, 2, 2), **arguments).eval()


@pytest.fixture(scope="module")
def shared():
    """The model of `small()`, for tests that do not change it."""
    return small()


def draw(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def performed():
    """Queries, keys, values and directions for 2 images, 50 tokens and 64 channels."""
    query, key, value = draw(3, 2, 50, 64) * 0.7
    return query, key, value, t2t.Performer(147, 0.0).directions


def attend_directly(query, key, value, directions):
    """The same kernel in float64, one direction at a time, with explicit n x n weights."""
    query, key, value, directions = (tensor.double() for tensor in (query, key, value, directions))
    kernel = torch.zeros(*query.shape[:2], key.shape[1], dtype=torch.float64)
    for direction in directions:
        left = torch.exp(query @ direction - query.norm(dim=-1) ** 2 / 2)
        right = torch.exp(key @ direction - key.norm(dim=-1) ** 2 / 2)
        kernel += left[:, :, None] * right[:, None, :]
    return (kernel / kernel.sum(-1, keepdim=True)) @ value


@pytest.mark.parametrize("scale", [0.1, 1, 3])  # at 3 the features are as small as exp(-200)
def test_the_performer_equals_quadratic_attention_with_its_kernel(performed, scale):
    query, key, value, directions = performed
    expected = attend_directly(scale * query, scale * key, value, directions)
    answer = t2t.performer_attention(scale * query, scale * key, value, directions)
    torch.testing.assert_close(answer.double(), expected, rtol=1e-4, atol=1e-4)


def test_gradients_equal_those_of_quadratic_attention(performed):
    *tokens, directions = performed
    gradients = []
    for attend in (t2t.performer_attention, attend_directly):
        leaves = [token.clone().requires_grad_() for token in tokens]
        attend(*leaves, directions).square().sum().backward()
        gradients.append([leaf.grad for leaf in leaves])
    torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-4)


def test_many_normal_directions_come_near_softmax_attention(performed):
    query, key, value, _ = performed
    directions = torch.randn(100_000, 64, generator=torch.Generator().manual_seed(3))
    softmax = torch.softmax(query @ key.mT / 64, dim=-1) @ value  # tokens an eighth as long: a kernel of exp(q.k / 64)
    answer = t2t.performer_attention(query / 8, key / 8, value, directions)
    assert (answer - softmax).abs().max() < 0.02 < (softmax - value.mean(dim=1, keepdim=True)).abs().max()


def test_a_shuffle_of_keys_and_values_changes_nothing_and_of_queries_shuffles_the_answers(performed):
    query, key, value, directions = performed
    order = torch.randperm(50, generator=torch.Generator().manual_seed(2))
    answer = t2t.performer_attention(query, key, value, directions)
    torch.testing.assert_close(t2t.performer_attention(query, key[:, order], value[:, order], directions), answer)
    torch.testing.assert_close(t2t.performer_attention(query[:, order], key, value, directions), answer[:, order])


def test_the_weights_of_a_query_sum_to_one(performed):
    query, key, _, directions = performed
    ones = torch.ones_like(key)
    torch.testing.assert_close(t2t.performer_attention(query, key, ones, directions), ones)


@pytest.mark.parametrize("scale", [0, 30, 3000])
def test_tokens_far_from_zero_neither_overflow_nor_underflow(performed, scale):
    query, key, value, directions = performed
    query, key = (query * scale).requires_grad_(), (key * scale).requires_grad_()
    answer = t2t.performer_attention(query, key, value.exp(), directions)
    answer.sum().backward()
    assert answer.min() >= value.exp().min() * 0.9999
    assert answer.max() <= value.exp().max() * 1.0001
    assert query.grad.isfinite().all()
    assert key.grad.isfinite().all()


def test_images_of_a_batch_do_not_see_each_other(performed):
    *tokens, directions = performed
    alone = t2t.performer_attention(*(token[:1] for token in tokens), directions)
    torch.testing.assert_close(alone, t2t.performer_attention(*tokens, directions)[:1])


def test_directions_are_orthogonal_of_length_sqrt_32_and_never_trained():
    directions = t2t.Performer(147, 0.0).directions
    torch.testing.assert_close(directions @ directions.T, 32 * torch.eye(32), atol=1e-4, rtol=0)
    assert not directions.requires_grad


def test_t2t_vit_14_has_the_parameters_of_the_released_model():
    model = timm.create_model("vtzoo_t2t_vit_14")
    fixed = {name: p.numel() for name, p in model.named_parameters() if not p.requires_grad}
    assert fixed == {
        "pos_embed": 197 * 384,
        "patch_embed.performer1.directions": 32 * 64,
        "patch_embed.performer2.directions": 32 * 64,
    }
    assert sum(p.numel() for p in model.parameters()) == 21_545_550  # the released count, fixed tables included
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == 21_465_806


def test_a_soft_split_lists_the_patch_around_each_cell():
    grid = draw(1, 2, 6, 4)
    padded = torch.nn.functional.pad(grid, (1, 1, 1, 1))
    patches = [padded[0, :, row : row + 3, column : column + 3].flatten() for row in (0, 2, 4) for column in (0, 2)]
    assert torch.equal(t2t.soft_split(grid, kernel=3, stride=2)[0], torch.stack(patches))


@pytest.mark.parametrize(("kernel", "stride", "paper"), [(7, 4, 2), (3, 2, 1)])
def test_the_paddings_are_the_papers(kernel, stride, paper):
    assert t2t.padding(kernel, stride) == paper


@pytest.mark.parametrize(
    ("size", "strides", "grid"),
    [((224, 224), (4, 2, 2), (14, 14)), ((32, 32), (1, 2, 2), (8, 8)), ((64, 96), (2, 2, 2), (8, 12))],
)
def test_image_size_and_strides_set_the_grid_and_its_positions(size, strides, grid):
    model = timm.create_model("vtzoo_t2t_vit_14", num_classes=2, img_size=size, strides=strides).eval()
    tokens, [cells] = model.forward_intermediates(torch.zeros(1, 3, *size), indices=[-1], norm=True)
    assert cells.shape == (1, 384, *grid)
    assert model.pos_embed.shape == tokens.shape == (1, 1 + math.prod(grid), 384)


def test_the_positions_are_sines_and_cosines_of_falling_rate():
    table = t2t.sinusoid_table(positions=3, width=4)
    expected = [[f(p * rate) for rate in (1, 0.01) for f in (math.sin, math.cos)] for p in range(3)]
    torch.testing.assert_close(table, torch.tensor(expected))


def test_an_image_of_another_size_is_refused_with_both_sizes(shared):
    with pytest.raises(VtzooError, match=r"\(32, 32\) .* px, not \(32, 40\)"):
        shared(torch.zeros(1, 3, 32, 40))


@pytest.mark.parametrize("strides", [(4, 2), (0, 2, 2)])
def test_strides_that_are_not_three_are_refused(strides):
    with pytest.raises(VtzooError, match="no strides"):
        timm.create_model("vtzoo_t2t_vit_14", strides=strides)


def test_the_grid_is_the_forward_pass_that_the_logits_come_from(shared):
    model, images = shared, draw(2, 3, 32, 32)
    tokens, _ = model.forward_intermediates(images)
    torch.testing.assert_close(model.forward_head(tokens), model(images))


def test_dropped_paths_rise_over_the_blocks_and_leave_prediction_alone(shared):
    model, images = small(drop_path_rate=0.1), draw(2, 3, 32, 32)
    assert model.blocks[13].drop_path1.drop_prob == pytest.approx(0.1)
    assert model.blocks[6].drop_path1.drop_prob == pytest.approx(0.1 * 6 / 13)
    assert torch.equal(model(images), shared(images))


def test_the_performers_drop_tokens_in_training_unless_told_not_to():
    embed, images = small().train().patch_embed, draw(1, 3, 32, 32)
    assert not torch.equal(embed(images), embed(images))
    still = small(token_drop_rate=0.0).train().patch_embed
    assert torch.equal(still(images), still(images))


def test_autocast_to_bfloat16_stays_near_float32(shared):
    model, images = shared, draw(2, 3, 32, 32)
    with torch.autocast("cpu", torch.bfloat16):
        half = model(images)
    assert (half.float() - model(images)).abs().max() < 0.05


def test_every_trained_parameter_gets_a_gradient():
    model = small().train()
    (model(draw(4, 3, 32, 32)) * draw(4, 10)).sum().backward()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    assert all(parameter.grad.any() and parameter.grad.isfinite().all() for parameter in trained)


def test_an_exported_graph_takes_any_batch(shared):
    model = shared
    batch = {0: torch.export.Dim("batch", min=1, max=64)}
    graph = torch.export.export(model, (draw(2, 3, 32, 32),), dynamic_shapes=(batch,)).module()
    images = draw(5, 3, 32, 32)
    torch.testing.assert_close(graph(images), model(images))


def save(model, folder, **model_args):
    """A model folder in timm's Hub format."""
    config = {
        "architecture": "vtzoo_t2t_vit_14",
        "num_classes": 10,
        "model_args": model_args,
        "pretrained_cfg": {"input_size": [3, 32, 32], "fixed_input_size": True, "classifier": "head"},
    }
    (folder / "config.json").write_text(json.dumps(config))
    save_file(model.state_dict(), folder / "model.safetensors", metadata={"format": "pt"})


def test_timm_loads_a_saved_folder_by_its_config(shared, tmp_path):
    model, images = shared, draw(2, 3, 32, 32)
    save(model, tmp_path, img_size=32, strides=[1, 2, 2])
    loaded = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
    assert torch.equal(loaded(images), model(images))


def test_weights_of_one_image_size_load_into_a_model_of_another_with_its_own_positions(shared, tmp_path):
    save(shared, tmp_path, img_size=32, strides=[1, 2, 2])
    larger = timm.create_model(f"local-dir:{tmp_path}", pretrained=True, img_size=64, strides=(2, 2, 2), num_classes=3)
    assert torch.equal(larger.pos_embed[0], t2t.sinusoid_table(65, 384))
    assert torch.equal(larger.blocks[3].attn.qkv.weight, shared.blocks[3].attn.qkv.weight)
    assert larger(torch.zeros(2, 3, 64, 64)).shape == (2, 3)
