"""The commands that say which models there are, and what is known of them: list and show."""

import textwrap
from typing import Annotated, Any

import typer

from .options import JsonOption, RevisionOption, print_json

# How a row is told, by a key that only rows of its kind have.
LINES = {
    "epochs": "{name:<36}{steps:>8,} steps of {batch:>5,} images, {image_size:>3} px",
    "top1": "{name}  {top1:.2%} top-1 on {images:,} test images of {dataset}",
    "repo": "{name}  on the Hub: {repo}, {tag}",
    "name": "{name}",
}


def list_models(
    recipes: Annotated[bool, typer.Option("--recipes", help="List the recipes that `vtzoo train` takes.")] = False,
    as_json: JsonOption = False,
) -> None:
    """List the models: embedded ones with the accuracy measured on their test images, then those on the Hub.

    Weights whose recipe was edited since they were trained are marked.
    """
    from vtzoo import cards, recipe

    if recipes:
        rows = [recipe.facts(path) for path in recipe.shipped().values()]
    else:
        stale = cards.stale_weights()
        rows = [row | ({"stale": stale[row["name"]]} if row["name"] in stale else {}) for row in _known()]
    if as_json:
        print_json(rows)
        return
    for row in rows:
        typer.echo(next(line for key, line in LINES.items() if key in row).format(**row))
        if "stale" in row:
            typer.echo(f"Warning: {row['stale']}", err=True)


def _known() -> list[dict[str, Any]]:
    """What is known of each model, the embedded ones first."""
    from vtzoo import zoo
    from vtzoo.hub import index

    embedded = [zoo.summary(entry) for entry in zoo.entries()]
    names = {row["name"] for row in embedded}
    published = [
        {"name": name, "repo": pin.repo, "revision": pin.revision, "tag": pin.tag}
        for name, pin in sorted(index.known().items())
        if name not in names
    ]
    return embedded + published


def show(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL", help="Name of a model (see `vtzoo list`), its folder, or ORG/NAME.", show_default=False
        ),
    ],
    revision: RevisionOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what is known of a model: what it is, how it was trained, how good it is, and its classes."""
    from vtzoo import hub, zoo

    facts = zoo.facts(hub.find(model, revision=revision, use="card"))
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
