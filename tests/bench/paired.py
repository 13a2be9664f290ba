"""Does localization help, and which target? `python tests/bench/paired.py --data FOLDER [--protocol P] [--save]`.

A small Swin, the recipe paired.toml, trains on 50 images per class of CIFAR-100's training split; 10,000 other images
of that split measure it. The test split is never used. With a seed, every row takes the same steps on the same batches
from the same initial weights; rows differ only in the table [drloc]. The result is the accuracy of the averaged weights
after the last step. Earlier measurements are stored in --work and not repeated.

Three protocols: the recipe's own AdamW; `muon`, in fewer epochs and in float32; and `taught`, which adds to Muon the
logits of a small CNN that trained on the same 5,000 images.
"""

import json
import statistics
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from figures import circumstances, options, tell, versions
from runs import measured_once

HERE = Path(__file__).resolve()
BASELINE, L1 = "baseline", "l1"
LIGHTER = (L1, "signed", "cross_entropy")  # also measured with a fifth of the weight
# Each row's name, and its changes in [drloc]. Stage 0 has 8x8 cells, stage 1 has 4x4.
ROWS: dict[str, dict[str, Any] | None] = {
    BASELINE: None,
    L1: {},
    "signed": {"loss": "signed"},
    "cross_entropy": {"loss": "cross_entropy"},
    "variance_aware": {"loss": "variance_aware"},
    "every_stage": {"loss": "every_stage", "stage": 0},
    "off_grid": {"loss": "off_grid"},
}
WHOLE = [*ROWS]
ROWS |= {f"{name}, weight 0.1": {**(ROWS[name] or {}), "weight": 0.1} for name in LIGHTER}
ROWS["cross_entropy, 32 pairs"] = {"loss": "cross_entropy", "pairs": 32}
SHORT = [BASELINE, *LIGHTER, *(name for name in ROWS if name not in WHOLE)]
ROWS_OF = {"adamw": WHOLE, "muon": SHORT, "taught": SHORT}  # by protocol
# Each protocol's changes of the recipe, as in the zoo's recipes for CPUs, with fewer steps.
MUON: dict[str, Any] = {
    "precision": "float32",
    "optimizer": {
        "name": "muon", "learning_rate": 1e-2, "betas": (0.9, 0.99), "clip_norm": 0.0, "momentum": 0.95,
        "iterations": 4, "adamw_learning_rate": 2e-3,
    },
    "schedule": {"epochs": 8, "warmup_epochs": 1, "cosine_epochs": 8, "ema_decay": 0.97},
    "drloc": {"pairs": 8, "warmup_epochs": 1, "schedule_epochs": 8},
}  # fmt: skip
PROTOCOLS: dict[str, dict[str, Any]] = {"adamw": {}, "muon": MUON, "taught": MUON}
TEACHER: dict[str, Any] = {
    "model": {"arguments": {"widths": (32, 128, 128)}},
    "schedule": {"epochs": 20, "cosine_epochs": 20},
}


def changed(recipe: Any, changes: dict[str, Any]) -> Any:
    """A recipe with changed keys: a dict changes keys of a table, None removes the table."""
    return replace(
        recipe,
        **{
            key: replace(getattr(recipe, key), **value) if isinstance(value, dict) else value
            for key, value in changes.items()
        },
    )


def recipe_of(row: str, protocol: str) -> Any:
    """The recipe of a row."""
    from vtzoo.zoo.recipe_files import load_recipe

    return changed(changed(load_recipe(HERE.with_suffix(".toml")), PROTOCOLS[protocol]), {"drloc": ROWS[row]})


def images(data: Path | None) -> tuple[Any, Any, Any]:
    """CIFAR-100's images that every row trains on, and the validation images."""
    from vtzoo.data import named, named_reader

    dataset = named.named_set("cifar100")
    rest, held = named_reader.read(dataset, "train", data).hold_out(0.2, seed=0)
    return dataset, rest.hold_out(0.125, seed=1)[1], held


