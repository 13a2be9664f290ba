"""The default recipe of fine-tuning, and the pretrained models it accepts."""

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file

from vtzoo import models
from vtzoo.data.labelled_images import LabelledImages
from vtzoo.data.read import read_images
from vtzoo.errors import VtzooError
from vtzoo.finetune.defaults import Overrides, batch_size, complete, default_recipe
from vtzoo.finetune.pretrained import open_pretrained
from vtzoo.finetune.run import finetune
from vtzoo.finetune.session import Session, prepare
from vtzoo.zoo.recipe import Recipe
from vtzoo.zoo.recipe_files import parse_recipe

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def session(tiny_source: Path, people: Path) -> Session:
    return prepare(tiny_source, read_images(people), device="cpu")


def recipe_for(session: Session, images: int, multi_label: bool = False, **overrides: Any) -> Recipe:
    return default_recipe(
        session.pretrained,
        session.network.model,
        dataset="a",
        images=images,
        multi_label=multi_label,
        overrides=Overrides(**overrides),
        device=CPU,
    )[0]


@pytest.mark.parametrize(
    ("images", "batch", "steps", "mixed"),
    [
        (2, 2, 400, False), (10, 8, 400, False), (100, 8, 396, False), (1_020, 32, 992, False),
        (2_040, 32, 1_008, True), (10_000, 64, 1_560, True), (100_000, 64, 15_620, True),
        (1_000_000, 64, 31_250, True),  # two epochs, the minimum
    ],
)  # fmt: skip
def test_small_sets_get_hundreds_of_steps_and_large_ones_ten_epochs(
    images: int, batch: int, steps: int, mixed: bool, session: Session
) -> None:
    recipe = recipe_for(session, images)
    assert (recipe.optimizer.batch_size, recipe.steps) == (batch, steps)
    assert bool(recipe.augmentation.mixup) == mixed
    assert recipe.finetune
    assert recipe.finetune.head_epochs >= 1


@pytest.mark.parametrize(("images", "batch"), [(1, 8), (64, 8), (129, 16), (4_096, 64), (10**6, 64)])
def test_a_batch_grows_with_the_square_root_of_the_images(images: int, batch: int) -> None:
    assert batch_size(images) == batch


def test_an_override_replaces_only_its_own_default(session: Session) -> None:
    default, changed = recipe_for(session, 100), recipe_for(session, 100, batch_size=20, learning_rate=0.5, flip=False)
    assert (changed.optimizer.batch_size, changed.optimizer.learning_rate) == (20, 0.5)
    assert (default.augmentation.flip, changed.augmentation.flip) == (True, False)
    assert changed.model == default.model
    assert recipe_for(session, 100, epochs=1).schedule.epochs == 1
    assert recipe_for(session, 100, epochs=30).steps == 30 * 12


def test_a_recipe_is_equal_to_its_parsed_text(session: Session) -> None:
    assert parse_recipe(session.text) == session.recipe
    assert complete(session.recipe) == (session.recipe, session.text)


@pytest.mark.parametrize(
    "key", ["images = 0", "head_epochs = -1", "layer_decay = 1.5", "look_epochs = 0", "patience = 0"]
)
def test_a_value_out_of_its_range_is_refused_by_name(key: str, session: Session) -> None:
    name = key.partition(" ")[0]
    lines = [key if line.startswith(f"{name} = ") else line for line in session.text.splitlines()]
    with pytest.raises(VtzooError, match=f"finetune: {name} is out of range"):
        parse_recipe("\n".join(lines))


def folder(path: Path, architecture: str, size: int | list[int], **arguments: Any) -> Path:
    """Writes a model folder in timm's format, with random weights, and returns its path."""
    height, width = (size, size) if isinstance(size, int) else size
    pretrained_cfg = {"input_size": [3, height, width], "mean": [0.5] * 3, "std": [0.5] * 3, "num_classes": 7}
    config = {"architecture": architecture, "num_classes": 7, "model_args": arguments, "pretrained_cfg": pretrained_cfg}
    path.mkdir()
    (path / "config.json").write_text(json.dumps(config))
    save_file(models.create(config).state_dict(), path / "model.safetensors")
    return path


@pytest.mark.parametrize(
    ("architecture", "size", "arguments", "weight", "stage"),
    [
        ("vit_tiny_patch16_224", 64, {"img_size": 64, "depth": 3}, 0.1, 2),
        ("swin_tiny_patch4_window7_224", 64, {"img_size": 64, "depths": [1, 1, 1, 1], "window_size": 4}, 0.5, 2),
        ("resnet18", 64, {}, 0.1, 3),
    ],
)
def test_timms_models_localize_in_the_last_grid_of_at_least_four_cells_a_side_with_the_papers_weight(
    architecture: str, size: int, arguments: dict[str, Any], weight: float, stage: int, people: Path, tmp_path: Path
) -> None:
    session = prepare(folder(tmp_path / "it", architecture, size, **arguments), read_images(people), device="cpu")
    assert session.recipe.drloc
    assert (session.recipe.drloc.weight, session.recipe.drloc.pairs, session.recipe.drloc.stage) == (weight, 64, stage)
    assert not session.reused
    assert session.network.model.get_classifier().out_features == 3
    assert session.recipe.precision == "float32"


