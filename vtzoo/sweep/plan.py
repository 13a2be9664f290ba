"""Plans the runs of a sweep: the folder of each, and its result if it is finished."""

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
from vtzoo.zoo.recipe import Recipe
from vtzoo.zoo.recipe_files import load_recipe, locate


@dataclass(frozen=True, kw_only=True, eq=False)
class Run:
    """One recipe with one seed."""

    recipe: Recipe
    stem: str  # of the recipe's file, the recipe's name in the sweep
    text: bytes  # of the recipe's file when the sweep began; the user may edit the file later
    seed: int
    folder: Path  # the model folder

    @property
    def name(self) -> str:
        """The name of its folder."""
        return self.folder.name

    @property
    def result(self) -> dict[str, Any] | None:
        """result.json of a finished run; None before. The last file that a run writes is its card."""
        try:
            result = json.loads((self.folder / "result.json").read_bytes())
        except (FileNotFoundError, ValueError):
            return None
        return result if "top1" in result and (self.folder / "README.md").exists() else None


def plan_runs(
    recipes: Sequence[str], seeds: Sequence[int], *, out: Path, data: Path | None = None, teacher: Path | None = None
) -> list[Run]:
    """The runs of recipes, by name or TOML file: all recipes with the first seed, then all with the next.

    Impossible combinations are a VtzooError. Nothing is written.
    """
    paths = [locate(name) for name in recipes]
    _refuse_repeated(
        "recipe", [path.stem for path in paths], "runs are named after the recipe's file: give each recipe its own name"
    )
    _refuse_repeated("seed", seeds, "the same seed would train the same model: give each seed once")
    found = [(path, load_recipe(path), path.read_bytes()) for path in paths]
    _refuse_other_data(data, [recipe for _, recipe, _ in found])
    if teacher and not any(recipe.teacher for _, recipe, _ in found):
        raise VtzooError(f"no recipe here has a [teacher], so {teacher} is not used", "leave out --teacher")
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
    """Refuse one folder of images for recipes of several datasets."""
    names = sorted({recipe.dataset for recipe in recipes})
    if data and len(names) > 1:
        message = f"{data} is one dataset, and these recipes train on {', '.join(names)}"
        raise VtzooError(message, "sweep the recipes of one dataset at a time, or leave out --data")


def _refuse_other_run(run: Run) -> None:
    """Refuse a folder that has a run of another recipe or seed, or another model."""
    recipe, config = run.folder / "recipe.toml", run.folder / "config.json"
    same = recipe.is_file() and files.sha256(recipe) == sha256(run.text).hexdigest()
    if (recipe.exists() or config.exists()) and not same:
        raise VtzooError(f"{run.folder} has a run of another recipe than {run.stem}", "choose another --out")
    if run.result and run.result["seed"] != run.seed:
        message = f"{run.folder} has a run with the seed {run.result['seed']}"
        raise VtzooError(message, "choose another --out, or move that folder away")
