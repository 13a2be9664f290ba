"""Fine-tuning a tiny model on a user's labelled images."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file
from sklearn.metrics import average_precision_score

from vtzoo import cards
from vtzoo.base import files
from vtzoo.data import named
from vtzoo.data.labelled_images import LabelledImages
from vtzoo.data.read import read_images
from vtzoo.data.transform import prepare as prepared
from vtzoo.errors import VtzooError
from vtzoo.finetune import run as tuning
from vtzoo.finetune.defaults import Overrides
from vtzoo.finetune.run import finetune
from vtzoo.finetune.session import Session, prepare
from vtzoo.hub import fetch
from vtzoo.predict.load import load
from vtzoo.train import loop, run
from vtzoo.zoo import lookup
from vtzoo.zoo.recipe_files import load_recipe
from vtzoo.zoo.result import Result

NAMES = ("Rote Grütze", "grün", "青")
QUICK = Overrides(epochs=12)

Trained = tuple[Path, Result, Session]


@pytest.fixture(scope="module")
def labelled(people: Path) -> LabelledImages:
    """Thirty training images, six validation images and twelve test images of three classes."""
    return read_images(people)


@pytest.fixture(scope="module")
def trained(tiny_source: Path, labelled: LabelledImages, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trained]:
    """The folder, the result and the session of a finished run of 30 epochs with otherwise default settings."""
    out = tmp_path_factory.mktemp("tuned") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "CHECKPOINT_SECONDS", 1e9)
        session = prepare(tiny_source, labelled, overrides=Overrides(epochs=30), device="cpu")
        yield out, finetune(session, out), session


@pytest.fixture
def unfinished(monkeypatch: pytest.MonkeyPatch) -> None:
    """Skips the export and the card, which take seconds; `finetune` returns the result of the training."""
    monkeypatch.setattr(tuning, "finish", lambda *_, result, **__: result)


def session_of(source: Path | str, labelled: LabelledImages, **overrides: Any) -> Session:
    return prepare(source, labelled, overrides=replace(QUICK, **overrides), device="cpu")


def text(error: pytest.ExceptionInfo[VtzooError]) -> str:
    return f"{error.value.message} | {error.value.hint}"


def test_the_run_is_a_model_folder_with_the_class_names_of_the_images(trained: Trained) -> None:
    out, result, _ = trained
    assert lookup.find_model(out).config.labels == NAMES
    assert set(result.weights) == {"model.safetensors", "onnx/model.onnx", "localizer.safetensors"}
    assert all(files.sha256(out / name) == sha256 for name, sha256 in result.weights.items())
    assert json.loads((out / "result.json").read_text()) == result.as_json()
    for backend in ("onnx", "torch"):
        classify = load(out, backend=backend, device="cpu")
        assert classify.labels == NAMES
        assert classify(np.full((20, 20, 3), (200, 60, 60), np.uint8)).argmax() == 0


def test_a_run_at_another_image_size_is_a_model_of_that_size(
    tiny_source: Path, labelled: LabelledImages, tmp_path: Path
) -> None:
    finetune(session_of(tiny_source, labelled, image_size=32, epochs=2), tmp_path / "run")
    entry = lookup.find_model(tmp_path / "run")
    assert entry.config.preprocess.shape == (3, 32, 32)
    assert load_recipe(tmp_path / "run" / "recipe.toml").model.image_size == 32
    photo = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    probabilities = [load(entry, backend=backend, device="cpu")(photo) for backend in ("onnx", "torch")]
    np.testing.assert_allclose(probabilities[0], probabilities[1], atol=1e-5)
    reference = timm.create_model(f"local-dir:{entry.folder}", pretrained=True)
    assert timm.data.resolve_model_data_config(reference)["input_size"] == (3, 32, 32)


def test_the_result_has_timms_accuracies_on_the_test_and_on_the_validation_images(
    trained: Trained, labelled: LabelledImages
) -> None:
    out, result, _ = trained
    assert (len(labelled.train), len(labelled.val)) == (result.train_images, result.held_images)
    assert result.split == "test"
    model = timm.create_model(f"local-dir:{out}", pretrained=True).eval()
    mean, std = (torch.tensor(named.named_set("cifar10").__dict__[name]).view(3, 1, 1) for name in ("mean", "std"))
    assert labelled.test
    for part, prefix in ((labelled.test, ""), (labelled.val, "held_")):
        pixels = [np.asarray(image.resize((16, 16), Image.Resampling.BICUBIC)) for image in part.encoded]
        images = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2) / 255
        with torch.inference_mode():
            predictions = model((images - mean) / std).argmax(1).numpy()
        assert getattr(result, f"{prefix}top1") == pytest.approx((predictions == part.targets).mean())
        assert (getattr(result, f"{prefix}top5"), getattr(result, f"{prefix}images")) == (1, len(part))
        assert getattr(result, f"{prefix}manifest") == part.fingerprint


def test_the_card_is_generated_from_the_folder_and_the_files_match_the_result(trained: Trained) -> None:
    out, result, _ = trained
    card = (out / "README.md").read_text()
    assert cards.card_of(lookup.find_model(out)) == card
    assert f"Fine-tuned from `{result_source(out)}`, on {result.train_images} images" in " ".join(card.split())
    (verdict,) = fetch.verify(str(out))
    assert (verdict.files, verdict.damaged) == (3, ())


def result_source(out: Path) -> str:
    recipe = load_recipe(out / "recipe.toml")
    assert recipe.finetune
    return recipe.finetune.source


def test_colours_are_learned_from_initial_weights(trained: Trained) -> None:
    assert trained[1].top1 > 0.9  # chance is a third


def test_the_recipe_in_the_folder_is_complete_and_describes_the_run(trained: Trained, tiny_source: Path) -> None:
    out, result, session = trained
    recipe = load_recipe(out / "recipe.toml")
    assert recipe == session.recipe
    assert recipe.finetune
    assert recipe.finetune.weights == files.sha256(tiny_source / "model.safetensors")
    assert (recipe.finetune.images, recipe.finetune.source) == (result.train_images, tiny_source.name)
    assert recipe.model.arguments["embed_dim"] == 16
    assert recipe.drloc
    assert (recipe.drloc.weight, recipe.drloc.pairs, recipe.drloc.stage) == (0.5, 16, 1)  # from the source's recipe
    assert result.recipe_sha256 == files.sha256(out / "recipe.toml")


def test_a_run_can_be_fine_tuned_again_and_keeps_the_head_of_the_same_classes(
    trained: Trained, labelled: LabelledImages, tiny_source: Path
) -> None:
    again = session_of(trained[0], labelled)
    assert again.kept
    stored = load_file(trained[0] / "model.safetensors")
    assert torch.equal(again.network.model.state_dict()["head.fc.weight"], stored["head.fc.weight"].float())
    assert "head: the model's own, as the classes are the same, 3 classes" in [*again.sentences()]
    fresh = session_of(tiny_source, labelled)
    assert not fresh.kept
    assert fresh.network.model.state_dict()["head.fc.weight"].shape == (3, 32)
    reordered = replace(labelled, classes=labelled.classes[::-1])
    assert not session_of(trained[0], reordered).kept


def test_the_session_describes_the_training_before_anything_is_written(
    tiny_source: Path, labelled: LabelledImages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    model, head, localization, training, time = session_of(tiny_source, labelled).sentences()
    assert model == f"model: {tiny_source.name} at 16 px, 18,710 parameters"
    assert head == "head: new, 3 classes"
    assert localization == "localization: weight 0.5, 16 pairs per image in the grid of stage 1, the model's own head"
    expected = (
        "training: at most 36 steps of 8 images, 12 epochs; the first 6 steps train the heads alone; learning rate "
    )
    assert training == f"{expected}0.001"
    assert time.startswith("time: at most ")
    assert time.endswith(" on this machine with its current load")
    assert list(tmp_path.iterdir()) == []


def test_describing_the_training_changes_nothing_in_it(tiny_source: Path, labelled: LabelledImages) -> None:
    session = session_of(tiny_source, labelled)
    before = {name: tensor.clone() for name, tensor in session.network.state_dict().items()}
    state = torch.get_rng_state()
    list(session.sentences())
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(before[name], tensor) for name, tensor in session.network.state_dict().items())
    assert all(parameter.grad is None for parameter in session.network.parameters())
    assert session.network.training


def test_the_localization_heads_are_the_pretrained_ones_if_they_fit(
    tiny_source: Path, labelled: LabelledImages
) -> None:
    session = session_of(tiny_source, labelled)
    stored = load_file(tiny_source / "localizer.safetensors")
    assert session.reused
    assert all(
        torch.equal(tensor, stored[name].float()) for name, tensor in session.network.heads[0].state_dict().items()
    )


def test_the_baseline_has_no_localization_and_the_name_of_a_baseline(
    tiny_source: Path, labelled: LabelledImages
) -> None:
    baseline, session = session_of(tiny_source, labelled, drloc=False), session_of(tiny_source, labelled)
    assert len(baseline.network.heads) == 0
    assert baseline.recipe == replace(session.recipe, name=baseline.recipe.name, drloc=None)
    assert (session.recipe.name, baseline.recipe.name) == (
        f"swin_t-drloc-{labelled.name}",
        f"swin_t-baseline-{labelled.name}",
    )
    assert "localization: none" in [*baseline.sentences()]
    own, other = (item.network.model.state_dict() for item in (session, baseline))
    assert all(torch.equal(own[name], tensor) for name, tensor in other.items())


def multi_label(labelled: LabelledImages) -> LabelledImages:
    """The same images with several labels: the next class is added, and every seventh label is unknown."""
    targets = np.eye(3, dtype=np.float32)[labelled.targets]
    targets += np.roll(targets, 1, axis=1)
    targets.flat[::7] = np.nan
    return replace(labelled, targets=targets)


def test_multi_label_images_are_learned_from_their_known_labels(
    tiny_source: Path, labelled: LabelledImages, tmp_path: Path
) -> None:
    session = prepare(tiny_source, multi_label(labelled), overrides=Overrides(epochs=40), device="cpu")
    result = finetune(session, tmp_path / "run")
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["multi_label"] is True
    assert result.top1 is None
    assert result.map > 0.9  # chance is two thirds
    assert session.recipe.augmentation.label_smoothing == session.recipe.augmentation.mix_probability == 0
    assert "head: new, 3 classes, any number of them per image" in [*session.sentences()]
    test = multi_label(labelled).test
    assert test
    logits = load(tmp_path / "run", backend="torch", device="cpu").run(
        np.stack([prepared(image, session.pretrained.preprocess) for image in test.encoded])
    )[0]
    known = ~np.isnan(test.targets)
    expected = [
        average_precision_score(test.targets[known[:, k], k], logits[known[:, k], k]) for k in range(3)
    ]  # fmt: skip
    assert result.map == pytest.approx(np.mean(expected))
    assert f"{result.map:.2%}" in (tmp_path / "run" / "README.md").read_text()


@pytest.mark.usefixtures("unfinished")
def test_unreadable_images_are_named_and_left_out_on_demand(tiny_source: Path, people: Path, tmp_path: Path) -> None:
    shutil.copytree(people, tmp_path / "photos")
    for part, count in (("train", 2), ("test", 1)):
        for number in range(count):
            broken = (people / part / "青" / f"Bild {number}.png").read_bytes()[: 300 + number]
            (tmp_path / "photos" / part / "grün" / f"kaputt {number}.png").write_bytes(broken)
    labelled = read_images(tmp_path / "photos")
    with pytest.raises(VtzooError, match="kaputt") as raised:
        finetune(session_of(tiny_source, labelled, epochs=2), tmp_path / "a")
    assert "--skip-bad leaves them out" in text(raised)
    result = finetune(session_of(tiny_source, labelled, epochs=2), tmp_path / "b", skip_bad=True)
    assert result.train_skipped + result.train_images == len(labelled.train)


@pytest.mark.usefixtures("unfinished")
def test_a_folder_with_another_run_is_refused_and_left_alone(
    tiny_source: Path, labelled: LabelledImages, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    finetune(session_of(tiny_source, labelled, epochs=2), out)
    before = (out / "checkpoint.safetensors").read_bytes()
    with pytest.raises(VtzooError, match="already holds a run"):
        finetune(session_of(tiny_source, labelled, epochs=2), out)
    for other in (
        session_of(tiny_source, labelled, epochs=3),
        prepare(tiny_source, labelled, overrides=Overrides(epochs=2), seed=1),
    ):
        with pytest.raises(VtzooError, match="belongs to another recipe, seed, data set or teacher"):
            finetune(other, out, resume=True)
    with pytest.raises(VtzooError, match="belongs to another recipe, seed or data set"):
        finetune(session_of(tiny_source, labelled, head_only=True), out, resume=True)
    assert (out / "checkpoint.safetensors").read_bytes() == before


def test_the_recipe_of_a_fine_tuned_run_is_not_trained_from_scratch(trained: Trained, tmp_path: Path) -> None:
    with pytest.raises(VtzooError, match="goes on from another model's weights") as raised:
        run.train(trained[0] / "recipe.toml", data=None, out=tmp_path / "run")
    assert "vtzoo finetune --model" in text(raised)