def measure(row: str, seed: int, protocol: str, data: Path | None, work: Path) -> dict[str, Any]:
    """Train one row with one seed; return its top-1 on the validation images, and its cost."""
    import torch

    torch.set_num_threads(1)  # two runs on one core each are faster than one run on both
    from vtzoo.data.transform import Preprocess
    from vtzoo.train import loop
    from vtzoo.train.pipeline.batches import open_batches

    recipe, cpu = recipe_of(row, protocol), torch.device("cpu")
    dataset, small, held = images(data)
    batches, _ = open_batches(
        recipe, small, mean=dataset.mean, std=dataset.std, flip=dataset.flip, seed=seed, device=cpu
    )
    teacher = teach(small, dataset, work) if protocol == "taught" else None
    run = loop.set_up(recipe, loop.build(recipe, dataset.classes, seed, cpu), batches, teacher=teacher)
    with tempfile.TemporaryDirectory() as folder:
        seconds = loop.fit(run, recipe, seed=seed, identity="paired", folder=Path(folder))
        lines = (Path(folder) / "metrics.jsonl").read_text().splitlines()[-batches.steps_per_epoch :]
    last = statistics.mean(json.loads(line)["localization"] for line in lines)
    run.model.load_state_dict(run.average.tensors)
    top1 = accuracy(run.model, held.pixels(Preprocess.square(recipe.model.image_size)), held.targets, dataset)
    return {
        "row": row, "seed": seed, "top1": top1, "localization": last, "steps": run.step, "seconds": round(seconds),
        "teacher_top1": teacher and accuracy(
            teacher.model, held.pixels(Preprocess.square(32)), held.targets, dataset
        ),
        "train_images": len(small), "held_images": len(held),
    }  # fmt: skip


def teach(small: Any, dataset: Any, work: Path) -> Any:
    """The teacher: the zoo's small CNN at half its width, on the same images; a teacher in `work` is reused."""
    import torch
    from safetensors.torch import load_file, save_file

    from vtzoo.train import loop
    from vtzoo.train.pipeline.batches import open_batches
    from vtzoo.train.teacher import Teacher
    from vtzoo.zoo.recipe_files import load_recipe, locate
    from vtzoo.zoo.result import TeacherResult

    recipe, cpu = changed(load_recipe(locate(f"small_cnn-baseline-{dataset.name}")), TEACHER), torch.device("cpu")
    file = work / "teacher"
    network = loop.build(recipe, dataset.classes, 0, cpu)
    if not file.exists():
        batches, _ = open_batches(
            recipe, small, mean=dataset.mean, std=dataset.std, flip=dataset.flip, seed=0, device=cpu
        )
        network.model.whiten(batches.batch(0).images)
        run = loop.set_up(recipe, network, batches)
        with tempfile.TemporaryDirectory() as folder:
            loop.fit(run, recipe, seed=0, identity="teacher", folder=Path(folder))
        save_file(network.model.state_dict(), file)
    network.model.load_state_dict(load_file(file))
    taught = load_recipe(locate(f"swin_t-drloc-{dataset.name}")).teacher
    assert taught is not None, "the zoo's own student has a teacher"
    return Teacher(
        model=network.model.eval().requires_grad_(False), weight=taught.weight, temperature=taught.temperature,
        facts=TeacherResult(name=taught.name, weights=""), train_manifest=None,
    )  # fmt: skip


def accuracy(model: Any, pixels: Any, labels: Any, dataset: Any) -> float:
    """The fraction of images that the model classifies correctly."""
    import torch

    from vtzoo.train.augment.mix import normalize

    model.eval()
    batches = zip(torch.from_numpy(pixels).split(500), torch.from_numpy(labels).split(500), strict=True)
    right = 0
    with torch.no_grad():
        for images, wanted in batches:
            right += int((model(normalize(images, dataset.mean, dataset.std)).argmax(1) == wanted).sum())
    return right / len(labels)


