"""Renders recipes/: `python -m vtzoo.grid` writes every recipe that recipes/grid.toml stands for.

The grid says each thing once. A recipe is the sum of four tables, each later one over the earlier: `[every]`, the
model's at the data set's image size, the data set's, and the exception for just this pair, if there is one.
"""

import json
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from . import resources

OBJECTIVES = ("drloc", "baseline")
TABLES = ("model", "optimizer", "schedule", "augmentation", "drloc")
HEADER = (
    "# Rendered from recipes/grid.toml by `python -m vtzoo.grid`. "
    "Edit the grid, or copy this file under another name.\n"
)


def render(grid: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """The (name, TOML text) of every recipe of the grid; a baseline is its twin without [drloc]."""
    for model, settings in grid["models"].items():
        for dataset, at in grid["datasets"].items():
            image_size = str(at["model"]["image_size"])
            exception = grid.get("exceptions", {}).get(f"{model}-{dataset}", {})
            table = _merged(grid["every"], settings[image_size], at, exception)
            table["model"] = {"name": model, "image_size": at["model"]["image_size"]} | table["model"]
            for objective in OBJECTIVES:
                name = f"{model}-{objective}-{dataset}"
                tables = [key for key in TABLES if key != "drloc" or objective == "drloc"]
                yield name, _text({"name": name, "dataset": dataset, **table}, tables)


def stale(folder: Path) -> list[str]:
    """The names of recipes in a folder that differ from what its grid renders, are missing, or are not in the grid."""
    wanted = dict(render(_read(folder)))
    found = {path.stem: path.read_text(encoding="utf-8") for path in folder.glob("*.toml") if path.stem != "grid"}
    return sorted(name for name in wanted | found if wanted.get(name) != found.get(name))


def main() -> int:
    """Write the stale recipes; with --check only name them, and fail if there are any."""
    folder = resources.recipes_folder()
    changed = stale(folder)
    if "--check" in sys.argv[1:]:
        print("\n".join(changed))
        return int(bool(changed))
    wanted = dict(render(_read(folder)))
    for name in changed:
        path = folder / f"{name}.toml"
        path.write_text(wanted[name], encoding="utf-8") if name in wanted else path.unlink()
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


def _text(recipe: dict[str, Any], tables: list[str]) -> str:
    plain = [f"{key} = {_value(recipe[key])}" for key in ("name", "dataset", "precision")]
    blocks = [[f"[{table}]", *(f"{key} = {_value(value)}" for key, value in recipe[table].items())] for table in tables]
    return HEADER + "\n\n".join("\n".join(block) for block in [plain, *blocks]) + "\n"


def _value(value: Any) -> str:
    """A TOML literal. JSON's are TOML's for strings, numbers, booleans and lists of them; a table goes on one line."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {_value(v)}" for key, v in value.items()) + " }" if value else "{}"
    return json.dumps(value, ensure_ascii=False)


if __name__ == "__main__":
    sys.exit(main())
