"""The test server against the real huggingface_hub, in separate processes."""

import hashlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from client import MODEL, WEIGHTS, Run, ask, client
from server import Hub
from store import Store


def git_hash(content: bytes) -> str:
    return hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()


def test_the_client_publishes_and_downloads_a_model_byte_for_byte(hub: Hub, run: Run, tmp_path: Path) -> None:
    (tmp_path / "run" / "onnx").mkdir(parents=True)
    for path, content in MODEL.items():
        (tmp_path / "run" / path).write_bytes(content)
    found = client(
        run,
        f"""
run = Path({str(tmp_path / "run")!r})
model = {{str(path.relative_to(run)): path.read_bytes() for path in run.rglob("*.*")}}
result = {{"user": api.whoami()["name"], "url": api.create_repo("zoo/model", exist_ok=True).repo_id}}
api.create_repo("zoo/model", exist_ok=True)
result["again"] = failure(api.create_repo, "zoo/model")
first = api.model_info("zoo/model").sha
made = api.create_commit("zoo/model", add(model), commit_message="A model", parent_commit=first)
api.create_tag("zoo/model", tag="v1.0/a", revision=made.oid)
result["tag twice"] = failure(api.create_tag, "zoo/model", tag="v1.0/a")
result["commits"] = [made.oid, first]
result["listed"] = [commit.commit_id for commit in api.list_repo_commits("zoo/model")]
result["tags"] = {{tag.name: tag.target_commit for tag in api.list_repo_refs("zoo/model").tags}}
result["sha"] = [api.model_info("zoo/model", revision=name).sha for name in ("v1.0/a", made.oid, made.oid[:7], "main")]
files = [file for file in api.list_repo_tree("zoo/model", recursive=True) if file.path != "onnx"]
result["tree"] = {{file.path: [file.size, file.blob_id, file.lfs and file.lfs.sha256] for file in files}}
result["top"] = [file.path for file in api.list_repo_tree("zoo/model")]
result["folder"] = [file.path for file in api.list_repo_tree("zoo/model", "onnx")]
result["paths"] = [file.path for file in api.get_paths_info("zoo/model", ["onnx", "config.json", "absent"])]
siblings = api.model_info("zoo/model", files_metadata=True).siblings
result["siblings"] = {{one.rfilename: [one.size, one.blob_id, one.lfs and one.lfs.sha256] for one in siblings}}
folder = Path(api.snapshot_download("zoo/model", revision="v1.0/a"))
result["snapshot"] = all((folder / path).read_bytes() == content for path, content in model.items())
path = api.hf_hub_download("zoo/model", "onnx/model.onnx", cache_dir=run / "cache")
result["one"] = Path(path).read_bytes() == model["onnx/model.onnx"]
api.delete_tag("zoo/model", tag="v1.0/a")
""",
    )
    made, first = found["commits"]
    assert (found["user"], found["url"]) == ("ada", "zoo/model")
    assert (found["again"], found["tag twice"]) == (["HfHubHTTPError", 409], ["HfHubHTTPError", 409])
    assert found["listed"] == [commit.id for commit in hub.commits("zoo/model")] == [made, first]
    assert (found["tags"], hub.tags("zoo/model")) == ({"v1.0/a": made}, {})
    assert found["sha"] == [made] * 4
    published = hub.files("zoo/model")
    del published[".gitattributes"], found["tree"][".gitattributes"], found["siblings"][".gitattributes"]
    assert published == MODEL
    assert found["tree"] == found["siblings"]
    assert found["tree"]["config.json"] == [8, git_hash(b'{"a": 1}'), None]
    assert found["tree"]["an empty file.bin"] == [0, "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391", None]
    sha256 = hashlib.sha256(WEIGHTS).hexdigest()
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {len(WEIGHTS)}\n"
    assert found["tree"]["model.safetensors"] == [len(WEIGHTS), git_hash(pointer.encode()), sha256]
    assert set(found["top"]) == {".gitattributes", *MODEL, "onnx"} - {"onnx/model.onnx"}
    assert (found["folder"], found["paths"]) == (["onnx/model.onnx"], ["onnx", "config.json"])
    assert found["snapshot"]
    assert found["one"]


