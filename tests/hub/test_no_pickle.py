"""No command reads a pickle: each planted pickle would create a marker if it were read."""

import io
import json
import os
import pickle
import shutil
from collections.abc import Callable
from itertools import product
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import datasets as its
import numpy as np
import pytest
import torch
from folders import NAME, pixels, sign
from server import Hub

from vtzoo.data import named
from vtzoo.publish import commit as publish
from vtzoo.zoo import resources

REPO = f"zoo/{NAME}"
BESIDE = (
    "pytorch_model.bin", "model.bin", "model.pt", "model.pth", "checkpoint.pth.tar", "weights.pkl", "data.npy",
    "onnx/model.pkl", "optimizer.pt", "training_args.bin",
)  # fmt: skip
# Commands in one process, each with its exit code and what it said; a data set of 24 images counts as the whole.
PROGRAM = """
import contextlib, dataclasses, io, json, sys, traceback
from vtzoo.data import named
from vtzoo.cli import app
named.DATASETS["cifar10"] = dataclasses.replace(named.named_set("cifar10"), train=24, test=20)
def run(arguments):
    told, errors = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(told), contextlib.redirect_stderr(errors):
        try:
            code = app(arguments, prog_name="vtzoo") or 0
        except SystemExit as end:
            code = end.code
        except BaseException:
            code = traceback.format_exc()
    return code, told.getvalue(), errors.getvalue()
print(json.dumps([run(arguments) for arguments in COMMANDS]))
"""
Run = Callable[..., CompletedProcess[str]]
Ends = list[tuple[int | str, str, str]]


class Bomb:
    """An object whose unpickling creates a folder."""

    def __init__(self, marker: Path) -> None:
        self.marker = str(marker)

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self.marker,)


def zipped(bomb: Bomb) -> bytes:
    stream = io.BytesIO()
    torch.save({"head.weight": bomb, "head.bias": torch.ones(3)}, stream)
    return stream.getvalue()


def legacy(bomb: Bomb) -> bytes:
    stream = io.BytesIO()
    torch.save({"head.weight": bomb}, stream, _use_new_zipfile_serialization=False)
    return stream.getvalue()


def array(bomb: Bomb) -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.array([bomb], dtype=object), allow_pickle=True)
    return stream.getvalue()


def by_torch(content: bytes) -> object:
    return torch.load(io.BytesIO(content), weights_only=False)


KINDS: dict[str, tuple[Callable[[Bomb], bytes], Callable[[bytes], object]]] = {
    "pickle": (pickle.dumps, pickle.loads), "zip": (zipped, by_torch), "legacy": (legacy, by_torch),
    "npy": (array, lambda content: np.load(io.BytesIO(content), allow_pickle=True)),
}  # fmt: skip


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    return tmp_path / "it went off"


@pytest.fixture
def bomb(marker: Path) -> bytes:
    return pickle.dumps(Bomb(marker))


@pytest.fixture
def run_all(run: Run, marker: Path) -> Callable[..., Ends]:
    """The exit code and output of each of many commands; they end in sentences, and read no pickle."""

    def run_all(*commands: list[object], **variables: str) -> Ends:
        done = run(f"COMMANDS = {[[str(one) for one in command] for command in commands]}\n{PROGRAM}", **variables)
        assert done.returncode == 0, done.stderr
        ends: Ends = json.loads(done.stdout.splitlines()[-1])
        for command, (code, _, errors) in zip(commands, ends, strict=True):
            assert code in (0, 1), f"{command}: {code}"
            assert "\nError: " in f"\n{errors}" or code == 0, f"{command}: {errors}"
        assert not marker.exists()
        return ends

    return run_all


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of noise in CIFAR-10's files: 24 training images, 20 test images."""
    folder = tmp_path_factory.mktemp("data")
    features = its.Features({"img": its.Image(), "label": its.ClassLabel(names=list(named.labels("cifar10") or ()))})
    for split, count in (("train", 24), ("test", 20)):
        rows = {"img": [pixels(number).resize((32, 32)) for number in range(count)], "label": [0] * count}
        its.Dataset.from_dict(rows, features=features).to_parquet(folder / f"{split}-00000-of-00001.parquet")
    return folder


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    pixels(0).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def plant(folder: Path, bomb: bytes) -> None:
    for name in BESIDE:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(bomb)


