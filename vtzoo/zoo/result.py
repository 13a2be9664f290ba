"""result.json: the facts of a training, its accuracies and the hashes of its weights."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from vtzoo.base import files, strict
from vtzoo.zoo.folder_files import json_bytes, read_json

# The keys, besides the accuracies, that a card needs.
STATED = (
    "name", "images", "manifest", "seed", "steps", "batch", "train_images", "train_seconds", "hardware", "versions",
    "recipe_sha256", "certificate",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Certificate:
    """The measured difference between the written graph in ONNX Runtime and the float32 torch model."""

    precision: str | None = "fp32"  # of the graph; None in certificates of earlier versions
    images: int
    source: str | None = None  # of the images, a phrase; None in certificates of earlier versions
    manifest: str | None = None  # sha256 of the images and labels in order, if they are from a data set
    max_logit_difference: float  # largest absolute difference over all images and classes
    top1_agreement: float  # fraction of the images with the same top-1 class
    torch_top1: float | None = None  # accuracy on these images, if their labels are known
    onnx_top1: float | None = None

    def summary(self) -> str:
        """The certificate in one sentence."""
        agreement = (
            f"{self.precision}, verified on {self.images} images ({self.source}), "
            f"top-1 agreement {self.top1_agreement:.2%}, logits differ by at most {self.max_logit_difference:.1e}"
        )
        if self.torch_top1 is None or self.onnx_top1 is None:
            return agreement
        return f"{agreement}, top-1 {self.onnx_top1:.2%} (torch {self.torch_top1:.2%})"

    def as_json(self) -> dict[str, Any]:
        """The certificate by key; certificates of earlier versions have three keys."""
        return {key: value for key, value in vars(self).items() if self.precision or value is not None}


@dataclass(frozen=True, kw_only=True)
class TeacherResult:
    """The teacher of a model, whose logits were a second target."""

    name: str
    weights: str  # sha256 of its model.safetensors
    top1: float | None = None  # 0..1, if known

    def as_json(self) -> dict[str, Any]:
        """The teacher by key, without unknown values."""
        return {key: value for key, value in vars(self).items() if value is not None}


@dataclass(frozen=True, kw_only=True)
class Result:
    """result.json. Keys that earlier versions and unfinished runs leave out are None."""

    name: str | None = None
    dataset: str | None = None  # a key of vtzoo.data.named.DATASETS; after fine-tuning the name of the user's images
    seed: int | None = None
    steps: int | None = None  # of the optimizer
    batch: int | None = None  # images per step, over all devices
    train_seconds: int | None = None
    train_images: int | None = None
    train_manifest: str | None = None  # sha256 of the training images and labels in order
    train_skipped: int | None = None  # unreadable training images
    best_step: int | None = None  # of the published weights of a fine-tuned model
    processes: int | None = None
    hardware: str | None = None
    versions: dict[str, str | None] | None = None
    recipe_sha256: str | None = None
    teacher: TeacherResult | None = None
    certificate: Certificate | None = None
    weights: dict[str, str] | None = None  # sha256 by file
    top1: float | None = None  # 0..1, like all accuracies
    top5: float | None = None
    map: float | None = None  # mean average precision of a multi-label model, which has neither top1 nor top5
    images: int | None = None  # measured
    manifest: str | None = None  # sha256 of the measured images and labels in order
    split: str | None = None  # "test" or "validation", the measured split of a fine-tuned model
    held_top1: float | None = None  # held_...: the same on the validation images of a fine-tuned model
    held_top5: float | None = None
    held_map: float | None = None
    held_images: int | None = None
    held_manifest: str | None = None

    @classmethod
    def read(cls, path: Path) -> "Result":
        """The result in a file. An unknown or mistyped key raises a VtzooError that names the file and the key."""
        return strict.build(cls, _without_nulls(read_json(path)), str(path))

    @property
    def fine_tuned(self) -> bool:
        """Whether the model was fine-tuned on a user's images, not trained from scratch."""
        return self.split is not None

    @property
    def multi_label(self) -> bool:
        """Whether an image may have several classes, so that the metric is mAP."""
        return self.map is not None

    @property
    def metrics(self) -> tuple[str, ...]:
        """The keys of the accuracies, the main one first."""
        return ("map",) if self.multi_label else ("top1", "top5")

    @property
    def missing(self) -> tuple[str, ...]:
        """The keys that a card needs and this result lacks: none after a complete run."""
        return tuple(key for key in (*self.metrics, *STATED) if getattr(self, key) is None)

    def as_json(self) -> dict[str, Any]:
        """The content of result.json, in its order of keys."""
        names = [field.name for field in fields(self) if getattr(self, field.name) is not None]
        if self.fine_tuned and "seed" in names and "processes" in names:  # fine-tuning writes the seed after the steps
            names.remove("seed")
            names.insert(names.index("processes"), "seed")
        values = {name: getattr(self, name) for name in names}
        return {key: value.as_json() if hasattr(value, "as_json") else value for key, value in values.items()}

    def as_bytes(self) -> bytes:
        """The content of the file result.json."""
        return json_bytes(self.as_json())

    def write(self, path: Path) -> None:
        """Write result.json atomically."""
        files.write(path, self.as_bytes())


def _without_nulls(content: dict[str, Any]) -> dict[str, Any]:
    """A JSON object without null values: null means an absent key."""
    nested = ("certificate", "teacher")
    kept = {key: value for key, value in content.items() if value is not None}
    return {key: _without_nulls(v) if key in nested and isinstance(v, dict) else v for key, v in kept.items()}
