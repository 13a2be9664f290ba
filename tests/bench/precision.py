"""What float32 gains on the CPU: `python tests/bench/precision.py [--rounds N] [--json]`.

Whole training steps of CvT-13 and T2T-ViT-14 at 32 px with localization, on one batch: with bfloat16 in every operation
that autocast supports; as the models are, with attention and depth-wise convolutions in float32; and without autocast,
which is the fastest on a CPU without AMX. The three run in turns; the output has medians of the ratios.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from unittest import mock

import torch
from figures import circumstances
from training import cut_outs, ours, stepping

from vtzoo.models import cvt, t2t
from vtzoo.train import loop
from vtzoo.zoo.recipe_files import load_recipe, locate

BATCH = 64
# A model's arguments, and the stage to localize in: with patches of 4, CvT's grid of 4x4 cells is its second stage's.
MODELS = {
    "cvt_13": ({"patch_size": 4, "drop_path_rate": 0.1}, 1),
    "t2t_vit_14": ({"strides": [1, 2, 2], "drop_path_rate": 0.1}, -1),
}
BEFORE, NOW, WITHOUT = "bfloat16", "bfloat16, slow operations in float32", "float32"


def steps(name: str, arguments: dict[str, Any], stage: int) -> dict[str, Callable[[], None]]:
    """A function per variant that takes one step."""
    stored: Any = load_recipe(locate(f"{name}-drloc-cifar100"))  # Any: its [drloc] table is there
    recipe = replace(
        stored, model=replace(stored.model, image_size=32, arguments=arguments),
        drloc=replace(stored.drloc, stage=stage), optimizer=replace(stored.optimizer, batch_size=BATCH),
    )  # fmt: skip
    batches = ours(recipe, cut_outs(BATCH), torch.device("cpu"))
    constant = batches.batch(0)
    (_, reduced), (_, full) = (
        stepping(replace(recipe, precision=precision), batches, batches.device) for precision in ("bfloat16", "float32")
    )

    def before() -> None:
        function, as_given = "in_float32_on_cpu", lambda operation, *tensors: operation(*tensors)
        with mock.patch.object(cvt, function, as_given), mock.patch.object(t2t, function, as_given):
            reduced(constant)

    return {BEFORE: before, NOW: lambda: reduced(constant), WITHOUT: lambda: full(constant)}


def compare(ways: dict[str, Callable[[], None]], rounds: int) -> dict[str, dict[str, float]]:
    """Each variant's images/s, and its ratio to the first: medians over the rounds after an untimed one."""
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(rounds + 1):
        for name, step in ways.items():
            began = time.perf_counter()
            step()
            if turn:
                taken[name].append(time.perf_counter() - began)
    return {
        name: {
            "images_per_second": BATCH / statistics.median(seconds),
            "ratio": statistics.median(first / own for first, own in zip(taken[BEFORE], seconds, strict=True)),
        }
        for name, seconds in taken.items()
    }


def render(measured: dict[str, Any]) -> str:
    """A Markdown table: one row per model, one column per variant."""
    lines = [f"| images/s, {measured['machine']} | {BEFORE} | {NOW} | {WITHOUT} |", "| --- | --- | --- | --- |"]
    for name, found in measured["models"].items():
        cells = [f"{one['images_per_second']:.0f} (x{one['ratio']:.2f})" for one in found.values()]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Print the table, or JSON."""
    parser = argparse.ArgumentParser(description="What float32 gains on the CPU.")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--rounds", type=int, default=7, help="rounds to take the median of")
    arguments = parser.parse_args()
    loop._keep_memory()
    models = {name: compare(steps(name, *how), arguments.rounds) for name, how in MODELS.items()}
    measured = {**circumstances("torch", "timm"), "rounds": arguments.rounds, "models": models}
    print(json.dumps(measured, indent=2) if arguments.json else render(measured))


if __name__ == "__main__":
    main()