def uses(model: object, photo: Path, data: Path, out: Path) -> list[list[object]]:
    """Commands that read a model in every way in which a model on the Hub can be read."""
    predict, evaluate = ["predict", photo, "--model", model], ["evaluate", "--model", model, "--data", data]
    return [
        [*predict, "--backend", "onnx"], [*predict, "--backend", "torch"], [*evaluate, "--backend", "onnx"],
        [*evaluate, "--backend", "torch"], ["show", model], ["card", model], ["verify", model],
        ["pull", model], ["export", "--model", model, "--onnx", out],
    ]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_planted_here_does_go_off(kind: str, marker: Path) -> None:
    """A proof that the tests below can fail."""
    make, load = KINDS[kind]
    content = make(Bomb(marker))
    assert not marker.exists()
    load(content)
    assert marker.exists()


def test_a_pickle_beside_the_weights_is_neither_read_nor_sent_nor_downloaded(
    hub: Hub, run_all: Callable[..., Ends], folder: Path, photo: Path, data: Path, bomb: bytes, tmp_path: Path
) -> None:
    files = publish.prepare(folder, "zoo").files
    commit = hub.push(REPO, files | dict.fromkeys(BESIDE, bomb))
    own, snapshot = tmp_path / "own", tmp_path / "home" / "hub" / f"models--zoo--{NAME}" / "snapshots" / commit
    for place in (folder, own, snapshot):
        place.mkdir(parents=True, exist_ok=True)
        plant(place, bomb)
    sent = ["publish", folder, "--org", "ada"]
    commands = [["pull", REPO, "--local-dir", own], *uses(REPO, photo, data, tmp_path / "out.onnx"), sent]
    for place in (own, folder):  # without the slow export
        commands += uses(place, photo, data, tmp_path)[:-1]
    ends = run_all(*commands)
    assert [errors for code, _, errors in ends if code] == []
    assert hub.files(f"ada/{NAME}").keys() == {*files, ".gitattributes"}
    assert not [path for _, path, _ in hub.requests if path.endswith(BESIDE)]


def test_a_repository_with_pickled_weights_alone_is_refused_and_they_are_never_downloaded(
    hub: Hub, run_all: Callable[..., Ends], files: dict[str, bytes], photo: Path, bomb: bytes, tmp_path: Path
) -> None:
    hub.push(REPO, {"config.json": files["config.json"], "pytorch_model.bin": bomb})
    (tmp_path / "run" / "onnx").mkdir(parents=True)
    (tmp_path / "run" / "config.json").write_bytes(files["config.json"])
    (tmp_path / "run" / "pytorch_model.bin").write_bytes(bomb)
    commands: list[list[object]] = []
    for model in (REPO, tmp_path / "run"):
        predict = ["predict", photo, "--model", model]
        commands += [predict, [*predict, "--backend", "torch"], ["export", "--model", model, "--onnx", "x.onnx"]]
    for code, _, errors in run_all(*commands):
        assert code == 1
        assert "pickle" in errors
    assert not [path for _, path, _ in hub.requests if "pytorch_model" in path]


NEEDED = {  # the file, and the commands that cannot do without: by their first word and, where one is named, backend
    "model.safetensors": ("predict onnx", "predict torch", "evaluate onnx", "evaluate torch", "export", "publish"),
    "onnx/model.onnx": ("predict onnx", "evaluate onnx", "publish"),
    "localizer.safetensors": ("publish",),
    "config.json": ("predict onnx", "predict torch", "evaluate onnx", "evaluate torch", "show", "export", "publish"),
    "result.json": ("predict onnx", "evaluate onnx", "evaluate torch", "card", "verify", "publish"),
    "recipe.toml": ("card", "publish", "train"),
    "curves.png": ("publish",),
    "README.md": (),
}


def spot(kind: str, path: str) -> str:
    """The folder in which a pickle of that kind lies under that name; it does not hold the name itself."""
    return f"{kind}-{list(NEEDED).index(path)}-"


def word(command: list[object]) -> str:
    """A command as it is called above."""
    return " ".join(str(one) for one in command[:1] + (command[-1:] if "--backend" in command else []))


