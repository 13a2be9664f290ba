"""Model folders from the Hugging Face Hub: found by name, downloaded once, and verified before loading.

huggingface_hub compares file sizes alone. This module compares the hash of every file with the index, or with the
commit's own listing where the index lacks the model.
"""

import shutil
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from vtzoo.base import files
from vtzoo.errors import VtzooError
from vtzoo.hub import cache, client, index
from vtzoo.hub.index import Content, Pin
from vtzoo.zoo import lookup
from vtzoo.zoo.model_folder import ModelFolder

__all__ = ["FILES", "PREFIX", "Content", "Pin", "Verdict", "listing", "model_folder", "pull", "verify"]

PREFIX = "hf-hub:"  # timm's prefix, which rules out a local folder
FACTS = ("config.json", "recipe.toml", "result.json")
USES = {  # the files that each use reads besides FACTS
    "onnx": ("onnx/model.onnx",),
    "torch": ("model.safetensors",),
    "finetune": ("model.safetensors", "localizer.safetensors"),
    "card": ("README.md",),
}
# Every file of a model folder; no pickle is among them.
FILES = (*FACTS, "onnx/model.onnx", "model.safetensors", "localizer.safetensors", "curves.png", "README.md")
DAMAGED = "what the Hub sends is not what the commit says: try again, or tell the model's authors"


@dataclass(frozen=True, kw_only=True)
class Reference:
    """A requested model on the Hub."""

    repo: str  # ORG/NAME
    revision: str  # a branch, a tag or a commit
    pin: Pin | None = None  # from the index, if the index has the model at this revision


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The outcome of hashing a model's files."""

    name: str
    revision: str | None  # the commit; None for a model that is not from the Hub
    files: int  # hashed
    damaged: tuple[str, ...]


def model_folder(name: str | Path, *, revision: str | None = None, use: str | None = None) -> ModelFolder:
    """The folder of an embedded model, of a path, or of a model on the Hub, downloaded and verified.

    `name` of a model on the Hub is its name in the index, ORG/NAME or hf-hub:ORG/NAME; @REVISION after the name means
    the same as `revision`. `use` limits the download to the files that the use reads: a key of USES, or "auto" for
    "onnx" if the repository has a graph of the zoo's and "torch" if not; None downloads all files. A missing,
    incomplete or damaged model raises a VtzooError.
    """
    entry = None if str(name).startswith(PREFIX) else lookup.local_model(name)
    if entry is None:
        return _entry(_locate(str(name), revision), use)
    if revision is not None:
        message = f"{name} is here, in {entry.folder}: it has no revision {revision!r}"
        raise VtzooError(message, "a model on the Hub is named hf-hub:ORG/NAME")
    return entry


def pull(name: str, *, revision: str | None = None, folder: Path | None = None) -> ModelFolder:
    """The complete, verified folder of a model, in the cache or copied into `folder`; downloads missing files alone."""
    entry = model_folder(name, revision=revision)
    return entry if folder is None else _copy(entry, folder)


def verify(name: str | None = None) -> list[Verdict]:
    """The verdict on a model, or the verdicts on all embedded and cached models; hashes files and loads nothing."""
    if name is None:
        pins = {(pin.repo, pin.revision): pin for pin in (*index.known().values(), *cache.recorded_pins())}
        cached = [verdict for pin in pins.values() if (verdict := _judge_pin(pin)).files]
        return [*(_judge_entry(entry) for entry in lookup.embedded_models()), *cached]
    if not name.startswith(PREFIX) and (entry := lookup.local_model(name)):
        return [_judge_entry(entry)]
    reference = _locate(name, None)
    pin = reference.pin or cache.recall(reference.repo, reference.revision)
    verdict = _judge_pin(pin) if pin else None
    if not verdict or not verdict.files:
        raise VtzooError(f"{name} is not in the cache", f"vtzoo pull {name}")
    return [verdict]


