"""Distillation: a trained model, the teacher, whose logits are a second target of the student (Hinton et al. 2015)."""

from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from vtzoo.base import files
from vtzoo.data import named
from vtzoo.data.labelled_images import LabelledImages
from vtzoo.errors import VtzooError
from vtzoo.hub import fetch
from vtzoo.predict.torch import read_model
from vtzoo.zoo import lookup
from vtzoo.zoo.model_folder import ModelFolder
from vtzoo.zoo.recipe import Recipe
from vtzoo.zoo.result import TeacherResult


@dataclass(frozen=True, kw_only=True, eq=False)
class Teacher:
    """A trained model that sees the student's augmented images, and the weight of its targets."""

    model: nn.Module  # frozen, in evaluation mode, on the training device
    weight: float  # of its targets, 0..1; the labels have weight 1 - weight
    temperature: float  # divides the logits of both models
    facts: TeacherResult
    train_manifest: str | None  # sha256 of its training images and labels

    @torch.no_grad()
    def logits(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b k"]:
        """The teacher's logits of an augmented batch, normalized as its own training images were."""
        return self.model(images).float()

    def divergence(self, logits: Float[Tensor, "b k"], images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, ""]:
        """The divergence of a student's logits from the teacher's, on the same images."""
        return divergence(logits.float(), self.logits(images), self.temperature)

    def loss(self, cross_entropy: Float[Tensor, ""], distillation: Float[Tensor, ""]) -> Float[Tensor, ""]:
        """The weighted sum of the labels' loss and the teacher's."""
        return (1 - self.weight) * cross_entropy + self.weight * distillation

    def check_images(self, train_manifest: str, test: LabelledImages) -> None:
        """Raise a VtzooError for a teacher with other training images than its student, such as the test images."""
        name, learned = self.facts.name, self.train_manifest
        if learned == train_manifest:
            return
        if learned == test.fingerprint:
            raise VtzooError(
                f"the teacher {name} was trained on the test images", _training(name, " on the training images")
            )
        raise VtzooError(
            f"the teacher {name} was trained on other images: their sha256 is {learned}, and here {train_manifest}",
            _training(name, " with the same --data"),
        )


def divergence(logits: Float[Tensor, "b k"], taught: Float[Tensor, "b k"], temperature: float) -> Float[Tensor, ""]:
    """T^2 KL(teacher || student) at temperature T, a mean over images; T^2 keeps the scale of the gradient."""
    student, teacher = (functional.log_softmax(values / temperature, dim=1) for values in (logits, taught))
    return temperature**2 * functional.kl_div(student, teacher, log_target=True, reduction="batchmean")


def open_teacher(recipe: Recipe, folder: Path | None, device: torch.device) -> Teacher | None:
    """The teacher of a recipe, from the given model folder or by its name; None for a recipe without a teacher.

    A missing teacher, or a teacher with other data, classes or image size than the recipe's, is a VtzooError.
    """
    if recipe.teacher is None:
        if folder is not None:
            raise VtzooError(f"{recipe.name} has no [teacher] for {folder} to be", "leave out --teacher")
        return None
    entry = _find(recipe.teacher.name, folder)
    _refuse_misfit(entry, recipe)
    sha256 = files.sha256(entry.folder / "model.safetensors")
    facts = TeacherResult(name=recipe.teacher.name, weights=sha256, top1=entry.result.top1)
    return Teacher(
        model=read_model(entry).float().eval().requires_grad_(False).to(device), weight=recipe.teacher.weight,
        temperature=recipe.teacher.temperature, facts=facts, train_manifest=entry.result.train_manifest,
    )  # fmt: skip


def _find(name: str, folder: Path | None) -> ModelFolder:
    """The model folder of a teacher; the error for a missing teacher says how to train it."""
    try:
        entry = fetch.model_folder(name, use="finetune") if folder is None else lookup.find_model(folder)
        said = entry.result.name
    except VtzooError as error:
        raise VtzooError(f"no teacher {name}: {error.message}", _training(name)) from error
    if said != name:
        raise VtzooError(
            f"{entry.folder} holds {said}, and the recipe's teacher is {name}", "--teacher FOLDER says where that is"
        )
    return entry


def _refuse_misfit(entry: ModelFolder, recipe: Recipe) -> None:
    """Raise a VtzooError for a teacher whose training, classes or image size do not fit the recipe."""
    name, dataset, size = entry.result.name, named.named_set(recipe.dataset), recipe.model.image_size
    own = entry.recipe
    if own.finetune:
        raise VtzooError(
            f"the teacher {name} goes on from {own.finetune.source}, which may have seen other images",
            "a teacher is trained from scratch, by `vtzoo train`",
        )
    labels = named.labels(dataset.name)  # None if they are not recorded
    own_labels = entry.config.labels
    if len(own_labels) != dataset.classes or (labels and own_labels != labels):
        raise VtzooError(
            f"the {len(own_labels)} classes of the teacher {name} are not the {dataset.classes} of {dataset.name}",
            f"a teacher is trained on the data set of its student, and {name} was on {own.dataset}",
        )
    shape = tuple(entry.config.completed["input_size"])
    if shape != (3, size, size):
        raise VtzooError(
            f"the teacher {name} takes images of {' x '.join(map(str, shape))}, and its student of 3 x {size} x {size}",
            "train it by a recipe with the same model.image_size",
        )


def _training(name: str, how: str = "") -> str:
    """The hint to train a teacher and pass its folder."""
    return f"train it{how}: vtzoo train {name} --out runs/{name}; then go on with --teacher runs/{name}"
