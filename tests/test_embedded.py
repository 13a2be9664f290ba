"""The embedded models: their files and records, and the agreement of both runtimes."""

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
from vtzoo import cards
from vtzoo.cli import DEFAULT_MODEL, app
from vtzoo.data import named, named_reader
from vtzoo.data.transform import Preprocess
from vtzoo.hub import fetch
from vtzoo.zoo import lookup, recipe_files, resources

ROOT = Path(__file__).resolve().parents[1]
WEIGHTS = resources.weights_folder()
FOLDER = WEIGHTS / DEFAULT_MODEL
PHOTOS = sorted(Path(__file__).with_name("photos").glob("*.jpg"))
MODELS = [entry.name for entry in lookup.embedded_models()]
MEASURED = [*MODELS, *(entry.name for entry in lookup.weightless_models())]
PAIRED = [name for name in MODELS if "-drloc-" in name]
each_model = pytest.mark.parametrize("name", MODELS)


@cache
def classifier(backend: str, name: str = DEFAULT_MODEL) -> Any:
    return vtzoo.load(name, backend=backend, device="cpu")


def agree(images: Any, name: str = DEFAULT_MODEL) -> None:
    """Assert that both runtimes give the same first class, and probabilities within a thousandth."""
    onnx, torch = (classifier(backend, name)(images) for backend in ("onnx", "torch"))
    assert np.array_equal(onnx.argmax(axis=1), torch.argmax(axis=1))
    assert np.abs(onnx - torch).max() < 1e-3


