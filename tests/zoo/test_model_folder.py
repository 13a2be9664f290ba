"""Finding model folders by name, and reading their files."""

import json
from pathlib import Path
from typing import Any

import pytest

from vtzoo.data.transform import Preprocess
from vtzoo.errors import VtzooError
from vtzoo.zoo import lookup, resources
from vtzoo.zoo.facts import model_facts
from vtzoo.zoo.model_folder import ModelFolder

CONFIG = {
    "architecture": "swin_tiny_patch4_window7_224",
    "num_classes": 2,
    "model_args": {"img_size": 32},
    "pretrained_cfg": {"input_size": [3, 32, 32], "interpolation": "bicubic", "crop_pct": 1.0},
    "label_names": ["cat", "rocket"],
}


def make(folder: Path, **changes: Any) -> Path:
    folder.mkdir(parents=True)
    config = {key: value for key, value in (CONFIG | changes).items() if value is not ...}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


@pytest.fixture
def embedded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "weights"
    monkeypatch.setattr(resources, "weights_folder", lambda: folder)
    make(folder / "swin_t-drloc-cifar100")
    make(folder / "cvt_13-drloc-svhn")
    return folder


def refusal(name: str | Path) -> VtzooError:
    with pytest.raises(VtzooError) as caught:
        lookup.find_model(name)
    return caught.value


def test_the_embedded_models_are_listed_by_name(embedded: Path) -> None:
    (embedded / "no-model").mkdir()
    assert [entry.name for entry in lookup.embedded_models()] == ["cvt_13-drloc-svhn", "swin_t-drloc-cifar100"]


