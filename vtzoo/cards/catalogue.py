"""Every model that has a name: those that are here, those that an index has on the Hub, and those yet to be trained."""

from dataclasses import asdict, dataclass
from typing import Any

from vtzoo import cards
from vtzoo.hub import index
from vtzoo.zoo import lookup, recipe_files
from vtzoo.zoo.facts import model_summary


@dataclass(frozen=True, kw_only=True)
class Known:
    """What is known of a model: where it is, how good and how large it is, and how good its twin is."""

    name: str
    place: str  # "here", "hub", or "recipe" where no weights are at hand, and `vtzoo train` makes them
    dataset: str | None = None
    top1: float | None = None  # 0..1; a recipe has one where its weights were measured and not kept
    top5: float | None = None
    images: int | None = None  # of the test split, which the accuracies are of
    bytes: int | None = None  # of all files together
    twin: str | None = None  # the model that differs in the objective alone; None for a model that can have none
    twin_top1: float | None = None
    repo: str | None = None  # ORG/NAME on the Hub
    revision: str | None = None  # the commit there
    tag: str | None = None
    stale: str | None = None  # a sentence, where the recipe was edited since the model was trained

    def as_json(self) -> dict[str, Any]:
        """What is known of it, by key; what is not known is left out."""
        return {key: value for key, value in asdict(self).items() if value is not None}


def known() -> list[Known]:
    """The models that are here, then those on the Hub, then the zoo's own recipes, each once.

    Of the paper's recipes only those come that were measured: `vtzoo.zoo.recipe_files.shipped` has them all.
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
    """Where each model is, and what only that place says of it."""
    places: dict[str, dict[str, Any]]
    places = {entry.name: {"place": "here", "bytes": entry.size} for entry in lookup.embedded_models()}
    for name, pin in sorted(index.known().items()):
        size = sum(content.size for content in pin.files.values())
        at = {"place": "hub", "repo": pin.repo, "revision": pin.revision, "tag": pin.tag, "bytes": size}
        places.setdefault(name, at)
    own, _ = recipe_files.folders()
    for name in sorted(
        {path.stem for path in own.glob("*-*.toml")} | {entry.name for entry in lookup.weightless_models()}
    ):
        places.setdefault(name, {"place": "recipe"})
    return places
