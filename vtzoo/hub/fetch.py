"""Models on the Hugging Face Hub: found by name, downloaded once, and checked before anything is loaded.

The Hub's client compares sizes alone: here the content of every file is compared with the hash that the index has for
it, or else with the one in the commit's own listing.
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

__all__ = ["FILES", "PREFIX", "Content", "Pin", "Verdict", "find", "listing", "pull", "verify"]

PREFIX = "hf-hub:"  # timm's own, for a model that is certainly on the Hub
FACTS = ("config.json", "recipe.toml", "result.json")
USES = {  # what each reads besides
    "onnx": ("onnx/model.onnx",),
    "torch": ("model.safetensors",),
    "finetune": ("model.safetensors", "localizer.safetensors"),
    "card": ("README.md",),
}
# A model folder; there is no pickle in it.
FILES = (*FACTS, "onnx/model.onnx", "model.safetensors", "localizer.safetensors", "curves.png", "README.md")
DAMAGED = "what the Hub sends is not what the commit says: try again, or tell the model's authors"


@dataclass(frozen=True, kw_only=True)
class Reference:
    """A model on the Hub as it was asked for."""

    repo: str  # ORG/NAME
    revision: str  # a branch, a tag or a commit
    pin: Pin | None = None  # the index's, where it has the model


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Whether a model's files are what they should be."""

    name: str
    revision: str | None  # the commit; None for a model that is not from the Hub
    files: int  # that were hashed
    damaged: tuple[str, ...]


def find(name: str | Path, *, revision: str | None = None, use: str | None = None) -> ModelFolder:
    """The model of that name: embedded, a folder, or else on the Hub, whose files are then here and verified.

    `name` is a name of the index, ORG/NAME or hf-hub:ORG/NAME, with @REVISION or not; `revision` says the same. Of a
    model on the Hub come the files that a `use` reads (one of USES, or "auto" for the one of "onnx" and "torch" that
    the model is made for), or all. What is not there, not complete or not what it should be is a VtzooError.
    """
    entry = None if str(name).startswith(PREFIX) else lookup.local_model(name)
    if entry is None:
        return _entry(_locate(str(name), revision), use)
    if revision is not None:
        raise VtzooError(
            f"{name} is here, in {entry.folder}: it has no revision {revision!r}",
            "a model on the Hub is named hf-hub:ORG/NAME",
        )
    return entry


def pull(name: str, *, revision: str | None = None, folder: Path | None = None) -> ModelFolder:
    """A model with all its files, verified, in the cache, or copied into `folder`; one that is here already stays."""
    entry = find(name, revision=revision)
    return entry if folder is None else _copy(entry, folder)


def verify(name: str | None = None) -> list[Verdict]:
    """The verdicts on a model, or on all that are embedded or cached; files are hashed anew, and nothing is loaded."""
    if name is None:
        pins = {(pin.repo, pin.revision): pin for pin in (*index.known().values(), *cache.remembered())}
        cached = [_judge_pin(pin) for pin in pins.values()]
        return [_judge_entry(entry) for entry in lookup.embedded_models()] + [
            verdict for verdict in cached if verdict.files
        ]
    entry = None if name.startswith(PREFIX) else lookup.local_model(name)
    if entry:
        return [_judge_entry(entry)]
    reference = _locate(name, None)
    pin = reference.pin or cache.recall(reference.repo, reference.revision)
    verdict = _judge_pin(pin) if pin else None
    if not verdict or not verdict.files:
        raise VtzooError(f"{name} is not in the cache", f"vtzoo pull {name}")
    return [verdict]


def _locate(name: str, revision: str | None) -> Reference:
    """What a name and a revision, which either may hold, mean on the Hub."""
    given = name.removeprefix(PREFIX)
    given, _, inside = given.partition("@")
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

    A note is kept only of a commit whose files turned out as it says. One that does not go with the Hub any more is
    dropped, and the Hub asked once more.
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
        cache.remember(pin, reference.revision)
    hashes = {path: content.sha256 for path in wanted if (content := pin.files[path]).sha256}
    name, source = pin.repo.partition("/")[2], f"{pin.repo}@{pin.revision}"
    return ModelFolder(name, cache.snapshot(pin), source=source, pinned=hashes)


def _resolve(reference: Reference) -> tuple[Pin, bool]:
    """The commit that a revision is now, as the Hub says; as it was, where the Hub cannot be asked. Whether it was."""
    repo, revision = reference.repo, reference.revision
    noted = cache.noted(repo, revision)
    if noted and index.COMMIT.fullmatch(revision):  # a commit is what it was
        return noted, False
    recalled = noted or cache.left_by_others(repo, revision)
    try:
        return client.call(partial(_ask, repo, revision), repo, () if recalled else client.WAITS), True
    except client.UnreachableError as error:
        if recalled is None:
            raise
        if not client.offline():
            client.log.warning("%s; %s is the cached one, of commit %s", error.message, repo, recalled.revision[:12])
        return recalled, False


