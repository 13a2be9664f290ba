"""The facts in a model folder, as JSON for `vtzoo list` and `vtzoo show`."""

from typing import Any

from vtzoo.data import named
from vtzoo.zoo.model_folder import ModelFolder


def model_summary(model: ModelFolder) -> dict[str, Any]:
    """A model's name and, if its result has them, dataset, top1, top5 (fractions) and the number of test images."""
    return {"name": model.name, **_stated(model, "dataset", "top1", "top5", "images")}


def model_facts(model: ModelFolder) -> dict[str, Any]:
    """The model, its accuracy, its training and its classes."""
    result, config = model.result_or_empty, model.config
    copy = named.copy_of(result.dataset or "", result.manifest or "")
    return {
        "name": model.name, "architecture": config.architecture, "classes": len(config.labels),
        "image_size": config.preprocess.size,  # pixels, the side of the square
        **_stated(model, "dataset"),
        **({"copy": copy} if copy else {}),  # the measured copy of the data set, if not the Hub's own images
        **_stated(
            model, "top1", "top5", "images", "manifest", "seed", "steps", "batch", "train_images", "train_seconds",
            "hardware", "versions", "teacher", "recipe_sha256", "certificate",
        ),
        "folder": str(model.folder), "bytes": model.size, "labels": list(config.labels),
    }  # fmt: skip


def _stated(model: ModelFolder, *keys: str) -> dict[str, Any]:
    """The given keys that the model's result has, in the given order."""
    stated = model.result_or_empty.as_json()
    return {key: stated[key] for key in keys if key in stated}
