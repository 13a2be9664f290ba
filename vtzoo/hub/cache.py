"""Cached models of the Hub: the shared cache of huggingface_hub, and vtzoo's records of resolved commits in it.

The cache of a repository is `models--ORG--NAME` with refs/ (the last known commits of branches), snapshots/COMMIT/
(links) and blobs/ (contents, named by the Hub's hash). vtzoo/ beside them holds one record, an index file with one
pin, for each resolved revision.
"""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

from vtzoo.errors import VtzooError
from vtzoo.hub import index
from vtzoo.hub.index import Content, Pin


def storage(repo: str) -> Path:
    """The cache folder of a repository, under $HF_HUB_CACHE or $HF_HOME."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE) / f"models--{repo.replace('/', '--')}"


def snapshot(pin: Pin) -> Path:
    """The folder of a commit's cached files; some files, or the folder, may be missing."""
    return storage(pin.repo) / "snapshots" / pin.revision


def record(pin: Pin, revision: str) -> None:
    """Record the commit of `revision` for use without a network; writes nothing into a read-only cache."""
    if recorded(pin.repo, revision) is None:
        forget(pin.repo, revision)  # index.write refuses to extend a damaged record
    with suppress(OSError):
        index.write(_record(pin.repo, revision), pin.repo, pin)


def forget(repo: str, revision: str) -> bool:
    """Delete the record of a revision; True if a record existed."""
    with suppress(OSError):
        _record(repo, revision).unlink()
        return True
    return False


def recall(repo: str, revision: str) -> Pin | None:
    """The commit of a revision from its record, or else from what other programs cached; None without either."""
    return recorded(repo, revision) or left_by_others(repo, revision)


def recorded(repo: str, revision: str) -> Pin | None:
    """The recorded commit of a revision; None without a record."""
    record = _record(repo, revision)
    with suppress(VtzooError, KeyError):  # a damaged record counts as none
        return index.read(record)[repo] if record.is_file() else None
    return None


def recorded_pins() -> Iterator[Pin]:
    """Every recorded commit, once."""
    from huggingface_hub import constants

    seen = set()
    for record in sorted(Path(constants.HF_HUB_CACHE).glob("models--*/vtzoo/*.toml")):
        with suppress(VtzooError):
            for pin in index.read(record).values():
                if (pin.repo, pin.revision) not in seen:
                    seen.add((pin.repo, pin.revision))
                    yield pin


def refuse_outside(path: Path, repo: str) -> None:
    """Raise a VtzooError if the path of a cached file leads out of the cache through a link."""
    if not inside(path) or not inside(storage(repo) / "blobs"):
        raise VtzooError(f"{path} leads out of the cache of {repo}: refused", f"remove it: {path}")


def inside(path: Path) -> bool:
    """Whether a path lies in the cache once all links are followed."""
    from huggingface_hub import constants

    return path.resolve().is_relative_to(Path(constants.HF_HUB_CACHE).resolve())


def _record(repo: str, revision: str) -> Path:
    return storage(repo) / "vtzoo" / f"{quote(revision, safe='')}.toml"


def left_by_others(repo: str, revision: str) -> Pin | None:
    """The commit that `hf download` or timm cached; the links of its snapshot lead to blobs named by their hashes."""
    reference = storage(repo) / "refs" / revision
    known = inside(reference) and reference.is_file()  # a revision is arbitrary text, and may hold "../"
    commit = reference.read_text(encoding="ascii", errors="replace").strip() if known else revision
    folder = storage(repo) / "snapshots" / commit
    if not index.COMMIT.fullmatch(commit) or not folder.is_dir():
        return None
    contents = {}
    for link in (path for path in folder.rglob("*") if path.is_symlink() and path.is_file()):
        name = Path(link.readlink()).name
        if index.HASH.fullmatch(name):
            kind = "sha256" if len(name) == 64 else "git_sha1"
            contents[link.relative_to(folder).as_posix()] = Content(size=link.stat().st_size, **{kind: name})
    return Pin(repo=repo, revision=commit, files=contents)
