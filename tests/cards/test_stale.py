"""Checks for stale cards, a stale table in the README, weights with an edited recipe, and stale index entries."""

import hashlib
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from vtzoo import cards
from vtzoo.cards.__main__ import main
from vtzoo.cli import DEFAULT_MODEL
from vtzoo.hub import fetch, index
from vtzoo.hub.fetch import Content, Pin
from vtzoo.zoo import lookup, resources
from vtzoo.zoo.model_folder import ModelFolder
from vtzoo.zoo.recipe_files import identity, shipped

ROOT = Path(__file__).resolve().parents[2]
EMBEDDED = ROOT / "vtzoo" / "weights" / DEFAULT_MODEL
REPO, COMMIT = f"my-org/{DEFAULT_MODEL}", "0123456789" * 4
UNTRAINED = shipped().keys() - {entry.name for entry in lookup.embedded_models()}
OTHER = max(name for name in UNTRAINED if "-drloc-" in name and f"{name}-paper" in UNTRAINED)  # in both protocols
TOP1 = f"{lookup.find_model(DEFAULT_MODEL).result.top1:.2%}"
STALE = "the weights of {name} are stale: recipes/{name}.toml is not the recipe they were trained by"


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the compared parts of a checkout, with an empty index."""
    for folder in ("recipes", "model_cards"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    package = tmp_path / "vtzoo"
    for folder in EMBEDDED.parent.iterdir():  # the model and its twin's record
        (package / "weights" / folder.name).mkdir(parents=True)
        for file in folder.iterdir():
            copy = package / "weights" / folder.name / file.name
            if file.name in ("README.md", "result.json", "recipe.toml"):
                shutil.copy(file, copy)
            else:
                copy.symlink_to(file, target_is_directory=file.is_dir())
    shutil.copy(ROOT / "README.md", tmp_path)
    (package / "zoo.toml").write_text("")
    monkeypatch.setattr(resources, "PACKAGE", package)
    monkeypatch.delenv("VTZOO_INDEX", raising=False)
    return tmp_path


@pytest.fixture
def check(
    checkout: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, list[str]]]:
    """The exit code and the printed lines of `python -m vtzoo.cards` in that copy."""

    def run(*arguments: str) -> tuple[int, list[str]]:
        monkeypatch.setattr("sys.argv", ["cards", *arguments])
        capsys.readouterr()
        return main(), capsys.readouterr().out.splitlines()

    return run


Check = Callable[..., tuple[int, list[str]]]


def content(data: bytes) -> Content:
    return Content(size=len(data), sha256=hashlib.sha256(data).hexdigest())


def enter(checkout: Path, name: str = DEFAULT_MODEL, **files: bytes) -> Pin:
    """Enter a model into the copy's index like `vtzoo publish`; `files` are contents by file, without suffix."""
    places = {"README": "README.md", "recipe": "recipe.toml", "model": "model.safetensors"}
    pin = Pin(
        repo=f"my-org/{name}", revision=COMMIT, tag="v1.0",
        files={places[stem]: content(data) for stem, data in files.items()},
    )  # fmt: skip
    index.write(checkout / "vtzoo" / "zoo.toml", name, pin)
    return pin


def sound(**changes: bytes) -> dict[str, bytes]:
    """The published files of the embedded model."""
    return {
        "README": cards.card_of(lookup.find_model(DEFAULT_MODEL), REPO).encode(),
        "recipe": (EMBEDDED / "recipe.toml").read_bytes(),
        "model": (EMBEDDED / "model.safetensors").read_bytes(),
    } | changes


# Cards and the table


def test_the_shipped_cards_are_those_of_the_models() -> None:
    assert lookup.embedded_models()
    assert cards.stale(resources.cards_folder()) == {}
    assert cards.stale_index(resources.cards_folder()) == []
    named = {path.stem for path in resources.cards_folder().glob("*.md")}
    assert named == {entry.name for entry in lookup.embedded_models()} | index.read(resources.index_file()).keys()


def test_every_picture_of_a_card_is_where_its_link_leads() -> None:
    shipped = [*resources.cards_folder().glob("*.md"), *resources.weights_folder().glob("*/README.md")]
    for card in shipped:
        (link,) = re.findall(r"!\[[^\]]*\]\(([^)]+)\)", card.read_text(encoding="utf-8"))
        assert link.startswith("https://huggingface.co/") or (card.parent / link).is_file(), card


def test_a_card_and_its_copy_differ_in_the_picture_alone() -> None:
    card = (EMBEDDED / "README.md").read_text(encoding="utf-8")
    copy = (ROOT / "model_cards" / f"{DEFAULT_MODEL}.md").read_text(encoding="utf-8")
    assert copy != card
    assert copy.replace(f"../vtzoo/weights/{DEFAULT_MODEL}/", "") == card


