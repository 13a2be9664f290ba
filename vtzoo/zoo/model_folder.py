"""Model folders, the common layout of runs, embedded models, cached models and repositories on the Hub."""

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from vtzoo.zoo.config import Config
from vtzoo.zoo.folder_files import read_text
from vtzoo.zoo.recipe import Recipe
from vtzoo.zoo.recipe_files import parse_recipe
from vtzoo.zoo.result import Result


@dataclass(frozen=True)
class ModelFolder:
    """A model in a folder. Each file is read once, at its first use."""

    name: str
    folder: Path
    source: str | None = None  # ORG/NAME@COMMIT of a model from the Hub
    pinned: dict[str, str] = field(default_factory=dict, compare=False)  # sha256 by file, from that commit

    @cached_property
    def config(self) -> Config:
        """config.json; a VtzooError if it describes no model or points out of its folder."""
        return Config.read(self.folder / "config.json")

    @cached_property
    def result(self) -> Result:
        """result.json; a VtzooError if the folder has none."""
        return Result.read(self.folder / "result.json")

    @property
    def result_or_empty(self) -> Result:
        """result.json, or an empty result if the folder has none."""
        return self.result if (self.folder / "result.json").exists() else Result()

    @cached_property
    def recipe(self) -> Recipe:
        """recipe.toml, the recipe of the model's training."""
        return parse_recipe(self.recipe_text, str(self.folder / "recipe.toml"))

    @property
    def recipe_text(self) -> str:
        """The text of recipe.toml."""
        return read_text(self.folder / "recipe.toml")

    @property
    def size(self) -> int:
        """The size of all files together, in bytes."""
        return sum(file.stat().st_size for file in self.folder.rglob("*") if file.is_file())

    def sha256(self, file: str) -> str | None:
        """The sha256 of a weight file from its commit, else from result.json; None if neither has it."""
        return self.pinned.get(file) or (self.result_or_empty.weights or {}).get(file)
