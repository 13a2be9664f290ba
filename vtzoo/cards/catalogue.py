"""The catalogue of models: embedded models, models on the Hub by the index, and recipes without weights."""

from dataclasses import asdict, dataclass
from typing import Any

from vtzoo import cards
from vtzoo.hub import index
from vtzoo.zoo import lookup, recipe_files
from vtzoo.zoo.facts import model_summary


@dataclass(frozen=True, kw_only=True)
class Known:
    """The known facts of a model: its place, its accuracy and size, and its twin's accuracy."""

    name: str
    place: str  # "here", "hub", or "recipe" for a model that `vtzoo train` has to train
    dataset: str | None = None
    top1: float | None = None  # 0..1; a recipe has an accuracy if its weights were measured and not kept
    top5: float | None = None
    images: int | None = None  # of the measured test split
    bytes: int | None = None  # of all files together
    twin: str | None = None  # the model that differs only in the objective; None for a model without one
    twin_top1: float | None = None
    repo: str | None = None  # ORG/NAME on the Hub
    revision: str | None = None  # the commit there
    tag: str | None = None
    stale: str | None = None  # a sentence, if the recipe was edited after the training

    def as_json(self) -> dict[str, Any]:
        """The known facts by key, without unknown ones."""
        return {key: value for key, value in asdict(self).items() if value is not None}


def known() -> list[Known]:
    """The embedded models, then those on the Hub, then the zoo's own recipes, each once.

    Leaves out the paper's recipes without a measured accuracy; `vtzoo.zoo.recipe_files.shipped` has them all.
    """
    measured = {entry.name: model_summary(entry) for entry in (*lookup.embedded_models(), *lookup.weightless_models())}
    recipes, stale, found = recipe_files.shipped(), cards.stale_weights(), []
    for name, facts in _places().items():
        twin = lookup.twin_of(name)
        model: dict[str, Any] = {"name": name, **measured.get(name, {}), **facts, "stale": stale.get(name)}
        if twin != name and (twin in recipes or twin in measured):
            model |= {"twin": twin, "twin_top1": measured.get(twin, {}).get("top1")}
        found.append(Known(**model))
    return found


def _places() -> dict[str, dict[str, Any]]:
    """The place of each model, with the facts that only the place has."""
    places: dict[str, dict[str, Any]]
    places = {entry.name: {"place": "here", "bytes": entry.size} for entry in lookup.embedded_models()}
    for name, pin in sorted(index.known().items()):
        size = sum(content.size for content in pin.files.values())
        at = {"place": "hub", "repo": pin.repo, "revision": pin.revision, "tag": pin.tag, "bytes": size}
        places.setdefault(name, at)
    own, _ = recipe_files.folders()
    weightless = {entry.name for entry in lookup.weightless_models()}
    for name in sorted({path.stem for path in own.glob("*-*.toml")} | weightless):
        places.setdefault(name, {"place": "recipe"})
    return places
