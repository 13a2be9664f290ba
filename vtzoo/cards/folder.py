"""A model folder's card: what it holds is checked, its twin is found, and the card is rendered."""

from pathlib import Path
from typing import Any

from vtzoo.base import files
from vtzoo.cards.metadata import check
from vtzoo.cards.rendering import render
from vtzoo.errors import VtzooError
from vtzoo.hub.index import REPO
from vtzoo.zoo import model_folder, resources
from vtzoo.zoo.model_folder import Entry
from vtzoo.zoo.recipe import Recipe, parse_recipe, shipped

NUMBER = (int, float)
# What a card needs of a result.json, and what those of earlier versions leave out.
KEYS: dict[str, Any] = {
    "images": int, "manifest": str, "seed": int, "steps": int, "batch": int,
    "train_images": int, "train_seconds": NUMBER, "train_skipped": int, "processes": int, "hardware": str,
    "versions": dict, "recipe_sha256": str, "certificate": dict,
}  # fmt: skip
CERTIFICATE: dict[str, Any] = {"images": int, "top1_agreement": NUMBER, "max_logit_difference": NUMBER}
EARLIER = {"train_skipped": 0, "processes": 1}


def of(entry: Entry, repo: str | None = None) -> str:
    """The card of a model folder; as it is published in `repo`, ORG/NAME, where one is given.

    Its twin is an embedded model or the record of one, else the folder of the twin's name beside this one, once that
    is trained. A folder that was not trained to its end, or whose files do not belong together, is a VtzooError.
    """
    if repo is not None and not REPO.fullmatch(repo):
        raise VtzooError(f"{repo!r} is not the name of a repository", "a repository is named ORG/NAME")
    result, recipe = _result(entry), _recipe(entry)
    if files.sha256(entry.folder / "recipe.toml") != result["recipe_sha256"]:
        raise VtzooError(
            f"{entry.folder / 'recipe.toml'} is not the recipe that the model was trained by",
            "put back the file that training wrote, or train the edited one into another folder",
        )
    asked = dict(entry.config.get("pretrained_cfg") or {})
    config = entry.config | {"num_classes": len(entry.labels), "pretrained_cfg": asked}
    twin, name = _twin(entry, recipe), entry.name if _embedded(entry) else "."
    card = render(config, recipe, result, twin, repo, name=name, paired=bool(twin) or _paired(recipe))
    check(card, result)
    return card


def write(entry: Entry, repo: str | None = None) -> Path:
    """Render a model folder's card into its README.md, as `of` does, and return the file."""
    if _embedded(entry):
        hint = "in a checkout of vtzoo: python -m vtzoo.cards"
        raise VtzooError(f"{entry.name} ships with vtzoo, and its card is not to be written by itself", hint)
    path = entry.folder / "README.md"
    files.write(path, of(entry, repo).encode())
    return path


def _embedded(entry: Entry) -> bool:
    return entry.folder.resolve().parent == resources.weights_folder().resolve()


def _recipe(entry: Entry) -> Recipe:
    path = entry.folder / "recipe.toml"
    if not path.is_file():
        raise VtzooError(f"{entry.folder} has no recipe.toml", "put the recipe there that the model was trained by")
    return parse_recipe(entry.recipe_text, str(path))


def _result(entry: Entry) -> dict[str, Any]:
    """The result.json, with all that a card needs of it; what is missing or no such thing is named."""
    if not (entry.folder / "result.json").is_file():
        raise VtzooError(f"{entry.folder} has no result.json: it was not trained to its end", _again(entry))
    result = EARLIER | entry.result
    wrong = _wrong(result)
    if wrong in ("top1", "top5"):
        raise VtzooError(f"{entry.folder} has no {wrong} in its result.json: it was never measured", _again(entry))
    if wrong:
        raise VtzooError(f"{entry.folder / 'result.json'} has no usable {wrong}", _again(entry))
    return result


def _wrong(result: dict[str, Any]) -> str | None:
    """The first of the keys that is missing or mistyped; None where they are all there."""
    metrics = ("map",) if "map" in result else ("top1", "top5")
    wanted = dict.fromkeys(metrics, NUMBER) | KEYS
    wanted |= {"teacher": dict} if result.get("teacher") else {}
    wrong = [key for key, kind in wanted.items() if not isinstance(result.get(key), kind)]
    if "certificate" not in wrong:
        certificate = result["certificate"]
        wrong += [
            f"certificate: {key}" for key, kind in CERTIFICATE.items() if not isinstance(certificate.get(key), kind)
        ]
    return wrong[0] if wrong else None


def _again(entry: Entry) -> str:
    """The command that brings a run to its end."""
    recipe = entry.folder / "recipe.toml"
    tuned = recipe.is_file() and "\n[finetune]" in entry.recipe_text
    command, others = ("finetune", "--model, --seed") if tuned else (f"train {recipe}", "--seed")
    return f"vtzoo {command} --out {entry.folder} --resume, with the {others} and --data that it was started with"


def _paired(recipe: Recipe) -> bool:
    """Whether a twin could be trained: a plain network, which has no grid to localize in, has no recipe for one."""
    return bool(recipe.drloc or recipe.finetune) or model_folder.twin_of(recipe.name) in shipped()


def _twin(entry: Entry, recipe: Recipe) -> dict[str, Any] | None:
    """The result of the model that differs in the objective alone; None where none is at hand, or not yet measured."""
    name = model_folder.twin_of(recipe.name)
    twin = model_folder.recorded(name) or Entry(name, entry.folder.resolve().parent / name)
    if not (twin.folder / "result.json").is_file():
        return None
    result = EARLIER | twin.result
    return result if result.get("name") == name and _wrong(result) is None else None
