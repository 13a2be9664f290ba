"""A teacher: a trained model whose logits are a second target for the model that learns (Hinton et al. 2015)."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from vtzoo import files, hub, preprocess
from vtzoo.errors import VtzooError
from vtzoo.inference.torch import read_model
from vtzoo.recipe import Recipe
from vtzoo.splits import Split
from vtzoo.zoo import Entry


@dataclass(frozen=True, kw_only=True, eq=False)
class Teacher:
    """A model that answers the very images that the student sees, and how much its answers count."""

    model: nn.Module  # frozen, in evaluation mode, on the training device
    weight: float  # of its targets, 0..1; the labels have what is left of 1
    temperature: float  # that divides both models' logits
    facts: dict[str, Any]  # what result.json says of it: name, weights (sha256) and, where it is known, top1
    train_manifest: str | None  # sha256 of the images and labels that it learned on

    @torch.no_grad()
    def logits(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b k"]:
        """Its logits of an augmented batch, which is normalized as its own training images were."""
        return self.model(images).float()

    def loss(self, cross_entropy: Tensor, distillation: Tensor) -> Tensor:
        """The labels' loss and the teacher's, each with its weight."""
        return (1 - self.weight) * cross_entropy + self.weight * distillation

    def check_images(self, train_manifest: str, held: Split) -> None:
        """Refuse a teacher that learned on other images than its student does, the test images above all."""
        name, learned = self.facts["name"], self.train_manifest
        if learned == train_manifest:
            return
        if learned == held.manifest:
            raise VtzooError(f"the teacher {name} was trained on the test images", "train one on the training images")
        raise VtzooError(
            f"the teacher {name} was trained on other images: their sha256 is {learned}, not {train_manifest}",
            f"vtzoo train {name} with the same --data",
        )


def divergence(logits: Float[Tensor, "b k"], taught: Float[Tensor, "b k"], temperature: float) -> Float[Tensor, ""]:
    """T^2 KL(teacher || student) at temperature T, a mean over images; T^2 keeps the gradient's size."""
    student, teacher = (functional.log_softmax(values / temperature, dim=1) for values in (logits, taught))
    return temperature**2 * functional.kl_div(student, teacher, log_target=True, reduction="batchmean")


def open_teacher(recipe: Recipe, folder: Path | None, labels: tuple[str, ...], device: torch.device) -> Teacher | None:
    """The teacher that a recipe names, from its model folder or, where none is given, from the models at hand.

    None where the recipe names none. One that is not there, answers other classes or takes images of another size is a
    VtzooError.
    """
    if recipe.teacher is None:
        if folder is not None:
            raise VtzooError(f"{recipe.name} has no [teacher] for {folder} to be", "leave out --teacher")
        return None
    entry = _find(recipe.teacher.name, folder)
    size, described = recipe.model.image_size, preprocess.complete(entry.config)
    if entry.labels != labels:
        raise VtzooError(
            f"the teacher {entry.name} answers {len(entry.labels)} classes that are not those of {recipe.dataset}",
            "a teacher is trained on the same data set",
        )
    if tuple(described["input_size"]) != (3, size, size):
        shape = " x ".join(map(str, described["input_size"]))
        raise VtzooError(f"the teacher {entry.name} takes images of {shape}, not 3 x {size} x {size}", "name another")
    facts = {"name": entry.name, "weights": files.sha256(entry.folder / "model.safetensors")}
    if "top1" in entry.result:
        facts["top1"] = entry.result["top1"]
    model = read_model(entry).float().eval().requires_grad_(False).to(device)
    return Teacher(
        model=model, weight=recipe.teacher.weight, temperature=recipe.teacher.temperature, facts=facts,
        train_manifest=entry.result.get("train_manifest"),
    )  # fmt: skip


def _find(name: str, folder: Path | None) -> Entry:
    """The model folder of a teacher; one that is not there is an error that says how to train it."""
    try:
        entry = hub.find(str(folder) if folder else name, use="finetune")
    except VtzooError as error:
        hint = f"vtzoo train {name} --out runs/{name} trains it; then --teacher runs/{name}"
        raise VtzooError(f"no teacher {name}: {error.message}", hint) from error
    if (said := entry.result.get("name")) != name:
        raise VtzooError(
            f"{entry.folder} holds {said}, and the recipe's teacher is {name}", "--teacher FOLDER names its"
        )
    return entry
