"""The command `vtzoo finetune`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vtzoo.cli.options import (
    DEFAULT_MODEL,
    DeviceOption,
    ImageColumnOption,
    JsonOption,
    LabelColumnOption,
    ModelOption,
    RevisionOption,
    print_json,
)

if TYPE_CHECKING:
    from vtzoo.zoo.result import Result


def finetune(
    data: Annotated[str, typer.Option(
        metavar="DATA", show_default=False, help="A folder with one folder per class, a CSV, Parquet, or ORG/NAME."
    )],
    model: ModelOption = DEFAULT_MODEL,
    revision: RevisionOption = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="The model folder to write; by default runs/NAME.")
    ] = None,
    head_only: Annotated[
        bool, typer.Option("--head-only", help="Fit the head alone, to features computed once: takes seconds.")
    ] = False,
    drloc: Annotated[
        bool, typer.Option("--drloc/--no-drloc", help="Keep the localization loss, if the model has a grid for it.")
    ] = True,
    flip: Annotated[
        bool, typer.Option("--flip/--no-flip", help="Mirror images at random, unless that changes their class.")
    ] = True,
    image_size: Annotated[int | None, typer.Option(
        "--image-size", metavar="N", min=8, max=1024, help="Pixels per side; by default the model's own."
    )] = None,
    epochs: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Epochs; by default from the number of images.")
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Images per step; by default from the number of images.")
    ] = None,
    learning_rate: Annotated[
        float | None, typer.Option("--learning-rate", "--lr", metavar="X", help="Peak learning rate of the head.")
    ] = None,
    image_column: ImageColumnOption = None,
    label_column: LabelColumnOption = None,
    seed: Annotated[int, typer.Option(metavar="N", min=0, help="Seed of all random numbers.")] = 0,
    device: DeviceOption = "auto",
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Leave out the images that cannot be read, and count them.")
    ] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the interrupted run in --out.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Describe the training, and stop.")] = False,
    as_json: JsonOption = False,
) -> None:  # fmt: skip
    """Teach a model the classes of your own images, into a model folder that predicts, exports and publishes at once.

    \b
    Examples:
      vtzoo finetune --data photos/                     one folder per class
      vtzoo finetune --data labels.csv --head-only      columns path and label; several labels as cat;dog
      vtzoo finetune --model hf-hub:timm/vit_tiny_patch16_224.augreg_in21k_ft_in1k --data photos/

    The defaults suit 10 images as well as 10,000. Validation images decide when to stop; vtzoo draws them from the
    training images if the data has none. Ctrl-C leaves a checkpoint: the same command with --resume continues from
    there, to the same result.

    Needs the extra `train`: pip install "vtzoo[train]".
    """  # noqa: D301  (click leaves the lines after a \b as they are)
    from vtzoo.base.progress import training
    from vtzoo.data.read import read_images, summary

    images = read_images(data, seed=seed, image_column=image_column, label_column=label_column)
    typer.echo("\n".join(summary(images)), err=True)
    from vtzoo.finetune.defaults import Overrides
    from vtzoo.finetune.run import finetune as run
    from vtzoo.finetune.session import prepare

    overrides = Overrides(
        drloc=drloc, head_only=head_only, flip=flip, image_size=image_size, epochs=epochs, batch_size=batch_size,
        learning_rate=learning_rate,
    )  # fmt: skip
    session = prepare(model, images, revision=revision, overrides=overrides, seed=seed, device=device)
    out = out or Path("runs") / session.recipe.name
    typer.echo("\n".join([*session.sentences(), f"into: {out}"]), err=True)
    if dry_run:
        return
    with training(session.recipe.name) as report:
        result = run(session, out, resume=resume, skip_bad=skip_bad, progress=report)
    if as_json:
        print_json(result.as_json())
        return
    typer.echo(f"{out}: {_measured(result)} on {result.images:,} {result.split} images")
    if result.split == "test":
        typer.echo(f"{_measured(result, 'held_')} on {result.held_images:,} validation images")
    typer.echo(f"next: vtzoo predict --model {out} photo.jpg")


def _measured(result: "Result", prefix: str = "") -> str:
    """The accuracies on the measured images, or with the prefix "held_" on the validation images."""
    names = {"top1": "top-1", "top5": "top-5", "map": "mAP"}
    return ", ".join(f"{names[key]} {getattr(result, prefix + key):.2%}" for key in result.metrics)
