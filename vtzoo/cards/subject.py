"""What a card says of the images behind a model: those of a named data set, or people's own."""

from dataclasses import dataclass
from typing import Any

from vtzoo.data import named
from vtzoo.hub.index import REPO
from vtzoo.zoo.recipe import Finetune, Recipe
from vtzoo.zoo.result import Result

METRICS = {"top-1": "top1", "top-5": "top5", "mAP": "map"}  # a metric's name on the Hub, and its key in result.json


@dataclass(frozen=True, kw_only=True)
class Subject:
    """The images that a model was trained and measured on."""

    name: str
    hub_id: str | None  # None for people's own, which are nowhere on the Hub
    where: dict[str, Any]  # an EvalResult's dataset
    licence: str
    split: str  # that was measured: test or validation
    measured: dict[str, str]  # metrics by their name on the Hub: their keys in result.json
    base: str | None  # the model on the Hub that training went on from
    copy: str = ""  # what they are, where their pixels are not the Hub's

    @property
    def linked(self) -> str:
        """Its name, in Markdown."""
        name = f"[{self.name}](https://huggingface.co/datasets/{self.hub_id})" if self.hub_id else self.name
        return f"{name} (a {self.copy})" if self.copy else name


def of(recipe: Recipe, result: Result) -> Subject:
    """What a recipe and its result say of the images."""
    measured = {name: key for name, key in METRICS.items() if key in result.metrics}
    if tuned := recipe.finetune:
        split = result.split or "validation"
        where = {"dataset_type": recipe.dataset, "dataset_name": recipe.dataset, "dataset_split": split}
        return Subject(
            name=recipe.dataset, hub_id=None, where=where, licence="its owner's to state", split=split,
            measured=measured, base=_base(tuned),
        )  # fmt: skip
    dataset = named.named_set(recipe.dataset)
    title = titled(dataset.name, result.manifest or "")
    where = {
        "dataset_type": dataset.hub_id, "dataset_name": title, "dataset_config": dataset.config,
        "dataset_split": "+".join(dataset.test_splits), "dataset_revision": dataset.revision,
    }  # fmt: skip
    return Subject(
        name=dataset.name, hub_id=dataset.hub_id, where=where, licence=dataset.licence, split="test",
        measured=measured, base=None, copy=named.copy_of(dataset.name, result.manifest or "") or "",
    )  # fmt: skip


def titled(name: str, manifest: str) -> str:
    """A data set's name, and what its test images are where they are not the Hub's, by their manifest."""
    copy = named.copy_of(name, manifest)
    return f"{name}, {copy}" if copy else name


def _base(tuned: Finetune) -> str | None:
    """ORG/NAME out of ORG/NAME@COMMIT."""
    repo = tuned.source.partition("@")[0]
    return repo if REPO.fullmatch(repo) else None
