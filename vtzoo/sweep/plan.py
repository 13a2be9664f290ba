"""The runs of a sweep: which folder each has, and what of them is done already."""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import product
from pathlib import Path
from typing import Any

from vtzoo.base import files
from vtzoo.errors import VtzooError
from vtzoo.zoo.recipe import Recipe, load_recipe, locate


@dataclass(frozen=True, kw_only=True, eq=False)
class Run:
    """One recipe with one seed."""

    recipe: Recipe
    stem: str  # of the recipe's file, by which the sweep calls it
    text: bytes  # of the recipe's file as the sweep found it: it may be edited while the sweep goes on
    seed: int
    folder: Path  # the model folder

    @property
    def name(self) -> str:
        """What it is called."""
        return self.folder.name

    @property
    def result(self) -> dict[str, Any] | None:
        """result.json of a finished run; None of any other. The card is the last file that a run writes."""
        try:
            result = json.loads((self.folder / "result.json").read_bytes())
        except (FileNotFoundError, ValueError):
            return None
        return result if "top1" in result and (self.folder / "README.md").exists() else None


def plan(
    recipes: Sequence[str], seeds: Sequence[int], *, out: Path, data: Path | None = None, teacher: Path | None = None
) -> list[Run]:
    """The runs of recipes, by name or TOML file, with seeds: all recipes with one seed, then all with the next.

    What cannot be a sweep is a VtzooError before anything is written.
    """
    paths = [locate(name) for name in recipes]
    _refuse_repeated("recipe", [path.stem for path in paths], "the file's name is the run's: each recipe needs its own")
    _refuse_repeated("seed", seeds, "the same seed would train the same model: give each once")
    found = [(path, load_recipe(path), path.read_bytes()) for path in paths]
    _refuse_other_data(data, [recipe for _, recipe, _ in found])
    if teacher and not any(recipe.teacher for _, recipe, _ in found):
        raise VtzooError(f"no recipe here has a [teacher] for {teacher} to be", "leave out --teacher")
    runs = [
        Run(recipe=recipe, stem=path.stem, text=text, seed=seed, folder=out / f"{path.stem}-seed{seed}")
        for seed, (path, recipe, text) in product(seeds, found)
    ]
    for run in runs:
        _refuse_other_run(run)
    return runs


def _refuse_repeated(kind: str, given: Iterable[str | int], hint: str) -> None:
    (value, times), *_ = Counter(given).most_common()
    if times > 1:
        raise VtzooError(f"the {kind} {value} is given {times} times", hint)


def _refuse_other_data(data: Path | None, recipes: list[Recipe]) -> None:
    """Refuse one folder of images for recipes of several data sets."""
    names = sorted({recipe.dataset for recipe in recipes})
    if data and len(names) > 1:
        message = f"{data} cannot be all of {', '.join(names)}, which these recipes train on"
        raise VtzooError(message, "sweep the recipes of one data set at a time, or leave --data out")


def _refuse_other_run(run: Run) -> None:
    """Refuse a run's folder that holds a run of another recipe or seed, or a model that was put there."""
    recipe, config = run.folder / "recipe.toml", run.folder / "config.json"
    same = recipe.is_file() and files.sha256(recipe) == sha256(run.text).hexdigest()
    if (recipe.exists() or config.exists()) and not same:
        raise VtzooError(f"{run.folder} holds a run of another recipe than {run.stem}", "choose another --out")
    if run.result and run.result["seed"] != run.seed:
        message = f"{run.folder} holds a run with the seed {run.result['seed']}"
        raise VtzooError(message, "choose another --out, or move that folder away")
