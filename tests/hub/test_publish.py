"""`vtzoo publish` with the real client against a local Hub: a complete commit or none."""

import hashlib
import json
import shutil
import tomllib
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import numpy as np
import pytest
from folders import NAME, sign
from safetensors.numpy import load_file, save_file
from server import Hub

from vtzoo.cli import DEFAULT_MODEL

REPO = f"zoo/{NAME}"
FILES = {
    "model.safetensors", "onnx/model.onnx", "config.json", "recipe.toml", "result.json", "curves.png", "README.md",
    "localizer.safetensors",
}  # fmt: skip
Vt = Callable[..., CompletedProcess[str]]


def change(folder: Path) -> None:
    """Change a number in the run's result.json."""
    facts = json.loads((folder / "result.json").read_text())
    sign(folder, facts | {"steps": facts["steps"] + 1})


def refusal(done: CompletedProcess[str]) -> str:
    assert done.returncode == 1
    return done.stderr


def test_one_commit_holds_the_whole_folder_and_the_tag_and_the_index_name_it(hub: Hub, vt: Vt, folder: Path) -> None:
    done = vt("publish", folder, "--org", "zoo", "--json")
    told = json.loads(done.stdout)
    assert len(hub.commits(REPO)) == 2  # the repository's first commit, and vtzoo's
    files = hub.files(REPO)
    assert files.keys() == FILES | {".gitattributes"}
    for path in ("model.safetensors", "config.json", "recipe.toml", "curves.png", "localizer.safetensors"):
        assert files[path] == (folder / path).read_bytes(), path
    assert hub.tags(REPO) == {"v1.0": hub.head(REPO)} == {"v1.0": told["revision"]}
    (entry,) = tomllib.loads((folder.parent / "index.toml").read_text()).values()
    assert (entry["repo"], entry["revision"], entry["tag"]) == (REPO, hub.head(REPO), "v1.0")
    assert {path: one["size"] for path, one in entry["files"].items()} == {path: len(files[path]) for path in FILES}
    assert {path: one["sha256"] for path, one in entry["files"].items()} == {
        path: sha256(files[path]) for path in FILES
    }


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def test_the_published_result_names_the_hashes_of_the_published_weights(hub: Hub, vt: Vt, folder: Path) -> None:
    vt("publish", folder, "--org", "zoo")
    files = hub.files(REPO)
    weights = json.loads(files["result.json"])["weights"]
    assert weights == {path: sha256(files[path]) for path in weights}
    assert weights.keys() == {"model.safetensors", "onnx/model.onnx", "localizer.safetensors"}


def test_the_published_card_says_where_the_model_is(hub: Hub, vt: Vt, folder: Path) -> None:
    vt("publish", folder, "--org", "zoo")
    assert f'timm.create_model("hf-hub:{REPO}", pretrained=True)' in hub.files(REPO)["README.md"].decode()


def test_publishing_again_sends_nothing_and_makes_no_commit(hub: Hub, vt: Vt, folder: Path) -> None:
    first = vt("publish", folder, "--org", "zoo")
    (folder.parent / "index.toml").unlink()
    hub.requests.clear()
    again = vt("publish", folder, "--org", "zoo")
    assert again.stdout == first.stdout
    assert len(hub.commits(REPO)) == 2
    assert not [path for method, path, _ in hub.requests if method == "PUT" or "/commit/" in path]
    assert tomllib.loads((folder.parent / "index.toml").read_text())[NAME]["revision"] == hub.head(REPO)


def test_a_tag_never_comes_to_stand_for_other_files(hub: Hub, vt: Vt, folder: Path) -> None:
    vt("publish", folder, "--org", "zoo")
    head = hub.head(REPO)
    change(folder)
    assert f"the tag v1.0 of {REPO} stands for other files" in refusal(
        vt("publish", folder, "--org", "zoo", check=False)
    )
    assert hub.head(REPO) == head
    vt("publish", folder, "--org", "zoo", "--tag", "v1.1")
    assert hub.tags(REPO) == {"v1.0": head, "v1.1": hub.head(REPO)}
    assert hub.head(REPO) != head


def test_what_the_folder_no_longer_has_is_gone_and_what_is_none_of_ours_stays(hub: Hub, vt: Vt, folder: Path) -> None:
    vt("publish", folder, "--org", "zoo")
    hub.push(REPO, {"notes.txt": b"somebody's own"})
    (folder / "localizer.safetensors").unlink()
    sign(folder)
    vt("publish", folder, "--org", "zoo", "--tag", "v1.1")
    assert hub.files(REPO).keys() == FILES - {"localizer.safetensors"} | {".gitattributes", "notes.txt"}


