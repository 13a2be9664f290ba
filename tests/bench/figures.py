"""The figures of a benchmark: prints them and, with --save, stores them as JSON and updates docs/benchmarks.md."""

import argparse
import json
import os
import platform
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

TABLES = Path(__file__).resolve().parents[2] / "docs" / "benchmarks.md"

Figures = dict[str, Any]


def options(file: str, told: str) -> argparse.ArgumentParser:
    """The options --json and --save of a benchmark's file; the first line of its docstring is the description."""
    parser = argparse.ArgumentParser(description=told.partition("\n")[0])
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--save", action="store_true", help=f"write {saved(file).name} and its table in {TABLES.name}")
    return parser


def circumstances(*packages: str) -> Figures:
    """The machine, and the versions of vtzoo and of some packages."""
    return {
        "machine": f"{os.cpu_count()} CPU cores ({platform.machine()}), Python {platform.python_version()}",
        "versions": {name: version(name) for name in ("vtzoo", *packages)},
    }


def versions(figures: Figures) -> str:
    """The versions as text."""
    return ", ".join(f"{name} {version}" for name, version in figures["versions"].items())


def tell(file: str, figures: Figures, render: Callable[[Figures], str], arguments: argparse.Namespace) -> None:
    """Print the figures as Markdown or as JSON; with --save, also store them and put their Markdown into `TABLES`."""
    print(json.dumps(figures, indent=2) if arguments.json else render(figures), end="")
    if arguments.save:
        from vtzoo.cards import put  # a late import: a child's peak memory is never below its parent's memory

        saved(file).write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
        text = put(TABLES.read_text(encoding="utf-8"), Path(file).stem, render(figures))
        TABLES.write_text(text, encoding="utf-8")


def saved(file: str) -> Path:
    """The path of a benchmark's stored figures."""
    return Path(file).resolve().with_suffix(".json")
