"""Publishes a complete model folder to the Hub in one commit, and adds it to the index.

The published files differ from the folder's in two ways: the ONNX file has its weights inside, so that it works when
downloaded alone, and the card names the model's repository.
"""

import hashlib
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from vtzoo import cards
from vtzoo.errors import VtzooError
from vtzoo.hub import client, fetch, index
from vtzoo.hub.fetch import Content, Pin
from vtzoo.zoo import lookup, safetensors_reader
from vtzoo.zoo.model_folder import ModelFolder
from vtzoo.zoo.onnx_reader import inline, refuse_foreign
from vtzoo.zoo.result import Result

WEIGHTS = ("model.safetensors", "onnx/model.onnx", "localizer.safetensors")
UNMEASURED = "no model is published without its metrics"
COMPULSORY = ("model.safetensors", "onnx/model.onnx", "config.json", "recipe.toml", "result.json", "curves.png")
PNG = b"\x89PNG\r\n\x1a\n"  # the signature: https://www.w3.org/TR/png-3/#5PNG-file-signature
SUPERSEDED = (409, 412)  # the Hub's statuses for a commit whose parent is no longer the head


@dataclass(frozen=True, kw_only=True)
class Publication:
    """The verified files of a model, and their destination."""

    name: str
    repo: str  # ORG/NAME
    additions: list[Any]  # CommitOperationAdd, one per file, already hashed
    index: Path  # the index file for the model's entry

    @cached_property
    def files(self) -> dict[str, bytes]:
        """The content of every file by its path in the repository."""
        return {addition.path_in_repo: addition.path_or_fileobj for addition in self.additions}

    @cached_property
    def contents(self) -> dict[str, Content]:
        """Size and sha256 of every file."""
        infos = {addition.path_in_repo: addition.upload_info for addition in self.additions}
        return {path: Content(size=info.size, sha256=info.sha256.hex()) for path, info in infos.items()}


def prepare(name: str | Path, org: str, index_file: Path | None = None) -> Publication:
    """The publication of a run folder or an embedded model; sends nothing.

    `org` is a user or an organization on the Hub. The index is `index_file`, by default index.toml beside the run.
    A VtzooError for missing metrics or files, damaged weights, NaN or infinity in them, another run's recipe, or a card
    that fails its check.
    """
    entry = lookup.find_model(name)
    result = _measured(entry)
    repo = f"{org}/{result.name}"
    if not index.REPO.fullmatch(repo):
        raise VtzooError(f"{repo!r} is not the name of a repository", "--org takes the name of a user or organization")
    beside = Path() if entry in lookup.embedded_models() else entry.folder.resolve().parent
    place = index_file or beside / "index.toml"
    if place.exists():
        index.read(place)  # a damaged index must fail before the commit
    optional = ["localizer.safetensors"] if (entry.folder / "localizer.safetensors").exists() else []
    with ThreadPoolExecutor() as pool:  # hashing releases the GIL for the imports and the files that follow
        pool.submit(client.api)
        files = {path: _read(entry, path) for path in (*COMPULSORY, *optional)}
        files["onnx/model.onnx"] = _self_contained(entry, files)
        adding = {path: pool.submit(_addition, path, files[path]) for path in WEIGHTS if path in files}
        files["README.md"] = cards.card_of(entry, repo).encode()
        weights = {path: added.result().upload_info.sha256.hex() for path, added in adding.items()}
    files["result.json"] = replace(result, weights=weights).as_bytes()  # with the hashes of the published weights
    additions = [adding[path].result() if path in adding else _addition(path, data) for path, data in files.items()]
    return Publication(name=str(result.name), repo=repo, additions=additions, index=place)


def publish(publication: Publication, *, tag: str, private: bool = False) -> Pin:
    """The commit with the publication, created, tagged and indexed unless an earlier call did so.

    An interruption at any moment leaves the old or the new commit, and another call completes the rest. A VtzooError
    for a tag with other files, a public repository instead of a private one, or another user's commit at the same
    moment; the head of the repository is then unchanged.
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
    client.call(partial(_tag, api, publication, tag, commit), repo)
    pin = Pin(repo=repo, revision=commit, tag=tag, files=publication.contents)
    index.write(publication.index, publication.name, pin)
    return pin


def _measured(entry: ModelFolder) -> Result:
    """The entry's result.json; a VtzooError unless it is complete and its recipe is the one in the folder."""
    result, folder = entry.result, entry.folder
    if missing := ", ".join(result.missing):
        raise VtzooError(f"the result.json of {folder} has no {missing}: {UNMEASURED}", _finishing(folder))
    if not all(0 <= getattr(result, key) <= 1 for key in result.metrics):
        raise VtzooError(f"the result.json of {folder} has an accuracy outside 0..1: {UNMEASURED}", _finishing(folder))
    recipe = _read(entry, "recipe.toml")
    if hashlib.sha256(recipe).hexdigest() != result.recipe_sha256 or entry.recipe.name != result.name:
        hint = f"put back the file with the sha256 in result.json, {result.recipe_sha256}"
        raise VtzooError(f"{folder / 'recipe.toml'} is not the recipe that the run was trained by", hint)
    return result


