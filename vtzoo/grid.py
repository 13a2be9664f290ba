"""Renders recipes/ and recipes/paper/: `python -m vtzoo.grid` writes every recipe that their two grids stand for.

A grid says each thing once. A recipe is the sum of four tables, each later one over the earlier: `[every]`, its image
size's, the model's at that size and the data set's. A pair that is trained on a CPU has a line in `[cpu.epochs]`: each
table of `[cpu.every]` then stands in the place of theirs, and what `[cpu.sizes]` and `[cpu.models]` have is added.

Where a data set has a teacher, the teacher's own recipe is rendered too, and each pair twice: taught, and with a name
that ends in `-untaught` without the teacher. It is as long as the taught one, or has its own line in `[cpu.epochs]`.
"""

import json
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vtzoo.zoo.recipe import folders

OBJECTIVES = ("drloc", "baseline")
TABLES = ("model", "optimizer", "schedule", "augmentation", "teacher", "drloc")
HEADER = "# Rendered from {grid} by `python -m vtzoo.grid`. Edit the grid, or copy this file under another name.\n"


def render(grid: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """The (name, TOML text) of every recipe of the grid; a baseline is its twin without [drloc].

    A grid with a `protocol` is that of recipes/<protocol>/, where every name ends in it.
    """
    protocol = [grid["protocol"]] if "protocol" in grid else []
    header = HEADER.format(grid="/".join(["recipes", *protocol, "grid.toml"]))
    for name, tables in _recipes(grid, protocol):
        yield name, header + text({"name": name, **tables}, [key for key in TABLES if key in tables])


def _recipes(grid: dict[str, Any], protocol: list[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The name and the content of every recipe: the pairs, taught and untaught, then the teachers' own."""
    for model in grid["models"]:
        for dataset in grid["datasets"]:
            teacher = _teacher(grid, dataset)
            for ending, taught in [([], teacher), (["untaught"], {})] if teacher else [([], {})]:
                tables = _sum(grid, model, dataset, *ending)
                for objective in OBJECTIVES:
                    pair = {"dataset": dataset, **tables, **taught}
                    if objective == "baseline":
                        del pair["drloc"]
                    yield "-".join([model, objective, dataset, *protocol, *ending]), pair
    for dataset in grid.get("teacher", {}).get("datasets", []):
        yield _teacher(grid, dataset)["teacher"]["name"], {"dataset": dataset, **grid["teacher"]["recipe"]}


def _sum(grid: dict[str, Any], model: str, dataset: str, *ending: str) -> dict[str, Any]:
    """The tables of a model's recipe on a data set, but for the teacher's; `ending` is what ends the recipe's name."""
    at = grid["datasets"][dataset]
    size = at["model"]["image_size"]
    table = _merged(grid["every"], grid.get("sizes", {}).get(str(size), {}), grid["models"][model][str(size)], at)
    cpu = grid.get("cpu", {})
    budgets, pair = cpu.get("epochs", {}), "-".join([model, dataset, *ending])
    if epochs := budgets.get(pair) or budgets.get(f"{model}-{dataset}"):
        length = {"schedule": {"epochs": epochs, "cosine_epochs": epochs}, "drloc": {"schedule_epochs": epochs}}
        sized = cpu.get("sizes", {}).get(str(size), {})
        table = _merged(table | cpu["every"], sized, cpu["models"][model][str(size)], length)
    table["model"] = {"name": model, "image_size": size} | table["model"]
    return table


def _teacher(grid: dict[str, Any], dataset: str) -> dict[str, Any]:
    """The table [teacher] of a data set's recipes, or nothing where it has none."""
    teacher = grid.get("teacher", {})
    if dataset not in teacher.get("datasets", []):
        return {}
    name = f"{teacher['recipe']['model']['name']}-baseline-{dataset}"
    return {"teacher": {"name": name, "weight": teacher["weight"], "temperature": teacher["temperature"]}}


def stale(folder: Path) -> list[str]:
    """The names of recipes in a folder that differ from what its grid renders, are missing, or are not in the grid."""
    wanted = dict(render(_read(folder)))
    found = {path.stem: path.read_text(encoding="utf-8") for path in folder.glob("*.toml") if path.stem != "grid"}
    return sorted(name for name in wanted | found if wanted.get(name) != found.get(name))


def main() -> int:
    """Write the stale recipes; with --check only name them, and fail if there are any."""
    changed = [(folder, name) for folder in folders() for name in stale(folder)]
    if "--check" in sys.argv[1:]:
        print("\n".join(name for _, name in changed))
        return int(bool(changed))
    wanted = {folder: dict(render(_read(folder))) for folder in folders()}
    for folder, name in changed:
        path = folder / f"{name}.toml"
        path.write_text(wanted[folder][name], encoding="utf-8") if name in wanted[folder] else path.unlink()
        print(path)
    return 0


def _read(folder: Path) -> dict[str, Any]:
    return tomllib.loads((folder / "grid.toml").read_text(encoding="utf-8"))


def _merged(*tables: dict[str, Any]) -> dict[str, Any]:
    """One table of several: the later ones win, key by key, at every depth."""
    result: dict[str, Any] = {}
    for table in tables:
        for key, value in table.items():
            both = isinstance(value, dict) and isinstance(result.get(key), dict)
            result[key] = _merged(result[key], value) if both else value
    return result


def text(recipe: dict[str, Any], tables: list[str]) -> str:
    """The TOML of a recipe, some of its tables after its plain keys; what is None is left out."""
    plain = [f"{key} = {_value(recipe[key])}" for key in ("name", "dataset", "precision")]
    blocks = [[f"[{table}]", *(f"{key} = {_value(v)}" for key, v in _said(recipe[table]))] for table in tables]
    return "\n\n".join("\n".join(block) for block in [plain, *blocks]) + "\n"


def _value(value: Any) -> str:
    """A TOML literal. JSON's are TOML's for strings, numbers, booleans and lists of them; a table goes on one line."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {_value(v)}" for key, v in _said(value)) + " }" if value else "{}"
    return json.dumps(value, ensure_ascii=False)


def _said(table: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """The keys of a table that have a value: TOML has no word for none."""
    return ((key, value) for key, value in table.items() if value is not None)


if __name__ == "__main__":
    sys.exit(main())
