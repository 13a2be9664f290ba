"""Ten training steps whose losses are on record: `python tests/train/pinned.py` prints them; --save records them.

The arithmetic depends on the CPU as little as possible: one thread, none of torch's own vector kernels, and the oldest
code paths of MKL and oneDNN. A change that should not affect training must keep the ten numbers, bit for bit.
"""

import json
import os
import platform
import sys
import tempfile
from pathlib import Path
from typing import Any

os.environ |= {
    "OMP_NUM_THREADS": "1", "ATEN_CPU_CAPABILITY": "default", "MKL_CBWR": "COMPATIBLE", "DNNL_MAX_CPU_ISA": "SSE41",
}  # fmt: skip

import numpy as np
import torch

from vtzoo.train import loop
from vtzoo.train.pipeline.batches import Batches
from vtzoo.train.pipeline.crops import Crops
from vtzoo.train.pipeline.pixels import Pixels
from vtzoo.zoo.recipe_files import parse_recipe

RECORD = Path(__file__).with_suffix(".json")
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
epochs = 5
warmup_epochs = 1
cosine_epochs = 5
final_learning_rate = 1e-6
ema_decay = 0.9

[augmentation]
crop_padding = 0
random_resized_crop = { scale = [0.3, 1.0], ratio = [0.75, 1.3333333333333333] }
flip = true
rand_augment = { operations = 2, magnitude = 9.0, magnitude_std = 0.5, probability = 0.5 }
color_jitter = 0.4
mixup = 0.8
cutmix = 1.0
mix_probability = 0.5
erasing = 0.5
erasing_noise = 1.0
label_smoothing = 0.1

[drloc]
weight = 0.5
pairs = 16
stage = 1
normalize = false
warmup_epochs = 1
schedule_epochs = 5
"""


def losses() -> list[str]:
    """The losses of ten steps, exactly: as hexadecimal floats."""
    recipe = parse_recipe(RECIPE)
    cpu, rows = torch.device("cpu"), np.arange(16 * 3 * 20 * 20, dtype=np.int64)
    pixels = (rows * rows % 251).astype(np.uint8).reshape(16, 3, 20, 20)  # without a library's random generator
    batches = Batches(
        Pixels.of(pixels, cpu), np.arange(16) % 10, augmentation=recipe.augmentation, batch_size=8, classes=10,
        crops=Crops.of(recipe.augmentation, size=16, flip=True),
        mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25), seed=0, device=cpu,
    )  # fmt: skip
    run = loop.set_up(recipe, loop.build(recipe, 10, 0, cpu), batches)
    with tempfile.TemporaryDirectory() as folder:
        loop.fit(run, recipe, seed=0, identity="pinned", folder=Path(folder))
        lines = (Path(folder) / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["loss"].hex() for line in lines]


def measured() -> dict[str, Any]:
    """The losses, and the torch release, architecture and CPU on which they are equal bit for bit."""
    release = torch.__version__.partition("+")[0]
    return {"torch": release, "machine": platform.machine(), "cpu": cpu(), "losses": losses()}


def cpu() -> str:
    """The CPU's model name, family, model and stepping from Linux; elsewhere Python's name of the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    facts = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    return ", ".join(facts.get(key, "") for key in ("model name", "cpu family", "model", "stepping"))


if __name__ == "__main__":
    text = json.dumps(measured(), indent=2)
    print(text)
    if "--save" in sys.argv[1:]:
        RECORD.write_text(text + "\n")
