"""`vtzoo train`: its settings, its output, and the options that belong into a copy of the recipe."""

import json
import tomllib
from collections.abc import Callable
from pathlib import Path
from unittest.mock import Mock

import pytest
from typer.testing import Result

from vtzoo.cli.train import KEYS
from vtzoo.zoo import resources

Command = Callable[..., Result]


def test_train_passes_its_options_on_and_prints_the_accuracy(vt: Command, trained: Mock, tmp_path: Path) -> None:
    out = tmp_path / "run"
    result = vt("train", "swin_t-drloc-cifar100", "--data", tmp_path, "--out", out, "--seed", 3, "--resume")
    (path,), settings = trained.call_args
    assert path == resources.recipes_folder() / "swin_t-drloc-cifar100.toml"
    report = settings.pop("progress")
    assert callable(report)
    assert settings == {
        "data": tmp_path, "out": out, "seed": 3, "device": "auto", "resume": True,
        "accumulate": 1, "compiled": False, "workers": None, "skip_bad": False, "teacher": None,
    }  # fmt: skip
    assert result.stdout == (
        f"{out}: top-1 61.23%, top-5 100.00% on 10,000 test images\nnext: vtzoo predict --model {out} photo.jpg\n"
    )
    assert (result.exit_code, result.stderr) == (0, "")


def test_train_writes_into_runs_by_default_and_prints_the_result_as_json(vt: Command, trained: Mock) -> None:
    result = vt("train", "swin_t-drloc-cifar100", "--json")
    assert trained.call_args.kwargs["out"] == Path("runs/swin_t-drloc-cifar100")
    assert json.loads(result.stdout) == trained.return_value.as_json()


def test_train_passes_on_how_to_run_which_changes_no_recipe(vt: Command, trained: Mock) -> None:
    options = ("--accumulate", 4, "--compile", "--workers", 2, "--skip-bad", "--teacher", "runs/teacher")
    assert vt("train", "swin_t-drloc-cifar100", *options).exit_code == 0
    how = {"accumulate": 4, "compiled": True, "workers": 2, "skip_bad": True, "teacher": Path("runs/teacher")}
    assert how.items() <= trained.call_args.kwargs.items()


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_train_prints_nothing_in_the_processes_that_have_no_result(
    vt: Command, trained: Mock, options: list[str]
) -> None:
    trained.return_value = None
    result = vt("train", "swin_t-drloc-cifar100", *options)
    assert (result.exit_code, result.output) == (0, "")


def test_the_help_of_train_says_how_to_use_several_gpus_in_one_line(vt: Command) -> None:
    lines = [line.strip() for line in vt("train", "--help").stdout.splitlines()]
    assert "On several GPUs: torchrun --nproc-per-node N -m vtzoo train RECIPE" in lines


@pytest.mark.parametrize(
    ("options", "message", "keys"),
    [
        (["--epochs", "10"], "--epochs", "schedule.epochs = 10 and schedule.cosine_epochs = 10"),
        (["--batch-size=64"], "--batch-size", "optimizer.batch_size = 64"),
        (["--lr", "3e-4"], "--learning-rate", "optimizer.learning_rate = 3e-4"),
        (["--learning-rate", "1"], "--learning-rate", "optimizer.learning_rate = 1"),
        (
            ["--lr", "1", "--batch-size", "8"],
            "--batch-size and --learning-rate",
            "optimizer.batch_size = 8 and optimizer.learning_rate = 1",
        ),
    ],
)
def test_what_a_recipe_says_is_no_option_and_the_hint_says_what_to_type(
    vt: Command, trained: Mock, options: list[str], message: str, keys: str
) -> None:
    result = vt("train", "swin_t-drloc-cifar100", *options)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == (
        f"Error: {message} would change what the recipe says: edit a copy of it instead\n"
        "Hint: vtzoo recipe copy swin_t-drloc-cifar100 my.toml; "
        f"set {keys} in my.toml; vtzoo train my.toml\n"
    )
    trained.assert_not_called()


def test_whoever_has_a_recipe_of_their_own_is_told_to_edit_that(vt: Command, trained: Mock) -> None:
    result = vt("train", "own.toml", "--batch-size", "8")
    assert result.stderr.endswith("\nHint: set optimizer.batch_size = 8 in own.toml; vtzoo train own.toml\n")
    assert result.exit_code == 1


def test_the_options_that_are_refused_are_not_in_the_help(vt: Command) -> None:
    assert not {"--epochs", "--batch-size", "--learning-rate", "--lr"} & set(vt("train", "--help").stdout.split())


def test_the_keys_that_the_hint_names_are_keys_of_a_recipe() -> None:
    said = tomllib.loads((resources.recipes_folder() / "swin_t-baseline-cifar100.toml").read_text())
    for keys in KEYS.values():
        for table, key in (name.split(".") for name in keys):
            assert key in said[table]
