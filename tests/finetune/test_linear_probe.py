"""The linear head against scikit-learn's, and its features against the model's own."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from vtzoo import models
from vtzoo.data.read import read_images
from vtzoo.errors import VtzooError
from vtzoo.finetune import linear_probe
from vtzoo.finetune.defaults import Overrides
from vtzoo.finetune.run import finetune
from vtzoo.finetune.session import prepare
from vtzoo.predict.load import load
from vtzoo.train.criterion import MULTI_LABEL, SINGLE_LABEL, one_hot
from vtzoo.zoo import lookup
from vtzoo.zoo.recipe_files import load_recipe

CPU = torch.device("cpu")
Blobs = tuple[torch.Tensor, np.ndarray]


@pytest.fixture
def blobs() -> Callable[[int], Blobs]:
    """Draws 200 labelled points of four overlapping classes in twelve dimensions, neither centred nor of unit scale."""

    def draw(seed: int) -> Blobs:
        centres = np.random.default_rng(0).normal(size=(4, 12))
        random = np.random.default_rng(seed)
        labels = np.arange(200) % 4
        values = 7 + (centres[labels] + random.normal(0, 1.2, (200, 12))) * 30
        return torch.from_numpy(values.astype(np.float32)), labels

    return draw


def test_the_head_is_scikit_learns_at_the_same_penalty(blobs: Callable[[int], Blobs]) -> None:
    (train, labels), (val, others) = blobs(1), blobs(2)
    head = linear_probe.fit(
        train, torch.from_numpy(one_hot(labels, 4)), val, torch.from_numpy(one_hot(others, 4)), SINGLE_LABEL
    )
    centre, scale = train.mean(0), (train - train.mean(0)).square().mean().sqrt()
    theirs = LogisticRegression(C=1 / (head.decay * len(train)), max_iter=10_000, tol=1e-8)
    theirs.fit(((train - centre) / scale).numpy(), labels)
    expected = theirs.predict_proba(((val - centre) / scale).numpy())
    ours = (val @ head.weight.T + head.bias).softmax(1).numpy()
    assert np.abs(ours - expected).max() < 0.01


def test_the_decay_is_the_best_on_the_validation_images(blobs: Callable[[int], Blobs]) -> None:
    (train, labels), (val, others) = blobs(1), blobs(2)
    targets = [torch.from_numpy(one_hot(indices, 4)) for indices in (labels, others)]
    best = linear_probe.fit(train, targets[0], val, targets[1], SINGLE_LABEL)
    scores = []
    for decay in linear_probe.DECAYS:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(linear_probe, "DECAYS", (decay,))
            head = linear_probe.fit(train, targets[0], val, targets[1], SINGLE_LABEL)
        scores.append(float(((val @ head.weight.T + head.bias).argmax(1).numpy() == others).mean()))
    chosen = ((val @ best.weight.T + best.bias).argmax(1).numpy() == others).mean()
    # Two of 200 images: a warm start ends at slightly different weights.
    assert chosen == pytest.approx(max(scores), abs=0.011)
    assert best.decay in linear_probe.DECAYS


def test_multi_label_targets_are_fitted_to_the_known_labels(blobs: Callable[[int], Blobs]) -> None:
    train, labels = blobs(1)
    targets = one_hot(labels, 4)
    partial = targets.copy()
    partial[::2, 0] = np.nan
    head = linear_probe.fit(train, torch.from_numpy(partial), train, torch.from_numpy(targets), MULTI_LABEL)
    assert torch.isfinite(head.weight).all()
    assert MULTI_LABEL.score(targets, (train @ head.weight.T + head.bias).numpy()) > 0.8


@pytest.fixture
def tuned(tiny_source: Path, people: Path) -> Any:
    """A session with --head-only."""
    return prepare(tiny_source, read_images(people), overrides=Overrides(head_only=True), device="cpu")


def test_the_folder_of_a_fitted_head_is_a_model_folder_and_keeps_the_pretrained_backbone(
    tuned: Any, tiny_source: Path, tmp_path: Path
) -> None:
    before = {name: tensor.clone() for name, tensor in tuned.network.model.state_dict().items()}
    assert [*tuned.sentences()][-1] == "training: the head alone, to convergence, on features that are computed once"
    result = finetune(tuned, tmp_path / "run")
    after = tuned.network.model.state_dict()
    assert {name for name, tensor in after.items() if not torch.equal(tensor, before[name])} == {
        "head.fc.weight", "head.fc.bias",
    }  # fmt: skip
    assert result.top1 > 0.8  # chance is a third
    recipe = load_recipe(tmp_path / "run" / "recipe.toml")
    assert recipe.finetune
    assert recipe.finetune.head_only
    assert recipe.optimizer.weight_decay in linear_probe.DECAYS
    assert load(tmp_path / "run", device="cpu").labels == tuned.images.classes
    assert "The head alone was fitted to the features of" in (tmp_path / "run" / "README.md").read_text()
    again = prepare(tiny_source, tuned.images, overrides=Overrides(head_only=True), device="cpu")
    kept = finetune(again, tmp_path / "run", resume=True)
    assert kept.weights["model.safetensors"] == result.weights["model.safetensors"]


def test_features_are_the_classifiers_own_and_are_computed_once(
    tuned: Any, tiny_source: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("VTZOO_CACHE", str(tmp_path))
    pixels = torch.from_numpy(np.random.default_rng(3).integers(0, 256, (5, 3, 16, 16), dtype=np.uint8))
    how = {"mean": tuned.normalization[0], "std": tuned.normalization[1], "device": CPU}
    features = linear_probe.features(tuned.network.model, pixels, source="one", **how)
    expected = load(lookup.find_model(tiny_source), backend="torch", device="cpu").embed(pixels.numpy())
    assert np.allclose(features.numpy(), expected, atol=1e-5)
    assert torch.equal(linear_probe.features(None, pixels, source="one", **how), features)
    with pytest.raises(AttributeError):
        linear_probe.features(None, pixels, source="another", **how)
    with pytest.raises(AttributeError):
        linear_probe.features(None, 255 - pixels, source="one", **how)
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:50])
    assert torch.equal(linear_probe.features(tuned.network.model, pixels, source="one", **how), features)


@pytest.mark.parametrize("name", ["deit_tiny_distilled_patch16_224", "tf_mobilenetv3_small_minimal_100"])
def test_a_head_that_is_more_than_a_linear_layer_on_the_features_is_refused(name: str) -> None:
    model = models.build(name, num_classes=3, image_size=224)
    if name.startswith("tf"):
        model.classifier = torch.nn.Sequential(model.classifier)
    with pytest.raises(VtzooError, match="is not one linear layer on its features") as raised:
        linear_probe.linear_head(model, 224, CPU)
    assert raised.value.hint == "leave out --head-only"


def test_a_checkpoint_that_cannot_be_read_is_not_written_over(tmp_path: Path) -> None:
    (tmp_path / "checkpoint.safetensors").write_bytes(b"not one")
    with pytest.raises(VtzooError, match="cannot read the checkpoint"):
        linear_probe.check(tmp_path, run="a")
