"""The command `vtzoo card`."""

from typing import Annotated

import typer


def card(
    model: Annotated[
        str,
        typer.Argument(metavar="MODEL", help="Name of a model (see `vtzoo list`), or its folder.", show_default=False),
    ],
    repo: Annotated[
        str | None, typer.Option(metavar="ORG/NAME", help="Render it as it is published there on the Hub.")
    ] = None,
    write: Annotated[bool, typer.Option("--write", help="Write it into the folder's README.md instead.")] = False,
) -> None:
    """Print a model's card: Markdown that says what it is, how good, and how to use it, with metadata for the Hub.

    It is rendered from the model folder and from that of its twin, the model with the other objective, where one is
    embedded or lies beside it. --write is for a run whose twin was trained later.
    """
    from vtzoo import cards
    from vtzoo.hub import fetch

    entry = fetch.model_folder(model, use="card")
    typer.echo(f"{cards.write(entry, repo)}: written" if write else cards.card_of(entry, repo), nl=write)