def test_nothing_is_stale_in_a_fresh_checkout(check: Check) -> None:
    assert check("--check") == (0, [])


STEM = f"vtzoo/weights/{DEFAULT_MODEL}/README.md", f"model_cards/{DEFAULT_MODEL}.md"


@pytest.mark.parametrize("file", [*STEM, "README.md"])
def test_an_edited_card_or_table_is_named_and_rendered_anew(checkout: Path, check: Check, file: str) -> None:
    before = (checkout / file).read_text(encoding="utf-8")
    edited = before.replace(TOP1, "12.34%")
    assert edited != before
    (checkout / file).write_text(edited, encoding="utf-8")
    assert check("--check") == (1, [str(checkout / file)])
    assert (checkout / file).read_text(encoding="utf-8") == edited
    assert check() == (0, [str(checkout / file)])
    assert (checkout / file).read_text(encoding="utf-8") == before
    assert check("--check") == (0, [])


def test_a_missing_card_is_named(checkout: Path, check: Check) -> None:
    (checkout / "model_cards" / f"{DEFAULT_MODEL}.md").unlink()
    assert check("--check") == (1, [str(checkout / "model_cards" / f"{DEFAULT_MODEL}.md")])


def test_a_card_of_no_model_is_named_and_left_alone(checkout: Path, check: Check) -> None:
    stray = checkout / "model_cards" / f"{OTHER}.md"
    stray.write_text("# a model that is gone\n")
    said = [f"{stray} is the card of no model, neither embedded nor in the index"]
    assert check("--check") == (1, said)
    assert check() == (1, said)
    assert stray.exists()


def test_a_new_number_in_a_result_makes_every_text_stale(checkout: Path, check: Check) -> None:
    result = checkout / "vtzoo" / "weights" / DEFAULT_MODEL / "result.json"
    result.write_text(re.sub(r'"top5": [\d.]+', '"top5": 0.1234', result.read_text()))
    assert check("--check") == (1, [*(str(checkout / file) for file in STEM), str(checkout / "README.md")])


def test_a_model_without_a_number_is_a_sentence(checkout: Path, check: Check) -> None:
    folder = checkout / "vtzoo" / "weights" / DEFAULT_MODEL
    result = folder / "result.json"
    result.write_text(re.sub(r'\n  "top1": [\d.]+,', "", result.read_text()))
    code, (said,) = check("--check")
    assert code == 1
    assert said.startswith(f"{folder} has no top1 in its result.json: it was never measured. vtzoo train ")


# Weights and their recipe


def test_an_edited_recipe_makes_the_embedded_weights_stale(checkout: Path, check: Check) -> None:
    assert cards.stale_weights() == {}
    recipe = checkout / "recipes" / f"{DEFAULT_MODEL}.toml"
    recipe.write_bytes(recipe.read_bytes() + b"\n")  # by one byte
    assert cards.stale_weights() == {DEFAULT_MODEL: STALE.format(name=DEFAULT_MODEL)}
    assert check("--check") == (1, [STALE.format(name=DEFAULT_MODEL)])
    assert check() == (1, [STALE.format(name=DEFAULT_MODEL)])  # rendering does not repair the recipe


def test_an_edited_recipe_makes_the_record_of_a_twin_stale(checkout: Path, check: Check) -> None:
    twin = lookup.twin_of(DEFAULT_MODEL)
    recipe, record = checkout / "recipes" / f"{twin}.toml", checkout / "vtzoo" / "weights" / twin
    record.mkdir(exist_ok=True)
    shutil.copy(recipe, record / "recipe.toml")
    facts = replace(lookup.find_model(DEFAULT_MODEL).result, name=twin, recipe_sha256=identity(recipe))
    (record / "result.json").write_text(json.dumps(facts.as_json()))
    check()
    recipe.write_bytes(recipe.read_bytes() + b"\n")
    assert check("--check") == (1, [STALE.format(name=twin)])


def test_a_recipe_that_is_gone_makes_the_weights_stale(checkout: Path, check: Check) -> None:
    (checkout / "recipes" / f"{DEFAULT_MODEL}.toml").unlink()
    said = f"the weights of {DEFAULT_MODEL} are stale: their recipe is gone from recipes/"
    assert check("--check") == (1, [said])


