"""A model folder onto the Hub: refused or whole, in one commit, and then a line in the index.

What is published is the folder's content, with two changes: the ONNX file has its weights inside, as whoever downloads
it alone expects, and the card is rendered anew and says where the model is.
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
PNG = b"\x89PNG\r\n\x1a\n"  # how such a file begins: https://www.w3.org/TR/png-3/#5PNG-file-signature
SUPERSEDED = (409, 412)  # what the Hub answers where the parent of a commit is no longer the head


@dataclass(frozen=True, kw_only=True)
class Publication:
    """What is to be published: a model's files, checked, and where they go."""

    name: str
    repo: str  # ORG/NAME
    additions: list[Any]  # what the Hub's client takes for a file each; it has hashed them
    index: Path  # the file that the model's entry is written into

    @cached_property
    def files(self) -> dict[str, bytes]:
        """The content of every file, by its path in the repository."""
        return {addition.path_in_repo: addition.path_or_fileobj for addition in self.additions}

    @cached_property
    def contents(self) -> dict[str, Content]:
        """Size and sha256 of every file."""
        infos = {addition.path_in_repo: addition.upload_info for addition in self.additions}
        return {path: Content(size=info.size, sha256=info.sha256.hex()) for path, info in infos.items()}


def prepare(name: str | Path, org: str, index_file: Path | None = None) -> Publication:
    """The publication of a run folder or an embedded model; nothing is sent.

    `org` is a user or an organization on the Hub; the index is `index_file`, or else index.toml beside the run.
    Missing metrics or files, weights that are damaged or not finite, a recipe that is not the run's and a card that
    fails its check are VtzooErrors.
    """
    entry = lookup.find_model(name)
    result = _measured(entry)
    repo = f"{org}/{result.name}"
    if not index.REPO.fullmatch(repo):
        raise VtzooError(f"{repo!r} is not the name of a repository", "--org takes the name of a user or organization")
    beside = Path() if entry in lookup.embedded_models() else entry.folder.resolve().parent
    place = index_file or beside / "index.toml"
    if place.exists():
        index.read(place)  # one that is damaged shall not be found out after the commit
    optional = ["localizer.safetensors"] if (entry.folder / "localizer.safetensors").exists() else []
    with ThreadPoolExecutor() as pool:  # hashing leaves Python free to do, and to import, what is needed next
        pool.submit(client.api)
        files = {path: _read(entry, path) for path in (*COMPULSORY, *optional)}
        files["onnx/model.onnx"] = _self_contained(entry, files)
        adding = {path: pool.submit(_addition, path, files[path]) for path in WEIGHTS if path in files}
        files["README.md"] = _card(entry, repo)
        weights = {path: added.result().upload_info.sha256.hex() for path, added in adding.items()}
    files["result.json"] = replace(result, weights=weights).as_bytes()  # their hashes as they are published
    additions = [adding[path].result() if path in adding else _addition(path, data) for path, data in files.items()]
    return Publication(name=str(result.name), repo=repo, additions=additions, index=place)


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
    client.call(partial(_tag, api, publication, tag, commit), repo)
    pin = Pin(repo=repo, revision=commit, tag=tag, files=publication.contents)
    index.write(publication.index, publication.name, pin)
    return pin


def _measured(entry: ModelFolder) -> Result:
    """The entry's result.json, if it says all that a card does, and the recipe is the one that it was trained by."""
    result, folder = entry.result, entry.folder
    if missing := ", ".join(result.missing):
        raise VtzooError(f"the result.json of {folder} has no {missing}: {UNMEASURED}", _finishing(folder))
    if not all(0 <= getattr(result, key) <= 1 for key in result.metrics):
        raise VtzooError(f"the result.json of {folder} has an accuracy outside 0..1: {UNMEASURED}", _finishing(folder))
    recipe = _read(entry, "recipe.toml")
    if _sha256(recipe) != result.recipe_sha256 or entry.recipe.name != result.name:
        raise VtzooError(
            f"{folder / 'recipe.toml'} is not the recipe that the run was trained by",
            f"put that back: its sha256 is {result.recipe_sha256}, as result.json says",
        )
    return result


def _finishing(folder: Path) -> str:
    """The command that finishes a run."""
    return f"finish the run: vtzoo train {folder / 'recipe.toml'} --out {folder} --resume"


def _read(entry: ModelFolder, path: str) -> bytes:
    """A file of the model folder, and of no other place, checked against result.json; weights are finite numbers."""
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
    """The graph with the weights that it reads from model.safetensors inside it."""
    path, content, graph = entry.folder / "model.safetensors", files["model.safetensors"], files["onnx/model.onnx"]
    weights = safetensors_reader.Weights(
        path=path, content=content, tensors=safetensors_reader.parse_header(content, str(path))
    )
    refuse_foreign(graph, weights, str(entry.folder / "onnx" / "model.onnx"))
    return inline(graph, weights)


def _addition(path: str, content: bytes) -> Any:
    """What the Hub's client takes for a file; it hashes the content."""
    from huggingface_hub import CommitOperationAdd

    return CommitOperationAdd(path, content)


def _card(entry: ModelFolder, repo: str) -> bytes:
    card = cards.of(entry, repo)
    cards.check(card, entry.result)
    return card.encode()


def _commit(api: Any, publication: Publication) -> str:
    """The head of the repository, which holds the publication: as it is, or after one commit on top of it."""
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
        if _holds(
            fetch.listing(publication.repo, head), publication
        ):  # the client's own second try, after ours was made
            return head
        raise VtzooError(f"somebody else has just changed {publication.repo}", "publish again, on top of it") from error


def _holds(there: dict[str, Content], publication: Publication) -> bool:
    """Whether a commit has the publication's files, and no other file of a model folder."""
    fits = all(path in there and _same(there[path], publication, path) for path in publication.files)
    return fits and not _leftover(there, publication)


def _same(there: Content, publication: Publication, path: str) -> bool:
    """Whether the Hub has a file of the publication as it is; a large one is not hashed once more for that."""
    return there == publication.contents[path] if there.sha256 else there.fits(publication.files[path])


def _leftover(there: dict[str, Content], publication: Publication) -> list[str]:
    return [path for path in fetch.FILES if path in there and path not in publication.files]


def _tag(api: Any, publication: Publication, tag: str, commit: str) -> None:
    """Tag the commit; somebody may have been faster, or the client's own first try: then the files must be the same."""
    from huggingface_hub.errors import HfHubHTTPError

    try:
        api.create_tag(publication.repo, tag=tag, revision=commit)
    except HfHubHTTPError as error:
        if error.response.status_code not in SUPERSEDED:
            raise
        _refuse_other_tag(api, publication, tag)


def _refuse_other_tag(api: Any, publication: Publication, tag: str) -> None:
    """A VtzooError where the tag stands for other files than the publication's."""
    repo = publication.repo
    for known in client.call(partial(api.list_repo_refs, repo), repo).tags:
        if known.name == tag:
            there = client.call(partial(fetch.listing, repo, known.target_commit), repo)
            if not _holds(there, publication):
                raise VtzooError(f"the tag {tag} of {repo} stands for other files", "choose a new one: --tag v1.1")


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