def bench(
    names: list[str], seeds: int, protocol: str, data: Path | None, work: Path, jobs: int
) -> list[dict[str, Any]]:
    """Every row with every seed; measurements in `work` are not repeated."""
    if protocol == "taught":
        dataset, small, _ = images(data)
        work.mkdir(parents=True, exist_ok=True)
        teach(small, dataset, work)  # here, not in each of the processes
    wanted = {
        work / f"{name.replace(', ', '-').replace(' ', '_')}-{seed}.json": (name, seed, protocol, data, work)
        for seed in range(seeds)
        for name in names
    }
    return measured_once(wanted, measure, jobs)


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """The mean and the deviation of each row, and of its differences to the baseline and to l1 for equal seeds."""
    top1 = {name: {run["seed"]: run["top1"] for run in runs if run["row"] == name} for name in ROWS}
    rows = {}
    for name, found in ((name, found) for name, found in top1.items() if found):
        rows[name] = {"top1": spread(list(found.values()))}
        for other in (BASELINE, L1):
            rows[name][f"over_{other}"] = spread([found[seed] - top1[other][seed] for seed in found])
    return rows


def spread(values: list[float]) -> dict[str, float]:
    """The mean and the standard deviation of a sample."""
    return {"mean": statistics.mean(values), "deviation": statistics.stdev(values) if len(values) > 1 else 0.0}


def render(measured: dict[str, Any]) -> str:
    """The Markdown table of a measurement, as in docs/benchmarks.md."""
    lines = [
        f"{measured['seeds']} seeds a row, {measured['steps']:,} steps of {measured['batch']}, "
        f"{measured['train_images']:,} training images, {measured['held_images']:,} held out; "
        f"{measured['minutes']:.0f} core-minutes in all on {measured['machine']}; {versions(measured)}.",
        "",
        "| loss | top-1 | over the baseline | over l1 |",
        "| --- | --- | --- | --- |",
    ]
    for name, found in measured["rows"].items():
        gains = [_points(found[f"over_{other}"], sign="+") if name != other else "" for other in (BASELINE, L1)]
        lines.append(f"| {name} | {_points(found['top1'])} | {' | '.join(gains)} |")
    return "\n".join(lines) + "\n"


def _points(found: dict[str, float], sign: str = "") -> str:
    return f"{100 * found['mean']:{sign}.2f} ± {100 * found['deviation']:.2f}"


def main() -> None:
    """Print the results as Markdown or JSON; with --save, also store them and update docs/benchmarks.md."""
    parser = options(__file__, __doc__)
    parser.add_argument("--data", type=Path, help="folder of CIFAR-100's Parquet files; the Hub if not given")
    parser.add_argument("--seeds", type=int, default=3, help="runs of every row")
    parser.add_argument(
        "--rows", nargs="+", choices=ROWS, help="which rows; the protocol's own if not given", metavar="ROW"
    )
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time, each on one core")
    parser.add_argument("--protocol", choices=PROTOCOLS, default="adamw", help="what the rows are trained by")
    work = Path(tempfile.gettempdir()) / "vtzoo-paired"
    parser.add_argument("--work", type=Path, default=work, help="results so far")
    arguments = parser.parse_args()
    work = arguments.work / arguments.protocol
    rows = arguments.rows or ROWS_OF[arguments.protocol]
    runs = bench(rows, arguments.seeds, arguments.protocol, arguments.data, work, arguments.jobs)
    measured = {
        **circumstances("torch", "timm"),
        "seeds": arguments.seeds, "batch": 128, "minutes": sum(run["seconds"] for run in runs) / 60,
        **{key: runs[0][key] for key in ("steps", "train_images", "held_images")},
        "rows": summary(runs), "runs": runs,
    }  # fmt: skip
    name = HERE.stem if arguments.protocol == "adamw" else f"{HERE.stem}-{arguments.protocol}"
    tell(str(HERE.with_name(name)), measured, render, arguments)


if __name__ == "__main__":
    main()