@pytest.mark.parametrize("name", [OTHER, f"{OTHER}-paper"])
def test_an_edited_recipe_makes_published_weights_stale(checkout: Path, name: str) -> None:
    place = f"paper/{name}" if name.endswith("-paper") else name
    recipe = checkout / "recipes" / f"{place}.toml"
    enter(checkout, name, recipe=recipe.read_bytes())
    assert cards.stale_weights() == {}
    recipe.write_bytes(recipe.read_bytes() + b"\n")
    said = f"the weights of {name} are stale: recipes/{place}.toml is not the recipe they were trained by"
    assert cards.stale_weights() == {name: said}


def test_published_weights_without_a_recipe_on_record_are_stale(checkout: Path) -> None:
    enter(checkout, OTHER, model=b"weights")
    assert cards.stale_weights() == {OTHER: STALE.format(name=OTHER)}


def test_a_model_published_by_another_recipe_than_the_embedded_one_is_stale(checkout: Path) -> None:
    enter(checkout, **sound(recipe=b"another"))
    assert cards.stale_weights() == {DEFAULT_MODEL: STALE.format(name=DEFAULT_MODEL)}


# The index


def test_an_embedded_model_that_is_published_as_it_is_passes(checkout: Path, check: Check) -> None:
    enter(checkout, **sound())
    assert check("--check") == (0, [])


@pytest.mark.parametrize("lacking", [False, True])
def test_an_index_of_other_weights_than_the_embedded_ones_is_named(checkout: Path, check: Check, lacking: bool) -> None:
    files = sound(model=b"others")
    enter(checkout, **{stem: data for stem, data in files.items() if not (lacking and stem == "model")})
    said = f"{DEFAULT_MODEL} is embedded with other weights than the index has of {REPO}: publish it again"
    assert check("--check") == (1, [said])


@pytest.mark.parametrize("lacking", [False, True])
def test_a_published_card_that_rendering_does_not_give_is_named(checkout: Path, check: Check, lacking: bool) -> None:
    files = sound(README=cards.card_of(lookup.find_model(DEFAULT_MODEL)).encode())  # as before the first publication
    enter(checkout, **{stem: data for stem, data in files.items() if not (lacking and stem == "README")})
    said = f"the card of {REPO} is not what rendering gives: publish {DEFAULT_MODEL} again"
    assert check("--check") == (1, [said])


@pytest.fixture
def elsewhere(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A model in the index that is not embedded; a folder in place of the Hub has its card."""
    published = cards.card_of(lookup.find_model(DEFAULT_MODEL), REPO).replace(DEFAULT_MODEL, OTHER)
    pin = enter(
        checkout, OTHER, README=published.encode(), recipe=(checkout / "recipes" / f"{OTHER}.toml").read_bytes()
    )
    folder = checkout / "cache"
    folder.mkdir()
    (folder / "README.md").write_text(published, encoding="utf-8")
    asked: list[str] = []

    def model_folder(name: str) -> ModelFolder:
        asked.append(name)
        return ModelFolder(OTHER, folder)

    monkeypatch.setattr(fetch, "model_folder", model_folder)
    return {"published": published, "pin": pin, "path": checkout / "model_cards" / f"{OTHER}.md", "asked": asked}


def test_the_card_of_a_model_published_alone_comes_from_the_hub(check: Check, elsewhere: dict[str, Any]) -> None:
    path = elsewhere["path"]
    said = f"{path} is not the card of my-org/{OTHER} at {COMMIT}: python -m vtzoo.cards gets it"
    assert check("--check") == (1, [said])
    assert (elsewhere["asked"], path.exists()) == ([], False)  # the check needs no network
    assert check() == (0, [str(path)])
    assert elsewhere["asked"] == [f"hf-hub:{OTHER}"]
    picture = f"https://huggingface.co/my-org/{OTHER}/resolve/{COMMIT}/curves.png"
    assert path.read_text(encoding="utf-8") == elsewhere["published"].replace("(curves.png)", f"({picture})")
    assert check("--check") == (0, [])


@pytest.mark.parametrize("old, new", [(TOP1, "12.34%"), (COMMIT, "f" * 40), ("(https", "(http")])  # noqa: PT006
def test_an_edited_card_of_a_model_published_alone_is_named(
    check: Check, elsewhere: dict[str, Any], old: str, new: str
) -> None:
    check()
    text = elsewhere["path"].read_text(encoding="utf-8")
    assert old in text
    elsewhere["path"].write_text(text.replace(old, new), encoding="utf-8")
    code, said = check("--check")
    assert (code, len(said)) == (1, 1)
    assert said[0].startswith(f"{elsewhere['path']} is not the card of my-org/{OTHER} at {COMMIT}")


def test_the_published_card_as_it_is_has_no_picture_here(check: Check, elsewhere: dict[str, Any]) -> None:
    elsewhere["path"].write_text(elsewhere["published"], encoding="utf-8")  # without curves.png beside it
    assert check("--check")[0] == 1
