"""How fast training is: `python tests/bench/training.py [--device cuda] [--rounds N] [--json] [--save]`.

Three tables. Whole steps: this pipeline, timm's loader and transforms in the usual loop, and a constant batch, the
upper bound of any pipeline, all with one model, one batch size and the same kinds of augmentation. The pipelines alone,
without a model. The cost of localization in a step, in time and peak memory. The variants run in turns, so that other
load on the machine affects all of them; the output has medians, and medians of the ratios within a turn.

The images are 32 px cut-outs of the photographs in tests/photos, so the benchmark needs no download.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from figures import circumstances, options, tell, versions
from PIL import Image, ImageOps
from timm.data import auto_augment
from timm.data.loader import create_loader
from timm.data.mixup import Mixup

from vtzoo.data import named
from vtzoo.models.localizer import grids_of_black
from vtzoo.train import loop
from vtzoo.train.augment import mix as augment
from vtzoo.train.model_with_drloc import ModelWithDrloc
from vtzoo.train.pipeline.batches import Batch, Batches
from vtzoo.train.pipeline.crops import Crops
from vtzoo.train.pipeline.pixels import Pixels
from vtzoo.zoo.recipe import Recipe
from vtzoo.zoo.recipe_files import load_recipe, locate

HERE = Path(__file__).resolve()
ROOT = HERE.parents[2]
OURS, TIMM, LIMIT = "this pipeline", "timm's loader", "a constant batch"
DECODED = "timm's loader, images decoded before"
# Light augmentation and patches of 4; RandAugment, erasing and patches of 2.
RECIPES = ("swin_t-drloc-cifar100", "swin_t-drloc-cifar10")
LOCALIZED = (
    ("swin_t-drloc-cifar100", 256), ("swin_t-drloc-cifar10", 64), ("cvt_13-drloc-cifar10", 32),
    ("t2t_vit_14-drloc-cifar10", 64), ("swin_t-drloc-clipart", 16), ("cvt_13-drloc-clipart", 8),
    ("t2t_vit_14-drloc-clipart", 8),
)  # fmt: skip
STEPS = 8  # timed in a turn
PREFETCHED = 6  # steps before them, which use up the batches that were prepared in an earlier turn


# Pillow 13 fails on the 0 bits that timm 1.0.31 asks for now and then: here it keeps 1, as the pipeline that it is to
# be compared with.
auto_augment.NAME_TO_OP["PosterizeIncreasing"] = lambda image, bits, **_: ImageOps.posterize(image, max(bits, 1))


def cut_outs(count: int, size: int = 32) -> np.ndarray:
    """Random squares of the photographs, small ones at a third of their size, uint8 (count, size, size, 3)."""
    random = np.random.default_rng(0)
    photos = [Image.open(path).convert("RGB") for path in sorted((ROOT / "tests" / "photos").glob("*.jpg"))]
    small = [np.asarray(photo.reduce(3) if size < 64 else photo) for photo in photos]
    found = np.empty((count, size, size, 3), np.uint8)
    for number in range(count):
        photo = small[number % len(small)]
        top, left = (random.integers(side - size + 1) for side in photo.shape[:2])
        found[number] = photo[top : top + size, left : left + size]
    return found


class Encoded(torch.utils.data.Dataset):
    """Images as PNG, as datasets have them; or, in timm's favour, decoded before."""

    def __init__(self, pixels: np.ndarray, *, decoded: bool) -> None:
        self.images = [Image.fromarray(image) if decoded else png(image) for image in pixels]
        self.transform: Callable[[Image.Image], Any] = lambda image: image  # timm puts its own here

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        image = self.images[index]
        return self.transform(image if isinstance(image, Image.Image) else Image.open(BytesIO(image)).convert("RGB")), 0


def png(pixels: np.ndarray) -> bytes:
    """The image as a PNG file."""
    file = BytesIO()
    Image.fromarray(pixels).save(file, format="png")
    return file.getvalue()


def ours(recipe: Recipe, pixels: np.ndarray, device: torch.device) -> Batches:
    """The batches of this pipeline, over decoded images on the device."""
    dataset, how = named.named_set(recipe.dataset), recipe.augmentation
    stored = Pixels.of(np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)), device)
    return Batches(
        stored, np.zeros(len(pixels), np.int64), crops=Crops.of(how, size=recipe.model.image_size, flip=True),
        augmentation=how, batch_size=recipe.optimizer.batch_size, classes=dataset.classes, mean=dataset.mean,
        std=dataset.std, seed=0, device=device,
    )  # fmt: skip


