"""The index: the models on the Hub with their commits, and the size and hash of each of their files.

zoo.toml ships with the package, and `$VTZOO_INDEX` may name a second file; only `vtzoo publish` writes index files.
"""

import hashlib
import json
import os
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from vtzoo.base import files, strict
from vtzoo.errors import VtzooError
from vtzoo.zoo import resources

HEAD = "# Written by `vtzoo publish`: the commit of each model on the Hub, and what its files hold. Not to be edited.\n"
COMMIT = re.compile(r"[0-9a-f]{40}")
HASH = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
REPO = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class Content:
    """The expected content of a file: its size and one of two hashes, in hexadecimal."""

    size: int  # bytes
    sha256: str | None = None
    git_sha1: str | None = None  # git's blob id, the Hub's only hash of a small file

    def fits(self, file: Path | bytes) -> bool:
        """Whether a file, or the bytes of a future file, have this size and hash; False for a missing file."""
        try:
            size = len(file) if isinstance(file, bytes) else file.stat().st_size
            return size == self.size and self._hash(file) == (self.sha256 or self.git_sha1)
        except FileNotFoundError:
            return False

    def _hash(self, file: Path | bytes) -> str:
        if self.sha256 and isinstance(file, Path):
            return files.sha256(file)
        content = file.read_bytes() if isinstance(file, Path) else file
        if self.sha256:
            return hashlib.sha256(content).hexdigest()
        return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


@dataclass(frozen=True, kw_only=True)
class Pin:
    """One commit of a repository on the Hub, with the expected content of its files by path."""

    repo: str  # ORG/NAME
    revision: str  # the commit: 40 hexadecimal digits
    tag: str | None = None
    files: dict[str, Content]


def known() -> dict[str, Pin]:
    """The indexed models on the Hub by name, from the shipped index and the file in `$VTZOO_INDEX`."""
    own = os.environ.get("VTZOO_INDEX")
    return read(resources.index_file()) | (read(Path(own)) if own else {})


def read(path: Path) -> dict[str, Pin]:
    """The pins of an index file by model name; a damaged file or an escaping path raises a VtzooError."""
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise VtzooError(f"cannot read the index {path}: {error.strerror}", "check $VTZOO_INDEX") from error
    except ValueError as error:
        raise VtzooError(f"{path} is not an index: {error}", "vtzoo publish writes it anew") from error
    return {name: _pin(table, f"{path}: {name}") for name, table in tables.items()}


def write(path: Path, name: str, pin: Pin) -> None:
    """Add a model to an index file, or replace it; the file is written atomically."""
    pins = (read(path) if path.exists() else {}) | {name: pin}
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write(path, (HEAD + "".join(_table(name, pins[name]) for name in sorted(pins))).encode())


def refuse_escape(path: str, where: str) -> None:
    """Raise a VtzooError for a path that leads out of its folder on any operating system."""
    parts = PurePosixPath(path).parts
    if not parts or path.startswith("/") or ".." in parts or "\\" in path or ":" in path or not path.isprintable():
        raise VtzooError(f"{where} names a file {path!r}, which would lead out of its folder: refused")


def refuse_hash(name: str, where: str) -> None:
    """Raise a VtzooError unless the name of a content, a file name in the cache, is a hash."""
    if not HASH.fullmatch(name):
        raise VtzooError(f"{where} names a content {name!r}, which is no hash: refused")


def _pin(table: Any, where: str) -> Pin:
    if not isinstance(table, dict):
        raise VtzooError(f"{where} is not a table", "vtzoo publish writes the index anew")
    pin = strict.build(Pin, table, where, "vtzoo publish writes the index anew")
    if not REPO.fullmatch(pin.repo) or not COMMIT.fullmatch(pin.revision):
        raise VtzooError(f"{where} names no commit: {pin.repo!r} at {pin.revision!r}")
    contents = {}
    for path, content in pin.files.items():
        refuse_escape(path, where)
        contents[path] = strict.build(Content, content if isinstance(content, dict) else {}, f"{where}: {path}")
        if bool(contents[path].sha256) == bool(contents[path].git_sha1):
            raise VtzooError(f"{where}: {path} needs a sha256 or a git_sha1, one of them")
    return Pin(repo=pin.repo, revision=pin.revision, tag=pin.tag, files=contents)


def _table(name: str, pin: Pin) -> str:
    """A model's table in TOML; JSON's escapes, which are TOML's too, quote the names and values."""
    head = {"repo": pin.repo, "revision": pin.revision} | ({"tag": pin.tag} if pin.tag else {})
    lines = [f"[{_quoted(name)}]", *(f"{key} = {_quoted(value)}" for key, value in head.items())]
    lines += ["", f"[{_quoted(name)}.files]"]
    for path, content in sorted(pin.files.items()):
        kind, value = ("sha256", content.sha256) if content.sha256 else ("git_sha1", content.git_sha1)
        lines.append(f'{_quoted(path)} = {{ size = {content.size}, {kind} = "{value}" }}')
    return "\n" + "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    return json.dumps(text)