def test_large_files_come_from_another_origin_that_refuses_a_token(hub: Hub) -> None:
    revision = hub.push("zoo/model", MODEL)
    owner = {"Authorization": "Bearer hf_write"}
    status, headers, _ = ask(f"{hub.url}/zoo/model/resolve/{revision}/model.safetensors", "HEAD", headers=owner)
    sha256, location = hashlib.sha256(WEIGHTS).hexdigest(), headers["Location"]
    assert (status, headers["X-Repo-Commit"]) == (302, revision)
    assert (headers["X-Linked-Etag"], headers["X-Linked-Size"]) == (f'"{sha256}"', "2097152")
    assert urlsplit(location).netloc != urlsplit(hub.url).netloc
    assert ask(location)[::2] == (200, WEIGHTS)
    assert ask(location, headers=owner)[0] == 400
    assert ask(location, headers={"Range": "bytes=10-12"})[::2] == (206, WEIGHTS[10:13])
    assert ask(location, headers={"Range": f"bytes={len(WEIGHTS)}-"})[0] == 416


def test_of_commits_on_one_parent_one_is_made_and_the_others_are_conflicts(hub: Hub, run: Run) -> None:
    parent = hub.push("zoo/model", MODEL)
    found = client(
        run,
        f"""
from concurrent.futures import ThreadPoolExecutor
def commit(number):
    operations = add({{"config.json": b"%d" % number, f"{{number}}.txt": b""}})
    return failure(api.create_commit, "zoo/model", operations, commit_message="change", parent_commit={parent!r})
with ThreadPoolExecutor(8) as pool:
    result = list(pool.map(commit, range(8)))
""",
    )
    won = found.index(None)
    assert [one for one in found if one] == [["HfHubHTTPError", 412]] * 7
    changed = {
        "config.json": b"%d" % won,
        f"{won}.txt": b"",
        ".gitattributes": hub.files("zoo/model")[".gitattributes"],
    }
    assert hub.files("zoo/model") == MODEL | changed
    assert [commit.id for commit in hub.commits("zoo/model")][1] == parent


def test_deletions_are_part_of_the_commit_and_a_deleted_file_must_be_there(hub: Hub, run: Run) -> None:
    hub.push("zoo/model", MODEL)
    found = client(
        run,
        """
operations = add({"new.txt": b"new"}) + [CommitOperationDelete("onnx/"), CommitOperationDelete("config.json")]
api.create_commit("zoo/model", operations, commit_message="change")
result = failure(api.create_commit, "zoo/model", [CommitOperationDelete("config.json")], commit_message="change")
""",
    )
    assert found == ["RemoteEntryNotFoundError", 404]
    assert set(hub.files("zoo/model")) == {
        ".gitattributes", "README.md", "an empty file.bin", "model.safetensors", "new.txt"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("card", "message"),
    [
        ("license: nonsense", '"license" must be one of'),
        ("tags: [a: b: c]", "YAML syntax error"),
        ("tags: [1, 2]", '"tags" must be a list of strings'),
        ("model-index: [{name: a, results: [{task: {type: image-classification}}]}]", '"model-index" must name'),
    ],
)
def test_a_card_the_hub_would_refuse_is_refused(hub: Hub, card: str, message: str) -> None:
    body = json.dumps({"content": f"---\n{card}\n---\n", "repoType": "model"})
    status, _, answer = ask(f"{hub.url}/api/validate-yaml", "POST", body=body)
    assert status == 400
    assert message in json.loads(answer)["errors"][0]["message"]


def test_a_card_that_is_refused_stops_the_clients_commit(hub: Hub, run: Run) -> None:
    head = hub.push("zoo/model", MODEL)
    card = {"README.md": b"---\nlicense: nonsense\n---\n"}
    assert client(run, f'result = failure(api.create_commit, "zoo/model", add({card!r}), commit_message="change")') == [
        "ValueError",
        False,
    ]
    assert hub.head("zoo/model") == head


