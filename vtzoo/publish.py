"""A model folder onto the Hub: refused or whole, in one commit, and then a line in the index.

What is published is the folder's content, with two changes: the ONNX file has its weights inside, as whoever downloads
it alone expects, and the card is rendered anew and says where the model is.
"""

import hashlib
import json
import re
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from . import cards, checked, hub, packaging, zoo
from .errors import VtzooError
from .hub import Content, Pin, client, index
from .inference.graph import refuse_foreign
from .recipe import parse_recipe

WEIGHTS = ("model.safetensors", "onnx/model.onnx", "localizer.safetensors")
MEASURED = ("top1", "top5", "images", "manifest", "seed", "steps", "batch", "hardware", "versions", "certificate")
COMPULSORY = ("model.safetensors", "onnx/model.onnx", "config.json", "recipe.toml", "result.json", "curves.png")
SUPERSEDED = (409, 412)  # what the Hub answers where the parent of a commit is no longer the head


@dataclass(frozen=True, kw_only=True)
class Publication:
    """What is to be published: a model's files, checked, and where they go."""

    name: str
    repo: str  # ORG/NAME
    files: dict[str, bytes]  # by path in the repository
    index: Path  # the file that the model's entry is written into

    @cached_property
    def contents(self) -> dict[str, Content]:
        """Size and sha256 of every file."""
        return {path: Content(size=len(data), sha256=_sha256(data)) for path, data in self.files.items()}


def prepare(name: str | Path, org: str, index_file: Path | None = None) -> Publication:
    """The publication of a run folder or an embedded model; nothing is sent.

    `org` is a user or an organization on the Hub; the index is `index_file`, or else index.toml beside the run.
    Missing metrics or files, weights that are damaged or not finite, a recipe that is not the run's and a card that
    fails its check are VtzooErrors.
    """
    entry = zoo.find(name)
    result = _measured(entry)
    repo = f"{org}/{result['name']}"
    if not index.REPO.fullmatch(repo):
        raise VtzooError(f"{repo!r} is not the name of a repository", "--org takes the name of a user or organization")
    files = {path: _read(entry, path) for path in COMPULSORY}
    if (entry.folder / "localizer.safetensors").exists():
        files["localizer.safetensors"] = _read(entry, "localizer.safetensors")
    files["onnx/model.onnx"] = _self_contained(entry, files["onnx/model.onnx"])
    files["result.json"] = _signed(result, files)
    files["README.md"] = _card(entry, repo)
    beside = Path() if entry in zoo.entries() else entry.folder.resolve().parent
    return Publication(name=result["name"], repo=repo, files=files, index=index_file or beside / "index.toml")


def publish(publication: Publication, *, tag: str, private: bool = False) -> Pin:
    """The commit that holds the publication: made, tagged and put into the index, each unless that is done already.

    Killed at any moment it leaves the old commit or the new one, and done again it completes what is missing. A tag
    that stands for other files, a public repository where a private one is wanted, and somebody else's commit at the
    same moment are VtzooErrors; the head is then as it was.
    """
    if not re.fullmatch(r"[\w.-]+", tag, re.ASCII):
        raise VtzooError(f"{tag!r} is not the name of a tag", "letters, digits, dots and dashes, as in --tag v1.0")
    api, repo = client.api(), publication.repo
    client.require_token(repo)
    client.call(partial(api.create_repo, repo, private=private, exist_ok=True), repo)
    if private and not client.call(partial(api.model_info, repo), repo).private:
        raise VtzooError(f"{repo} exists and is public", "leave out --private, or make it private on the Hub first")
    _refuse_other_tag(api, publication, tag)
    commit = client.call(partial(_commit, api, publication), repo)
    client.call(partial(api.create_tag, repo, tag=tag, revision=commit, exist_ok=True), repo)
    _refuse_other_tag(api, publication, tag)  # somebody else may have been faster
    pin = Pin(repo=repo, revision=commit, tag=tag, files=publication.contents)
    index.write(publication.index, publication.name, pin)
    return pin