def test_an_embedded_model_comes_before_a_folder_of_its_name(
    embedded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    make(tmp_path / "swin_t-drloc-cifar100")
    assert lookup.find_model("swin_t-drloc-cifar100").folder == embedded / "swin_t-drloc-cifar100"
    assert lookup.find_model("./swin_t-drloc-cifar100/").folder == Path("swin_t-drloc-cifar100")


def test_a_model_folder_is_found_by_its_path_and_named_by_its_folder(
    embedded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make(tmp_path / "runs" / "mine")
    assert lookup.find_model(folder) == ModelFolder("mine", folder)
    monkeypatch.chdir(folder)
    assert lookup.find_model(".").name == "mine"


def test_an_unknown_model_is_answered_by_the_nearest_names(embedded: Path) -> None:
    error = refusal("swin_t-drlock-cifar100")
    assert error.message == "unknown model 'swin_t-drlock-cifar100'"
    assert error.hint is not None
    assert "did you mean swin_t-drloc-cifar100" in error.hint
    assert "vtzoo list" in error.hint


def test_the_name_of_a_recipe_without_weights_is_answered_by_the_command_that_trains_it(embedded: Path) -> None:
    error = refusal("t2t_vit_14-drloc-cifar100")
    assert error.message == "there are no weights of t2t_vit_14-drloc-cifar100 here: it is a recipe"
    assert error.hint is not None
    assert error.hint.startswith("vtzoo train t2t_vit_14-drloc-cifar100 trains it; a clone ")


def test_a_record_is_a_model_that_was_measured_and_has_no_weights(embedded: Path) -> None:
    record, model = embedded / "swin_t-baseline-cifar100", embedded / "cvt_13-drloc-svhn"
    record.mkdir()
    for folder in (record, model):
        (folder / "result.json").write_text("{}")
    assert [entry.folder for entry in lookup.weightless_models()] == [record]
    assert [lookup.measured_model(folder.name) for folder in (record, model)] == [
        ModelFolder(folder.name, folder) for folder in (record, model)
    ]
    assert lookup.measured_model("t2t_vit_14-drloc-svhn") is None


@pytest.mark.parametrize("suffix", ["", "-paper", "-untaught"])
def test_twins_are_each_others_twins(suffix: str) -> None:
    pair = [f"swin_t-{objective}-cifar100{suffix}" for objective in ("drloc", "baseline")]
    assert [lookup.twin_of(name) for name in pair] == pair[::-1]


@pytest.mark.parametrize("name", ["", "../weights", "a" * 5000, "a\0b", "/dev/null"])
def test_any_other_name_is_refused_as_unknown_or_as_no_model_folder(
    name: str, embedded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(make(tmp_path / "elsewhere" / "x").parent)
    assert refusal(name).message.startswith(("unknown model", f"{name!r} is not a model folder"))


def test_a_folder_without_a_config_is_no_model(embedded: Path, tmp_path: Path) -> None:
    assert refusal(tmp_path).message == f"'{tmp_path}' is not a model folder: it has no config.json"


def test_labels_and_preprocessing_are_read_from_the_config(tmp_path: Path) -> None:
    entry = lookup.find_model(make(tmp_path / "mine"))
    assert entry.config.labels == ("cat", "rocket")
    assert entry.config.preprocess == Preprocess(size=32, interpolation="bicubic", crop=1.0)


def test_a_model_without_class_names_is_labelled_by_index(tmp_path: Path) -> None:
    assert lookup.find_model(make(tmp_path / "mine", label_names=..., num_classes=3)).config.labels == ("0", "1", "2")


@pytest.mark.parametrize("names", [{"cat": "0"}, "cat", [1, 2]])
def test_class_names_that_are_no_list_of_names_are_refused(names: Any, tmp_path: Path) -> None:
    with pytest.raises(VtzooError, match=r"config\.json has no list of class names"):
        _ = lookup.find_model(make(tmp_path / "mine", label_names=names)).config.labels


def test_a_wrong_count_of_class_names_is_refused_with_both_counts(tmp_path: Path) -> None:
    with pytest.raises(VtzooError, match=r"config\.json names 2 classes, and its model has 10"):
        _ = lookup.find_model(make(tmp_path / "mine", num_classes=10)).config.labels


@pytest.mark.parametrize("change", [{"architecture": ...}, {"architecture": 3}, {"model_args": [1]}])
def test_a_config_that_describes_no_model_is_refused(change: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(VtzooError, match=r"config\.json does not describe a model"):
        _ = lookup.find_model(make(tmp_path / "mine", **change)).config


@pytest.mark.parametrize(
    ("change", "culprit"),
    [
        ({"architecture": "hf-hub:somebody/model"}, "hf-hub:somebody/model"),
        ({"architecture": "local-dir:/etc"}, "local-dir:/etc"),
        ({"model_args": {"checkpoint_path": "../other.pth"}}, "checkpoint_path"),
        ({"model_args": {"pretrained": True}}, "pretrained"),
    ],
)
def test_a_config_that_takes_weights_from_outside_its_folder_is_refused(
    change: dict[str, Any], culprit: str, tmp_path: Path
) -> None:
    with pytest.raises(VtzooError, match=f"points out of its folder, by '{culprit}'"):
        _ = lookup.find_model(make(tmp_path / "mine", **change)).config


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", r"config\.json is not JSON"),
        (b"[" * 100_000, r"config\.json is not JSON"),
        (b"[]", r"config\.json is not a JSON object"),
        (b"\xff", r"config\.json is not UTF-8"),
    ],
)
def test_a_damaged_config_is_refused_by_name(content: bytes, message: str, tmp_path: Path) -> None:
    folder = make(tmp_path / "mine")
    (folder / "config.json").write_bytes(content)
    with pytest.raises(VtzooError, match=message):
        _ = lookup.find_model(folder).config


def test_the_recipe_and_the_result_are_read_from_the_folder(tmp_path: Path) -> None:
    entry = lookup.find_model(make(tmp_path / "mine"))
    (entry.folder / "recipe.toml").write_text("# ours\n", encoding="utf-8")
    (entry.folder / "result.json").write_text('{"top1": 0.5, "weights": {"model.safetensors": "ab"}}', encoding="utf-8")
    assert entry.recipe_text == "# ours\n"
    assert entry.result.top1 == 0.5
    assert entry.sha256("model.safetensors") == "ab"
    assert entry.sha256("onnx/model.onnx") is None


def test_a_folder_without_a_recipe_or_a_result_names_what_is_missing(tmp_path: Path) -> None:
    entry = lookup.find_model(make(tmp_path / "mine"))
    assert entry.sha256("model.safetensors") is None
    with pytest.raises(VtzooError, match=r"mine has no readable recipe\.toml"):
        _ = entry.recipe_text
    with pytest.raises(VtzooError, match=r"mine has no readable result\.json"):
        _ = entry.result


def test_the_facts_of_a_model_name_the_copy_of_the_data_that_was_measured() -> None:
    assert model_facts(lookup.find_model("swin_t-drloc-flowers102"))["copy"] == "64 px copy"
    assert "copy" not in model_facts(lookup.find_model("swin_t-drloc-cifar100"))
