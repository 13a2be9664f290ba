"""The shipped recipes and cards are found in a checkout and in a wheel."""

from pathlib import Path

import pytest

from vtzoo.errors import VtzooError
from vtzoo.zoo import resources

ROOT = Path(__file__).resolve().parents[2]


def test_a_checkout_has_its_own_recipes_and_cards() -> None:
    assert resources.recipes_folder() == ROOT / "recipes"
    assert resources.cards_folder() == ROOT / "model_cards"
    assert resources.weights_folder() == ROOT / "vtzoo" / "weights"


def test_a_wheel_has_recipes_and_cards_inside_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "vtzoo"
    for folder in (package / "_recipes", package / "_model_cards", tmp_path / "recipes"):
        folder.mkdir(parents=True)
    monkeypatch.setattr(resources, "PACKAGE", package)
    assert resources.recipes_folder() == package / "_recipes"  # not the recipes/ of another project beside the package
    assert resources.cards_folder() == package / "_model_cards"


def test_an_installation_without_recipes_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resources, "PACKAGE", tmp_path / "vtzoo")
    with pytest.raises(VtzooError, match="has no recipes folder"):
        resources.recipes_folder()
