import pytest
import timm
import torch

from vtzoo import models
from vtzoo.drloc import DenseRelativeLocalization
from vtzoo.errors import VtzooError

TINY = {"embed_dim": 16, "depths": [1, 1, 1, 1], "num_heads": [1, 1, 2, 2], "patch_size": 2, "window_size": 4}
FAMILIES = [  # timm's own names, image size, shape of the deepest grid
    ("swin_tiny_patch4_window7_224", 224, (768, 7, 7)),
    ("vit_tiny_patch16_224", 96, (192, 6, 6)),
    ("deit_tiny_distilled_patch16_224", 96, (192, 6, 6)),
    ("resnet18", 128, (512, 4, 4)),
    ("pvt_v2_b0", 128, (256, 4, 4)),
    ("convnext_atto", 128, (320, 4, 4)),
    ("coatnet_nano_rw_224", 128, (512, 4, 4)),
    ("nest_tiny", 128, (384, 8, 8)),
    ("maxvit_pico_rw_256", 128, (256, 4, 4)),
    ("mobilevit_xxs", 128, (320, 4, 4)),
    ("cait_xxs24_224", 96, (192, 6, 6)),
    ("beit_base_patch16_224", 96, (768, 6, 6)),
    ("edgenext_xx_small", 128, (168, 4, 4)),
]


def test_swin_t_with_ten_classes_has_the_released_number_of_parameters() -> None:
    assert models.parameter_count(models.build("swin_t", num_classes=10, image_size=224)) == 27_527_044


@pytest.mark.parametrize("name", models.MODELS)
def test_every_model_of_the_zoo_builds_and_classifies(name: str) -> None:
    model = models.build(name, num_classes=7, image_size=64).eval()
    with torch.no_grad():
        assert model(torch.randn(2, 3, 64, 64)).shape == (2, 7)


@pytest.mark.parametrize(("name", "image_size", "shape"), FAMILIES, ids=[row[0] for row in FAMILIES])
def test_grids_of_a_timm_family_are_spatial_maps(name: str, image_size: int, shape: tuple[int, ...]) -> None:
    model = models.build(name, num_classes=3, image_size=image_size).eval()
    with torch.no_grad():
        grids = models.grids(model, torch.randn(2, 3, image_size, image_size))
    assert grids[-1].shape == (2, *shape)
    assert DenseRelativeLocalization(shape[0])(grids[-1]).isfinite()
    sides = [grid.shape[-1] for grid in grids]
    assert sides == sorted(sides, reverse=True)


def test_a_grids_cell_lies_where_the_image_has_it() -> None:
    """Changing one corner of the image leaves the distant tokens of the first, local stage unchanged."""
    model = models.build("resnet18", num_classes=3, image_size=128).eval()
    image = torch.randn(1, 3, 128, 128)
    changed = image.clone()
    changed[:, :, :16, -16:] += 1.0  # top right
    with torch.no_grad():
        before, after = (models.grids(model, one)[1] for one in (image, changed))
    moved = (before - after).abs().sum(1)[0]
    assert moved[0, -1] > 0
    assert moved[-1, 0] == 0


def test_swins_grid_is_taken_before_the_final_norm() -> None:
    model = models.build("swin_t", num_classes=5, image_size=32, **TINY).eval()
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        deepest = models.grids(model, images)[-1]
        assert torch.allclose(model.norm(deepest.permute(0, 2, 3, 1)), model.forward_features(images), atol=1e-6)


def test_t2ts_grids_are_taken_after_the_final_norm_and_swins_before() -> None:
    model = models.build("t2t_vit_14", num_classes=5, image_size=32, strides=(2, 2, 2)).eval()
    images = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        deepest = models.grids(model, images)[-1]
        tokens = model.forward_features(images)[:, 1:]
    assert torch.allclose(deepest.flatten(2).transpose(1, 2), tokens, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "side", "pooled"),
    [("cvt_13", 14, 7), ("t2t_vit_14", 14, 7), ("cvt_13", 8, 8), ("t2t_vit_14", 8, 8), ("swin_t", 14, 14)],
)
def test_the_grids_that_the_paper_pools_are_averaged_over_real_cells_alone(name: str, side: int, pooled: int) -> None:
    model = models.build(name, num_classes=5, image_size=64)
    grid = torch.randn(2, 6, side, side)
    small = models.localizable(model, grid)
    assert small.shape == (2, 6, pooled, pooled)
    if pooled < side:  # the first window has a row and a column of padding, which the mean must exclude
        assert torch.allclose(small[:, :, 0, 0], grid[:, :, :2, :2].mean((2, 3)), atol=1e-6)
        assert torch.allclose(small[:, :, 1, 2], grid[:, :, 1:4, 3:6].mean((2, 3)), atol=1e-6)


def test_features_and_grids_give_the_models_own_logits() -> None:
    model = models.build("swin_t", num_classes=5, image_size=32, **TINY).eval()
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        features, (grid,) = models.features_and_grids(model, images, stages=[1])
        assert grid.shape == (2, 32, 8, 8)
        assert torch.equal(model.forward_head(features), model(images))


def test_another_timm_name_builds() -> None:
    assert models.parameter_count(models.build("vit_tiny_patch16_224", num_classes=5, image_size=32)) > 0


def test_a_config_builds_the_model_it_came_from() -> None:
    config = {"architecture": "swin_tiny_patch4_window7_224", "num_classes": 5, "model_args": {"img_size": 32, **TINY}}
    model = models.build("swin_t", num_classes=5, image_size=32, **TINY)
    models.create(config).load_state_dict(model.state_dict())


def test_an_unknown_model_brings_the_nearest_names() -> None:
    with pytest.raises(VtzooError, match="unknown model 'swin_tt'") as raised:
        models.build("swin_tt", num_classes=5, image_size=32)
    assert "swin_t" in str(raised.value.hint)


def test_an_argument_that_the_architecture_lacks_is_an_error() -> None:
    with pytest.raises(VtzooError, match=r"swin_t does not take these arguments: .*pach_size"):
        models.build("swin_t", num_classes=5, image_size=32, pach_size=4)


def test_a_model_without_grids_is_refused() -> None:
    with pytest.raises(VtzooError, match="Linear has no token grid to localize in"):
        models.grids(torch.nn.Linear(3, 3), torch.zeros(1, 3, 8, 8))


def test_cuda_without_cuda_is_an_error() -> None:
    if torch.cuda.is_available():
        pytest.skip("CUDA works here")
    assert models.pick_device("auto").type == "cpu"
    with pytest.raises(VtzooError, match="torch can use no CUDA device"):
        models.pick_device("cuda")


def test_an_architecture_is_told_its_image_size_only_if_it_asks() -> None:
    assert models.sized("swin_t", 32) == {"img_size": 32}
    assert models.sized("resnet_50", 32) == {}
    state = torch.random.get_rng_state()
    models.sized("vit_b_16", 32)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert timm.is_model(models.MODELS["cvt_13"])
