"""The facts of a card on the images behind a model: a named data set's, or a user's own."""

from dataclasses import dataclass
from typing import Any

from vtzoo.data import named
from vtzoo.hub.index import REPO
from vtzoo.zoo.recipe import Finetune, Recipe
from vtzoo.zoo.result import Result

METRICS = {"top-1": "top1", "top-5": "top5", "mAP": "map"}  # keys of result.json by the Hub's names of the metrics


@dataclass(frozen=True, kw_only=True)
class CardImages:
    """The images that a model was trained and measured on."""

    name: str
    hub_id: str | None  # None for a user's own images
    where: dict[str, Any]  # the dataset arguments of an EvalResult
    licence: str
    split: str  # measured: "test" or "validation"
    measured: dict[str, str]  # keys of result.json by the Hub's names of the measured metrics
    base: str | None  # the pretrained model, if it is on the Hub
    copy: str = ""  # the kind of copy, if the pixels are not the Hub's

    @property
    def linked(self) -> str:
        """The name of the data set, in Markdown."""
        name = f"[{self.name}](https://huggingface.co/datasets/{self.hub_id})" if self.hub_id else self.name
        return f"{name} (a {self.copy})" if self.copy else name


def card_images(recipe: Recipe, result: Result) -> CardImages:
    """The facts on the images in a recipe and its result."""
    measured = {name: key for name, key in METRICS.items() if key in result.metrics}
    if tuned := recipe.finetune:
        split = result.split or "validation"
        where = {"dataset_type": recipe.dataset, "dataset_name": recipe.dataset, "dataset_split": split}
        return CardImages(
            name=recipe.dataset, hub_id=None, where=where, licence="its owner's to state", split=split,
            measured=measured, base=_base(tuned),
        )  # fmt: skip
    dataset = named.named_set(recipe.dataset)
    title = titled(dataset.name, result.manifest or "")
    where = {
        "dataset_type": dataset.hub_id, "dataset_name": title, "dataset_config": dataset.config,
        "dataset_split": "+".join(dataset.test_splits), "dataset_revision": dataset.revision,
    }  # fmt: skip
    return CardImages(
        name=dataset.name, hub_id=dataset.hub_id, where=where, licence=dataset.licence, split="test",
        measured=measured, base=None, copy=named.copy_of(dataset.name, result.manifest or "") or "",
    )  # fmt: skip


def titled(name: str, manifest: str) -> str:
    """A data set's name, with the kind of copy if the manifest is not that of the Hub's test images."""
    copy = named.copy_of(name, manifest)
    return f"{name}, {copy}" if copy else name


def _base(tuned: Finetune) -> str | None:
    """ORG/NAME from ORG/NAME@COMMIT; None for a model that is not from the Hub."""
    repo = tuned.source.partition("@")[0]
    return repo if REPO.fullmatch(repo) else None
