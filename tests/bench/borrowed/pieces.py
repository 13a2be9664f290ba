"""Cuts files into pieces for several transfers, and joins them after arrival; every file and piece has a sha256."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vtzoo.base import files
from vtzoo.errors import VtzooError

MIB = 1 << 20
MANIFEST = "manifest.json"  # in every folder of pieces: each file's size in bytes, sha256 and pieces


@dataclass(frozen=True, kw_only=True)
class Piece:
    """A range of a file's bytes, stored as a separate file."""

    file: str  # name of the whole file
    number: int  # among the file's pieces
    folder: int  # number of the folder in which the piece travels
    start: int  # offset in bytes
    size: int  # bytes

    @property
    def name(self) -> str:
        """The name of the piece's file, without slashes."""
        return f"{self.file.replace('/', '.')}.{self.number:03d}"


def plan(sizes: dict[str, int], *, room: int, largest: int) -> list[Piece]:
    """Pieces of at most `largest` bytes, one after another in folders of at most `room` bytes each."""
    pieces, folder, left = [], 0, room
    for file, size in sizes.items():
        start = number = 0
        while start < size or not number:
            if not left:
                folder, left = folder + 1, room
            length = min(size - start, left, largest)
            pieces.append(Piece(file=file, number=number, folder=folder, start=start, size=length))
            start, number, left = start + length, number + 1, left - length
    return pieces


def cut(paths: dict[str, Path], folder: Callable[[int], Path], *, room: int, largest: int) -> list[Path]:
    """Write files, by their names after arrival, in pieces into `folder(0)`, `folder(1)`...; return the folders."""
    pieces = plan({name: path.stat().st_size for name, path in paths.items()}, room=room, largest=largest)
    facts: dict[str, dict[str, Any]] = {}
    for name, path in paths.items():
        content = path.read_bytes()
        facts[name] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest(), "pieces": {}}
        for piece in (piece for piece in pieces if piece.file == name):
            part = content[piece.start : piece.start + piece.size]
            folder(piece.folder).mkdir(parents=True, exist_ok=True)
            (folder(piece.folder) / piece.name).write_bytes(part)
            facts[name]["pieces"][piece.name] = hashlib.sha256(part).hexdigest()
    folders = [folder(number) for number in sorted({piece.folder for piece in pieces})]
    for place in folders:
        (place / MANIFEST).write_text(json.dumps(facts, indent=1) + "\n")
    return folders


def join(folders: Sequence[Path], into: Path) -> list[str]:
    """Write the files whose pieces have all arrived, and return the names of the other files.

    A damaged piece, and folders from different cuts, are a VtzooError.
    """
    manifests = [_manifest(folder) for folder in folders]
    if other := next((place for place, facts in zip(folders, manifests, strict=True) if facts != manifests[0]), None):
        raise VtzooError(f"{folders[0]} and {other} are not of one pack", "pack again, and carry every part of it")
    missing = []
    for name, facts in manifests[0].items():
        if _whole(into / name, facts):
            continue
        places = [
            next((place / piece for place in folders if (place / piece).exists()), None) for piece in facts["pieces"]
        ]
        if None in places:
            missing.append(name)
            continue
        (into / name).parent.mkdir(parents=True, exist_ok=True)
        hashes = facts["pieces"].values()
        files.write(into / name, b"".join(_read(place, sha256) for place, sha256 in zip(places, hashes, strict=True)))
    return missing


def _manifest(folder: Path) -> dict[str, Any]:
    try:
        return json.loads((folder / MANIFEST).read_text())
    except (OSError, ValueError) as error:
        raise VtzooError(f"{folder} has no {MANIFEST} that can be read: it is not whole", "send it again") from error


def _whole(path: Path, facts: dict[str, Any]) -> bool:
    return path.is_file() and path.stat().st_size == facts["bytes"] and files.sha256(path) == facts["sha256"]


def _read(place: Path | None, sha256: str) -> bytes:
    assert place
    content = place.read_bytes()
    if hashlib.sha256(content).hexdigest() != sha256:
        raise VtzooError(f"{place} is damaged: it has another sha256", "send it again")
    return content
