"""The commands that say which models there are, and what is known of them: list and show."""

import textwrap
from typing import Annotated, Any

import typer

from .options import JsonOption, print_json


def list_models(
    recipes: Annotated[bool, typer.Option("--recipes", help="List the recipes that `vtzoo train` takes.")] = False,
    as_json: JsonOption = False,
) -> None:
    """List the models that predict here, with the accuracy measured on their test images."""
    from vtzoo import recipe, zoo

    if recipes:
        rows = [recipe.facts(path) for path in recipe.shipped().values()]
        line = "{name:<36}{steps:>8,} steps of {batch:>5,} images, {image_size:>3} px"
    else:
        rows = [zoo.summary(entry) for entry in zoo.entries()]
        line = "{name}  {top1:.2%} top-1 on {images:,} test images of {dataset}"
    if as_json:
        print_json(rows)
        return
    for row in rows:
        typer.echo(line.format(**row) if recipes or "top1" in row else row["name"])


def show(
    model: Annotated[
        str,
        typer.Argument(metavar="MODEL", help="Name of a model (see `vtzoo list`), or its folder.", show_default=False),
    ],
    as_json: JsonOption = False,
) -> None:
    """Show what is known of a model: what it is, how it was trained, how good it is, and its classes."""
    from vtzoo import zoo

    facts = zoo.facts(zoo.find(model))
    if as_json:
        print_json(facts)
        return
    width = max(len(key) for key in facts) + 2
    for key, value in facts.items():
        line = f"{key.replace('_', ' '):<{width}}{_text(key, value)}"
        fold = textwrap.TextWrapper(100, subsequent_indent=" " * width, break_long_words=False, break_on_hyphens=False)
        typer.echo(fold.fill(line))


def _text(key: str, value: Any) -> str:
    """A fact in words: a fraction of the images as a percentage, a size in megabytes."""
    if key in ("top1", "top5"):
        return f"{value:.2%}"
    if key == "bytes":
        return f"{value:,} ({value / 1e6:.1f} MB)"
    if isinstance(value, dict):
        return ", ".join(f"{name.replace('_', ' ')} {_text(name, one)}" for name, one in value.items())
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return f"{value:,}" if type(value) is int else f"{value:.3g}" if isinstance(value, float) else str(value)
