"""The folders and files that ship with the package, in a checkout and in an installed wheel."""

from pathlib import Path

from vtzoo.errors import VtzooError

PACKAGE = Path(__file__).resolve().parents[1]
DEFAULT_MODEL = "swin_t-drloc-cifar100"  # the only model in the wheel; a checkout has all embedded models


def recipes_folder() -> Path:
    """The folder of the recipes, one TOML file per model."""
    return _shipped("_recipes", "recipes")


def cards_folder() -> Path:
    """The folder of the model cards, one Markdown file per model."""
    return _shipped("_model_cards", "model_cards")


def weights_folder() -> Path:
    """The folder of the embedded model folders and of the records of models without weights."""
    return PACKAGE / "weights"


def index_file() -> Path:
    """The index of the models on the Hub."""
    return PACKAGE / "zoo.toml"


def _shipped(in_wheel: str, in_checkout: str) -> Path:
    # The wheel's copy first: site-packages may hold another project's folder named `recipes`.
    for folder in (PACKAGE / in_wheel, PACKAGE.parent / in_checkout):
        if folder.is_dir():
            return folder
    raise VtzooError(f"this installation of vtzoo has no {in_checkout} folder", "install it again: pip install vtzoo")
