"""The commands `vtzoo recipe show` and `vtzoo recipe copy`."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from vtzoo.cli.options import JsonOption, RecipeArgument, print_json

app = typer.Typer(
    help="Show a recipe, or copy one to edit. A recipe is a TOML file: all settings of a training run but its seed.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.command(short_help="Print a recipe and its number of steps.")
def show(name: RecipeArgument, as_json: JsonOption = False) -> None:
    """Print a recipe's file. Its path, images, steps and optimizer go to stderr.

    --json prints one object: {"name", "file", "dataset", "images", "image_size", "epochs", "batch", "steps",
    "optimizer", "teacher", "sha256", "recipe"}. The last key has the recipe's tables.
    """
    from vtzoo.zoo.recipe_files import facts, identity, load_recipe, locate

    path = locate(name)
    known = facts(path)
    if as_json:
        print_json({**known, "sha256": identity(path), "recipe": asdict(load_recipe(path))})
        return
    size = "{file}: {epochs:,} epochs of {images:,} images of {dataset}, {steps:,} optimizer steps of {batch:,} images"
    method = " with {optimizer}" + (", taught by {teacher}" if known["teacher"] else "")
    typer.echo((size + method).format(**known), err=True)
    typer.echo(path.read_text(encoding="utf-8"), nl=False)


@app.command(short_help="Copy a recipe into your own file, to edit.")
def copy(
    name: RecipeArgument,
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="The file to write; an existing file is never overwritten.")
    ],
) -> None:
    """Copy a recipe into your own file, where you may edit every key.

    If the file is named <model>-drloc-<dataset>.toml or <model>-baseline-<dataset>.toml, according to the recipe's
    objective, the copy takes that name.
    """
    from vtzoo.zoo import recipe_files

    typer.echo(f"{recipe_files.copy(name, file)}: a copy of {name}")
    typer.echo(f"next: edit it, then vtzoo train {file}")
