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
    """A command whose option --seeds takes all the numbers that follow it, where Typer's options take one."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the arguments."""
        return super().parse_args(ctx, one_by_one(args))


def one_by_one(words: list[str]) -> list[str]:
    """`--seeds 0 1 2` as `--seeds 0 --seeds 1 --seeds 2`."""
    result: list[str] = []
    listing = False  # whether there are numbers alone between the last --seeds and the word
    for word in words:
        number = NUMBER.fullmatch(word) is not None
        if listing and number and result[-1] != SEEDS:
            result.append(SEEDS)
        result.append(word)
        listing = word.partition("=")[0] == SEEDS or (listing and number)
    return result


def sweep(
    recipes: Annotated[
        list[str],
        typer.Argument(
            metavar="RECIPE", help="Names of recipes (see `vtzoo list --recipes`), or TOML files.", show_default=False
        ),
    ],
    seeds: Annotated[
        list[int],
        typer.Option(
            SEEDS, metavar="N...", min=0, help="Each recipe is trained with each of them.", show_default=False
        ),
    ],
    out: Annotated[
        Path, typer.Option(metavar="FOLDER", help="Where each run has its model folder.", show_default=False)
    ],
    jobs: Annotated[int, typer.Option(metavar="N", min=1, help="Runs at a time, which share the CPU's cores out.")] = 1,
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
) -> None:
    """Train recipes with several seeds each, and compare their accuracy on the test images.

    \b
    Examples:
      vtzoo sweep swin_t-drloc-cifar10 swin_t-baseline-cifar10 \\
        --seeds 0 1 2 --out runs/swin                 does localization help?
      vtzoo sweep low.toml high.toml --seeds 0 1 2 --jobs 2 --out runs/rates

    A run is a `vtzoo train` in a process of its own, with a model folder FOLDER/RECIPE-seedN, where train.log has what
    the process says. Ctrl-C stops all runs, each with a checkpoint. The same command goes on, also after a kill: it
    skips finished runs and resumes the others. More recipes or seeds may be given then.

    The table has the top-1 of each run, and each recipe's mean and standard deviation (n - 1). A recipe whose baseline
    is there too, the same but for the name and the [drloc] table, has a second line: what it gains with the same seed.

    \b
    --json prints one object:
      {"out", "seeds": [N], "runs": [RUN], "recipes": [ROW], "twins": [ROW]}
      RUN: {"recipe", "seed", "folder", "top1", "images", "steps",
            "train_seconds", "error"}
      ROW: {"recipe", "baseline", "by_seed": {N: top-1, or the difference},
            "mean", "deviation"}

    A run that fails stops no other. The exit code is then 1, and the last lines say which failed and why.

    Needs the extra `train`: pip install "vtzoo[train]".
    """  # noqa: D301  (click's own sign for lines that stay as they are)
    from vtzoo.sweep import Options, render
    from vtzoo.sweep import sweep as run

    refuse("sweep", recipes[0], {"--epochs": epochs, "--batch-size": batch_size, "--learning-rate": learning_rate})
    options = Options(
        data=data, device=device, accumulate=accumulate, compiled=compiled, workers=workers, skip_bad=skip_bad,
        teacher=teacher,
    )  # fmt: skip
    report = run(recipes, seeds, out=out, options=options, jobs=jobs)
    if as_json:
        print_json(asdict(report))
    else:
        typer.echo(render(report))
    if report.failed:
        raise typer.Exit(1)
