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
    data: Annotated[
        str,
        typer.Option(
            metavar="DATA", show_default=False, help="A folder with a folder a class, a CSV, Parquet, or ORG/NAME."
        ),
    ],
    model: ModelOption = DEFAULT_MODEL,
    revision: RevisionOption = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="The model folder to write; runs/NAME if not given.")
    ] = None,
    head_only: Annotated[
        bool, typer.Option("--head-only", help="Fit the head alone, on features that are computed once: seconds.")
    ] = False,
    drloc: Annotated[
        bool, typer.Option("--drloc/--no-drloc", help="Keep the localization loss, where the model has a grid for it.")
    ] = True,
    flip: Annotated[
        bool, typer.Option("--flip/--no-flip", help="Show images mirrored too; not where that changes their class.")
    ] = True,
    image_size: Annotated[
        int | None,
        typer.Option("--image-size", metavar="N", min=8, max=1024, help="Pixels a side; the model's own if not given."),
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="By the number of images if not given, as are the next two.")
    ] = None,
    batch_size: Annotated[int | None, typer.Option(metavar="N", min=1, help="Images a step.")] = None,
    learning_rate: Annotated[
        float | None, typer.Option("--learning-rate", "--lr", metavar="X", help="Of the head, at its peak.")
    ] = None,
    image_column: ImageColumnOption = None,
    label_column: LabelColumnOption = None,
    seed: Annotated[int, typer.Option(metavar="N", min=0, help="Of all that is random.")] = 0,
    device: DeviceOption = "auto",
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Leave out the images that cannot be read, and count them.")
    ] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the interrupted run in --out.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and stop.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Teach a model the classes of your own images; what comes out predicts, exports and publishes at once.

    \b
    Examples:
      vtzoo finetune --data photos/                     a folder with a folder a class
      vtzoo finetune --data labels.csv --head-only      columns path and label; several labels as cat;dog
      vtzoo finetune --model hf-hub:timm/vit_tiny_patch16_224.augreg_in21k_ft_in1k --data photos/

    The defaults suit 10 images as well as 10,000. Validation images, which tell when to stop, are drawn where none are
    given. Ctrl-C leaves a checkpoint: the same command with --resume goes on from there, to the same result.

    Needs the extra `train`: pip install "vtzoo[train]".
    """  # noqa: D301  (click's own sign for lines that stay as they are)
    from vtzoo.base.progress import training
    from vtzoo.data.read import read_images, summary

    images = read_images(data, seed=seed, image_column=image_column, label_column=label_column)
    _tell(summary(images))
    from vtzoo.finetune.defaults import Overrides
    from vtzoo.finetune.run import finetune as run
    from vtzoo.finetune.session import prepare

    overrides = Overrides(
        drloc=drloc, head_only=head_only, flip=flip, image_size=image_size, epochs=epochs, batch_size=batch_size,
        learning_rate=learning_rate,
    )  # fmt: skip
    session = prepare(model, images, revision=revision, overrides=overrides, seed=seed, device=device)
    out = out or Path("runs") / session.recipe.name
    _tell([*session.sentences(), f"into: {out}"])
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


def _tell(lines: list[str]) -> None:
    for line in lines:
        typer.echo(line, err=True)


def _measured(result: "Result", part: str = "") -> str:
    """The accuracies of the measured images, or with "held_" of the validation images."""
    names = {"top1": "top-1", "top5": "top-5", "map": "mAP"}
    return ", ".join(f"{names[key]} {getattr(result, part + key):.2%}" for key in result.metrics)