def _measured(entry: zoo.Entry) -> dict[str, Any]:
    """The entry's result.json, if it says all that a card does, and the recipe is the one that it was trained by."""
    result, folder = entry.result, entry.folder
    missing = [key for key in (*MEASURED, "name", "recipe_sha256") if key not in result]
    if missing or not all(0 <= result[key] <= 1 for key in ("top1", "top5")):
        what = f"no {', '.join(missing)}" if missing else "an accuracy that is no fraction"
        raise VtzooError(
            f"the result.json of {folder} has {what}: no model is published without its metrics",
            f"finish the run: vtzoo train {folder / 'recipe.toml'} --out {folder} --resume",
        )
    recipe = _read(entry, "recipe.toml")
    if _sha256(recipe) != result["recipe_sha256"] or parse_recipe(entry.recipe_text).name != result["name"]:
        raise VtzooError(
            f"{folder / 'recipe.toml'} is not the recipe that the run was trained by",
            f"put that back: its sha256 is {result['recipe_sha256']}, as result.json says",
        )
    return result


def _read(entry: zoo.Entry, path: str) -> bytes:
    """A file of the model folder, and of no other place, checked against result.json; weights are finite numbers."""
    file = entry.folder / path
    if not file.resolve().is_relative_to(entry.folder.resolve()):
        raise VtzooError(f"{file} leads out of its model folder: refused", "put the file itself there")
    if path.endswith(".safetensors"):
        return checked.read(file, entry.sha256(path)).content
    return checked.read_bytes(file, entry.sha256(path))


def _self_contained(entry: zoo.Entry, graph: bytes) -> bytes:
    """The graph with the weights that it reads from model.safetensors inside it."""
    weights = checked.read(entry.folder / "model.safetensors", entry.sha256("model.safetensors"))
    refuse_foreign(graph, weights, str(entry.folder / "onnx" / "model.onnx"))
    return packaging.inline(graph, weights)


def _signed(result: dict[str, Any], files: dict[str, bytes]) -> bytes:
    """result.json with the hashes of the weights as they are published."""
    weights = {path: _sha256(files[path]) for path in WEIGHTS if path in files}
    return (json.dumps(result | {"weights": weights}, indent=2, ensure_ascii=False) + "\n").encode()


def _card(entry: zoo.Entry, repo: str) -> bytes:
    card = cards.of(entry, repo)
    cards.check(card, entry.result)
    return card.encode()


def _commit(api: Any, publication: Publication) -> str:
    """The head of the repository, which holds the publication: as it is, or after one commit on top of it."""
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete
    from huggingface_hub.errors import HfHubHTTPError

    head = api.model_info(publication.repo).sha
    there = hub.listing(publication.repo, head)
    if _holds(there, publication):
        return head
    adds = [CommitOperationAdd(path, data) for path, data in publication.files.items()]
    drops = [CommitOperationDelete(path) for path in _leftover(there, publication)]
    try:
        message = f"Publish {publication.name}"
        return api.create_commit(publication.repo, [*adds, *drops], commit_message=message, parent_commit=head).oid
    except HfHubHTTPError as error:
        if error.response.status_code not in SUPERSEDED:
            raise
        head = api.model_info(publication.repo).sha
        if _holds(hub.listing(publication.repo, head), publication):  # the client's own second try, after ours was made
            return head
        raise VtzooError(f"somebody else has just changed {publication.repo}", "publish again, on top of it") from error


def _holds(there: dict[str, Content], publication: Publication) -> bool:
    """Whether a commit has the publication's files, and no other file of a model folder."""
    fits = all(path in there and there[path].fits(data) for path, data in publication.files.items())
    return fits and not _leftover(there, publication)


def _leftover(there: dict[str, Content], publication: Publication) -> list[str]:
    return [path for path in hub.FILES if path in there and path not in publication.files]


def _refuse_other_tag(api: Any, publication: Publication, tag: str) -> None:
    """A VtzooError where the tag stands for other files than the publication's."""
    repo = publication.repo
    for known in client.call(partial(api.list_repo_refs, repo), repo).tags:
        if known.name == tag:
            there = client.call(partial(hub.listing, repo, known.target_commit), repo)
            if not _holds(there, publication):
                raise VtzooError(f"the tag {tag} of {repo} stands for other files", "choose a new one: --tag v1.1")


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
