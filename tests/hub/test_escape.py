"""Names and links that lead out of a model's folder: the error names them; no file outside is read or written."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from folders import NAME, pixels
from server import Hub
from store import File

from vtzoo.errors import VtzooError
from vtzoo.hub import index

REPO = f"zoo/{NAME}"
NAMES = ["../outside.txt", "onnx/../../outside.txt", "/etc/hostname", "..\\outside.txt", "C:outside.txt", "a\nb", ""]
Vt = Callable[..., CompletedProcess[str]]


@pytest.fixture
def published(hub: Hub, files: dict[str, bytes]) -> str:
    """The commit of a model on the Hub, with the files that `vtzoo publish` sends."""
    return hub.push(REPO, files)


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A folder outside all others, with one file."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret.txt").write_text("of the user's")
    return tmp_path / "outside"


def refusal(done: CompletedProcess[str]) -> str:
    assert done.returncode == 1
    assert done.stdout == ""
    return done.stderr


def untouched(outside: Path) -> bool:
    return [(path.name, path.read_text()) for path in outside.iterdir()] == [("secret.txt", "of the user's")]


def storage(tmp_path: Path) -> Path:
    """The model's folder in the cache."""
    return tmp_path / "home" / "hub" / f"models--zoo--{NAME}"


def below(folder: Path) -> set[Path]:
    return set(folder.rglob("*"))


@pytest.mark.parametrize("name", NAMES)
def test_a_name_that_leads_out_is_refused_wherever_it_comes_from(name: str, tmp_path: Path) -> None:
    said = f"names a file {re.escape(repr(name))}, which would lead out of its folder: refused"
    with pytest.raises(VtzooError, match=said):
        index.read(indexed(tmp_path, name))
    with pytest.raises(VtzooError, match=said):
        index.refuse_escape(name, "anything")


def indexed(tmp_path: Path, name: str) -> Path:
    """An index with one model, which has one file of that name."""
    content = f'{json.dumps(name)} = {{ size = 1, sha256 = "{"0" * 64}" }}'
    table = f'["a-model"]\nrepo = "zoo/m"\nrevision = "{"1" * 40}"\n["a-model".files]\n{content}\n'
    (tmp_path / "index.toml").write_text(table)
    return tmp_path / "index.toml"


def test_a_name_in_the_index_that_leads_out_stops_a_pull(hub: Hub, vt: Vt, tmp_path: Path) -> None:
    path = indexed(tmp_path, "../outside.txt")
    before = below(tmp_path)
    told = refusal(vt("pull", "a-model", check=False, VTZOO_INDEX=str(path)))
    assert f"{path}: a-model names a file '../outside.txt', which would lead out of its folder: refused" in told
    assert hub.requests == []
    assert below(tmp_path) == before


@pytest.mark.parametrize("name", ["../../../../outside.txt", "/etc/hostname", "onnx\\..\\outside.txt"])
def test_a_name_in_the_hubs_listing_that_leads_out_is_refused(
    name: str, hub: Hub, vt: Vt, files: dict[str, bytes], tmp_path: Path
) -> None:
    hub.push(REPO, files | {name: b"planted"})
    before = below(tmp_path)
    told = refusal(vt("pull", REPO, check=False))
    assert f"{REPO} names a file {name!r}, which would lead out of its folder: refused" in told
    assert not any("/resolve/" in path for _, path, _ in hub.requests)
    assert {path for path in below(tmp_path) - before if path.is_file()} == set()


@pytest.mark.parametrize("name", ["../../../../outside/blob", "/etc/hostname"])
def test_a_content_whose_hash_is_a_path_is_refused(
    name: str, hub: Hub, vt: Vt, files: dict[str, bytes], outside: Path
) -> None:
    hub.push(REPO, files)
    kept = hub.commits(REPO)[0].files["config.json"]
    hub.store.commit(REPO, {"config.json": replace(kept, oid=name), "b": File(oid=name, size=1)}, message="planted")
    assert f"{REPO} names a content {name!r}" in refusal(vt("pull", REPO, check=False))
    assert untouched(outside)


@pytest.mark.parametrize("name", ["../../../outside/secret.txt", "/etc/hostname", "..\\secret.txt", "C:secret.txt"])
def test_a_name_in_result_json_that_leads_out_is_not_hashed(name: str, vt: Vt, folder: Path) -> None:
    facts = json.loads((folder / "result.json").read_text())
    (folder / "result.json").write_text(json.dumps(facts | {"weights": {name: "0" * 64}}))
    told = refusal(vt("verify", folder, check=False))
    assert f"{folder / 'result.json'} names a file {name!r}, which would lead out of its folder: refused" in told
    (folder / "result.json").write_text(json.dumps(facts | {"weights": [name]}))
    assert "weights must be a table" in refusal(vt("verify", folder, check=False))


