"""Model folders: config.json, result.json, recipe.toml, and readers that verify their weights. No torch."""

from vtzoo.zoo.model_folder import find as find
