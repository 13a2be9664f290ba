"""Renders recipes/ and recipes/paper/ from their grid.toml: `python -m vtzoo.grid` writes every recipe.

A recipe merges four tables, later tables over earlier: `[every]`, the table of its image size, that of the model at
this size, and that of the data set. A pair trained on a CPU has a line in `[cpu.epochs]`: the tables of `[cpu.every]`
then replace the others, and the keys of `[cpu.sizes]` and `[cpu.models]` are added.

A data set with a teacher also has the teacher's own recipe, and each pair twice: taught, and without the teacher under
a name that ends in `-untaught`. The untaught pair is as long as the taught, or has its own line in `[cpu.epochs]`.
"""

import json
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vtzoo.base import files
from vtzoo.zoo.recipe_files import folders

OBJECTIVES = ("drloc", "baseline")
TABLES = ("model", "optimizer", "schedule", "augmentation", "teacher", "drloc")
HEADER = "# Rendered from {grid} by `python -m vtzoo.grid`. Edit the grid, or copy this file under another name.\n"


def render(grid: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """The (name, TOML text) of every recipe of the grid; a baseline is its twin without [drloc].

    A grid with a `protocol` belongs to recipes/<protocol>/, where every name ends in the protocol.
    """
    protocol = [grid["protocol"]] if "protocol" in grid else []
    header = HEADER.format(grid="/".join(["recipes", *protocol, "grid.toml"]))
    for name, tables in _recipes(grid, protocol):
        yield name, header + text({"name": name, **tables}, [key for key in TABLES if key in tables])


def _recipes(grid: dict[str, Any], protocol: list[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The name and the content of every recipe: the pairs, taught and untaught, then the teachers' recipes."""
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
    """The tables of a model's recipe on a data set, without [teacher]; `ending` is the end of the recipe's name."""
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
    """The [teacher] table of a data set's recipes; empty without a teacher."""
    teacher = grid.get("teacher", {})
    if dataset not in teacher.get("datasets", []):
        return {}
    name = f"{teacher['recipe']['model']['name']}-baseline-{dataset}"
    return {"teacher": {"name": name, "weight": teacher["weight"], "temperature": teacher["temperature"]}}


def stale(folder: Path) -> list[str]:
    """The names of a folder's recipes that differ from its grid, are missing, or are not in the grid."""
    wanted = dict(render(_read(folder)))
    found = {path.stem: path.read_text(encoding="utf-8") for path in folder.glob("*.toml") if path.stem != "grid"}
    return sorted(name for name in wanted | found if wanted.get(name) != found.get(name))


def main() -> int:
    """Write the stale recipes; with --check only print their names, and return 1 if there are any."""
    changed = [(folder, name) for folder in folders() for name in stale(folder)]
    if "--check" in sys.argv[1:]:
        print("\n".join(name for _, name in changed))
        return int(bool(changed))
    wanted = {folder: dict(render(_read(folder))) for folder in folders()}
    for folder, name in changed:
        path = folder / f"{name}.toml"
        files.write(path, wanted[folder][name].encode()) if name in wanted[folder] else path.unlink()
        print(path)
    return 0


def _read(folder: Path) -> dict[str, Any]:
    return tomllib.loads((folder / "grid.toml").read_text(encoding="utf-8"))


def _merged(*tables: dict[str, Any]) -> dict[str, Any]:
    """The tables merged into one, at every depth: later values replace earlier ones."""
    result: dict[str, Any] = {}
    for table in tables:
        for key, value in table.items():
            both = isinstance(value, dict) and isinstance(result.get(key), dict)
            result[key] = _merged(result[key], value) if both else value
    return result


def text(recipe: dict[str, Any], tables: list[str]) -> str:
    """The TOML of a recipe: its plain keys, then the given tables, without the keys whose value is None."""
    plain = [f"{key} = {_value(recipe[key])}" for key in ("name", "dataset", "precision")]
    blocks = [[f"[{table}]", *(f"{key} = {_value(v)}" for key, v in _present(recipe[table]))] for table in tables]
    return "\n\n".join("\n".join(block) for block in [plain, *blocks]) + "\n"


def _value(value: Any) -> str:
    """A TOML literal: JSON's for strings, numbers, booleans and lists of them; tables are inline."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {_value(v)}" for key, v in _present(value)) + " }" if value else "{}"
    return json.dumps(value, ensure_ascii=False)


def _present(table: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """The keys and values of a table but for None, which TOML lacks."""
    return ((key, value) for key, value in table.items() if value is not None)


if __name__ == "__main__":
    sys.exit(main())
