"""`vtzoo recipe show` and `vtzoo recipe copy`."""

import hashlib
import json
import tomllib
from collections.abc import Callable
from pathlib import Path
from unittest.mock import Mock

from typer.testing import Result

from vtzoo.zoo import resources

Command = Callable[..., Result]


def test_recipe_show_prints_the_file_and_tells_its_size_on_stderr(vt: Command) -> None:
    result = vt("recipe", "show", "swin_t-drloc-svhn")
    path = resources.recipes_folder() / "swin_t-drloc-svhn.toml"
    assert result.stdout == path.read_text()
    assert result.stderr == (
        f"{path}: 200 epochs of 73,257 images of svhn, 114,400 optimizer steps of 128 images with adamw\n"
    )


def test_recipe_show_tells_of_muon_and_of_the_teacher(vt: Command, tmp_path: Path) -> None:
    text = (resources.recipes_folder() / "paper" / "swin_t-drloc-cifar100-paper.toml").read_text()
    muon = '[optimizer]\nname = "muon"\nmomentum = 0.95\niterations = 5\nadamw_learning_rate = 0.002'
    taught = '[teacher]\nname = "small_cnn-baseline-cifar100"\nweight = 0.8\ntemperature = 2.0\n\n[drloc]'
    (tmp_path / "my.toml").write_text(text.replace("[optimizer]", muon).replace("[drloc]", taught))
    result = vt("recipe", "show", tmp_path / "my.toml")
    assert result.stderr.endswith(" images with muon, taught by small_cnn-baseline-cifar100\n")
    found = json.loads(vt("recipe", "show", tmp_path / "my.toml", "--json").stdout)
    assert (found["optimizer"], found["teacher"]) == ("muon", "small_cnn-baseline-cifar100")


def test_recipe_show_json_says_what_the_file_says(vt: Command) -> None:
    found = json.loads(vt("recipe", "show", "swin_t-baseline-svhn", "--json").stdout)
    path = resources.recipes_folder() / "swin_t-baseline-svhn.toml"
    said = tomllib.loads(path.read_text())
    assert {key for key, value in found["recipe"].items() if value is None} == {"drloc", "finetune", "teacher"}
    for name, table in said.items():  # a key that a recipe leaves out is null
        shown = found["recipe"][name]
        if isinstance(table, dict):
            shown = {key: value for key, value in shown.items() if value is not None}
        assert shown == table
    assert found["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (found["steps"], found["batch"], found["images"], found["file"]) == (114_400, 128, 73_257, str(path))


def test_recipe_copy_writes_a_file_that_train_takes_and_says_what_to_type_next(
    vt: Command, trained: Mock, tmp_path: Path
) -> None:
    file = tmp_path / "my.toml"
    result = vt("recipe", "copy", "swin_t-drloc-cifar100", file)
    assert result.stdout == f"{file}: a copy of swin_t-drloc-cifar100\nnext: edit it, then vtzoo train {file}\n"
    assert (result.exit_code, result.stderr) == (0, "")
    assert vt("train", file).exit_code == 0
    assert trained.call_args.args == (file,)


def test_recipe_copy_overwrites_nothing_and_names_the_next_commands(vt: Command, tmp_path: Path) -> None:
    file = tmp_path / "my.toml"
    file.write_text("mine")
    result = vt("recipe", "copy", "swin_t-drloc-cifar100", file)
    assert (result.exit_code, result.stdout, file.read_text()) == (1, "", "mine")
    assert result.stderr == (
        f"Error: {file} exists already\nHint: vtzoo train {file} trains it; "
        "vtzoo recipe copy swin_t-drloc-cifar100 OTHER.toml makes another copy\n"
    )
