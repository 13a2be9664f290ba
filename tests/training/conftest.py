"""A tiny recipe and a tiny data set: a Swin of two blocks and 16 channels, a few dozen images of noise."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from forked import Python
from PIL import Image

from vtzoo import datasets
from vtzoo.decoding import Rows, Split
from vtzoo.recipe import Recipe, parse_recipe
from vtzoo.training import log, loop, run
from vtzoo.training.crops import Crops
from vtzoo.training.data import Batches
from vtzoo.training.pixels import Pixels

RECIPE = """
name = "swin_t-drloc-cifar10"
dataset = "cifar10"
precision = "float32"

[model]
name = "swin_t"
image_size = 16

[model.arguments]
embed_dim = 16
depths = [1, 1]
num_heads = [1, 2]
patch_size = 2
window_size = 4
drop_path_rate = 0.2

[optimizer]
batch_size = 8
learning_rate = 2e-3
weight_decay = 0.05
betas = [0.9, 0.999]
clip_norm = 5.0

[schedule]
epochs = 4
warmup_epochs = 1
cosine_epochs = 4
final_learning_rate = 1e-6
ema_decay = 0.9

[augmentation]
crop_padding = 2
flip = true
mixup = 0.8
cutmix = 1.0
mix_probability = 0.5
erasing = 0.5
label_smoothing = 0.1

[drloc]
weight = 0.5
pairs = 16
stage = 1
normalize = false
warmup_epochs = 1
schedule_epochs = 4
"""

MUON = """name = "muon"
momentum = 0.95
iterations = 5
adamw_learning_rate = 2e-3
"""
SMALL_CNN = """[model]
name = "small_cnn"
image_size = 16
arguments = { widths = [8, 16, 16] }

"""
TEACHER = """[teacher]
name = "small_cnn-baseline-cifar10"
weight = 0.8
temperature = 2.0

"""
COLOURS = {"Rote Grütze": (200, 60, 60), "grün": (60, 200, 60), "青": (60, 60, 200)}  # of people's classes

ROOT = Path(__file__).resolve().parents[2]
READY = (  # modules that training imports, before a process or within its first step
    "datasets", "sklearn.model_selection", "torch.distributed.launcher.api", "torch.distributed.elastic.rendezvous",
    "vtzoo.training.finetune",
)  # fmt: skip

Edit = Callable[..., str]
Starter = Callable[..., loop.Run]


@pytest.fixture(scope="session")
def recipe_text() -> Edit:
    """The TOML of the tiny recipe, with values replaced by key and, on demand, other tables.

    As a baseline; with Muon, and averages of every second step; of a small CNN in Swin's place, or taught by that.
    """

    def edit(
        *, baseline: bool = False, muon: bool = False, small_cnn: bool = False, taught: bool = False, **values: object
    ) -> str:
        text = RECIPE.partition("[drloc]")[0].replace("-drloc-", "-baseline-") if baseline else RECIPE
        if muon:
            text = text.replace("[optimizer]\n", f"[optimizer]\n{MUON}")
            text = text.replace("[schedule]\n", "[schedule]\nema_every = 2\n")
            text = text.replace("\nlearning_rate = 2e-3", "\nlearning_rate = 1e-2")
        if small_cnn:
            before, _, after = text.replace("swin_t-", "small_cnn-").partition("[model]")
            text = before + SMALL_CNN + "[optimizer]" + after.partition("[optimizer]")[2]
        if taught:
            text = text.replace("[augmentation]", f"{TEACHER}[augmentation]")
        for key, value in values.items():
            lines = text.splitlines()
            (place,) = (number for number, line in enumerate(lines) if line.startswith(f"{key} = "))
            lines[place] = f"{key} = {value}"
            text = "\n".join(lines) + "\n"
        return text

    return edit


@pytest.fixture(scope="session")
def tiny(recipe_text: Edit) -> Callable[..., Recipe]:
    """The tiny recipe itself, edited likewise."""
    return lambda **values: parse_recipe(recipe_text(**values))


@pytest.fixture(scope="session")
def start() -> Starter:
    """The fresh state of a recipe's run on 24 images of noise, three batches of eight."""

    def fresh(recipe: Recipe, seed: int = 0, images: int = 24) -> loop.Run:
        dataset, random, device = datasets.find(recipe.dataset), np.random.default_rng(5), torch.device("cpu")
        how, size = recipe.augmentation, recipe.model.image_size
        pixels = random.integers(0, 256, (images, 3, size, size), dtype=np.uint8)
        batches = Batches(
            Pixels.of(pixels, device), np.arange(images) % 10, crops=Crops.of(how, size=size, flip=dataset.flip),
            augmentation=how, batch_size=recipe.optimizer.batch_size, classes=10, mean=dataset.mean, std=dataset.std,
            seed=seed, device=device,
        )  # fmt: skip
        return loop.set_up(recipe, loop.build(recipe, 10, seed, device), batches)

    return fresh


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 24 training and 20 test images, 32x32, as cifar10's Parquet files on the Hub."""
    import datasets as hub

    folder, random = tmp_path_factory.mktemp("tiny"), np.random.default_rng(6)
    features = hub.Features({"img": hub.Image(), "label": hub.ClassLabel(names=list(datasets.labels("cifar10") or ()))})
    for split, count in (("train", 24), ("test", 20)):
        pixels = random.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
        images = [{"bytes": png(image), "path": None} for image in pixels]
        rows = {"img": images, "label": [number % 10 for number in range(count)]}
        hub.Dataset.from_dict(rows, features=features).to_parquet(folder / f"{split}-00000-of-00001.parquet")
    return folder


