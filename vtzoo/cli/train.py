"""The command `vtzoo train`."""

from pathlib import Path
from typing import Annotated

import typer

from vtzoo.cli.options import (
    AccumulateOption,
    BatchSizeOption,
    CompileOption,
    DataOption,
    DeviceOption,
    EpochsOption,
    JsonOption,
    LearningRateOption,
    RecipeArgument,
    SkipBadOption,
    TeacherOption,
    WorkersOption,
    print_json,
)
from vtzoo.errors import VtzooError

# The keys of a recipe behind options that other programs have; the error for such an option names the keys.
KEYS = {
    "--epochs": ("schedule.epochs", "schedule.cosine_epochs"),
    "--batch-size": ("optimizer.batch_size",),
    "--learning-rate": ("optimizer.learning_rate",),
}


def train(
    recipe: RecipeArgument,
    data: DataOption = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="The model folder to write; by default runs/RECIPE.")
    ] = None,
    seed: Annotated[int, typer.Option(metavar="N", min=0, help="The only setting outside the recipe.")] = 0,
    device: DeviceOption = "auto",
    accumulate: AccumulateOption = 1,
    compiled: CompileOption = False,
    workers: WorkersOption = None,
    skip_bad: SkipBadOption = False,
    teacher: TeacherOption = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the interrupted run in --out.")] = False,
    as_json: JsonOption = False,
    epochs: EpochsOption = None,
    batch_size: BatchSizeOption = None,
    learning_rate: LearningRateOption = None,
) -> None:
    """Train a recipe into a model folder, which predicts, evaluates and exports at once.

    Ctrl-C leaves a checkpoint: the same command with --resume continues from there, to the same losses. All settings
    but the seed are in the recipe: `vtzoo recipe copy RECIPE my.toml` makes a copy to edit.

    On several GPUs: torchrun --nproc-per-node N -m vtzoo train RECIPE

    Needs the extra `train`: pip install "vtzoo[train]".
    """
    from vtzoo.base.progress import training
    from vtzoo.zoo.recipe_files import locate

    path = locate(recipe)
    refuse("train", recipe, {"--epochs": epochs, "--batch-size": batch_size, "--learning-rate": learning_rate})
    out = out or Path("runs") / path.stem
    with training(path.stem) as report:
        from vtzoo.train.run import train as run

        result = run(
            path, data=data, out=out, seed=seed, device=device, accumulate=accumulate, compiled=compiled,
            workers=workers, skip_bad=skip_bad, resume=resume, teacher=teacher, progress=report,
        )  # fmt: skip
    if result is None:  # another process of torchrun prints the result
        return
    if as_json:
        print_json(result.as_json())
        return
    typer.echo(f"{out}: top-1 {result.top1:.2%}, top-5 {result.top5:.2%} on {result.images:,} test images")
    typer.echo(f"next: vtzoo predict --model {out} photo.jpg")


def refuse(command: str, recipe: str, given: dict[str, str | None]) -> None:
    """Raise a VtzooError if a given option belongs into the recipe, with the keys to edit and the next command."""
    wanted = {option: value for option, value in given.items() if value is not None}
    if not wanted:
        return
    own = Path(recipe).suffix == ".toml"
    file = recipe if own else "my.toml"
    keys = " and ".join(f"{key} = {value}" for option, value in wanted.items() for key in KEYS[option])
    copying = "" if own else f"vtzoo recipe copy {recipe} {file}; "
    message = f"{' and '.join(wanted)} would change what the recipe says: edit a copy of it instead"
    raise VtzooError(message, f"{copying}set {keys} in {file}; vtzoo {command} {file}")