@pytest.mark.parametrize("revision", ["../../../../outside/secret.txt", "{outside}/secret.txt"])
def test_a_revision_that_is_a_path_leads_nowhere(
    revision: str, published: str, hub: Hub, vt: Vt, outside: Path, tmp_path: Path
) -> None:
    (outside / "secret.txt").write_text("1" * 40)  # as a file in refs/ is
    (storage(tmp_path) / "snapshots" / ("1" * 40)).mkdir(parents=True)
    (storage(tmp_path) / "refs").mkdir()
    told = refusal(vt("pull", REPO, "--revision", revision.format(outside=outside), check=False))
    assert "has no such revision" in told or "is not the name" in told
    told = refusal(vt("pull", f"{REPO}@{revision.format(outside=outside)}", check=False, HF_HUB_OFFLINE="1"))
    assert "HF_HUB_OFFLINE is set" in told


@pytest.mark.parametrize("place", ["config.json", "onnx", "snapshot", "blobs", "missing"])
def test_a_link_that_leads_out_of_the_cache_is_refused(
    place: str, published: str, vt: Vt, outside: Path, tmp_path: Path
) -> None:
    pixels(0).save(tmp_path / "photo.png")
    snapshot = storage(tmp_path) / "snapshots" / published
    link = {
        "config.json": snapshot / "config.json", "onnx": snapshot / "onnx", "snapshot": snapshot,
        "blobs": storage(tmp_path) / "blobs", "missing": snapshot / "config.json",
    }[place]  # fmt: skip
    link.parent.mkdir(parents=True)
    target = {"config.json": outside / "secret.txt", "missing": outside / "missing"}.get(place, outside)
    link.symlink_to(target)
    command = ("predict", tmp_path / "photo.png", "--model", REPO)  # finds the model like every command
    assert f"leads out of the cache of {REPO}: refused" in refusal(vt(*command, check=False))
    assert untouched(outside)
    link.unlink()
    vt(*command)
    assert untouched(outside)


def test_a_cached_file_that_became_a_link_out_is_damaged(published: str, vt: Vt, outside: Path, tmp_path: Path) -> None:
    vt("pull", REPO)
    link = storage(tmp_path) / "snapshots" / published / "model.safetensors"
    (outside / "copy").write_bytes(link.read_bytes())  # the right content, in a place that anybody may change
    link.unlink()
    link.symlink_to(outside / "copy")
    done = vt("verify", REPO, check=False)
    assert done.returncode == 1
    assert "DAMAGED: model.safetensors" in done.stdout


@pytest.mark.parametrize("path", ["model.safetensors", "onnx", "config.json", "recipe.toml", "result.json"])
def test_a_link_that_leads_out_of_a_run_is_not_published(
    path: str, hub: Hub, vt: Vt, folder: Path, outside: Path
) -> None:
    (folder / path).rename(outside / "moved")
    (folder / path).symlink_to(outside / "moved")
    assert "leads out of its model folder: refused" in refusal(vt("publish", folder, "--org", "zoo", check=False))
    assert hub.requests == []


def test_a_link_in_a_local_dir_leads_nothing_out(published: str, vt: Vt, outside: Path, tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.mkdir()
    (own / "onnx").symlink_to(outside)
    told = refusal(vt("pull", REPO, "--local-dir", own, check=False))
    assert f"{own / 'onnx'} leads out of {own}: refused" in told
    assert untouched(outside)
    (own / "onnx").unlink()
    for name in ("config.json", ".config.json.partial", "model.safetensors"):
        (own / name).symlink_to(outside / "secret.txt")
    vt("pull", REPO, "--local-dir", own)
    assert untouched(outside)
    assert not any(path.is_symlink() for path in own.rglob("*"))


def test_a_copy_of_a_model_onto_itself_leaves_it(vt: Vt, folder: Path, tmp_path: Path) -> None:
    before = {path: path.read_bytes() for path in folder.rglob("*.*")}
    (tmp_path / "same").symlink_to(folder)
    for place in (folder, tmp_path / "same"):
        vt("pull", folder, "--local-dir", place)
    assert {path: path.read_bytes() for path in folder.rglob("*.*")} == before
