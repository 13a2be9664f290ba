"""Is it worth starting from a model? `python tests/bench/finetune.py --data FOLDER [--seeds N] [--save]`.

Flowers-102 at 64 px: training takes its 1,020 training images, early stopping its 1,020 validation images, and each run
measures the test images once, at its end. The default `vtzoo finetune` from the embedded model, with and without
localization, is compared with initial weights of the same architecture at the same image size. These train for at least
as much wall time, with the same augmentation, the same localization and the zoo's own learning rate. The last rows are
the head alone, and scikit-learn's logistic regression on the same features.
"""

import json
import os
import statistics
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from figures import circumstances, options, tell, versions

MODEL = "swin_t-drloc-cifar100"
# Each row's start, and whether it localizes.
ROWS = {
    "finetune": ("model", True), "finetune --no-drloc": ("model", False),
    "from scratch": ("nothing", True), "from scratch, no drloc": ("nothing", False),
}  # fmt: skip
HEAD, REGRESSION = "finetune --head-only", "scikit-learn's LogisticRegression"
RATE = 7e-4  # the peak of the zoo's own recipe for fresh weights on Flowers-102


def flowers(folder: Path) -> Any:
    """The official split of Flowers-102, read like a user's own images."""
    import numpy as np

    from vtzoo.data import named, named_reader

    row = named.named_set("flowers102")
    everything = named_reader.read(replace(row, train_splits=("train", "validation", "test")), "train", folder)
    names = [everything.encoded.name(index).partition("-")[0] for index in range(len(everything))]
    splits = np.array(["val" if name == "validation" else name for name in names])
    return replace(everything, splits=splits)


def measure(row: str, seed: int, data: Path, steps: int | None, threads: int) -> dict[str, Any]:
    """Train one row with one seed; return its test top-1 and its cost. `steps` limits runs from initial weights."""
    import torch

    torch.set_num_threads(threads)
    from vtzoo.finetune import run as finetune
    from vtzoo.finetune.defaults import Overrides
    from vtzoo.finetune.session import prepare

    begins, localizes = ROWS[row]
    session = prepare(MODEL, flowers(data), overrides=Overrides(drloc=localizes), seed=seed, device="cpu")
    if begins == "nothing":
        session = fresh(session, steps)
    with tempfile.TemporaryDirectory() as folder:
        result = finetune.finetune(session, Path(folder) / "run")
    return {"row": row, "seed": seed, "test_images": result.images} | {
        key: getattr(result, key) for key in ("top1", "held_top1", "steps", "batch", "best_step", "train_seconds")
    }