def test_a_pickle_under_a_models_own_file_names_is_refused_by_name(
    run_all: Callable[..., Ends], folder: Path, photo: Path, data: Path, marker: Path, tmp_path: Path
) -> None:
    commands: list[list[object]] = []
    needed: dict[str, set[tuple[str, str]]] = {path: set() for path in NEEDED}
    for kind, path in product(KINDS, NEEDED):
        place = shutil.copytree(folder, tmp_path / spot(kind, path) / NAME)
        (place / path).write_bytes(KINDS[kind][0](Bomb(marker)))
        if path != "result.json":
            sign(place)  # the hash is right, so the content must be refused
        # One kind is tested with all commands; the others skip the slow commands that read a model like predict.
        words = [one for one in NEEDED[path] if kind == "pickle" or not one.startswith("evaluate")]
        ours = [*uses(place, photo, data, tmp_path / "out.onnx"), ["publish", place, "--org", "zoo"]]
        ours.append(["train", place / "recipe.toml", "--out", tmp_path / "no"])
        commands += [one for one in ours if one[0] in ("show", "publish") or word(one) in words]
        needed[path] |= {(kind, one) for one in words}
    met: dict[str, set[tuple[str, str]]] = {path: set() for path in NEEDED}
    for command, (code, _, errors) in zip(commands, run_all(*commands), strict=True):
        ((kind, path),) = (one for one in product(KINDS, NEEDED) if spot(*one) in " ".join(map(str, command)))
        if code:
            met[path].add((kind, word(command)))
            assert path in errors, command
    assert {path: needed[path] - met[path] for path in NEEDED} == {path: set() for path in NEEDED}


def test_a_pickle_that_the_hub_has_under_the_name_of_a_file_is_refused_by_name(
    hub: Hub, run_all: Callable[..., Ends], files: dict[str, bytes], photo: Path, bomb: bytes
) -> None:
    paths = ("model.safetensors", "onnx/model.onnx", "config.json", "result.json")
    commands: list[list[object]] = []
    for number, path in enumerate(paths):
        hub.push(f"zoo/m{number}", files | {path: bomb})
        backend = "torch" if path == "model.safetensors" else "onnx"
        commands.append(["predict", photo, "--model", f"zoo/m{number}", "--backend", backend])
    for path, (code, _, errors) in zip(paths, run_all(*commands), strict=True):
        assert code == (path != "result.json"), errors  # not read, because the commit has the hashes
        assert path in errors or not code


def test_pickled_notes_references_and_indices_are_not_read(
    hub: Hub, run_all: Callable[..., Ends], files: dict[str, bytes], folder: Path, bomb: bytes, tmp_path: Path
) -> None:
    hub.push(REPO, files)
    storage, index = tmp_path / "home" / "hub" / f"models--zoo--{NAME}", tmp_path / "index.toml"
    index.write_bytes(bomb)
    commands = [["pull", REPO], ["verify", REPO], ["verify"]]
    assert [errors for code, _, errors in run_all(*commands) if code] == []
    assert (storage / "vtzoo" / "main.toml").is_file()
    (storage / "refs").mkdir()  # the folder in which other programs store the commit of a branch
    for name in ("vtzoo/main.toml", "refs/main"):
        (storage / name).write_bytes(bomb)
    ends = run_all(*commands[1:], HF_HUB_OFFLINE="1")
    assert [code for code, _, _ in ends] == [1, 0]
    assert [errors for code, _, errors in run_all(*commands) if code] == []
    for code, _, errors in run_all(["pull", "a-model"], ["list"], VTZOO_INDEX=str(index)):
        assert code == 1
        assert f"{index} is not an index" in errors
    hub.requests.clear()
    ((code, _, errors),) = run_all(["publish", folder, "--org", "zoo", "--index", index])
    assert code == 1
    assert f"{index} is not an index" in errors
    assert hub.requests == []  # refused before anything is sent


def test_a_pickled_checkpoint_and_a_pickled_cache_are_not_read(
    run_all: Callable[..., Ends], data: Path, marker: Path, tmp_path: Path
) -> None:
    contents = {kind: make(Bomb(marker)) for kind, (make, _) in KINDS.items()}
    train = ["train", resources.recipes_folder() / f"{NAME}-untaught.toml", "--data", data, "--resume", "--out"]
    for kind, content in contents.items():
        (tmp_path / kind).mkdir()
        (tmp_path / kind / "checkpoint.safetensors").write_bytes(content)
        plant(tmp_path / kind, content)
    for kind, (code, _, errors) in zip(KINDS, run_all(*([*train, tmp_path / kind] for kind in KINDS)), strict=True):
        assert code == 1
        assert f"cannot read the checkpoint {tmp_path / kind / 'checkpoint.safetensors'}" in errors
    cache = tmp_path / "home" / "vtzoo"
    whole = {stored: stored.read_bytes() for stored in cache.glob("*.safetensors")}
    for kind, stored in zip(("pickle", "zip"), whole, strict=True):  # the training images' and the test images'
        stored.write_bytes(contents[kind])
        plant(cache, contents[kind])
    run_all([*train, tmp_path / "pickle"])
    assert {stored: stored.read_bytes() for stored in whole} == whole  # built anew
