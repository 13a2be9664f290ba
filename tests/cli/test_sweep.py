"""`vtzoo sweep`: its settings, its output, and its exit codes."""

import json
from collections.abc import Callable
from pathlib import Path
from unittest.mock import Mock

import pytest
from typer.testing import Result

from vtzoo.cli.sweep import one_by_one
from vtzoo.sweep import Report, TrainOptions
from vtzoo.sweep.summary import Outcome, Row

Command = Callable[..., Result]
GOOD = Outcome(recipe="mine", seed=1, folder="runs/mine-seed1", top1=0.5, images=10, steps=7, train_seconds=60)
BAD = Outcome(recipe="mine", seed=2, folder="runs/mine-seed2", error="it burned")
ROW = Row(recipe="mine", by_seed={1: 0.5}, mean=0.5, deviation=None)


@pytest.fixture
def swept(monkeypatch: pytest.MonkeyPatch) -> Mock:
    """Replaces the sweep with a function that reports at once."""
    report = Report(out="runs", seeds=[1, 2], runs=[GOOD], recipes=[ROW], twins=[])
    function = Mock(return_value=report)
    monkeypatch.setattr("vtzoo.sweep.sweep", function)
    return function


@pytest.mark.parametrize(
    ("words", "seeds", "recipes"),
    [
        ("a b --seeds 0 1 2 --out runs", [0, 1, 2], ["a", "b"]),
        ("--seeds 0 1 2 --out runs a b", [0, 1, 2], ["a", "b"]),
        ("--seeds 3 1 a b --out runs", [3, 1], ["a", "b"]),
        ("a --seeds 0 --out runs --seeds=10 11", [0, 10, 11], ["a"]),
        ("a 7 --jobs 2 --seeds 5 --out runs", [5], ["a", "7"]),
    ],
)
def test_seeds_are_the_numbers_that_follow_the_option(
    vt: Command, swept: Mock, words: str, seeds: list[int], recipes: list[str]
) -> None:
    assert vt("sweep", *words.split()).exit_code == 0
    assert swept.call_args.args == (recipes, seeds)


@pytest.mark.parametrize("seeds", [["0", "-1"], ["0", "1.5"], ["one"], []])
def test_what_is_no_seed_does_not_parse(vt: Command, swept: Mock, seeds: list[str]) -> None:
    result = vt("sweep", "a", "--out", "runs", "--seeds", *seeds)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "'--seeds'" in result.stderr
    swept.assert_not_called()


def test_words_after_a_word_that_is_no_number_are_left_alone() -> None:
    words = ["--seeds", "0", "a", "1", "--jobs", "2", "3", "--seeds", "4"]
    assert one_by_one(words) == words


def test_sweep_passes_its_options_on(vt: Command, swept: Mock, tmp_path: Path) -> None:
    options = f"--data {tmp_path} --device cpu --accumulate 4 --compile --workers 2 --skip-bad --teacher wise"
    vt("sweep", "a", "--seeds", 0, "--out", "runs", "--jobs", 3, *options.split())
    wanted = TrainOptions(
        data=tmp_path, device="cpu", accumulate=4, compiled=True, workers=2, skip_bad=True, teacher=Path("wise")
    )
    assert swept.call_args.kwargs == {"out": Path("runs"), "jobs": 3, "options": wanted}


def test_sweep_prints_its_table_on_stdout_and_exits_with_0(vt: Command, swept: Mock) -> None:
    result = vt("sweep", "a", "--seeds", 0, "--out", "runs")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.splitlines()[-1] == "| mine     |  50.00 | failed | 50.00 |           |"


def test_sweep_exits_with_1_where_a_run_failed_and_says_why(vt: Command, swept: Mock) -> None:
    swept.return_value = Report(out="runs", seeds=[1, 2], runs=[GOOD, BAD], recipes=[ROW], twins=[])
    result = vt("sweep", "a", "--seeds", 0, "--out", "runs")
    assert result.exit_code == 1
    assert result.stdout.splitlines()[-1] == "mine-seed2 failed: it burned; see runs/mine-seed2/train.log"


def test_sweep_prints_one_json_object_of_the_keys_that_its_help_names(vt: Command, swept: Mock) -> None:
    told = json.loads(vt("sweep", "a", "--seeds", 0, "--out", "runs", "--json").stdout)
    assert told["runs"] == [vars(GOOD)]
    assert told["recipes"] == [{**vars(ROW), "by_seed": {"1": 0.5}}]
    assert (told["out"], told["seeds"], told["twins"]) == ("runs", [1, 2], [])
    words = vt("sweep", "--help").stdout
    assert all(f'"{key}"' in words for key in (*told, *vars(GOOD), *vars(ROW)))


def test_what_a_recipe_says_is_no_option_of_a_sweep_either(vt: Command, swept: Mock) -> None:
    result = vt("sweep", "own.toml", "--seeds", 0, "--out", "runs", "--epochs", 5)
    assert result.exit_code == 1
    keys = "schedule.epochs = 5 and schedule.cosine_epochs = 5"
    assert result.stderr.endswith(f"\nHint: set {keys} in own.toml; vtzoo sweep own.toml\n")
    swept.assert_not_called()


@pytest.mark.parametrize("missing", ["--seeds", "--out"])
def test_a_sweep_needs_seeds_and_a_folder(vt: Command, swept: Mock, missing: str) -> None:
    words = [["--seeds", "0"], ["--out", "runs"]]
    result = vt("sweep", "a", *(word for option in words if option[0] != missing for word in option))
    assert result.exit_code == 2
    assert f"Missing option '{missing}'" in result.stderr