def fresh(session: Any, steps: int | None) -> Any:
    """The same session from initial weights: one learning rate for every layer, and the given number of steps."""
    import torch

    from vtzoo import models
    from vtzoo.train.model_with_drloc import add_drloc

    tuned, recipe = session.tuned, session.recipe
    epochs = max(2, (steps or recipe.steps) // (tuned.images // recipe.optimizer.batch_size))
    drloc = recipe.drloc and replace(recipe.drloc, warmup_epochs=epochs / 20, schedule_epochs=float(epochs))
    recipe = replace(
        recipe, drloc=drloc, optimizer=replace(recipe.optimizer, learning_rate=RATE),
        schedule=replace(recipe.schedule, epochs=epochs, warmup_epochs=epochs / 20, cosine_epochs=epochs),
        finetune=replace(
            tuned, head_epochs=0, layer_decay=1.0, patience=10_000, look_epochs=max(1, round(epochs / 40))
        ),
    )  # fmt: skip
    torch.manual_seed(session.seed)
    model = models.build(
        recipe.model.name, num_classes=len(session.images.classes), image_size=recipe.model.image_size,
        **recipe.model.arguments,
    )  # fmt: skip
    return replace(session, network=add_drloc(recipe, model, session.device), recipe=recipe)


def rate(data: Path, threads: int) -> float:
    """Steps per second from initial weights, with all layers trained from the first step."""
    import torch

    torch.set_num_threads(threads)
    from vtzoo.finetune.session import prepare
    from vtzoo.train import loop
    from vtzoo.train.pipeline.batches import open_batches

    session = fresh(prepare(MODEL, flowers(data), device="cpu"), 64)
    mean, std = session.normalization
    batches, _ = open_batches(
        session.recipe, session.images.train, mean=mean, std=std, flip=True, seed=0, device=session.device
    )
    with tempfile.TemporaryDirectory() as folder:
        run = loop.set_up(session.recipe, session.network, batches)
        return 62 / loop.fit(run, session.recipe, seed=0, identity="rate", folder=Path(folder))


def heads(data: Path, threads: int) -> dict[str, Any]:
    """The head by both methods: the top-1 on the test images, and our seconds from images to model folder."""
    import numpy as np
    import torch
    from sklearn.linear_model import LogisticRegression

    torch.set_num_threads(threads)
    os.environ["VTZOO_CACHE"] = tempfile.mkdtemp()  # an empty cache, without features of earlier runs
    from vtzoo.evaluate.run import measure
    from vtzoo.finetune.defaults import Overrides
    from vtzoo.finetune.run import finetune
    from vtzoo.finetune.session import prepare
    from vtzoo.predict.load import load
    from vtzoo.predict.torch import TorchClassifier
    from vtzoo.zoo import lookup

    collection, began = flowers(data), time.monotonic()
    session = prepare(
        MODEL,
        collection.select(np.flatnonzero(collection.splits != "test")),
        overrides=Overrides(head_only=True),
        device="cpu",
    )
    with tempfile.TemporaryDirectory() as folder:
        result = finetune(session, Path(folder) / "run")
        seconds = time.monotonic() - began
        top1 = measure(load(Path(folder) / "run", device="cpu"), collection.test)["top1"]
    classifier = TorchClassifier.from_folder(lookup.find_model(MODEL), "cpu")

    def embed(rows: Any, numbers: Any) -> Any:
        return classifier.embed([rows[number] for number in numbers])

    parts = [
        (np.concatenate([embed(part.encoded, some) for some in np.array_split(np.arange(len(part)), 24)]), part.targets)
        for part in (collection.train, collection.val, collection.test)
    ]
    train, held, test = parts
    tried = []
    for strength in (0.01, 0.03, 0.1, 0.3):
        theirs = LogisticRegression(C=strength, max_iter=2_000).fit(*train)
        tried.append((theirs.score(*held), theirs.score(*test), strength))
    plain = LogisticRegression(max_iter=2_000).fit(*train)
    best = max(tried, key=lambda one: one[0])
    return {
        "seconds": seconds, "fit_seconds": result.train_seconds, "top1": top1,
        "regression": plain.score(*test), "tuned_regression": best[1], "strength": best[2],
    }  # fmt: skip


def bench(seeds: int, data: Path, work: Path, jobs: int) -> list[dict[str, Any]]:
    """Every row with every seed: first the rows from the model, whose time sets the steps of the others."""
    work.mkdir(parents=True, exist_ok=True)
    threads = max(1, (os.cpu_count() or 1) // jobs)
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        speed = _kept(pool, work / "speed.json", rate, data, threads)
        runs: list[dict[str, Any]] = []
        for begins in ("model", "nothing"):
            wanted = [(row, seed) for seed in range(seeds) for row, (start, _) in ROWS.items() if start == begins]
            bought = {}
            for row, seed in wanted:
                twin = next(name for name, how in ROWS.items() if how == ("model", ROWS[row][1]))
                like = [run["train_seconds"] for run in runs if (run["row"], run["seed"]) == (twin, seed)]
                bought[row, seed] = round(like[0] * speed) if like else None
            futures = {
                pool.submit(measure, row, seed, data, bought[row, seed], threads): work / f"{ORDER[row]}-{seed}.json"
                for row, seed in wanted if not (work / f"{ORDER[row]}-{seed}.json").exists()
            }  # fmt: skip
            for future in as_completed(futures):
                futures[future].write_text(json.dumps(future.result()) + "\n")
                print(futures[future].read_text(), end="", file=sys.stderr, flush=True)
            runs += [json.loads((work / f"{ORDER[row]}-{seed}.json").read_text()) for row, seed in wanted]
    return runs


ORDER = {row: number for number, row in enumerate(ROWS)}


def _kept(pool: ProcessPoolExecutor, file: Path, function: Any, *arguments: Any) -> Any:
    if not file.exists():
        file.write_text(json.dumps(pool.submit(function, *arguments).result()))
    return json.loads(file.read_text())


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """The mean and the deviation of each row's top-1, and the mean of its seconds and steps."""
    rows = {}
    for name in ROWS:
        found = [run for run in runs if run["row"] == name]
        rows[name] = {"top1": spread([run["top1"] for run in found])}
        rows[name] |= {key: statistics.mean(run[key] for run in found) for key in ("train_seconds", "steps")}
    return rows


def spread(values: list[float]) -> dict[str, float]:
    """The mean and the standard deviation of a sample."""
    return {"mean": statistics.mean(values), "deviation": statistics.stdev(values) if len(values) > 1 else 0.0}


def render(measured: dict[str, Any]) -> str:
    """The Markdown table of a measurement, as in docs/benchmarks.md."""
    head = measured["head"]
    lines = [
        f"{measured['seeds']} seeds a row, {measured['train_images']:,} training images, "
        f"{measured['test_images']:,} test images, batch {measured['batch']}, {measured['jobs']} runs at a time on "
        f"{measured['machine']}; {versions(measured)}.",
        "",
        "| Flowers-102 at 64 px | top-1, test images | seconds | steps |",
        "| --- | --- | --- | --- |",
    ]
    for name, found in measured["rows"].items():
        top1, seconds = found["top1"], found["train_seconds"]
        points = f"{100 * top1['mean']:.2f} ± {100 * top1['deviation']:.2f}"
        lines.append(f"| {name} | {points} | {seconds:,.0f} | {found['steps']:,.0f} |")
    lines += [
        f"| {HEAD} | {100 * head['top1']:.2f} | {head['seconds']:.0f}, with reading and writing | |",
        f"| {REGRESSION}, as it comes | {100 * head['regression']:.2f} | | |",
        f"| {REGRESSION}, C chosen on the validation images | {100 * head['tuned_regression']:.2f} | | |",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Print the results as Markdown or JSON; with --save, also store them and update docs/benchmarks.md."""
    parser = options(__file__, __doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of Flowers-102's Parquet files at 64 px")
    parser.add_argument("--seeds", type=int, default=3, help="runs of every row")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time, each on its share of the cores")
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "vtzoo-finetune", help="so far")
    arguments = parser.parse_args()
    runs = bench(arguments.seeds, arguments.data, arguments.work, arguments.jobs)
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:  # one run at a time, on all cores
        head = _kept(pool, arguments.work / "head.json", heads, arguments.data, os.cpu_count())
    measured = {
        **circumstances("torch", "timm", "scikit-learn"),
        "seeds": arguments.seeds, "jobs": arguments.jobs, "train_images": 1_020,
        **{key: runs[0][key] for key in ("batch", "test_images")},
        "rows": summary(runs), "head": head, "runs": runs,
    }  # fmt: skip
    tell(__file__, measured, render, arguments)


if __name__ == "__main__":
    main()