def megabytes(folder: Path) -> float:
    """The size of all files in a folder, in megabytes."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 1e6


@each_model
def test_an_embedded_model_takes_60_megabytes_at_most(name: str) -> None:
    assert DEFAULT_MODEL in MODELS
    assert megabytes(WEIGHTS / name) <= 60
    assert megabytes(WEIGHTS / name / "onnx") <= 0.2


@each_model
def test_weights_and_graph_take_two_bytes_a_parameter_and_a_megabyte_at_most(name: str) -> None:
    with safe_open(WEIGHTS / name / "model.safetensors", framework="numpy") as file:
        parameters = sum(file.get_tensor(key).size for key in file.keys())  # noqa: SIM118  (not a dict)
    sizes = [(WEIGHTS / name / path).stat().st_size for path in ("model.safetensors", "onnx/model.onnx")]
    assert sum(sizes) < 2 * parameters + 1_000_000


def test_all_weights_of_the_repository_take_400_megabytes_at_most() -> None:
    assert megabytes(WEIGHTS) <= 400


def test_git_treats_every_file_of_weights_as_binary() -> None:
    attributes = (ROOT / ".gitattributes").read_text(encoding="utf-8").splitlines()
    suffixes = {file.suffix for file in WEIGHTS.rglob("*.*") if file.is_file()} - {".json", ".toml", ".md"}
    assert {".safetensors", ".onnx", ".png"} <= suffixes
    assert [suffix for suffix in sorted(suffixes) if f"*{suffix} binary" not in attributes] == []


@each_model
def test_the_folder_has_every_file_of_a_model_folder_and_no_other(name: str) -> None:
    files = {file.relative_to(WEIGHTS / name).as_posix() for file in (WEIGHTS / name).rglob("*") if file.is_file()}
    assert files | {"localizer.safetensors"} == {*fetch.FILES, "localizer.safetensors"}


@each_model
def test_result_names_the_sha256_of_the_weight_files(name: str) -> None:
    weights = lookup.find_model(name).result.weights
    assert {"model.safetensors", "onnx/model.onnx"} <= weights.keys()
    for file, expected in weights.items():
        assert hashlib.sha256((WEIGHTS / name / file).read_bytes()).hexdigest() == expected, file


@pytest.mark.parametrize("name", MEASURED)
def test_a_model_was_trained_by_the_recipe_of_its_name(name: str) -> None:
    shipped = recipe_files.locate(name)
    result = json.loads((WEIGHTS / name / "result.json").read_text(encoding="utf-8"))
    assert (WEIGHTS / name / "recipe.toml").read_bytes() == shipped.read_bytes()
    assert (result["name"], result["recipe_sha256"]) == (name, recipe_files.identity(shipped))


@pytest.mark.parametrize("name", PAIRED)
def test_the_twin_whose_numbers_the_card_shows_differs_in_the_objective_alone(name: str) -> None:
    twin = name.replace("-drloc-", "-baseline-")  # without its weights: its record is enough
    record = json.loads((WEIGHTS / twin / "result.json").read_text(encoding="utf-8"))
    own = lookup.find_model(name).result.as_json()
    shared = ("dataset", "seed", "steps", "batch", "images", "manifest", "train_images", "train_manifest")
    assert {key: record[key] for key in shared} == {key: own[key] for key in shared}
    assert record.get("teacher") == own.get("teacher")
    assert f"| {twin}, its twin | {record['top1']:.2%} |" in (WEIGHTS / name / "README.md").read_text(encoding="utf-8")


@each_model
def test_a_models_classes_are_those_of_its_dataset(name: str) -> None:
    assert lookup.find_model(name).config.labels == named.labels(lookup.find_model(name).result.dataset)


@each_model
def test_a_models_weights_are_only_the_classifiers_in_half_precision(name: str) -> None:
    with safe_open(WEIGHTS / name / "model.safetensors", "numpy") as weights:
        names = list(weights.keys())
        assert weights.metadata() == {"format": "pt"}
        counters = [key for key in names if key.endswith("num_batches_tracked")]  # of batch norms
        assert {weights.get_slice(key).get_dtype() for key in {*names} - {*counters}} == {"F16"}
        assert {weights.get_slice(key).get_dtype() for key in counters} <= {"I64"}
    assert not [key for key in names if "localizer" in key]


@each_model
def test_the_card_has_the_numbers_of_the_result(name: str) -> None:
    result = lookup.find_model(name).result
    card = (resources.cards_folder() / f"{name}.md").read_text(encoding="utf-8")
    beside = card.replace(f"../vtzoo/weights/{name}/", "")  # the path of its picture
    assert beside == (WEIGHTS / name / "README.md").read_text(encoding="utf-8")
    assert f"| {name} | {result.top1:.2%} | {result.top5:.2%} | {result.images:,} |" in card
    assert f"value: {round(result.top1 or 0, 4)}" in card
    assert result.images == named.named_set(str(result.dataset)).test
    assert not cards.stale(resources.cards_folder())


@each_model
def test_onnx_and_torch_agree_on_photographs(name: str) -> None:
    assert len(PHOTOS) >= 4
    agree([str(photo) for photo in PHOTOS], name)


def test_onnx_and_torch_agree_on_256_real_test_images(real_data: Callable[[str], Path]) -> None:
    held = named_reader.read(named.named_set("cifar100"), "test", real_data("cifar100")).select(np.arange(256))
    agree(held.pixels(Preprocess.square(32)))


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


def test_the_readme_shows_what_its_first_command_prints(monkeypatch: pytest.MonkeyPatch) -> None:
    _, _, after = (ROOT / "README.md").read_text(encoding="utf-8").partition("vtzoo predict tests/photos/")
    photo, *shown = after.split("```\n")[2].splitlines()
    monkeypatch.chdir(ROOT)
    printed = CliRunner().invoke(app, ["predict", photo]).stdout.splitlines()
    assert printed[0] == photo
    for line, expected in zip(printed[1:], shown, strict=True):
        assert line[8:] == expected[8:]  # the class; probabilities differ slightly between processors
        assert float(line[:7]) == pytest.approx(float(expected[:7]), abs=0.2)


def test_a_rocket_is_called_a_rocket() -> None:
    photo = Path(__file__).with_name("photos") / "rocket.jpg"
    done = CliRunner().invoke(app, ["predict", str(photo), "--json"])
    (answer,) = json.loads(done.stdout)
    assert "rocket" in [entry["label"] for entry in answer["predictions"]]


@pytest.mark.stress
def test_evaluate_gives_the_number_of_the_card(real_data: Callable[[str], Path]) -> None:
    done = CliRunner().invoke(app, ["evaluate", "--data", str(real_data("cifar100")), "--json"])
    measured, result = json.loads(done.stdout), lookup.find_model(DEFAULT_MODEL).result
    assert {key: measured[key] for key in ("top1", "top5", "images", "manifest")} == {
        key: getattr(result, key) for key in ("top1", "top5", "images", "manifest")
    }