def _finishing(folder: Path) -> str:
    """The command that finishes a run."""
    return f"finish the run: vtzoo train {folder / 'recipe.toml'} --out {folder} --resume"


def _read(entry: ModelFolder, path: str) -> bytes:
    """The content of a file in the model folder, verified against result.json; weights must be finite."""
    file = entry.folder / path
    if not file.resolve().is_relative_to(entry.folder.resolve()):
        raise VtzooError(f"{file} leads out of its model folder: refused", "put the file itself there")
    if path.endswith(".safetensors"):
        return safetensors_reader.read(file, entry.sha256(path)).content
    content = safetensors_reader.read_bytes(file, entry.sha256(path))
    if path.endswith(".png") and not content.startswith(PNG):
        raise VtzooError(f"{file} is not a PNG image", "put back the one that the training drew")
    return content


def _self_contained(entry: ModelFolder, files: dict[str, bytes]) -> bytes:
    """The graph with its weights, from model.safetensors, inside."""
    path, content, graph = entry.folder / "model.safetensors", files["model.safetensors"], files["onnx/model.onnx"]
    tensors = safetensors_reader.parse_header(content, str(path))
    weights = safetensors_reader.Weights(path=path, content=content, tensors=tensors)
    refuse_foreign(graph, weights, str(entry.folder / "onnx" / "model.onnx"))
    return inline(graph, weights)


def _addition(path: str, content: bytes) -> Any:
    """The client's operation that adds a file; its construction hashes the content."""
    from huggingface_hub import CommitOperationAdd

    return CommitOperationAdd(path, content)


def _commit(api: Any, publication: Publication) -> str:
    """The head of the repository with the publication, after a commit if the head lacks it."""
    from huggingface_hub import CommitOperationDelete
    from huggingface_hub.errors import HfHubHTTPError

    head = api.model_info(publication.repo).sha
    there = fetch.listing(publication.repo, head)
    if _holds(there, publication):
        return head
    drops = [CommitOperationDelete(path) for path in _leftover(there, publication)]
    try:
        message = f"Publish {publication.name}"
        operations = [*publication.additions, *drops]
        return api.create_commit(publication.repo, operations, commit_message=message, parent_commit=head).oid
    except HfHubHTTPError as error:
        if error.response.status_code not in SUPERSEDED:
            raise
        head = api.model_info(publication.repo).sha
        if _holds(fetch.listing(publication.repo, head), publication):  # the client's retry met its own first commit
            return head
        message = f"another commit has just changed {publication.repo}"
        raise VtzooError(message, "publish again, on top of that commit") from error


def _holds(there: dict[str, Content], publication: Publication) -> bool:
    """Whether a commit has the publication's files and no other file of a model folder."""
    fits = all(path in there and _same(there[path], publication, path) for path in publication.files)
    return fits and not _leftover(there, publication)


def _same(there: Content, publication: Publication, path: str) -> bool:
    """Whether a file on the Hub equals the publication's; a large file needs no second hash."""
    return there == publication.contents[path] if there.sha256 else there.fits(publication.files[path])


def _leftover(there: dict[str, Content], publication: Publication) -> list[str]:
    return [path for path in fetch.FILES if path in there and path not in publication.files]


def _tag(api: Any, publication: Publication, tag: str, commit: str) -> None:
    """Tag the commit; a tag that another user or the client's own first try has just made must have the same files."""
    from huggingface_hub.errors import HfHubHTTPError

    try:
        api.create_tag(publication.repo, tag=tag, revision=commit)
    except HfHubHTTPError as error:
        if error.response.status_code not in SUPERSEDED:
            raise
        _refuse_other_tag(api, publication, tag)


def _refuse_other_tag(api: Any, publication: Publication, tag: str) -> None:
    """Raise a VtzooError if the tag exists with other files than the publication's."""
    repo = publication.repo
    for known in client.call(partial(api.list_repo_refs, repo), repo).tags:
        if known.name == tag:
            there = client.call(partial(fetch.listing, repo, known.target_commit), repo)
            if not _holds(there, publication):
                raise VtzooError(f"the tag {tag} of {repo} stands for other files", "choose a new one: --tag v1.1")
