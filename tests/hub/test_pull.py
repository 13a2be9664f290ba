"""Models from the Hub with the real client: exactly the commit's bytes, or an error."""

import hashlib
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import numpy as np
import pytest
from folders import NAME, pixels
from server import Hub

import vtzoo
from vtzoo.zoo import lookup

REPO = f"zoo/{NAME}"
Run = Vt = Callable[..., CompletedProcess[str]]


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    pixels(0).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


@pytest.fixture
def published(hub: Hub, files: dict[str, bytes]) -> str:
    """The commit of a model on the Hub, with the files that `vtzoo publish` sends."""
    return hub.push(REPO, files)


def refusal(done: CompletedProcess[str]) -> str:
    assert done.returncode == 1
    assert done.stdout == ""
    return done.stderr


def answer(done: CompletedProcess[str]) -> dict[str, float]:
    (image,) = json.loads(done.stdout)
    return {one["label"]: one["probability"] for one in image["predictions"]}


def cached(home: Path, path: str) -> Path:
    (found,) = (home / "hub" / f"models--zoo--{NAME}" / "snapshots").glob(f"*/{path}")
    return found


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.resolve().write_bytes(content)


@pytest.mark.parametrize("backend", ["auto", "onnx", "torch"])
def test_a_model_on_the_hub_answers_as_the_folder_it_was_published_from(
    backend: str, published: str, vt: Vt, photo: Path, folder: Path
) -> None:
    local = dict(zip(vtzoo.load(folder).labels, vtzoo.load(folder)(photo)[0].tolist(), strict=True))
    got = answer(vt("predict", photo, "--model", REPO, "--backend", backend, "--json", "-k", 10))
    assert got.keys() == local.keys()
    np.testing.assert_allclose([got[label] for label in local], list(local.values()), atol=1e-5)


def test_only_what_a_backend_reads_is_downloaded(hub: Hub, published: str, vt: Vt, photo: Path) -> None:
    vt("predict", photo, "--model", REPO)
    got = [re.match(f"/{REPO}/resolve/{published}/(.*)|/cdn/[^/]*/(.*)", path) for _, path, _ in hub.requests]
    assert {one[1] or one[2] for one in got if one} == {"config.json", "recipe.toml", "result.json", "onnx/model.onnx"}


def test_pull_brings_every_file_and_then_no_network_is_needed(
    hub: Hub, published: str, vt: Vt, photo: Path, files: dict[str, bytes]
) -> None:
    told = json.loads(vt("pull", REPO, "--json").stdout)
    for path in told["files"]:
        assert (Path(told["folder"]) / path).read_bytes() == files[path], path
    assert told["files"].keys() == files.keys()
    first = vt("predict", photo, "--model", REPO).stdout
    hub.requests.clear()
    assert vt("predict", photo, "--model", REPO, HF_HUB_OFFLINE="1").stdout == first
    assert hub.requests == []


def test_a_name_a_branch_a_tag_and_a_commit_mean_what_they_say(
    hub: Hub, published: str, vt: Vt, files: dict[str, bytes]
) -> None:
    newer = hub.push(REPO, {"curves.png": b"newer"})
    for name, commit in ((REPO, newer), (f"{REPO}@{published}", published), (f"hf-hub:{REPO}@main", newer)):
        assert json.loads(vt("pull", name, "--json").stdout)["folder"].endswith(commit), name
    assert json.loads(vt("pull", REPO, "--revision", published, "--json").stdout)["folder"].endswith(published)
    assert "name two revisions" in refusal(vt("pull", f"{REPO}@main", "--revision", published, check=False))
    assert "has no such revision" in refusal(vt("pull", f"{REPO}@v9", check=False))


def test_a_commit_in_the_cache_is_never_asked_for_again(hub: Hub, published: str, vt: Vt, photo: Path) -> None:
    vt("predict", photo, "--model", f"{REPO}@{published}")
    hub.requests.clear()
    vt("predict", photo, "--model", f"{REPO}@{published}")
    assert hub.requests == []


@pytest.mark.parametrize("path", ["onnx/model.onnx", "config.json", "result.json"])
def test_a_flipped_byte_is_downloaded_once_more(
    path: str, hub: Hub, published: str, vt: Vt, files: dict[str, bytes], tmp_path: Path
) -> None:
    hub.fault("flip", f"GET .*({path}|{sha256_of(files[path])})")
    vt("pull", REPO)
    assert hub.faults == []
    assert cached(tmp_path / "home", path).read_bytes() == files[path]


