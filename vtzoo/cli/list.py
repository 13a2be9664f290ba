"""The command `vtzoo list`."""

from typing import Annotated

import typer

from vtzoo.cli.options import JsonOption, print_json

RECIPE = "{name:<36}{steps:>8,} steps of {batch:>5,} images, {image_size:>3} px"
MODEL = "{:<36}{:>7}{:>8}{:>8}  {}"  # name, top-1, the twin's top-1, megabytes, where it is
PLACES = {"here": "here", "hub": "on the Hub: {repo}, {tag}", "recipe": "recipe"}


def list_models(
    recipes: Annotated[bool, typer.Option("--recipes", help="List the recipes that `vtzoo train` takes.")] = False,
    as_json: JsonOption = False,
) -> None:
    """List the models: those here, those on the Hub, and recipes that are not trained yet.

    Each line has the accuracy on the test images, that of the twin (the same recipe with the other objective), and the
    size. A recipe has an accuracy if its weights were measured but not kept. A warning marks weights whose recipe was
    edited after the training. Only --recipes lists the paper's recipes.
    """
    from vtzoo.cards import catalogue
    from vtzoo.zoo import recipe_files

    if recipes:
        rows = [recipe_files.facts(path) for path in recipe_files.shipped().values()]
        print_json(rows) if as_json else typer.echo("\n".join(RECIPE.format(**row) for row in rows))
        return
    models = catalogue.known()
    if as_json:
        print_json([model.as_json() for model in models])
        return
    typer.echo(MODEL.format("model", "top-1", "twin's", "MB", "where"))
    for model in models:
        size = f"{model.bytes / 1e6:.1f}" if model.bytes is not None else ""
        place = PLACES[model.place].format(**vars(model))
        typer.echo(MODEL.format(model.name, _percent(model.top1), _percent(model.twin_top1), size, place))
        if model.stale:
            typer.echo(f"Warning: {model.stale}", err=True)


def _percent(fraction: float | None) -> str:
    return "" if fraction is None else f"{fraction:.2%}"
