"""The catalogue of named models: their places, and their accuracy and their twin's."""

import hashlib
import json
from pathlib import Path

import pytest

from vtzoo.cards import catalogue
from vtzoo.cards.catalogue import Known
from vtzoo.hub import index
from vtzoo.hub.fetch import Content, Pin
from vtzoo.zoo import recipe_files, resources

OURS, TWIN, OTHER, PLAIN = (
    "swin_t-drloc-cifar10", "swin_t-baseline-cifar10", "cvt_13-drloc-cifar10", "small_cnn-baseline-cifar10",
)  # fmt: skip
COMMIT = "0123456789" * 4


def measure(folder: Path, name: str, top1: float) -> None:
    """Write a model's record into the folder of weights."""
    (folder / name).mkdir()
    shipped = recipe_files.shipped()
    identity = hashlib.sha256(shipped[name].read_bytes()).hexdigest() if name in shipped else ""
    result = {
        "name": name,
        "dataset": "cifar10",
        "top1": top1,
        "top5": 1.0,
        "images": 10_000,
        "recipe_sha256": identity,
    }
    (folder / name / "result.json").write_text(json.dumps(result))


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a model, its twin's record and a plain network; an index with another model and the first."""
    folder = tmp_path / "weights"
    folder.mkdir()
    for name, top1 in ((OURS, 0.75), (TWIN, 0.5), (PLAIN, 0.25)):
        measure(folder, name, top1)
    for name in (OURS, PLAIN):
        (folder / name / "config.json").write_text("{}")
    files = {"config.json": Content(size=2, sha256="ab" * 32), "model.safetensors": Content(size=5, sha256="cd" * 32)}
    for name in (OURS, OTHER):
        pin = Pin(repo=f"zoo/{name}", revision=COMMIT, tag="v1.0", files=files)
        index.write(tmp_path / "index.toml", name, pin)
    monkeypatch.setenv("VTZOO_INDEX", str(tmp_path / "index.toml"))
    monkeypatch.setattr(resources, "weights_folder", lambda: folder)
    return folder


def known(name: str) -> Known:
    (found,) = [model for model in catalogue.known() if model.name == name]
    return found


def test_an_embedded_model_comes_with_the_accuracy_of_a_twin_without_weights(weights: Path) -> None:
    size = sum((weights / OURS / file).stat().st_size for file in ("config.json", "result.json"))
    assert known(OURS) == Known(
        name=OURS, place="here", dataset="cifar10", top1=0.75, top5=1.0, images=10_000, bytes=size, twin=TWIN,
        twin_top1=0.5,
    )  # fmt: skip


def test_a_record_without_weights_is_a_measured_recipe(weights: Path) -> None:
    assert known(TWIN) == Known(
        name=TWIN, place="recipe", dataset="cifar10", top1=0.5, top5=1.0, images=10_000, twin=OURS, twin_top1=0.75,
    )  # fmt: skip


def test_a_model_of_the_index_comes_with_its_commit_and_the_size_of_its_files(weights: Path) -> None:
    assert known(OTHER).as_json() == {
        "name": OTHER, "place": "hub", "bytes": 7, "twin": "cvt_13-baseline-cifar10", "repo": f"zoo/{OTHER}",
        "revision": COMMIT, "tag": "v1.0",
    }  # fmt: skip


def test_an_untrained_recipe_comes_with_its_twin_alone(weights: Path) -> None:
    told = {"name": "t2t_vit_14-drloc-svhn", "place": "recipe", "twin": "t2t_vit_14-baseline-svhn"}
    assert known("t2t_vit_14-drloc-svhn").as_json() == told


def test_a_plain_network_has_no_twin(weights: Path) -> None:
    assert (known(PLAIN).top1, known(PLAIN).twin) == (0.25, None)


def test_embedded_models_come_first_then_those_on_the_hub_each_once(weights: Path) -> None:
    models = catalogue.known()
    assert [model.name for model in models][:3] == [PLAIN, OURS, OTHER]
    assert [model.place for model in models][:3] == ["here", "here", "hub"]
    assert {model.place for model in models[3:]} == {"recipe"}
    assert len({model.name for model in models}) == len(models)


def test_the_papers_recipes_are_listed_only_if_measured(weights: Path) -> None:
    paper = f"{TWIN}-paper"
    assert not [model.name for model in catalogue.known() if model.name.endswith("-paper")]
    measure(weights, paper, 0.125)
    assert (known(paper).place, known(paper).top1, known(paper).twin) == ("recipe", 0.125, f"{OURS}-paper")


def test_a_model_whose_recipe_was_edited_is_marked(weights: Path) -> None:
    (weights / TWIN / "result.json").write_text('{"recipe_sha256": "ab"}')
    said = f"the weights of {TWIN} are stale: recipes/{TWIN}.toml is not the recipe they were trained by"
    assert (known(TWIN).stale, known(OURS).stale) == (said, None)