def sha256_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def test_what_comes_damaged_twice_is_refused_by_name_and_not_kept(
    hub: Hub, published: str, vt: Vt, photo: Path, files: dict[str, bytes], tmp_path: Path
) -> None:
    hub.fault("flip", f"GET .*{sha256_of(files['onnx/model.onnx'])}", times=2)
    told = refusal(vt("predict", photo, "--model", REPO, check=False))
    assert f"onnx/model.onnx of {REPO} at {published[:12]} came damaged, twice: refused" in told
    blobs = tmp_path / "home" / "hub" / f"models--zoo--{NAME}" / "blobs"
    assert not (blobs / sha256_of(files["onnx/model.onnx"])).exists()
    vt("predict", photo, "--model", REPO)


@pytest.mark.parametrize("kind", ["500", "503", "429", "reset", "cut"])
@pytest.mark.parametrize("pattern", ["GET .*api/models", "HEAD .*config.json", "GET .*(onnx|lfs|cdn|blobs)"])
def test_a_passing_fault_is_waited_out(kind: str, pattern: str, hub: Hub, published: str, vt: Vt, photo: Path) -> None:
    hub.fault(kind, pattern)
    vt("predict", photo, "--model", REPO)


def test_a_fault_that_lasts_is_a_sentence(hub: Hub, published: str, vt: Vt, photo: Path) -> None:
    hub.fault("503", "GET .*api/models", times=100)
    assert "answers 503, again and again" in refusal(vt("predict", photo, "--model", REPO, check=False, hurried=True))


def test_without_a_network_the_cached_model_works_and_says_so_and_another_is_a_sentence(
    hub: Hub, published: str, vt: Vt, photo: Path
) -> None:
    first = vt("predict", photo, "--model", REPO)
    nowhere = {"HF_ENDPOINT": "http://127.0.0.1:9"}  # the discard port, without a server
    again = vt("predict", photo, "--model", REPO, **nowhere)
    assert again.stdout == first.stdout
    assert f"cannot be reached; {REPO} is the cached one, of commit {published[:12]}" in again.stderr
    started = time.monotonic()
    told = refusal(vt("predict", photo, "--model", "zoo/other", check=False, **nowhere))
    assert "the Hub at http://127.0.0.1:9 cannot be reached" in told
    assert time.monotonic() - started < 20  # seconds


def test_offline_an_uncached_model_and_an_uncached_file_are_sentences(
    hub: Hub, published: str, vt: Vt, photo: Path
) -> None:
    told = refusal(vt("predict", photo, "--model", REPO, check=False, HF_HUB_OFFLINE="1"))
    assert f"the cache lacks files of {REPO}, and HF_HUB_OFFLINE is set" in told
    vt("predict", photo, "--model", REPO)
    told = refusal(vt("predict", photo, "--model", REPO, "--backend", "torch", check=False, HF_HUB_OFFLINE="1"))
    assert "HF_HUB_OFFLINE is set" in told


def test_what_another_program_downloaded_serves_offline_after_its_hashes_are_checked(
    hub: Hub, published: str, vt: Vt, run: Run, photo: Path, tmp_path: Path
) -> None:
    run(f"from huggingface_hub import snapshot_download; snapshot_download({REPO!r})")
    vt("predict", photo, "--model", REPO, HF_HUB_OFFLINE="1")
    flip(cached(tmp_path / "home", "onnx/model.onnx"))
    refusal(vt("predict", photo, "--model", REPO, check=False, HF_HUB_OFFLINE="1"))
    vt("predict", photo, "--model", REPO)  # with the network it is downloaded again


def test_errors_of_the_hub_are_sentences(hub: Hub, published: str, vt: Vt) -> None:
    assert "the Hub has no model zoo/nothing, or it is private" in refusal(vt("pull", "zoo/nothing", check=False))
    hub.gate(REPO)
    told = refusal(vt("pull", REPO, token="hf_other", check=False))
    assert f"{REPO} is gated" in told
    assert f"ask for access at {hub.url}/{REPO}" in told
    hub.make_private(REPO)
    assert "or it is private" in refusal(vt("pull", REPO, token=None, check=False))
    told = refusal(vt("pull", "swin_t-drlok-cifar100", check=False))
    assert "did you mean swin_t-drloc-cifar100" in told
    hub.push("zoo/text", {"notes.txt": b"no model"})
    assert "zoo/text has no config.json" in refusal(vt("pull", "zoo/text", check=False))