def test_each_refusal_is_the_clients_own_exception(hub: Hub, run: Run) -> None:
    for repo in ("zoo/open", "zoo/private", "zoo/gated"):
        hub.push(repo, MODEL)
    hub.make_private("zoo/private")
    hub.gate("zoo/gated")
    found = client(
        run,
        """
new = add({"a": b"b"})
get, tree, info = api.hf_hub_download, lambda *a, **b: list(api.list_repo_tree(*a, **b)), api.model_info
result = {
    "missing": failure(get, "zoo/missing", "config.json", token=False),
    "missing, to a user": failure(info, "zoo/missing", token="hf_other"),
    "private": failure(get, "zoo/private", "config.json", token=False),
    "private, to another": failure(tree, "zoo/private", token="hf_other"),
    "private, to its owner": failure(get, "zoo/private", "config.json"),
    "gated": failure(get, "zoo/gated", "model.safetensors", token=False),
    "gated, to another": failure(tree, "zoo/gated", token="hf_other"),
    "gated, to its owner": failure(get, "zoo/gated", "model.safetensors"),
    "revision": failure(get, "zoo/open", "config.json", revision="v9"),
    "revision of a tree": failure(tree, "zoo/open", revision="0" * 40),
    "file": failure(get, "zoo/open", "config.yaml"),
    "folder": failure(tree, "zoo/open", "nowhere"),
    "tag": failure(api.delete_tag, "zoo/open", tag="v9"),
    "wrong token": failure(info, "zoo/open", token="hf_wrong"),
    "wrong token, whoami": failure(api.whoami, token="hf_wrong"),
    "write, as nobody": failure(api.create_tag, "zoo/open", tag="v1", token=False),
    "write, read-only": failure(api.create_tag, "zoo/open", tag="v1", token="hf_read"),
    "create, read-only": failure(api.create_repo, "zoo/new", token="hf_read"),
    "create, elsewhere": failure(api.create_repo, "other/new"),
    "commit, as another": failure(api.create_commit, "zoo/open", new, commit_message="change", token="hf_other"),
}
""",
    )
    assert found == {
        "missing": ["RepositoryNotFoundError", 401],
        "missing, to a user": ["RepositoryNotFoundError", 404],
        "private": ["RepositoryNotFoundError", 401],
        "private, to another": ["RepositoryNotFoundError", 404],
        "private, to its owner": None,
        "gated": ["GatedRepoError", 401],
        "gated, to another": ["GatedRepoError", 403],
        "gated, to its owner": None,
        "revision": ["RevisionNotFoundError", 404],
        "revision of a tree": ["RevisionNotFoundError", 404],
        "file": ["RemoteEntryNotFoundError", 404],
        "folder": ["RemoteEntryNotFoundError", 404],
        "tag": ["RevisionNotFoundError", 404],
        "wrong token": ["HfHubHTTPError", 401],
        "wrong token, whoami": ["HfHubHTTPError", 401],
        "write, as nobody": ["RepositoryNotFoundError", 401],
        "write, read-only": ["HfHubHTTPError", 403],
        "create, read-only": ["HfHubHTTPError", 403],
        "create, elsewhere": ["HfHubHTTPError", 403],
        "commit, as another": ["HfHubHTTPError", 403],
    }
    assert hub.tags("zoo/open") == {}
    assert hub.head("zoo/new") is None


def test_a_commit_that_cannot_be_finished_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path)
    store.create("zoo/model")
    old = store.commits("zoo/model")

    def full(path: Path, target: Path) -> None:
        raise OSError(28, "No space left on device", str(target))

    file = store.regular(b"new")
    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        store.commit("zoo/model", {"config.json": file}, message="")
    assert store.commits("zoo/model") == old


def test_content_with_another_hash_is_not_kept(hub: Hub) -> None:
    sha256 = hashlib.sha256(b"content").hexdigest()
    assert ask(f"{hub.api.cdn}/upload/{sha256}", "PUT", body=b"CONTENT")[0] == 400
    assert hub.store.lfs(sha256, len(b"content")) is None


def test_a_process_of_the_hub_is_online_and_knows_no_other_cache(hub: Hub, run: Run, tmp_path: Path) -> None:
    assert os.environ["HF_HUB_OFFLINE"] == "1"
    found = client(run, "result = [api.endpoint, constants.is_offline_mode(), constants.HF_HUB_CACHE]")
    assert found == [hub.url, False, str(tmp_path / "home" / "hub")]
    assert client(run, "result = failure(api.whoami)", token=None) == ["LocalTokenNotFoundError", False]


def test_a_folder_is_served_by_hand(tmp_path: Path) -> None:
    with Hub(tmp_path) as hub:
        hub.push("zoo/model", MODEL)
    command = [sys.executable, str(Path(__file__).with_name("server.py")), str(tmp_path), "--token", "hf_mine"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        url = process.stdout.readline().strip()
        try:
            assert ask(f"{url}/zoo/model/resolve/main/config.json")[::2] == (200, MODEL["config.json"])
            assert ask(f"{url}/api/whoami-v2", headers={"Authorization": "Bearer hf_mine"})[0] == 200
        finally:
            process.send_signal(signal.SIGINT)
    assert process.returncode == 0
