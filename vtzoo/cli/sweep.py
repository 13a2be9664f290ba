"""The command `vtzoo sweep`."""

import re
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from vtzoo.cli.options import (
    AccumulateOption,
    BatchSizeOption,
    CompileOption,
    DataOption,
    DeviceOption,
    EpochsOption,
    JsonOption,
    LearningRateOption,
    SkipBadOption,
    TeacherOption,
    WorkersOption,
    print_json,
)
from vtzoo.cli.train import refuse

SEEDS, NUMBER = "--seeds", re.compile(r"-?\d+(\.\d+)?")


class WithSeeds(TyperCommand):
    """A command whose option --seeds takes all numbers that follow it; Typer's own options take one."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the arguments."""
        return super().parse_args(ctx, one_by_one(args))


def one_by_one(words: list[str]) -> list[str]:
    """`--seeds 0 1 2` as `--seeds 0 --seeds 1 --seeds 2`."""
    result: list[str] = []
    listing = False  # whether only numbers stand between the last --seeds and this word
    for word in words:
        number = NUMBER.fullmatch(word) is not None
        if listing and number and result[-1] != SEEDS:
            result.append(SEEDS)
        result.append(word)
        listing = word.partition("=")[0] == SEEDS or (listing and number)
    return result


def sweep_recipes(
    recipes: Annotated[list[str], typer.Argument(
        metavar="RECIPE", help="Names of recipes (see `vtzoo list --recipes`), or TOML files.", show_default=False
    )],
    seeds: Annotated[list[int], typer.Option(
        SEEDS, metavar="N...", min=0, help="Train each recipe with each of these seeds.", show_default=False
    )],
    out: Annotated[
        Path, typer.Option(metavar="FOLDER", help="Folder for the model folder of each run.", show_default=False)
    ],
    jobs: Annotated[int, typer.Option(metavar="N", min=1, help="Runs at a time; they share the CPU's cores.")] = 1,
    data: DataOption = None,
    device: DeviceOption = "auto",
    accumulate: AccumulateOption = 1,
    compiled: CompileOption = False,
    workers: WorkersOption = None,
    skip_bad: SkipBadOption = False,
    teacher: TeacherOption = None,
    as_json: JsonOption = False,
    epochs: EpochsOption = None,
    batch_size: BatchSizeOption = None,
    learning_rate: LearningRateOption = None,
) -> None:  # fmt: skip
    """Train recipes with several seeds each, and compare their accuracy on the test images.

    \b
    Examples:
      vtzoo sweep swin_t-drloc-cifar10 swin_t-baseline-cifar10 \\
        --seeds 0 1 2 --out runs/swin                 does localization help?
      vtzoo sweep low.toml high.toml --seeds 0 1 2 --jobs 2 --out runs/rates

    Each run is a `vtzoo train` in a new process, with the model folder FOLDER/RECIPE-seedN and its output in train.log.
    Ctrl-C stops all runs, each with a checkpoint. The same command continues, also after a kill: it skips finished runs
    and resumes the others. It may have more recipes or seeds then.

    The table has the top-1 accuracy of each run, and each recipe's mean and standard deviation (n - 1). A recipe has a
    second line if its baseline, which differs only in the name and the [drloc] table, is in the sweep: its gain over
    the baseline with the same seed.

    \b
    --json prints one object:
      {"out", "seeds": [N], "runs": [RUN], "recipes": [ROW], "twins": [ROW]}
      RUN: {"recipe", "seed", "folder", "top1", "images", "steps",
            "train_seconds", "error"}
      ROW: {"recipe", "baseline", "by_seed": {N: top-1, or the difference},
            "mean", "deviation"}

    A failed run stops no other run. The last lines then say which runs failed and why, and the exit code is 1.

    Needs the extra `train`: pip install "vtzoo[train]".
    """  # noqa: D301  (click leaves the lines after a \b as they are)
    from vtzoo import sweep

    refuse("sweep", recipes[0], {"--epochs": epochs, "--batch-size": batch_size, "--learning-rate": learning_rate})
    options = sweep.TrainOptions(
        data=data, device=device, accumulate=accumulate, compiled=compiled, workers=workers, skip_bad=skip_bad,
        teacher=teacher,
    )  # fmt: skip
    report = sweep.sweep(recipes, seeds, out=out, options=options, jobs=jobs)
    if as_json:
        print_json(asdict(report))
    else:
        typer.echo(sweep.render(report))
    if report.failed:
        raise typer.Exit(1)
