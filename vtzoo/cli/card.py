"""The command `vtzoo card`."""

from typing import Annotated

import typer


def card(
    model: Annotated[str, typer.Argument(
        metavar="MODEL", help="Name of a model (see `vtzoo list`), or its folder.", show_default=False
    )],
    repo: Annotated[
        str | None, typer.Option(metavar="ORG/NAME", help="Render the card for publication there on the Hub.")
    ] = None,
    write: Annotated[bool, typer.Option("--write", help="Write the card into the folder's README.md.")] = False,
) -> None:  # fmt: skip
    """Print a model's card: Markdown on its training, accuracy and use, with metadata for the Hub.

    The card is rendered from the model folder and from that of its twin, the model with the other objective, if the
    twin is embedded or lies beside the folder. --write updates the card of a run whose twin was trained later.
    """
    from vtzoo import cards
    from vtzoo.hub import fetch

    entry = fetch.model_folder(model, use="card")
    typer.echo(f"{cards.write(entry, repo)}: written" if write else cards.card_of(entry, repo), nl=write)
