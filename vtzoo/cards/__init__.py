"""Model cards: the README.md of a model folder, rendered from its config, its recipe and its result alone.

`python -m vtzoo.cards` renders model_cards/, the embedded models' README.md and the README's table of models; with
--check it only names the stale files.
"""

from vtzoo.cards.folder import card_of, write
from vtzoo.cards.metadata import check
from vtzoo.cards.rendering import render
from vtzoo.cards.stale import stale, stale_index, stale_weights
from vtzoo.cards.table import models_table, put, stale_table

__all__ = [
    "card_of", "check", "models_table", "put", "render", "stale", "stale_index", "stale_table", "stale_weights",
    "write",
]  # fmt: skip
