"""Repositories on disk, as commits over content that is named by its hash: what the test server serves.

    FOLDER/blobs/KEY                        content; KEY is its git blob id, or its sha256 where it is kept as LFS
    FOLDER/repos/ORG/NAME/commits/ID.json   a commit: its parent, its message and all its files
    FOLDER/repos/ORG/NAME/refs/heads/main   the id of a commit, as are refs/tags/TAG

Every file is written beside its place and moved there: content first, then the commit, then the reference to it. A
process that dies at any moment leaves the old commit at the head, or the new one.
"""

import hashlib
import json
import re
import threading
import time
import uuid
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from pathlib import Path
from urllib.parse import quote, unquote

REGULAR_BYTES = 10 * 1024**2  # larger files are stored as LFS, whatever their names
SUFFIXES = (
    "bin",
    "npy",
    "npz",
    "onnx",
    "parquet",
    "pt",
    "pth",
    "safetensors",
    "zip",
)  # stored as LFS in a new repository
GITATTRIBUTES = "".join(f"*.{suffix} filter=lfs diff=lfs merge=lfs -text\n" for suffix in SUFFIXES).encode()


@dataclass(frozen=True, kw_only=True)
class File:
    """A file of a commit."""

    oid: str  # git blob id: of the content, or of the LFS pointer that stands for it
    size: int  # bytes of content
    sha256: str | None = None  # of the content, where it is kept as LFS

    @property
    def key(self) -> str:
        """The name of the content: its sha256 if it is stored as LFS, else its git blob id."""
        return self.sha256 or self.oid


@dataclass(frozen=True, kw_only=True)
class Commit:
    """A state of a repository."""

    id: str  # 40 hexadecimal digits
    parent: str | None
    message: str
    date: str  # ISO 8601, UTC
    files: dict[str, File]