def test_a_name_of_the_index_is_pinned_to_its_commit_and_content(hub: Hub, vt: Vt, folder: Path, photo: Path) -> None:
    vt("publish", folder, "--org", "zoo")
    index = folder.parent / "index.toml"
    pinned = hub.head(REPO)
    hub.push(REPO, {"config.json": b"{}"})  # the branch moves; the index entry does not
    known = {"VTZOO_INDEX": str(index)}
    assert json.loads(vt("pull", NAME, "--json", **known).stdout)["folder"].endswith(str(pinned))
    hub.requests.clear()
    vt("predict", photo, "--model", NAME, **known)
    assert hub.requests == []
    assert f"there are no weights of {NAME} here" in refusal(vt("pull", NAME, check=False))


def test_an_index_that_disagrees_with_the_hub_wins(hub: Hub, vt: Vt, folder: Path) -> None:
    vt("publish", folder, "--org", "zoo")
    index = folder.parent / "index.toml"
    lines = index.read_text().splitlines()
    changed = [line[:-5] + '00" }' if line.startswith('"config.json"') else line for line in lines]
    index.write_text("\n".join(changed))
    assert "config.json of" in refusal(vt("pull", NAME, check=False, VTZOO_INDEX=str(index)))


def test_a_model_folder_of_its_own_predicts_anywhere(
    published: str, vt: Vt, photo: Path, tmp_path: Path, files: dict[str, bytes]
) -> None:
    vt("pull", REPO, "--local-dir", tmp_path / "own")
    assert {path.relative_to(tmp_path / "own").as_posix() for path in (tmp_path / "own").rglob("*.*")} == files.keys()
    mine = vt("predict", photo, "--model", tmp_path / "own", HF_HUB_OFFLINE="1", home=tmp_path / "empty").stdout
    assert mine == vt("predict", photo, "--model", REPO).stdout


def test_a_model_that_is_here_is_not_pulled_but_can_be_copied(hub: Hub, vt: Vt, tmp_path: Path, folder: Path) -> None:
    vt("pull", folder, "--local-dir", tmp_path / "copy")
    assert (tmp_path / "copy" / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()
    assert "it has no revision 'v1.0'" in refusal(vt("pull", folder, "--revision", "v1.0", check=False))
    assert hub.requests == []


def test_verify_names_what_is_damaged_and_pull_mends_it(published: str, vt: Vt, tmp_path: Path) -> None:
    assert f"{REPO} is not in the cache" in refusal(vt("verify", REPO, check=False))
    vt("pull", REPO)
    rows: list[dict[str, Any]] = json.loads(vt("verify", "--json").stdout)
    embedded = {entry.name: len(entry.result.weights or {}) for entry in lookup.embedded_models()}
    assert embedded["swin_t-drloc-cifar100"] == 3
    assert {row["name"]: row["files"] for row in rows} == embedded | {REPO: 8}
    flip(cached(tmp_path / "home", "model.safetensors"))
    done = vt("verify", check=False)
    assert done.returncode == 1
    assert f"{REPO}@{published[:12]}: DAMAGED: model.safetensors" in done.stdout
    vt("pull", REPO)
    assert "8 files as they should be" in vt("verify", REPO).stdout


def test_no_token_no_password_and_no_signature_is_ever_printed(hub: Hub, published: str, vt: Vt) -> None:
    secret = "hf_" + "s3cret" * 5
    host = hub.url.removeprefix("http://")
    for kind in ("500", "reset"):
        hub.fault(kind, "GET .*api/models", times=100)
        address = {"HF_ENDPOINT": f"http://user:passw0rd@{host}", "HF_DEBUG": "1"}
        done = vt("pull", REPO, token=secret, check=False, hurried=True, **address)
        hub.clear_faults()
        for word in (secret, "passw0rd"):
            assert word not in done.stdout + done.stderr
        assert done.returncode == 1


def test_the_cache_stays_one_that_the_hubs_own_client_understands(published: str, vt: Vt, run: Run) -> None:
    vt("pull", REPO)
    scan = "from huggingface_hub import scan_cache_dir as scan; s = scan(); print(len(s.repos), s.warnings)"
    assert run(scan).stdout.strip() == "1 []"


def test_python_loads_a_model_from_the_hub(published: str, run: Run, photo: Path) -> None:
    done = run(f"import vtzoo; print(vtzoo.load({REPO!r}, revision='main')({str(photo)!r}).shape)")
    assert done.stdout == "(1, 10)\n", done.stderr


def test_a_reader_and_a_puller_at_once_both_end_well(published: str, hub: Hub, tmp_path: Path, photo: Path) -> None:
    environment = hub.environment(tmp_path / "home") | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-m", "vtzoo", "predict", str(photo), "--model", REPO]
    running = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    told = {process.communicate(timeout=120)[0] for process in running}
    assert [process.returncode for process in running] == [0] * 4
    assert len(told) == 1
