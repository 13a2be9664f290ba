"""Model cards: the README.md of a model folder, rendered from its config, its recipe and its result alone.

`python -m vtzoo.cards` renders model_cards/, the embedded models' README.md and the README's table of models anew; with
--check it only names what is stale.
"""

from .folder import of, write
from .metadata import check
from .rendering import render
from .stale import stale, stale_index, stale_weights
from .table import models_table, put, stale_table

__all__ = [
    "check", "models_table", "of", "put", "render", "stale", "stale_index", "stale_table", "stale_weights", "write",
]  # fmt: skip