def test_a_model_without_a_large_enough_grid_is_fine_tuned_without_localization_and_the_session_says_so(
    people: Path, tmp_path: Path
) -> None:
    source = folder(tmp_path / "it", "vit_tiny_patch16_224", 32, img_size=32, depth=1)
    session = prepare(source, read_images(people), device="cpu")
    assert session.recipe.drloc is None
    assert "localization: none" in [*session.sentences()]


def refusal(source: Path | str, labelled: LabelledImages) -> str:
    with pytest.raises(VtzooError) as raised:
        prepare(source, labelled, device="cpu")
    return f"{raised.value.message} | {raised.value.hint}"


def test_an_untrainable_model_is_refused_in_a_sentence(
    people: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    labelled = read_images(people)
    assert "is a graph, whose weights cannot be trained" in refusal("model.onnx", labelled)
    wide = folder(tmp_path / "wide", "resnet18", [32, 64])
    message = "takes images of 32 x 64 pixels, and training makes squares | choose a size: --image-size 32"
    assert message in refusal(wide, labelled)
    assert prepare(wide, labelled, overrides=Overrides(image_size=32), device="cpu").pretrained.preprocess.shape == (
        3,
        32,
        32,
    )
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert "fine-tuning runs in a single process" in refusal(wide, labelled)


@pytest.mark.parametrize(
    ("architecture", "arguments"),
    [
        ("vit_tiny_patch16_224", {"img_size": 64, "depth": 2}),
        ("swin_tiny_patch4_window7_224", {"img_size": 64, "depths": [1, 1, 1, 1], "window_size": 4}),
        ("vtzoo_t2t_vit_14", {"img_size": 64}),
        ("vtzoo_cvt_13", {}),
        ("resnet18", {}),
    ],
)
def test_a_model_at_another_image_size_gives_the_logits_of_timms_own_with_the_same_weights(
    architecture: str, arguments: dict[str, Any], tmp_path: Path
) -> None:
    path = folder(tmp_path / "it", architecture, 64, **arguments)
    source = open_pretrained(path, image_size=96)
    assert source.preprocess.shape == (3, 96, 96)
    assert source.pretrained_cfg["input_size"] == [3, 96, 96]
    sized = arguments | ({"img_size": 96} if "img_size" in arguments else {})
    overlay = {"file": str(path / "model.safetensors"), "num_classes": 7, "hf_hub_id": None, "url": ""}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # warnings about timm's resampling
        reference = timm.create_model(
            architecture, pretrained=True, pretrained_cfg_overlay=overlay, num_classes=7, **sized
        )
    images = torch.rand(2, 3, 96, 96)
    with torch.no_grad():
        assert torch.equal(source.model.eval()(images), reference.eval()(images))


def test_a_model_is_fine_tuned_at_another_size_and_the_session_says_so(people: Path, tmp_path: Path) -> None:
    path = folder(tmp_path / "it", "vit_tiny_patch16_224", 32, img_size=32, depth=1)
    session = prepare(path, read_images(people), overrides=Overrides(image_size=64), device="cpu")
    assert (session.recipe.model.image_size, session.config().content["model_args"]["img_size"]) == (64, 64)
    assert session.config().content["pretrained_cfg"]["input_size"] == [3, 64, 64]
    assert session.recipe.drloc  # a grid of 4 x 4 cells; at 32 px it has 2 x 2
    assert next(session.sentences()).startswith("model: it at 64 px (trained at 32 px), ")


@pytest.mark.parametrize(
    ("architecture", "arguments", "reason"),
    [
        ("vit_tiny_patch16_224", {"img_size": 64, "depth": 1}, "its patches are 16 x 16"),
        ("xcit_nano_12_p16_224", {"depth": 1}, "`patch_size` should divide image dimensions evenly"),
        ("efficientvit_m0", {}, "its patches are 16 x 16"),
    ],
)
def test_a_size_that_a_model_cannot_take_is_refused_in_a_sentence(
    architecture: str, arguments: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    path = folder(tmp_path / "it", architecture, 64, **arguments)
    with pytest.raises(VtzooError) as raised:
        open_pretrained(path, image_size=40)
    assert raised.value.message == f"it cannot be made for images of 40 x 40 pixels: {reason}"
    assert raised.value.hint == "choose another --image-size: most take multiples of 32"


def test_a_pretrained_folder_without_weights_is_refused_in_a_sentence(people: Path, tmp_path: Path) -> None:
    source = folder(tmp_path / "it", "resnet18", 32)
    (source / "model.safetensors").unlink()
    assert "cannot read" in refusal(source, read_images(people))


def test_a_model_that_cannot_be_exported_is_refused_before_training(
    people: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = prepare(folder(tmp_path / "it", "resnet18", 64), read_images(people), device="cpu")
    monkeypatch.setattr(
        session.network.model, "forward_features", lambda images: images if images.sum() > 0 else -images
    )
    with pytest.raises(VtzooError, match="resnet18 cannot be exported to ONNX"):
        finetune(session, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_pretrained_model_with_an_unreadable_recipe_is_fine_tuned_without_it(
    people: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = folder(tmp_path / "it", "resnet18", 64)
    (source / "recipe.toml").write_text("steps = 3\n")
    session = prepare(source, read_images(people), device="cpu")
    assert session.pretrained.recipe is None
    assert "is fine-tuned without its recipe" in caplog.text
