"""The embedded model: its files, what they say of themselves, and that both runtimes see the same in an image."""

import hashlib
import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open
from typer.testing import CliRunner

import vtzoo
from vtzoo import cards, datasets, recipe, resources, splits, zoo
from vtzoo.cli import DEFAULT_MODEL, app

FOLDER = resources.weights_folder() / DEFAULT_MODEL
PHOTOS = sorted(Path(__file__).with_name("photos").glob("*.jpg"))
MEGABYTES = 60  # for everything that is embedded


@cache
def classifier(backend: str) -> Any:
    return vtzoo.load(DEFAULT_MODEL, backend=backend, device="cpu")


def agree(images: Any) -> None:
    """Both runtimes give the same first class, and probabilities within a thousandth."""
    onnx, torch = (classifier(backend)(images) for backend in ("onnx", "torch"))
    assert np.array_equal(onnx.argmax(axis=1), torch.argmax(axis=1))
    assert np.abs(onnx - torch).max() < 1e-3


def test_all_embedded_files_take_60_megabytes_at_most() -> None:
    files = [file for file in resources.weights_folder().rglob("*") if file.is_file()]
    assert FOLDER / "config.json" in files
    assert sum(file.stat().st_size for file in files) <= MEGABYTES * 1e6


def test_the_folder_has_every_file_of_a_model_folder() -> None:
    weights = ("model.safetensors", "onnx/model.onnx")
    others = ("config.json", "recipe.toml", "result.json", "curves.png", "README.md")
    assert [name for name in (*weights, *others) if not (FOLDER / name).is_file()] == []


def test_result_names_the_sha256_of_the_weight_files() -> None:
    weights = zoo.find(DEFAULT_MODEL).result["weights"]
    assert {"model.safetensors", "onnx/model.onnx"} <= weights.keys()
    for name, expected in weights.items():
        assert hashlib.sha256((FOLDER / name).read_bytes()).hexdigest() == expected, name


def test_it_was_trained_by_the_recipe_of_its_name() -> None:
    shipped = resources.recipes_folder() / f"{DEFAULT_MODEL}.toml"
    assert (FOLDER / "recipe.toml").read_bytes() == shipped.read_bytes()
    assert zoo.find(DEFAULT_MODEL).result["recipe_sha256"] == recipe.identity(shipped)


def test_the_twin_whose_numbers_the_card_shows_differs_in_the_objective_alone() -> None:
    twin = DEFAULT_MODEL.replace("-drloc-", "-baseline-")  # its record is kept, and not its weights
    record = json.loads((resources.weights_folder() / twin / "result.json").read_text(encoding="utf-8"))
    own = zoo.find(DEFAULT_MODEL).result
    shared = ("dataset", "seed", "steps", "batch", "images", "manifest", "train_images", "train_manifest")
    assert {name: record[name] for name in shared} == {name: own[name] for name in shared}
    assert record["recipe_sha256"] == recipe.identity(resources.recipes_folder() / f"{twin}.toml")
    assert f"| {twin}, its twin | {record['top1']:.2%} |" in (FOLDER / "README.md").read_text(encoding="utf-8")


def test_its_classes_are_those_of_the_data_set() -> None:
    assert zoo.find(DEFAULT_MODEL).labels == datasets.labels("cifar100")


def test_its_weights_are_the_classifiers_alone_in_half_precision() -> None:
    with safe_open(FOLDER / "model.safetensors", "numpy") as weights:
        names = list(weights.keys())
        assert weights.metadata() == {"format": "pt"}
        assert {weights.get_slice(name).get_dtype() for name in names} == {"F16"}
    assert not [name for name in names if "localizer" in name]


def test_the_card_says_what_the_result_says() -> None:
    result = zoo.find(DEFAULT_MODEL).result
    card = (resources.cards_folder() / f"{DEFAULT_MODEL}.md").read_text(encoding="utf-8")
    beside = card.replace(f"../vtzoo/weights/{DEFAULT_MODEL}/", "")  # where its picture lies
    assert beside == (FOLDER / "README.md").read_text(encoding="utf-8")
    assert f"| {DEFAULT_MODEL} | {result['top1']:.2%} | {result['top5']:.2%} | {result['images']:,} |" in card
    assert f"value: {round(result['top1'], 4)}" in card
    assert result["images"] == datasets.find("cifar100").test
    assert not cards.stale(resources.cards_folder())


def test_onnx_and_torch_agree_on_photographs() -> None:
    assert len(PHOTOS) >= 4
    agree([str(photo) for photo in PHOTOS])


def test_onnx_and_torch_agree_on_256_real_test_images(real_data: Callable[[str], Path]) -> None:
    held = splits.read(datasets.find("cifar100"), "test", real_data("cifar100")).select(np.arange(256))
    agree(held.array(32))


def test_onnx_and_torch_give_the_same_features_of_photographs() -> None:
    onnx, torch = (classifier(backend).embed([str(photo) for photo in PHOTOS]) for backend in ("onnx", "torch"))
    assert onnx.shape == torch.shape == (len(PHOTOS), 768)
    assert np.abs(onnx - torch).max() < 1e-3 * np.abs(torch).max()


def test_plain_timm_loads_the_folder_and_gives_the_same_features() -> None:
    import timm
    import torch

    model = timm.create_model(f"local-dir:{FOLDER}", pretrained=True).eval()
    mean, std = (torch.tensor(model.pretrained_cfg[key]).view(3, 1, 1) for key in ("mean", "std"))
    pixels = np.random.default_rng(0).integers(0, 256, (2, 3, 32, 32), dtype=np.uint8)
    with torch.inference_mode():
        probabilities = model((torch.from_numpy(pixels) / 255 - mean) / std).softmax(dim=1).numpy()
    assert np.abs(probabilities - classifier("torch")(pixels)).max() < 1e-5


def test_a_rocket_is_called_a_rocket() -> None:
    photo = Path(__file__).with_name("photos") / "rocket.jpg"
    done = CliRunner().invoke(app, ["predict", str(photo), "--json"])
    (answer,) = json.loads(done.stdout)
    assert "rocket" in [one["label"] for one in answer["predictions"]]


@pytest.mark.stress
def test_evaluate_gives_the_number_of_the_card(real_data: Callable[[str], Path]) -> None:
    done = CliRunner().invoke(app, ["evaluate", "--data", str(real_data("cifar100")), "--json"])
    measured, result = json.loads(done.stdout), zoo.find(DEFAULT_MODEL).result
    assert {key: measured[key] for key in ("top1", "top5", "images", "manifest")} == {
        key: result[key] for key in ("top1", "top5", "images", "manifest")
    }