def _ask(repo: str, revision: str) -> Pin:
    """The commit that a revision is, and what its files hold."""
    with client.understood():
        commit = client.api().model_info(repo, revision=revision).sha
    if not isinstance(commit, str) or not index.COMMIT.fullmatch(commit):
        raise client.GarbledError(f"no commit: {commit!r}")
    return Pin(repo=repo, revision=commit, files=listing(repo, commit))


def listing(repo: str, commit: str) -> dict[str, Content]:
    """What the files of a commit hold, by the Hub's own listing; a name that would lead out of it is a VtzooError."""
    contents = {}
    with client.understood():
        items = list(client.api().list_repo_tree(repo, recursive=True, revision=commit))
    for item in items:
        if hasattr(item, "size"):  # a folder has none
            index.refuse_escape(item.path, repo)
            hashes = {"sha256": item.lfs.sha256} if item.lfs else {"git_sha1": item.blob_id}
            for name in hashes.values():
                index.refuse_hash(name, repo)
            contents[item.path] = Content(size=item.size, **hashes)
        elif item.path in FILES:
            raise client.GarbledError(f"{item.path} is a folder")
    return contents


def _wanted(pin: Pin, use: str | None) -> list[str]:
    """The files of the commit that a use reads; all that a model folder has for None."""
    if "config.json" not in pin.files:
        raise VtzooError(f"{pin.repo} has no config.json: it is no classifier of the zoo's or timm's")
    if use == "auto":  # a graph that comes without result.json is another's, made for other inputs
        use = "onnx" if {"onnx/model.onnx", "result.json"} <= pin.files.keys() else "torch"
    if use in ("torch", "finetune") and "model.safetensors" not in pin.files:
        raise VtzooError(f"{pin.repo} has no model.safetensors", "a pickle may run code: none is ever read")
    wanted = FILES if use is None else (*FACTS, *USES[use])
    return [path for path in wanted if path in pin.files]


def _complete(pin: Pin, wanted: Iterable[str], asked: bool) -> None:
    """Download what is missing or damaged, and once more what came damaged; refuse what then still is.

    `asked` says whether the Hub has just answered for the commit.
    """
    folder = cache.snapshot(pin)
    missing = _unfit(pin, wanted)
    if missing and not asked and not client.offline():
        # A quick answer to whether it may be had at all: a download would ask for half a minute.
        client.call(partial(client.api().model_info, pin.repo, revision=pin.revision), pin.repo)
    for _ in range(2):
        if not missing:
            return
        missing = _download(pin, missing)
    if missing:
        for path in missing:
            (folder / path).resolve().unlink(missing_ok=True)  # nobody shall take it for good
        damaged = ", ".join(missing)
        raise VtzooError(f"{damaged} of {pin.repo} at {pin.revision[:12]} came damaged, twice: refused", DAMAGED)


def _unfit(pin: Pin, paths: Iterable[str]) -> list[str]:
    """Those of the files that are missing in the cache, or hold something else; a link out of it is refused."""
    folder = cache.snapshot(pin)
    for path in paths:  # one that is not there too: its folder may be such a link
        cache.refuse_outside(folder / path, pin.repo)
    return [path for path in paths if not pin.files[path].fits(folder / path)]


def _download(pin: Pin, paths: list[str]) -> list[str]:
    """Get files into the cache, several at once; those that came damaged. What is there already is replaced."""
    from huggingface_hub import hf_hub_download

    def download(path: str) -> list[str]:
        there = (cache.snapshot(pin) / path).exists()
        fetch = partial(hf_hub_download, pin.repo, path, revision=pin.revision, force_download=there)
        client.call(fetch, pin.repo)
        return _unfit(pin, [path])  # here, where hashing one file leaves the others time to arrive

    with ThreadPoolExecutor(4) as pool:
        return [path for damaged in pool.map(download, paths) for path in damaged]


def _copy(entry: ModelFolder, folder: Path) -> ModelFolder:
    """A model's files in a folder of their own, none of them through a link that leads out of it.

    config.json makes it a model folder: it comes last, and an older one goes first, with the files of that model. So
    nobody ever takes half of one model and half of another for one.
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
    there = [path for path in FILES if path in pin.files and (cache.snapshot(pin) / path).exists()]
    sound = [
        path
        for path in there
        if cache.inside(cache.snapshot(pin) / path) and pin.files[path].fits(cache.snapshot(pin) / path)
    ]
    damaged = tuple(path for path in there if path not in sound)
    return Verdict(name=pin.repo, revision=pin.revision, files=len(there), damaged=damaged)


def _judge_entry(entry: ModelFolder) -> Verdict:
    """The verdict on a model folder by the hashes in its own result.json."""
    hashes = entry.result.weights or {}
    for path in hashes:
        index.refuse_escape(path, str(entry.folder / "result.json"))
    paths = {path: entry.folder / path for path in hashes}
    damaged = [path for path, file in paths.items() if not file.is_file() or files.sha256(file) != hashes[path]]
    return Verdict(name=entry.name, revision=None, files=len(hashes), damaged=tuple(damaged))