def test_a_dry_run_shows_files_sizes_and_the_card_and_sends_nothing(hub: Hub, vt: Vt, folder: Path) -> None:
    told = vt("publish", folder, "--org", "zoo", "--dry-run", token=None).stdout
    for path in FILES:
        assert path in told
    assert f"{(folder / 'config.json').stat().st_size:,} bytes  config.json" in told
    assert "library_name: timm" in told
    assert hub.requests == []
    assert not (folder.parent / "index.toml").exists()
    as_json = json.loads(vt("publish", folder, "--org", "zoo", "--dry-run", "--json", token=None).stdout)
    assert as_json["files"].keys() == FILES
    assert as_json["card"] in told


def test_an_embedded_model_is_published_by_its_name(hub: Hub, vt: Vt, tmp_path: Path) -> None:
    told = json.loads(vt("publish", DEFAULT_MODEL, "--org", "zoo", "--dry-run", "--json").stdout)
    assert told["repo"] == f"zoo/{DEFAULT_MODEL}"
    index = tmp_path / "deep" / "zoo.toml"
    vt("publish", DEFAULT_MODEL, "--org", "zoo", "--index", index)
    assert tomllib.loads(index.read_text())[DEFAULT_MODEL]["revision"] == hub.head(f"zoo/{DEFAULT_MODEL}")


ALL = """
import sys
from pathlib import Path

from vtzoo import cli
from vtzoo.zoo import resources

resources.weights_folder = lambda: Path(sys.argv[1])
cli.app(["publish", "--all", *sys.argv[2:]])
"""


def test_all_models_with_weights_are_published_and_a_record_is_told(
    hub: Hub, run: Vt, folder: Path, tmp_path: Path
) -> None:
    weights = tmp_path / "weights"
    another = shutil.copytree(folder, weights / "another")
    shutil.move(folder, weights / NAME)
    record = weights / "swin_t-baseline-cifar10"
    record.mkdir()
    shutil.copy(another / "result.json", record)
    recipe = (another / "recipe.toml").read_text().replace(NAME, "another-drloc-cifar10")
    (another / "recipe.toml").write_text(recipe)
    facts = json.loads((another / "result.json").read_text()) | {"name": "another-drloc-cifar10"}
    sign(another, facts | {"recipe_sha256": sha256(recipe.encode())})
    index = tmp_path / "index.toml"
    done = run(ALL, weights, "--org", "zoo", "--index", index, "--json")
    assert (done.returncode, done.stderr) == (0, f"{record.name} is a record without weights: not published\n")
    names = ["another-drloc-cifar10", NAME]
    told = [(row["repo"], row["revision"]) for row in json.loads(done.stdout)]
    assert told == [(f"zoo/{name}", hub.head(f"zoo/{name}")) for name in names]
    assert tomllib.loads(index.read_text()).keys() == set(names)
    hub.requests.clear()
    assert run(ALL, weights, "--org", "zoo", "--index", index, "--json").stdout == done.stdout
    assert not [path for method, path, _ in hub.requests if method == "PUT" or "/commit/" in path]


def test_all_of_no_models_is_a_sentence(run: Vt, tmp_path: Path) -> None:
    done = run(ALL, tmp_path, "--org", "zoo")
    assert "there are no weights of any embedded model here" in refusal(done)


@pytest.mark.parametrize("runs", [[], ["--all", DEFAULT_MODEL]])
def test_runs_or_all_are_named_and_not_both_or_neither(runs: list[str], vt: Vt) -> None:
    done = vt("publish", *runs, "--org", "zoo", check=False)
    assert (done.returncode, "name the runs to publish, or publish --all" in done.stderr) == (2, True)


def test_the_index_keeps_its_other_models(hub: Hub, vt: Vt, folder: Path, tmp_path: Path) -> None:
    vt("publish", folder, "--org", "zoo")
    vt("publish", DEFAULT_MODEL, "--org", "zoo", "--index", folder.parent / "index.toml")
    assert tomllib.loads((folder.parent / "index.toml").read_text()).keys() == {NAME, DEFAULT_MODEL}


def test_a_private_repository_is_made_so_and_a_public_one_is_not_taken_for_it(hub: Hub, vt: Vt, folder: Path) -> None:
    vt("publish", folder, "--org", "zoo", "--private")
    assert "or it is private" in refusal(vt("pull", REPO, token=None, check=False))
    hub.push("ada/" + NAME, {"a.txt": b"public"})
    assert "exists and is public" in refusal(vt("publish", folder, "--org", "ada", "--private", check=False))
    assert hub.files("ada/" + NAME).keys() == {".gitattributes", "a.txt"}


