"""Model folders: config.json, result.json, recipe.toml, and readers that verify their weights. No torch."""

from vtzoo.zoo.lookup import find_model as find  # cards on the Hub call it by this name
from vtzoo.zoo.lookup import find_model as find_model

__all__ = ["find", "find_model"]