def _locate(name: str, revision: str | None) -> Reference:
    """The repository and revision that a name means; the revision is an argument or follows the name after @."""
    given, _, inside = name.removeprefix(PREFIX).partition("@")
    if revision and inside and revision != inside:
        raise VtzooError(f"{name} and --revision {revision} name two revisions", "leave one of them out")
    revision = revision or inside or None
    known = index.known()
    if pin := known.get(given):
        pinned = revision in (None, pin.revision, pin.tag)
        return Reference(repo=pin.repo, revision=revision or pin.revision, pin=pin if pinned else None)
    if index.REPO.fullmatch(given):
        return Reference(repo=given, revision=revision or "main")
    names = [*(entry.name for entry in lookup.embedded_models()), *known]
    raise lookup.unknown_model(name, names, "vtzoo list names the models; a model folder's path and ORG/NAME work too")


def _entry(reference: Reference, use: str | None) -> ModelFolder:
    """The model folder in the cache, complete for the use and verified.

    Caches a resolved commit only after its files verify. If the files of a cached commit no longer match the Hub,
    drops the cached commit and resolves the revision again.
    """
    pin, asked = (reference.pin, False) if reference.pin else _resolve(reference)
    try:
        wanted = _wanted(pin, use)
        _complete(pin, wanted, asked)
    except client.UnreachableError:
        raise
    except VtzooError:
        if asked or reference.pin or not cache.forget(reference.repo, reference.revision):
            raise
        return _entry(reference, use)
    if asked:
        cache.record(pin, reference.revision)
    hashes = {path: content.sha256 for path in wanted if (content := pin.files[path]).sha256}
    name, source = pin.repo.partition("/")[2], f"{pin.repo}@{pin.revision}"
    return ModelFolder(name, cache.snapshot(pin), source=source, pinned=hashes)


def _resolve(reference: Reference) -> tuple[Pin, bool]:
    """The commit of a revision, and whether the Hub answered; without the Hub the commit comes from the cache."""
    repo, revision = reference.repo, reference.revision
    recorded = cache.recorded(repo, revision)
    if recorded and index.COMMIT.fullmatch(revision):  # a commit never changes
        return recorded, False
    recalled = recorded or cache.left_by_others(repo, revision)
    try:
        return client.call(partial(_ask, repo, revision), repo, () if recalled else client.WAITS), True
    except client.UnreachableError as error:
        if recalled is None:
            raise
        if not client.offline():
            client.log.warning("%s; %s is the cached one, of commit %s", error.message, repo, recalled.revision[:12])
        return recalled, False


def _ask(repo: str, revision: str) -> Pin:
    """The current commit of a revision, with the contents of its files, from the Hub."""
    with client.understood():
        commit = client.api().model_info(repo, revision=revision).sha
    if not isinstance(commit, str) or not index.COMMIT.fullmatch(commit):
        raise client.GarbledError(f"no commit: {commit!r}")
    return Pin(repo=repo, revision=commit, files=listing(repo, commit))


def listing(repo: str, commit: str) -> dict[str, Content]:
    """Size and hash of every file of a commit, as the Hub lists them; a path that escapes raises a VtzooError."""
    contents = {}
    with client.understood():
        items = list(client.api().list_repo_tree(repo, recursive=True, revision=commit))
    for item in items:
        if hasattr(item, "size"):  # folders lack the attribute
            index.refuse_escape(item.path, repo)
            hashes = {"sha256": item.lfs.sha256} if item.lfs else {"git_sha1": item.blob_id}
            for name in hashes.values():
                index.refuse_hash(name, repo)
            contents[item.path] = Content(size=item.size, **hashes)
        elif item.path in FILES:
            raise client.GarbledError(f"{item.path} is a folder")
    return contents


def _wanted(pin: Pin, use: str | None) -> list[str]:
    """The files of the commit that a use reads; for None every file of a model folder."""
    if "config.json" not in pin.files:
        raise VtzooError(f"{pin.repo} has no config.json: it is no classifier of the zoo's or timm's")
    if use == "auto":  # a graph without result.json is not the zoo's, and expects other inputs
        use = "onnx" if {"onnx/model.onnx", "result.json"} <= pin.files.keys() else "torch"
    if use in ("torch", "finetune") and "model.safetensors" not in pin.files:
        raise VtzooError(f"{pin.repo} has no model.safetensors", "a pickle may run code: none is ever read")
    wanted = FILES if use is None else (*FACTS, *USES[use])
    return [path for path in wanted if path in pin.files]


