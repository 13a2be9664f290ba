"""The commands `vtzoo recipe ...`: what a recipe says, and a copy of it to edit."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from vtzoo.cli.options import JsonOption, RecipeArgument, print_json

app = typer.Typer(
    help="Show a recipe, or copy one to edit. A recipe is a TOML file that says all of a training run but its seed.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.command(short_help="Print a recipe, and how many steps it takes.")
def show(name: RecipeArgument, as_json: JsonOption = False) -> None:
    """Print a recipe as it is in its file; the file's path, the images, the steps and the optimizer go to stderr.

    --json prints one object: {"name", "file", "dataset", "images", "image_size", "epochs", "batch", "steps",
    "optimizer", "teacher", "sha256", "recipe"}, the last one with the recipe's tables.
    """
    from vtzoo.zoo.recipe import facts, identity, load_recipe, locate

    path = locate(name)
    known = facts(path)
    if as_json:
        print_json({**known, "sha256": identity(path), "recipe": asdict(load_recipe(path))})
        return
    told = "{file}: {epochs:,} epochs of {images:,} images of {dataset}, {steps:,} optimizer steps of {batch:,} images"
    how = " with {optimizer}" + (", taught by {teacher}" if known["teacher"] else "")
    typer.echo((told + how).format(**known), err=True)
    typer.echo(path.read_text(encoding="utf-8"), nl=False)


@app.command(short_help="Copy a recipe into a file of your own, to edit.")
def copy(
    name: RecipeArgument,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The file to write; none is overwritten.")],
) -> None:
    """Copy a recipe into a file of your own, where any key may be edited.

    Where the file is called <model>-drloc-<dataset>.toml or <model>-baseline-<dataset>.toml, as the recipe's objective
    wants it, that is the copy's name.
    """
    from vtzoo.zoo import recipe

    typer.echo(f"{recipe.copy(name, file)}: a copy of {name}")
    typer.echo(f"next: edit it, then vtzoo train {file}")
