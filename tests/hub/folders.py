"""The model folder of a finished run, with a Swin so small that publishing is fast."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from vtzoo import models
from vtzoo.base import files
from vtzoo.data import named
from vtzoo.export.onnx_files import write_packaged_graph
from vtzoo.train import run
from vtzoo.zoo import recipe_files, resources
from vtzoo.zoo.folder_files import write_json

NAME = "swin_t-drloc-cifar10"
ARGUMENTS = {"embed_dim": 16, "depths": [1, 1], "num_heads": [1, 2], "patch_size": 2, "window_size": 4}
SIZE = 16  # pixels


def make_run(folder: Path, seed: int = 0) -> Path:
    """A run folder with random weights, invented metrics and true hashes."""
    path = resources.recipes_folder() / f"{NAME}.toml"
    said, dataset = recipe_files.load_recipe(path), named.named_set("cifar10")
    said = replace(said, model=replace(said.model, image_size=SIZE, arguments=ARGUMENTS))
    torch.manual_seed(seed)
    model = models.build("swin_t", num_classes=10, image_size=SIZE, **ARGUMENTS).eval()
    (folder / "onnx").mkdir(parents=True)
    (folder / "recipe.toml").write_bytes(path.read_bytes())
    config = run.describe(model, said, dataset, named.labels("cifar10") or ())
    config.write(folder / "config.json")
    run.write_weights(model.state_dict(), folder / "model.safetensors")
    run.write_weights({"head.weight": torch.rand(2, 3)}, folder / "localizer.safetensors")
    certificate = write_packaged_graph(model, config.content, folder)
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(folder / "curves.png")
    facts = {
        "name": NAME, "dataset": "cifar10", "seed": 0, "steps": 12, "batch": 8, "train_seconds": 3, "train_images": 24,
        "hardware": "2 CPU cores (x86_64)", "versions": {"torch": "2.14.1"}, "certificate": vars(certificate),
        "recipe_sha256": recipe_files.identity(path), "top1": 0.25, "top5": 0.75, "images": 20, "manifest": "ab" * 32,
    }  # fmt: skip
    sign(folder, facts)
    return folder


def sign(folder: Path, facts: dict | None = None) -> None:
    """Write the weights' true hashes, and the given other facts, into result.json."""
    facts = facts or json.loads((folder / "result.json").read_text())
    weights = {name: files.sha256(folder / name) for name in run.WEIGHTS if (folder / name).exists()}
    write_json(folder / "result.json", facts | {"weights": weights})


def pixels(seed: int) -> Image.Image:
    """An image of noise."""
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (40, 50, 3), dtype=np.uint8))