def _complete(pin: Pin, wanted: Iterable[str], asked: bool) -> None:
    """Download missing and damaged files; a file that arrives damaged twice raises a VtzooError.

    `asked` says whether the Hub has just answered for the commit.
    """
    folder = cache.snapshot(pin)
    missing = _unfit(pin, wanted)
    if missing and not asked and not client.offline():
        # Fails at once if the Hub refuses the repository: a download would retry for half a minute.
        client.call(partial(client.api().model_info, pin.repo, revision=pin.revision), pin.repo)
    for _ in range(2):
        if not missing:
            return
        missing = _download(pin, missing)
    if missing:
        for path in missing:
            (folder / path).resolve().unlink(missing_ok=True)  # or other programs would load the damaged file
        damaged = ", ".join(missing)
        raise VtzooError(f"{damaged} of {pin.repo} at {pin.revision[:12]} came damaged, twice: refused", DAMAGED)


def _unfit(pin: Pin, paths: Iterable[str]) -> list[str]:
    """The files that are missing or damaged in the cache; a link out of the cache raises a VtzooError."""
    folder = cache.snapshot(pin)
    for path in paths:  # missing files too: a parent folder may be a link
        cache.refuse_outside(folder / path, pin.repo)
    return [path for path in paths if not pin.files[path].fits(folder / path)]


def _download(pin: Pin, paths: list[str]) -> list[str]:
    """Download files into the cache, four at once, over existing ones; returns those that arrived damaged."""
    from huggingface_hub import hf_hub_download

    def download(path: str) -> list[str]:
        there = (cache.snapshot(pin) / path).exists()
        fetch = partial(hf_hub_download, pin.repo, path, revision=pin.revision, force_download=there)
        client.call(fetch, pin.repo)
        return _unfit(pin, [path])  # hashes while other files are still arriving

    with ThreadPoolExecutor(4) as pool:
        return [path for damaged in pool.map(download, paths) for path in damaged]


def _copy(entry: ModelFolder, folder: Path) -> ModelFolder:
    """A copy of a model folder at `folder`; a subfolder that links elsewhere raises a VtzooError.

    Removes the files of an older model first and copies config.json, which makes the folder a model folder, last: an
    interrupted copy never looks like a complete model.
    """
    if folder.resolve() == entry.folder.resolve():
        return entry
    for parent in {(folder / path).parent for path in FILES}:
        parent.mkdir(parents=True, exist_ok=True)
        if not parent.resolve().is_relative_to(folder.resolve()):
            raise VtzooError(f"{parent} leads out of {folder}: refused", "choose another --local-dir")
    present = [path for path in reversed(FILES) if (entry.folder / path).is_file()]  # config.json is the last of them
    if (folder / "config.json").exists():
        for path in FILES:
            (folder / path).unlink(missing_ok=True)
    for target, path in ((folder / path, path) for path in present):
        files.remove_partials(target)
        with files.replacing(target) as copied:
            shutil.copyfile(entry.folder / path, copied)
    return ModelFolder(entry.name, folder)


def _judge_pin(pin: Pin) -> Verdict:
    """The verdict on the cached files of a commit by its hashes."""
    cached = {path: file for path in FILES if path in pin.files and (file := cache.snapshot(pin) / path).exists()}
    damaged = [path for path, file in cached.items() if not (cache.inside(file) and pin.files[path].fits(file))]
    return Verdict(name=pin.repo, revision=pin.revision, files=len(cached), damaged=tuple(damaged))


def _judge_entry(entry: ModelFolder) -> Verdict:
    """The verdict on a model folder by the hashes in its own result.json."""
    hashes = entry.result.weights or {}
    for path in hashes:
        index.refuse_escape(path, str(entry.folder / "result.json"))
    paths = {path: entry.folder / path for path in hashes}
    damaged = [path for path, file in paths.items() if not file.is_file() or files.sha256(file) != hashes[path]]
    return Verdict(name=entry.name, revision=None, files=len(hashes), damaged=tuple(damaged))