def timms(recipe: Recipe, pixels: np.ndarray, device: torch.device, *, decoded: bool = False) -> Iterator[Batch]:
    """Batches of timm's loader, with timm's version of the recipe's augmentation and one process per core.

    Its crop is a resized random box, also where the recipe has a padded crop: the difference costs little.
    """
    how, classes = recipe.augmentation, named.named_set(recipe.dataset).classes
    loader = create_loader(
        Encoded(pixels, decoded=decoded), (3, recipe.model.image_size, recipe.model.image_size),
        recipe.optimizer.batch_size, is_training=True, use_prefetcher=device.type == "cuda", device=device,
        re_prob=how.erasing, re_mode="pixel", hflip=0.5, color_jitter=None, interpolation="bicubic",
        auto_augment="rand-m9-mstd0.5-inc1" if how.rand_augment else None, num_workers=os.cpu_count() or 1,
        persistent_workers=True, mean=named.named_set(recipe.dataset).mean, std=named.named_set(recipe.dataset).std,
    )  # fmt: skip
    mix = Mixup(how.mixup, how.cutmix, prob=how.mix_probability, label_smoothing=how.label_smoothing,
                num_classes=classes)  # fmt: skip
    while True:
        for images, labels in loader:
            mixed, targets = mix(images.to(device), labels.to(device))
            yield Batch(images=mixed, targets=targets, chosen=labels, epoch=0)


def turns(entries: dict[str, Callable[[], None]], rounds: int, images: int, device: torch.device) -> dict[str, Any]:
    """Each entry's images/s, the median over the rounds, and the median of the first one's ratios to the others."""
    speeds: dict[str, list[float]] = {name: [] for name in entries}
    for turn in range(rounds + 1):
        for name, step in entries.items():
            for _ in range(PREFETCHED if "timm" in name else 1):
                step()
            wait(device)
            began = time.perf_counter()
            for _ in range(STEPS):
                step()
            wait(device)
            if turn:
                speeds[name].append(STEPS * images / (time.perf_counter() - began))
    first = next(iter(entries))
    return {
        "images_per_second": {name: statistics.median(found) for name, found in speeds.items()},
        "ratios": {
            name: statistics.median(mine / other for mine, other in zip(speeds[first], found, strict=True))
            for name, found in speeds.items()
            if name != first
        },
    }


def wait(device: torch.device) -> None:
    """Wait until the device has finished its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def stepping(recipe: Recipe, batches: Batches, device: torch.device) -> tuple[loop.Run, Callable[[Batch], None]]:
    """A new run, and a function that takes one step of it on a batch."""
    run = loop.set_up(recipe, loop.build(recipe, batches.classes, 0, device), batches)
    pairs = recipe.drloc.pairs if recipe.drloc else 0

    def step(batch: Batch) -> None:
        points = augment.draws(0, 0, batch.chosen.to(device), augment.LOCALIZE, 4 * pairs).view(-1, pairs, 2, 2)
        loop.train_step(
            run.network, run.optimizer, run.scaler, [(batch, points)], count=1, weight=0.1, clip_norm=5.0,
            precision=getattr(torch, recipe.precision),
        )  # fmt: skip
        if run.average:
            run.average.update(run.model, 1)

    return run, step


def whole_steps(name: str, rounds: int, device: torch.device) -> dict[str, Any]:
    """Images/s of training with this pipeline, with timm's, and on a constant batch."""
    recipe, pixels = load_recipe(locate(name)), cut_outs(8192)
    batches = ours(recipe, pixels, device)
    _, step = stepping(recipe, batches, device)
    theirs, constant, numbers = timms(recipe, pixels, device), batches.batch(0), iter(range(1 << 30))
    entries = {
        OURS: lambda: step(batches.batch(next(numbers))),
        TIMM: lambda: step(next(theirs)),
        LIMIT: lambda: step(constant),
    }
    return turns(entries, rounds, recipe.optimizer.batch_size, device)


def pipelines(name: str, rounds: int, device: torch.device) -> dict[str, Any]:
    """Images/s of the pipelines without a model."""
    recipe, pixels = load_recipe(locate(name)), cut_outs(8192)
    batches, numbers = ours(recipe, pixels, device), iter(range(1 << 30))
    theirs, decoded = timms(recipe, pixels, device), timms(recipe, pixels, device, decoded=True)
    entries = {
        OURS: lambda: batches.batch(next(numbers)),
        TIMM: lambda: next(theirs),
        DECODED: lambda: next(decoded),
    }
    return turns(entries, rounds, recipe.optimizer.batch_size, device)