def poison(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    name = next(iter(weights))
    weights[name].flat[0] = np.nan
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    sign(folder)


def lose(*keys: str) -> Callable[[Path], None]:
    def lost(folder: Path) -> None:
        facts = json.loads((folder / "result.json").read_text())
        (folder / "result.json").write_text(json.dumps({key: facts[key] for key in facts if key not in keys}))

    return lost


def edit_recipe(folder: Path) -> None:
    (folder / "recipe.toml").write_text((folder / "recipe.toml").read_text() + "\n")


def flip(folder: Path) -> None:
    content = bytearray((folder / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (folder / "model.safetensors").write_bytes(content)


def link_out(folder: Path) -> None:
    (folder.parent / "secret").write_text("of the user's")
    (folder / "curves.png").unlink()
    (folder / "curves.png").symlink_to(folder.parent / "secret")


def claim(folder: Path) -> None:
    sign(folder, json.loads((folder / "result.json").read_text()) | {"top1": 25.0})


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lose("top1", "manifest"), "has no top1, manifest: no model is published without its metrics"),
        (claim, "an accuracy outside 0..1"),
        (poison, "holds NaN or infinity"),
        (edit_recipe, "is not the recipe that the run was trained by"),
        (flip, "does not have the sha256 that its result.json names"),
        (link_out, "leads out of its model folder: refused"),
        (lambda folder: (folder / "curves.png").unlink(), "curves.png: No such file"),
        (lambda folder: (folder / "result.json").unlink(), "has no readable result.json"),
        (lambda folder: shutil.rmtree(folder), "unknown model"),
    ],
    ids=["metrics", "percentage", "nan", "recipe", "flipped", "symlink", "curves", "result", "folder"],
)
def test_a_folder_that_is_not_whole_and_sound_is_refused_before_anything_is_sent(
    damage: Callable[[Path], None], said: str, hub: Hub, vt: Vt, folder: Path
) -> None:
    damage(folder)
    assert said in refusal(vt("publish", folder, "--org", "zoo", check=False))
    assert hub.requests == []


def test_names_that_no_repository_or_tag_can_have_are_refused(hub: Hub, vt: Vt, folder: Path) -> None:
    assert "is not the name of a repository" in refusal(vt("publish", folder, "--org", "../zoo", check=False))
    assert "is not the name of a tag" in refusal(vt("publish", folder, "--org", "zoo", "--tag", "a b", check=False))
    assert hub.requests == []


@pytest.mark.parametrize(("token", "said"), [(None, "does not"), ("hf_wrong", "does not"), ("hf_read", "not allow")])
def test_a_token_that_is_missing_wrong_or_read_only_is_a_sentence(
    token: str | None, said: str, hub: Hub, vt: Vt, folder: Path
) -> None:
    told = refusal(vt("publish", folder, "--org", "zoo", token=token, check=False))
    assert said in told
    assert "hf auth login" in told
    assert hub.head(REPO) is None


@pytest.mark.parametrize(
    ("kind", "pattern"),
    [
        ("lost", "POST .*/commit/"), ("lost", "POST .*/tag/"), ("lost", "POST .*/repos/create"), ("lost", "PUT "),
        ("503", "POST .*/commit/"), ("reset", "POST .*/commit/"), ("500", "PUT "), ("429", "POST .*/preupload/"),
        ("502", "GET .*/tree/"), ("reset", "GET .*/refs"), ("504", "POST .*info/lfs"), ("500", "POST .*validate-yaml"),
    ],
)  # fmt: skip
def test_a_passing_fault_costs_a_moment_and_no_second_commit(
    kind: str, pattern: str, hub: Hub, vt: Vt, folder: Path
) -> None:
    hub.fault(kind, pattern)
    vt("publish", folder, "--org", "zoo")
    assert hub.faults == []
    assert len(hub.commits(REPO)) == 2
    assert hub.tags(REPO) == {"v1.0": hub.head(REPO)}


def test_a_fault_that_lasts_is_a_sentence_and_leaves_nothing(hub: Hub, vt: Vt, folder: Path) -> None:
    hub.fault("503", "POST .*/commit/", times=100)
    failed = vt("publish", folder, "--org", "zoo", check=False, hurried=True)
    assert "answers 503, again and again" in refusal(failed)
    assert hub.files(REPO).keys() == {".gitattributes"}
    assert not (folder.parent / "index.toml").exists()
    hub.clear_faults()
    vt("publish", folder, "--org", "zoo")
    assert hub.tags(REPO) == {"v1.0": hub.head(REPO)}


def test_one_command_publishes_several_models_and_one_pulls_them(
    hub: Hub, vt: Vt, folder: Path, tmp_path: Path
) -> None:
    told = json.loads(vt("publish", folder, DEFAULT_MODEL, "--org", "zoo", "--json", "--index", tmp_path / "i").stdout)
    names = [NAME, DEFAULT_MODEL]
    assert [row["revision"] for row in told] == [hub.head(f"zoo/{name}") for name in names]
    assert tomllib.loads((tmp_path / "i").read_text()).keys() == set(names)
    pulled = json.loads(vt("pull", *(f"zoo/{name}" for name in names), "--json").stdout)
    assert [(row["name"], len(row["files"])) for row in pulled] == [(name, 8) for name in names]
    refused = vt("pull", *(f"zoo/{name}" for name in names), "--local-dir", tmp_path / "own", check=False)
    assert "--local-dir takes one model, not 2" in refusal(refused)
