"""Renders recipes/ and recipes/paper/: `python -m vtzoo.grid` writes every recipe that their two grids stand for.

A grid says each thing once. A recipe is the sum of four tables, each later one over the earlier: `[every]`, its image
size's, the model's at that size and the data set's. The exception for just one model and data set, where there is one,
adds to none of them: each table in it stands in the place of theirs.
"""

import json
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .recipe import folders

OBJECTIVES = ("drloc", "baseline")
TABLES = ("model", "optimizer", "schedule", "augmentation", "drloc")
HEADER = "# Rendered from {grid} by `python -m vtzoo.grid`. Edit the grid, or copy this file under another name.\n"


def render(grid: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """The (name, TOML text) of every recipe of the grid; a baseline is its twin without [drloc].

    A grid with a `protocol` is that of recipes/<protocol>/, where every name ends in it.
    """
    protocol = [grid["protocol"]] if "protocol" in grid else []
    header = HEADER.format(grid="/".join(["recipes", *protocol, "grid.toml"]))
    for model, settings in grid["models"].items():
        for dataset, at in grid["datasets"].items():
            size = at["model"]["image_size"]
            table = _merged(grid["every"], grid.get("sizes", {}).get(str(size), {}), settings[str(size)], at)
            table |= grid.get("exceptions", {}).get(f"{model}-{dataset}", {})
            table["model"] = {"name": model, "image_size": size} | table["model"]
            for objective in OBJECTIVES:
                name = "-".join([model, objective, dataset, *protocol])
                tables = [key for key in TABLES if key != "drloc" or objective == "drloc"]
                yield name, header + text({"name": name, "dataset": dataset, **table}, tables)


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
