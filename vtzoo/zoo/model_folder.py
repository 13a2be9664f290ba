"""Model folders: runs, embedded models, cached models and repositories on the Hub all look the same."""

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
    """A model in a folder. Its files are read when they are first asked for, and read once."""

    name: str
    folder: Path
    source: str | None = None  # ORG/NAME@COMMIT, of a model from the Hub
    pinned: dict[str, str] = field(default_factory=dict, compare=False)  # sha256 by file, from that commit

    @cached_property
    def config(self) -> Config:
        """config.json; one that describes no model, or reaches out of its folder, is a VtzooError."""
        return Config.read(self.folder / "config.json")

    @cached_property
    def result(self) -> Result:
        """result.json; a folder without it raises a VtzooError."""
        return Result.read(self.folder / "result.json")

    @property
    def result_or_empty(self) -> Result:
        """result.json, or a result that states nothing where there is no such file."""
        return self.result if (self.folder / "result.json").exists() else Result()

    @cached_property
    def recipe(self) -> Recipe:
        """recipe.toml, by which the model was trained."""
        return parse_recipe(self.recipe_text, str(self.folder / "recipe.toml"))

    @property
    def recipe_text(self) -> str:
        """The text of recipe.toml."""
        return read_text(self.folder / "recipe.toml")

    @property
    def size(self) -> int:
        """The bytes of all files together."""
        return sum(file.stat().st_size for file in self.folder.rglob("*") if file.is_file())

    def sha256(self, file: str) -> str | None:
        """The hash of a weight file, from its commit or else from result.json; None where neither has it."""
        return self.pinned.get(file) or (self.result_or_empty.weights or {}).get(file)
