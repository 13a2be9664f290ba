"""What is on the disk of the Hub's models: huggingface_hub's own cache, which others share, and our notes in it.

The cache of a repository is `models--ORG--NAME` with refs/ (the commits that branches had), snapshots/COMMIT/ (links)
and blobs/ (contents, named by the hash that the Hub gave). vtzoo/ beside them is ours: the pins as they were found.
"""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

from vtzoo.errors import VtzooError
from vtzoo.hub import index
from vtzoo.hub.index import Content, Pin


def storage(repo: str) -> Path:
    """The folder of everything cached of a repository; $HF_HOME and $HF_HUB_CACHE say where."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE) / f"models--{repo.replace('/', '--')}"


def snapshot(pin: Pin) -> Path:
    """The folder with a commit's files, as far as they are cached."""
    return storage(pin.repo) / "snapshots" / pin.revision


def remember(pin: Pin, revision: str) -> None:
    """Note what `revision` was found to be, for when there is no network; a cache that is read-only forgets."""
    if noted(pin.repo, revision) is None:
        forget(pin.repo, revision)  # a damaged one could not be added to
    with suppress(OSError):
        index.write(_note(pin.repo, revision), pin.repo, pin)


def forget(repo: str, revision: str) -> bool:
    """Drop the note on a revision; whether there was one, and there is none now."""
    with suppress(OSError):
        _note(repo, revision).unlink()
        return True
    return False


def recall(repo: str, revision: str) -> Pin | None:
    """What a revision was when it was last asked for, or what other programs left in the cache; None for neither."""
    return noted(repo, revision) or left_by_others(repo, revision)


def noted(repo: str, revision: str) -> Pin | None:
    """What a revision was when it was last asked for; None where that was never."""
    note = _note(repo, revision)
    with suppress(VtzooError, KeyError):  # a damaged note is none
        return index.read(note)[repo] if note.is_file() else None
    return None


def remembered() -> Iterator[Pin]:
    """Every commit that was ever found, once."""
    from huggingface_hub import constants

    seen = set()
    for note in sorted(Path(constants.HF_HUB_CACHE).glob("models--*/vtzoo/*.toml")):
        with suppress(VtzooError):
            for pin in index.read(note).values():
                if (pin.repo, pin.revision) not in seen:
                    seen.add((pin.repo, pin.revision))
                    yield pin


def refuse_outside(path: Path, repo: str) -> None:
    """A VtzooError where a cached file, or where it would be, is a link to somewhere else on the disk."""
    if not inside(path) or not inside(storage(repo) / "blobs"):
        raise VtzooError(f"{path} leads out of the cache of {repo}: refused", f"remove it: {path}")


def inside(path: Path) -> bool:
    """Whether a path, all links followed, is in the cache."""
    from huggingface_hub import constants

    return path.resolve().is_relative_to(Path(constants.HF_HUB_CACHE).resolve())


def _note(repo: str, revision: str) -> Path:
    return storage(repo) / "vtzoo" / f"{quote(revision, safe='')}.toml"


def left_by_others(repo: str, revision: str) -> Pin | None:
    """A snapshot that `hf download` or timm made: each link in it leads to a blob that is named by its hash."""
    reference = storage(repo) / "refs" / revision
    known = inside(reference) and reference.is_file()  # a revision may be any text
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