def localization(name: str, batch: int, rounds: int, device: torch.device) -> dict[str, Any]:
    """The cost of localization in a step: the median ratio of two consecutive steps, and the peak memory."""
    run, steps = localized(name, batch, device)
    recipe = load_recipe(locate(name))
    grid = grids_of_black(run.model, recipe.model.image_size, device)[recipe.drloc.stage]
    taken: dict[bool, list[float]] = {True: [], False: []}
    for turn in range(STEPS * rounds // 2 + 1):
        for with_head in (True, False) if turn % 2 else (False, True):
            wait(device)
            began = time.perf_counter()
            steps[with_head]()
            wait(device)
            if turn:
                taken[with_head].append(time.perf_counter() - began)
    ratios = [mine / other for mine, other in zip(taken[True], taken[False], strict=True)]
    peaks = [peak(name, batch, with_head, device) for with_head in (True, False)]
    return {
        "recipe": name, "batch": batch, "grid": list(grid.shape[2:]), "image_size": recipe.model.image_size,
        "seconds": statistics.median(taken[True]), "overhead": statistics.median(ratios) - 1,
        "megabytes": peaks[0], "megabytes_without": peaks[1],
    }  # fmt: skip


def localized(name: str, batch: int, device: torch.device) -> tuple[loop.Run, dict[bool, Callable[[], None]]]:
    """A run of the recipe, and its steps on a constant batch with and without the localization head."""
    recipe = load_recipe(locate(name))
    recipe = replace(recipe, optimizer=replace(recipe.optimizer, batch_size=batch))
    size = recipe.model.image_size
    plain = replace(recipe.augmentation, crop_padding=0, random_resized_crop=None, rand_augment=None)
    batches = ours(replace(recipe, augmentation=plain), cut_outs(batch, size), device)
    run, step = stepping(recipe, batches, device)
    constant, with_head, without = batches.batch(0), run.network, ModelWithDrloc(run.model, torch.nn.ModuleList(), [])

    def take(network: ModelWithDrloc) -> None:
        run.network = network
        step(constant)

    return run, {True: lambda: take(with_head), False: lambda: take(without)}


def peak(name: str, batch: int, with_head: bool, device: torch.device) -> float:
    """The peak memory of a few steps in megabytes: the device's or, on the CPU, that of a new process."""
    if device.type == "cuda":
        _, steps = localized(name, batch, device)
        steps[with_head]()
        torch.cuda.reset_peak_memory_stats(device)
        steps[with_head]()
        return torch.cuda.max_memory_allocated(device) / 1e6
    command = [sys.executable, str(HERE), "--peak", name, str(batch), str(int(with_head))]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def print_peak(name: str, batch: str, with_head: str) -> None:
    """Take three steps and print the peak memory that Linux reports, in the process that `peak` starts."""
    _, steps = localized(name, int(batch), torch.device("cpu"))
    for _ in range(3):
        steps[with_head == "1"]()
    # The peak of this program alone: getrusage includes the memory of the process before it started this program.
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    print(int(status["VmHWM"].split()[0]) / 1000)


def render(measured: dict[str, Any]) -> str:
    """The Markdown tables of a measurement, as in docs/benchmarks.md."""
    lines = [f"Medians of {measured['rounds']} rounds; {measured['machine']}; {versions(measured)}.", ""]
    lines += ["| images/s | " + " | ".join(measured["steps"]) + " |", "| --- " * (1 + len(measured["steps"])) + "|"]
    for name in (OURS, TIMM, LIMIT):
        lines.append(_row(f"training, {name}", measured["steps"], name))
    for name in (OURS, TIMM, DECODED):
        lines.append(_row(f"no model, {name}", measured["pipelines"], name))
    lines += ["", "| recipe | px | grid | batch | a step, s | localization adds | peak memory, MB | without |"]
    lines += ["| --- " * 8 + "|"]
    for row in measured["localization"]:
        grid = "x".join(map(str, row["grid"]))
        lines.append(
            f"| {row['recipe']} | {row['image_size']} | {grid} | {row['batch']} | {row['seconds']:.2f} "
            f"| {row['overhead']:.1%} | {row['megabytes']:,.0f} | {row['megabytes_without']:,.0f} |"
        )
    return "\n".join(lines) + "\n"


def _row(title: str, found: dict[str, Any], name: str) -> str:
    """A line of the first table: each recipe's images/s, and this pipeline's ratio to it."""
    cells = []
    for one in found.values():
        ratio = one["ratios"].get(name)
        cells.append(f"{one['images_per_second'][name]:,.0f}" + (f" (ours {ratio:.2f} of it)" if ratio else ""))
    return f"| {title} | {' | '.join(cells)} |"


def main() -> None:
    """Print the results as Markdown or JSON; with --save, also store them and update docs/benchmarks.md."""
    parser = options(__file__, __doc__)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--rounds", type=int, default=7, help="rounds to take the median of")
    parser.add_argument("--peak", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.peak:
        print_peak(*arguments.peak)
        return
    loop._keep_memory()
    device, rounds = torch.device(arguments.device), arguments.rounds
    measured = {
        **circumstances("torch", "timm", "pillow"),
        **({"machine": torch.cuda.get_device_name(device)} if device.type == "cuda" else {}),
        "rounds": rounds,
        "steps": {name: whole_steps(name, rounds, device) for name in RECIPES},
        "pipelines": {name: pipelines(name, rounds, device) for name in RECIPES},
        "localization": [localization(name, batch, rounds, device) for name, batch in LOCALIZED],
    }
    tell(__file__, measured, render, arguments)


if __name__ == "__main__":
    main()