@pytest.fixture(scope="session")
def make_split() -> Callable[..., Split]:
    """A split of cifar10's classes out of arrays (height, width, 3), stored as PNG, or of bytes as they are."""
    import pyarrow

    def make(images: Sequence[np.ndarray | bytes]) -> Split:
        stored = [{"bytes": image if isinstance(image, bytes) else png(image), "path": None} for image in images]
        encoded = pyarrow.chunked_array([pyarrow.array(stored)])
        rows = Rows(encoded=encoded, positions=np.arange(len(images)), origin="image {}".format)
        names = datasets.labels("cifar10") or ()
        return Split(labels=np.arange(len(images)) % 10, label_names=names, rows=rows)

    return make


@pytest.fixture(scope="session")
def tiny_source(recipe_text: Edit, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder to fine-tune from: the tiny recipe's model and head with their first weights, and its recipe."""
    folder, recipe, cpu = tmp_path_factory.mktemp("source"), parse_recipe(recipe_text()), torch.device("cpu")
    joint, row = loop.build(recipe, 10, 7, cpu), datasets.find("cifar10")
    run.write_weights(joint.model.state_dict(), folder / "model.safetensors")
    run.write_weights(joint.heads[0].state_dict(), folder / "localizer.safetensors")
    run.write_json(folder / "config.json", run.describe(joint.model, recipe, row, datasets.labels("cifar10") or ()))
    (folder / "recipe.toml").write_text(recipe_text())
    return folder


@pytest.fixture(scope="session")
def small_cnn(recipe_text: Edit, tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run: a small CNN that Muon taught the tiny data in six steps."""
    folder = tmp_path_factory.mktemp("cnn")
    text = recipe_text(baseline=True, small_cnn=True, muon=True, epochs=2)
    (folder / "recipe.toml").write_text(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(datasets.DATASETS, "cifar10", replace(datasets.find("cifar10"), train=24, test=20))
        run.train(folder / "recipe.toml", data=tiny_data, out=folder / "run", device="cpu")
    return folder / "run"


@pytest.fixture(scope="session")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders train/ and test/, each with three of twelve or four images, 20x20 pixels of noise around a colour."""
    folder, random = tmp_path_factory.mktemp("people"), np.random.default_rng(8)
    for part, count in (("train", 12), ("test", 4)):
        for name, colour in COLOURS.items():
            (folder / part / name).mkdir(parents=True)
            for number in range(count):
                noise = random.normal(colour, 40, (20, 20, 3)).clip(0, 255).astype(np.uint8)
                (folder / part / name / f"Bild {number}.png").write_bytes(png(noise))
    return folder


@pytest.fixture(scope="session")
def training_python() -> Iterator[Python]:
    """Runs Python commands as `subprocess.run` does, in processes that have all modules of training already."""
    with closing(Python(*READY, PYTHONPATH=str(ROOT), OMP_NUM_THREADS="1")) as python:
        yield python


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test reads or writes the user's cache of decoded images."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VTZOO_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True, scope="session")
def _traced_once(traced_once: None) -> None:
    """The tiny models of these tests are a handful, and to trace one takes longer than to train it."""


@pytest.fixture(autouse=True, scope="session")
def _no_curves() -> Iterator[None]:
    """No curves after the first epoch: matplotlib takes longer than the tiny training. Finished runs have theirs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(log, "draw_curves", lambda *_: None)
        yield


@pytest.fixture(autouse=True)
def _tiny_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(datasets.DATASETS, "cifar10", replace(datasets.find("cifar10"), train=24, test=20))


def png(pixels: np.ndarray) -> bytes:
    """An image as PNG."""
    file = BytesIO()
    Image.fromarray(pixels).save(file, format="png")
    return file.getvalue()
