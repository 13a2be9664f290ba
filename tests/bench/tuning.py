"""What does a change to a recipe bring? `python tests/bench/tuning.py --data FOLDER [--groups GROUP...] [--save]`.

Each table of tuning.toml has a shortened recipe of the zoo, and rows that change it. All rows of a table train on the
same images of the training split with seed 0; a tenth of that split measures them, and the test split is never used. A
student's teacher is the embedded one, which has trained on these images: compare the rows of a table, not tables. Every
run has its own core. Earlier measurements are stored in --work and not repeated.
"""

import tempfile
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import paired
from figures import circumstances, options, tell, versions
from runs import measured_once

from vtzoo.zoo.recipe import Recipe
from vtzoo.zoo.recipe_files import load_recipe, locate

GROUPS: dict[str, dict[str, Any]] = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))
HELD = 0.1  # of the training split


def changed(recipe: Recipe, row: dict[str, Any], epochs: int) -> Recipe:
    """A recipe with the given number of epochs and a row's keys."""
    length: dict[str, Any] = {"schedule": {"epochs": epochs, "cosine_epochs": epochs}}
    if recipe.drloc:
        length["drloc"] = {"schedule_epochs": epochs}
    return paired.changed(paired.changed(recipe, length), row)


def recipe_of(group: str, name: str) -> Recipe:
    """The recipe of a row."""
    table, row = GROUPS[group], dict(GROUPS[group]["rows"][name])
    epochs = row.pop("epochs", table["epochs"])
    return changed(base(group), row, epochs)


def base(group: str) -> Recipe:
    """The recipe of a table before its rows' changes: the zoo's, or the paired experiment's."""
    name = GROUPS[group]["recipe"]
    return paired.recipe_of("cross_entropy", "muon") if name == "paired" else load_recipe(locate(name))


def measure(group: str, name: str, data: Path | None) -> dict[str, Any]:
    """Train one row; return its top-1 on the validation images, and its cost."""
    import torch

    torch.set_num_threads(1)
    from vtzoo.data import named, named_reader
    from vtzoo.data.transform import Preprocess
    from vtzoo.train import loop, run
    from vtzoo.train.pipeline.batches import open_batches
    from vtzoo.train.teacher import open_teacher

    recipe, cpu = recipe_of(group, name), torch.device("cpu")
    dataset = named.named_set(recipe.dataset)
    rest, held = named_reader.read(dataset, "train", data).hold_out(HELD, seed=0)
    drawn = np.random.default_rng(1).permutation(len(rest))[: GROUPS[group]["images"]]
    batches, images = open_batches(
        recipe, rest.select(np.sort(drawn)), mean=dataset.mean, std=dataset.std, flip=dataset.flip, seed=0, device=cpu
    )
    network = loop.build(recipe, dataset.classes, 0, cpu)
    run.whiten(recipe, network.model, batches)
    now = loop.set_up(recipe, network, batches, teacher=open_teacher(recipe, None, cpu))
    with tempfile.TemporaryDirectory() as folder:
        seconds = loop.fit(now, recipe, seed=0, identity="tuning", folder=Path(folder))
    now.model.load_state_dict(now.tensors)
    top1 = paired.accuracy(now.model, held.pixels(Preprocess.square(recipe.model.image_size)), held.targets, dataset)
    return {
        "group": group, "row": name, "top1": top1, "steps": now.step, "batch": batches.batch_size,
        "minutes": seconds / 60, "train_images": images.images, "held_images": len(held),
    }  # fmt: skip


def bench(groups: list[str], data: Path | None, work: Path, jobs: int) -> list[dict[str, Any]]:
    """Every row of some tables; measurements in `work` are not repeated."""
    wanted = {
        work / f"{group}-{name.replace(' ', '_')}.json": (group, name, data)
        for group in groups
        for name in GROUPS[group]["rows"]
    }
    return measured_once(wanted, measure, jobs)


def render(measured: dict[str, Any]) -> str:
    """The Markdown tables of a measurement, as in docs/benchmarks.md."""
    lines = [f"One seed a row, each on one core of {measured['machine']}; {versions(measured)}.", ""]
    lines += ["| recipe | changed | training images | steps | core-minutes | top-1 of those held out |"]
    lines += ["| --- | --- | --- | --- | --- | --- |"]
    for run in measured["runs"]:
        recipe = GROUPS[run["group"]]["recipe"]
        lines.append(
            f"| {recipe} | {run['row']} | {run['train_images']:,} | {run['steps']:,} of {run['batch']} | "
            f"{run['minutes']:.1f} | {100 * run['top1']:.1f} of {run['held_images']:,} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Print the results as Markdown or JSON; with --save, also store them and update docs/benchmarks.md."""
    parser = options(__file__, __doc__)
    parser.add_argument("--data", type=Path, help="folder of CIFAR-100's Parquet files; the Hub if not given")
    parser.add_argument("--groups", nargs="+", choices=GROUPS, default=[*GROUPS], help="tables", metavar="GROUP")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time, each on one core")
    work = Path(tempfile.gettempdir()) / "vtzoo-tuning"
    parser.add_argument("--work", type=Path, default=work, help="results so far")
    arguments = parser.parse_args()
    runs = bench(arguments.groups, arguments.data, arguments.work, arguments.jobs)
    tell(__file__, {**circumstances("torch", "timm"), "runs": runs}, render, arguments)


if __name__ == "__main__":
    main()
