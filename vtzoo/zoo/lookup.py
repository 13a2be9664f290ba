"""Models by name: embedded in the package, or a folder anywhere."""

import os
from collections.abc import Sequence
from pathlib import Path

from vtzoo.errors import VtzooError, unknown
from vtzoo.zoo import resources
from vtzoo.zoo.model_folder import ModelFolder
from vtzoo.zoo.recipe_files import shipped


def embedded_models() -> list[ModelFolder]:
    """The embedded models, sorted by name."""
    files = sorted(resources.weights_folder().glob("*/config.json"))
    return [ModelFolder(file.parent.name, file.parent) for file in files]


def weightless_models() -> list[ModelFolder]:
    """The records of measured models without weights, sorted by name: a result.json and a recipe.toml each."""
    measured = {file.parent for file in resources.weights_folder().glob("*/result.json")}
    without = measured - {model.folder for model in embedded_models()}
    return [ModelFolder(folder.name, folder) for folder in sorted(without)]


def measured_model(name: str) -> ModelFolder | None:
    """The embedded model of that name, with or without weights; None for an unknown name."""
    return next((model for model in (*embedded_models(), *weightless_models()) if model.name == name), None)


def twin_of(name: str) -> str:
    """The name of the model that differs only in the objective."""
    ours, other = ("-drloc-", "-baseline-") if "-drloc-" in name else ("-baseline-", "-drloc-")
    return name.replace(ours, other)


def local_model(name: str | Path) -> ModelFolder | None:
    """The embedded model of that name, else the model folder at that path; None without either."""
    embedded = {model.name: model for model in embedded_models()}
    if str(name) in embedded:
        return embedded[str(name)]
    folder = Path(name)
    # os.path, because Path.is_file raises an OSError for a name that is too long.
    if os.path.isfile(folder / "config.json"):  # noqa: PTH113
        return ModelFolder(folder.resolve().name, folder)
    if os.path.isdir(folder):  # noqa: PTH112
        raise VtzooError(f"{str(name)!r} is not a model folder: it has no config.json", "vtzoo list names the models")
    return None


def find_model(name: str | Path) -> ModelFolder:
    """The embedded model of that name, or the model folder at that path; a VtzooError without either."""
    if model := local_model(name):
        return model
    names = [model.name for model in embedded_models()]
    raise unknown_model(str(name), names, "vtzoo list names the models; a model folder's path works too")


def unknown_model(name: str, known: Sequence[str], hint: str) -> VtzooError:
    """The error for an unknown name, with the nearest names or the command that trains the recipe of that name."""
    if name in shipped():
        return VtzooError(
            f"there are no weights of {name} here: it is a recipe",
            f"vtzoo train {name} trains it; a clone of vtzoo's repository may have them, after pip install -e .",
        )
    return unknown("model", name, known, hint)
