"""The card of a model folder, rendered after its files are checked and its twin is found."""

from pathlib import Path

from vtzoo.base import files
from vtzoo.cards.metadata import check
from vtzoo.cards.rendering import render
from vtzoo.errors import VtzooError
from vtzoo.hub.index import REPO
from vtzoo.zoo import lookup, resources
from vtzoo.zoo.model_folder import ModelFolder
from vtzoo.zoo.recipe import Recipe
from vtzoo.zoo.recipe_files import parse_recipe, shipped
from vtzoo.zoo.result import Result


def card_of(entry: ModelFolder, repo: str | None = None) -> str:
    """The card of a model folder, in its published form if `repo`, ORG/NAME, is given.

    The twin is an embedded model or the record of one, else the finished run in the folder of the twin's name beside
    this folder. An unfinished run, or files that do not belong together, raise a VtzooError.
    """
    if repo is not None and not REPO.fullmatch(repo):
        raise VtzooError(f"{repo!r} is not the name of a repository", "a repository is named ORG/NAME")
    result, recipe = _result(entry), _recipe(entry)
    if files.sha256(entry.folder / "recipe.toml") != result.recipe_sha256:
        hint = "put back the file that training wrote, or train the edited one into another folder"
        raise VtzooError(f"{entry.folder / 'recipe.toml'} is not the recipe that the model was trained by", hint)
    twin, name = _twin(entry, recipe), entry.name if _embedded(entry) else "."
    card = render(entry.config, recipe, result, twin, repo, name=name, paired=bool(twin) or _paired(recipe))
    check(card, result)
    return card


def write(entry: ModelFolder, repo: str | None = None) -> Path:
    """The README.md of a model folder, into which the function renders the card."""
    if _embedded(entry):
        hint = "in a checkout of vtzoo: python -m vtzoo.cards"
        raise VtzooError(f"{entry.name} ships with vtzoo, and its card is not to be written by itself", hint)
    path = entry.folder / "README.md"
    files.write(path, card_of(entry, repo).encode())
    return path


def _embedded(entry: ModelFolder) -> bool:
    return entry.folder.resolve().parent == resources.weights_folder().resolve()


def _recipe(entry: ModelFolder) -> Recipe:
    path = entry.folder / "recipe.toml"
    if not path.is_file():
        raise VtzooError(f"{entry.folder} has no recipe.toml", "put the recipe there that the model was trained by")
    return parse_recipe(entry.recipe_text, str(path))


def _result(entry: ModelFolder) -> Result:
    """The result of a finished run; an unfinished run raises a VtzooError with the command that finishes it."""
    if not (entry.folder / "result.json").is_file():
        raise VtzooError(f"{entry.folder} has no result.json: it was not trained to its end", _again(entry))
    try:
        result = entry.result
    except VtzooError as error:
        raise VtzooError(error.message, error.hint or _again(entry)) from error
    for key in result.missing:
        why = ": it was never measured" if key in result.metrics else ""
        raise VtzooError(f"{entry.folder} has no {key} in its result.json{why}", _again(entry))
    return result


def _again(entry: ModelFolder) -> str:
    """The command that finishes a run."""
    recipe = entry.folder / "recipe.toml"
    tuned = recipe.is_file() and "\n[finetune]" in entry.recipe_text
    command, others = ("finetune", "--model, --seed") if tuned else (f"train {recipe}", "--seed")
    return f"vtzoo {command} --out {entry.folder} --resume, with the {others} and --data that it was started with"


def _paired(recipe: Recipe) -> bool:
    """Whether a twin could be trained; a plain network has no grid for localization, and so no recipe of a twin."""
    return bool(recipe.drloc or recipe.finetune) or lookup.twin_of(recipe.name) in shipped()


def _twin(entry: ModelFolder, recipe: Recipe) -> Result | None:
    """The result of the model that differs only in the objective; None without a measured twin."""
    name = lookup.twin_of(recipe.name)
    twin = lookup.measured_model(name) or ModelFolder(name, entry.folder.resolve().parent / name)
    if not (twin.folder / "result.json").is_file():
        return None
    result = twin.result
    return result if result.name == name and not result.missing else None
