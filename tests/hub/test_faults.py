"""The test server's faults, and the reaction of the real huggingface_hub."""

import os
import re
import signal
import subprocess
import sys
import time
from http.client import HTTPException
from pathlib import Path

import pytest
from client import CLIENT, MODEL, Run, ask, client
from server import Hub


def test_a_download_that_is_cut_is_resumed_where_it_ended(hub: Hub, run: Run) -> None:
    weights = bytes(range(251)) * 100_000  # the client keeps no less than 10 MB of what it got
    hub.push("zoo/model", {"model.safetensors": weights})
    hub.fault("cut", "GET .*model.safetensors")
    path = client(run, 'result = api.hf_hub_download("zoo/model", "model.safetensors")')
    assert Path(path).read_bytes() == weights
    assert [status for method, path, status in hub.requests if method == "GET" and "safetensors" in path] == [200, 206]


def test_the_client_does_not_notice_a_flipped_bit(hub: Hub, run: Run) -> None:
    hub.push("zoo/model", MODEL)
    hub.fault("flip", "GET .*(model.safetensors|config.json)", times=2)
    names = ["model.safetensors", "config.json", "onnx/model.onnx"]
    found = client(run, f'result = [api.hf_hub_download("zoo/model", name) for name in {names}]')
    differences = [
        [old ^ new for old, new in zip(MODEL[name], Path(path).read_bytes(), strict=True) if old != new]
        for name, path in zip(names, found, strict=True)
    ]
    assert differences == [[1], [1], []]


def test_an_answer_that_is_lost_was_carried_out(hub: Hub, run: Run) -> None:
    parent = hub.push("zoo/model", MODEL)
    hub.fault("lost", "POST .*/(commit|tag)/", times=2)
    found = client(
        run,
        f"""
def commit():
    api.create_commit("zoo/model", add({{"config.json": b"new"}}), commit_message="change", parent_commit={parent!r})
def tag():
    api.create_tag("zoo/model", tag="v1")
result = [failure(commit), failure(tag), failure(tag)]
""",
    )
    assert found == [["ReadError", False], ["ReadError", False], ["HfHubHTTPError", 409]]
    head = hub.commits("zoo/model")[0]
    assert (head.parent, hub.files("zoo/model")["config.json"]) == (parent, b"new")
    assert hub.tags("zoo/model") == {"v1": head.id}
    assert [status for _, path, status in hub.requests if re.search("/(commit|tag)/", path)] == [0, 0, 409]


def test_the_client_tries_again_where_it_does_so_by_itself(hub: Hub, run: Run) -> None:
    hub.push("zoo/model", MODEL)
    hub.fault("503", "GET .*/tree/")
    assert client(run, 'result = len(list(api.list_repo_tree("zoo/model")))') == len(MODEL) + 1
    assert [status for _, path, status in hub.requests if "/tree/" in path] == [503, 200]


@pytest.mark.parametrize("kind", ["500", "502", "503", "504", "429", "reset", "lost", "cut", "stall"])
def test_a_fault_meets_so_many_requests_of_a_kind_after_so_many_others(hub: Hub, kind: str) -> None:
    hub.push("zoo/model", {"config.json": b"content"})
    url = f"{hub.url}/zoo/model/resolve/main/config.json"
    hub.fault(kind, "GET .*/config.json", times=2, skip=1, seconds=60)

    def attempt(method: str = "GET") -> object:
        try:
            status, _, content = ask(url, method, timeout=1 if kind == "stall" else 10)
        except (HTTPException, OSError) as error:
            return type(error).__name__
        return status if status != 200 else content

    names = {"reset": "ConnectionResetError", "lost": "ConnectionResetError", "cut": "IncompleteRead"}
    wrong = "TimeoutError" if kind == "stall" else names.get(kind) or int(kind)
    found = [attempt(), attempt("HEAD"), attempt(), attempt(), attempt()]
    assert found == [b"content", b"", wrong, wrong, b"content"]
    hub.fault(kind, "GET")
    hub.clear_faults()
    assert attempt() == b"content"


def test_a_fault_of_an_unknown_kind_is_an_error(hub: Hub) -> None:
    with pytest.raises(ValueError, match="unknown fault '418'"):
        hub.fault("418", "GET")


@pytest.mark.parametrize(
    ("where", "commits"),
    [("PUT", {2}), ("POST .*/preupload/", {2}), ("POST .*/commit/", {2, 3})],  # 3: its last bytes were on their way
)
def test_a_killed_uploader_leaves_the_whole_commit_or_none(
    hub: Hub, tmp_path: Path, where: str, commits: set[int]
) -> None:
    old = hub.push("zoo/model", {"config.json": b"old"})
    before, model = hub.files("zoo/model"), tmp_path / "model.safetensors"
    model.write_bytes(os.urandom(1024) * 16 * 1024)  # more than a connection buffers without a reader
    hub.fault("stall", where, seconds=0.5)
    statements = f"""
operations = add({{"config.json": b"new", "model.safetensors": {str(model)!r}}})
api.create_commit("zoo/model", operations, commit_message="change", parent_commit={old!r})
"""
    with subprocess.Popen([sys.executable, "-c", CLIENT + statements], env=hub.environment(tmp_path)) as uploader:
        while hub.faults:  # not yet due
            assert uploader.poll() is None
            time.sleep(0.01)
        uploader.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 10
    while hub.serving and time.monotonic() < deadline:
        time.sleep(0.01)
    after = before | {"config.json": b"new", "model.safetensors": model.read_bytes()}
    made = len(hub.commits("zoo/model"))
    assert made in commits
    assert hub.files("zoo/model") == (after if made == 3 else before)
    assert list((hub.folder / "blobs").glob(".*")) == []
