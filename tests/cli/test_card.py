"""`vtzoo card`."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from vtzoo import cards
from vtzoo.cli import DEFAULT_MODEL
from vtzoo.zoo import lookup, resources

Command = Callable[..., Result]
EMBEDDED = resources.weights_folder() / DEFAULT_MODEL


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run's folder without weights, which a card does not need."""
    folder = tmp_path / "run"
    folder.mkdir()
    for name in ("config.json", "recipe.toml", "result.json"):
        shutil.copy(EMBEDDED / name, folder)
    return folder


def test_card_prints_an_embedded_models_card_and_nothing_else(vt: Command) -> None:
    result = vt("card", DEFAULT_MODEL)
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == (EMBEDDED / "README.md").read_text(encoding="utf-8")


def test_card_prints_a_folders_card_and_writes_nothing(vt: Command, run: Path) -> None:
    result = vt("card", run)
    assert result.stdout == cards.card_of(lookup.find_model(run))
    assert not (run / "README.md").exists()


def test_card_repo_prints_it_as_published_there(vt: Command, run: Path) -> None:
    result = vt("card", run, "--repo", "my-org/my-model")
    assert result.stdout == cards.card_of(lookup.find_model(run), "my-org/my-model")
    assert "vtzoo predict --model my-org/my-model photo.jpg" in result.stdout


def test_card_write_puts_it_into_the_folder_and_says_so(vt: Command, run: Path) -> None:
    result = vt("card", run, "--write")
    assert (result.exit_code, result.stdout) == (0, f"{run / 'README.md'}: written\n")
    assert (run / "README.md").read_text(encoding="utf-8") == cards.card_of(lookup.find_model(run))


def test_card_write_leaves_an_embedded_model_alone(vt: Command) -> None:
    result = vt("card", DEFAULT_MODEL, "--write")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == (
        f"Error: {DEFAULT_MODEL} ships with vtzoo, and its card is not to be written by itself\n"
        "Hint: in a checkout of vtzoo: python -m vtzoo.cards\n"
    )


def test_card_of_a_run_that_was_killed_says_how_to_go_on(vt: Command, run: Path) -> None:
    (run / "result.json").unlink()
    result = vt("card", run)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == (
        f"Error: {run} has no result.json: it was not trained to its end\n"
        f"Hint: vtzoo train {run / 'recipe.toml'} --out {run} --resume, with the --seed and --data that it was started "
        "with\n"
    )


def test_card_of_an_unknown_repository_form_is_refused(vt: Command, run: Path) -> None:
    result = vt("card", run, "--repo", "my-model")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == (
        "Error: 'my-model' is not the name of a repository\nHint: a repository is named ORG/NAME\n"
    )
