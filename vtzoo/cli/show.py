"""The command `vtzoo show`."""

import textwrap
from typing import Annotated, Any

import typer

from vtzoo.cli.options import JsonOption, RevisionOption, print_json
from vtzoo.zoo.facts import model_facts


def show(
    model: Annotated[str, typer.Argument(
        metavar="MODEL", help="Name of a model (see `vtzoo list`), its folder, or ORG/NAME.", show_default=False
    )],
    revision: RevisionOption = None,
    as_json: JsonOption = False,
) -> None:  # fmt: skip
    """Show the facts of a model: architecture, training, accuracy and classes."""
    from vtzoo.hub import fetch

    facts = model_facts(fetch.model_folder(model, revision=revision, use="card"))
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