def blob_id(content: bytes) -> str:
    """The name that git gives to content: https://git-scm.com/book/en/v2/Git-Internals-Git-Objects."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def pointer(sha256: str, size: int) -> bytes:
    """The text that git holds instead of an LFS file: https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md."""
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n".encode()


def replace(path: Path, content: bytes) -> None:
    """Write a file, whole or not at all."""
    partial = path.with_name(f".{uuid.uuid4().hex}.partial")
    partial.write_bytes(content)
    partial.replace(path)


class Store:
    """Repositories in a folder. Nobody sees a half-done change that is made under `lock`."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.lock = folder, threading.RLock()
        (folder / "blobs").mkdir(parents=True, exist_ok=True)

    def place(self, repo: str) -> Path:
        """The folder of a repository "ORG/NAME"."""
        return self.folder / "repos" / repo

    def exists(self, repo: str) -> bool:
        """Whether the repository exists."""
        return (self.place(repo) / "refs" / "heads" / "main").is_file()

    def create(self, repo: str) -> None:
        """Make a repository, with the first commit that the Hub makes."""
        for name in ("commits", "refs/heads", "refs/tags"):
            (self.place(repo) / name).mkdir(parents=True, exist_ok=True)
        self.commit(repo, {".gitattributes": self.regular(GITATTRIBUTES)}, message="initial commit")

    # Content

    def blob(self, key: str) -> Path:
        """The path of the content with that name, stored or not."""
        return self.folder / "blobs" / key

    def regular(self, content: bytes) -> File:
        """Store content like git."""
        file = File(oid=blob_id(content), size=len(content))
        replace(self.blob(file.key), content)
        return file

    def receive(self, pieces: Iterable[bytes], sha256: str) -> bool:
        """Store content as LFS while it arrives; for another hash, store nothing and return False."""
        partial = self.folder / "blobs" / f".{uuid.uuid4().hex}.partial"
        digest = hashlib.sha256()
        try:
            with partial.open("wb") as file:
                for piece in pieces:
                    digest.update(piece)
                    file.write(piece)
            if digest.hexdigest() == sha256:
                partial.replace(self.blob(sha256))
        finally:
            with suppress(FileNotFoundError):
                partial.unlink()
        return digest.hexdigest() == sha256

    def lfs(self, sha256: str, size: int) -> File | None:
        """The LFS file of that hash and size, whose content must have been received."""
        blob = self.blob(sha256)
        if not blob.is_file() or blob.stat().st_size != size:
            return None
        return File(oid=blob_id(pointer(sha256, size)), size=size, sha256=sha256)

    def keep(self, repo: str, path: str, content: bytes) -> File:
        """Store content the way the repository stores a file of that path and size."""
        if not self.is_large(repo, path, len(content)):
            return self.regular(content)
        sha256 = hashlib.sha256(content).hexdigest()
        self.receive([content], sha256)
        file = self.lfs(sha256, len(content))
        assert file
        return file

    def is_large(self, repo: str, path: str, size: int) -> bool:
        """Whether .gitattributes, or the size in bytes, make a file an LFS file. An empty one never is."""
        head = self.find(repo, "main")
        attributes = head.files.get(".gitattributes") if head else None
        lines = self.blob(attributes.key).read_text().splitlines() if attributes else []
        patterns = [line.split()[0] for line in lines if "filter=lfs" in line]
        name = path.rsplit("/", 1)[-1]
        named = any(fnmatchcase(path if "/" in pattern else name, pattern) for pattern in patterns)
        return size > 0 and (named or size > REGULAR_BYTES)

    # Commits

    def commit(self, repo: str, files: dict[str, File], message: str, delete: Iterable[str] = ()) -> str:
        """Add a commit of files with stored content to the head, and return its id."""
        with self.lock:
            before, gone = self.find(repo, "main"), set(delete)
            kept = {path: file for path, file in before.files.items() if path not in gone} if before else {}
            files = kept | files
            fields = {"parent": before and before.id, "message": message}
            fields["date"] = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%fZ}"
            fields["files"] = {path: asdict(files[path]) for path in sorted(files)}
            commit = hashlib.sha1(json.dumps([repo, time.time_ns(), fields]).encode()).hexdigest()
            replace(self.place(repo) / "commits" / f"{commit}.json", json.dumps({"id": commit} | fields).encode())
            replace(self.place(repo) / "refs" / "heads" / "main", commit.encode())
        return commit

    def read(self, repo: str, commit: str) -> Commit:
        """A commit, by its id."""
        fields = json.loads((self.place(repo) / "commits" / f"{commit}.json").read_text())
        return Commit(**fields | {"files": {path: File(**file) for path, file in fields["files"].items()}})

    def commits(self, repo: str, revision: str = "main") -> list[Commit]:
        """A commit and all before it, newest first; none for an unknown revision."""
        found, commit = [], self.find(repo, revision)
        while commit:
            found.append(commit)
            commit = self.read(repo, commit.parent) if commit.parent else None
        return found

    def find(self, repo: str, revision: str) -> Commit | None:
        """The commit of a branch, a tag, an id, or the first seven or more digits of an id."""
        place = self.place(repo)
        for reference in (place / "refs" / "heads" / quote(revision, safe=""), self.tag_file(repo, revision)):
            if reference.is_file():
                return self.read(repo, reference.read_text())
        if not re.fullmatch("[0-9a-f]{7,40}", revision):
            return None
        matches = list((place / "commits").glob(f"{revision}*.json"))
        return self.read(repo, matches[0].stem) if len(matches) == 1 else None

    # Tags and marks

    def tag_file(self, repo: str, tag: str) -> Path:
        """The path of a tag's reference, existing or not."""
        return self.place(repo) / "refs" / "tags" / quote(tag, safe="")

    def tags(self, repo: str) -> dict[str, str]:
        """The id of the commit each tag stands for."""
        files = (self.place(repo) / "refs" / "tags").glob("[!.]*")
        return {unquote(file.name): file.read_text() for file in sorted(files)}

    def tag(self, repo: str, tag: str, commit: str) -> bool:
        """Make a tag; if the name exists, change nothing and return False."""
        with self.lock:
            if free := not self.tag_file(repo, tag).exists():
                replace(self.tag_file(repo, tag), commit.encode())
        return free

    def mark(self, repo: str, name: str) -> None:
        """Make a repository "private" or "gated"."""
        replace(self.place(repo) / name, b"")

    def marked(self, repo: str, name: str) -> bool:
        """Whether a repository is "private" or "gated"."""
        return (self.place(repo) / name).exists()
