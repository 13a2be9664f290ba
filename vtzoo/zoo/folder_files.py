"""Reads and writes the text files of a model folder: JSON objects and recipes."""

import json
from pathlib import Path
from typing import Any

from vtzoo.base import files
from vtzoo.errors import VtzooError


def read_text(path: Path) -> str:
    """The text of a file in a model folder. A VtzooError if the file is missing or not UTF-8."""
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise VtzooError(f"the model folder {path.parent} has no readable {path.name}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise VtzooError(f"{path} is not UTF-8 text") from error


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file of a model folder. A VtzooError if the file holds anything else."""
    try:
        content = json.loads(read_text(path))
    except (json.JSONDecodeError, RecursionError) as error:
        raise VtzooError(f"{path} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise VtzooError(f"{path} is not a JSON object")
    return content


def json_bytes(content: dict[str, Any]) -> bytes:
    """A JSON object in the format of a model folder: indented, in UTF-8."""
    return (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode()


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a JSON file atomically."""
    files.write(path, json_bytes(content))
