"""Runs that are skipped, resumed, stopped or killed, or that fail, without training."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from vtzoo.errors import VtzooError
from vtzoo.sweep import lock, schedule, sweep
from vtzoo.sweep.board import Board
from vtzoo.sweep.plan import plan_runs

ROOT, STUB = Path(__file__).resolve().parents[2], Path(__file__).with_name("train.py")
# The command line, with the training that the tests have.
VTZOO = """
import signal, sys
from vtzoo.cli import main
from vtzoo.sweep import schedule, train_process
signal.signal(signal.SIGINT, signal.default_int_handler)  # as a shell has it that does not run this in the background
train_process.TRAIN, schedule.POLL = (sys.executable, "-I", "-S", sys.argv.pop(1)), 0.01
main()
"""

Behave = Callable[..., None]


@pytest.fixture
def behave(monkeypatch: pytest.MonkeyPatch) -> Behave:
    """Sets the behaviour of runs by the names of their folders; all other runs finish."""

    def say(**runs: str) -> None:
        monkeypatch.setenv("STUB", json.dumps({name.replace("_", "-"): how for name, how in runs.items()}))

    return say


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def started(out: Path) -> dict[str, int]:
    """The number of starts of each run."""
    return {file.parent.name: len(file.read_text().splitlines()) for file in sorted(out.glob("*/started"))}


def until(condition: Callable[[], Any]) -> None:
    """Wait until the condition holds, at most ten seconds."""
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def free(out: Path) -> bool:
    """Whether neither a sweep nor one of its runs is active in the folder."""
    try:
        with lock.locked(out):
            return True
    except VtzooError:
        return False


@contextmanager
def command(*arguments: object) -> Iterator["subprocess.Popen[str]"]:
    """The command `vtzoo` in a process of its own."""
    words = [sys.executable, "-c", VTZOO, STUB, *arguments]
    with subprocess.Popen(
        list(map(str, words)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def test_every_recipe_is_trained_with_every_seed_and_told_of_once(
    pair: list[str], out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = sweep(pair, [0, 1], out=out, jobs=2)
    names = ["with-seed0", "without-seed0", "with-seed1", "without-seed1"]
    assert started(out) == dict.fromkeys(sorted(names), 1)
    assert [Path(run.folder).name for run in report.runs] == names
    assert [run.top1 for run in report.runs] == pytest.approx([0.52, 0.5, 0.53, 0.51])
    told = capsys.readouterr()
    assert told.out == ""
    assert sorted(told.err.splitlines()) == [
        "with-seed0: top-1 52.00% after 7 steps, 0:01:01",
        "with-seed1: top-1 53.00% after 7 steps, 0:01:01",
        "without-seed0: top-1 50.00% after 7 steps, 0:01:01",
        "without-seed1: top-1 51.00% after 7 steps, 0:01:01",
    ]


def test_finished_runs_are_skipped_and_a_sweep_may_grow(
    pair: list[str], out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep(pair, [0], out=out)
    capsys.readouterr()
    report = sweep(pair, [0, 1], out=out)
    assert started(out) == dict.fromkeys(["with-seed0", "with-seed1", "without-seed0", "without-seed1"], 1)
    assert "with-seed0: top-1 52.00% after 7 steps, 0:01:01; finished before\n" in capsys.readouterr().err
    assert list(report.twins[0].by_seed) == [0, 1]


def test_a_run_that_fails_stops_no_other_and_the_report_says_why(
    pair: list[str], out: Path, behave: Behave, capsys: pytest.CaptureFixture[str]
) -> None:
    behave(with_seed0="diverge", without_seed1="nothing")
    report = sweep(pair, [0, 1, 2], out=out)
    assert {Path(run.folder).name: run.error for run in report.failed} == {
        "with-seed0": "the loss is nan at step 3", "without-seed1": "it ended without a result",
    }  # fmt: skip
    assert len(started(out)) == 6
    assert "with-seed0: failed: the loss is nan at step 3\n" in capsys.readouterr().err


def test_a_run_that_failed_is_tried_again(pair: list[str], out: Path, behave: Behave) -> None:
    behave(with_seed0="diverge")
    assert sweep(pair, [0], out=out).failed
    behave()
    assert not sweep(pair, [0], out=out).failed
    assert started(out) == {"with-seed0": 2, "without-seed0": 1}


def test_a_run_whose_folder_cannot_be_written_is_a_failed_run(pair: list[str], out: Path) -> None:
    (out / "with-seed0" / "train.log").mkdir(parents=True)
    report = sweep(pair, [0], out=out)
    assert [run.error for run in report.runs] == [f"{out}/with-seed0: Is a directory", None]


def test_no_more_runs_than_jobs_are_at_work(recipe: Callable[..., str], out: Path) -> None:
    runs = plan_runs([recipe("mine")], range(5), out=out)
    working: list[int] = []
    left = dict.fromkeys(runs, 2)  # looks, after which a run ends

    def start(run: Any) -> Any:
        def ended() -> bool:
            left[run] -= 1
            return left[run] == 0

        return SimpleNamespace(ended=ended, problem=lambda: "no result")

    shown = Board(tell=lambda line: None, show=lambda now, below: working.append(len(list(now))))
    problems = schedule.Schedule(runs, start, jobs=2, shown=shown).work()
    assert list(problems) == runs
    assert max(working) == 2


def test_a_second_sweep_in_the_folder_is_refused_before_it_starts_anything(pair: list[str], out: Path) -> None:
    with lock.locked(out), pytest.raises(VtzooError, match="another sweep is in progress"):
        sweep(pair, [0], out=out)
    assert started(out) == {}


def test_ctrl_c_stops_all_runs_with_a_checkpoint_and_the_same_command_goes_on(
    pair: list[str], out: Path, behave: Behave
) -> None:
    behave(with_seed1="wait", without_seed1="wait")
    arguments = ["sweep", *pair, "--seeds", 0, 1, "--jobs", 2, "--out", out]
    with command(*arguments) as process:
        until(lambda: len(list(out.glob("*/waiting"))) == 2)
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=10)
    assert process.returncode == 130
    stopping = "stopping; every run writes a checkpoint, and the same command continues from there\n"
    assert told.endswith(f"{stopping}Interrupted.\n")
    assert {file.parent.name for file in out.glob("*/checkpoint.safetensors")} == {"with-seed1", "without-seed1"}
    with command(*arguments) as process:
        said, _ = process.communicate(timeout=10)
    assert process.returncode == 0
    assert "| with over without |  +2.00 |  +2.00 | +2.00 |      0.00 |" in said
    assert started(out) == {"with-seed0": 1, "with-seed1": 2, "without-seed0": 1, "without-seed1": 2}


def test_a_second_ctrl_c_ends_a_run_that_does_not_stop(pair: list[str], out: Path, behave: Behave) -> None:
    behave(with_seed0="stubborn")
    with command("sweep", pair[0], "--seeds", 0, "--out", out) as process:
        until(lambda: (out / "with-seed0" / "waiting").exists())
        process.send_signal(signal.SIGINT)
        assert process.stderr
        assert process.stderr.readline().startswith("stopping")
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=10)
    assert process.returncode == 130


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the runs of a killed sweep go on, and hold its folder")
def test_a_killed_sweep_leaves_no_run_behind_and_the_same_command_goes_on(
    pair: list[str], out: Path, behave: Behave
) -> None:
    behave(with_seed0="wait")
    arguments = ["sweep", pair[0], "--seeds", 0, "--out", out]
    with command(*arguments) as process:
        until(lambda: (out / "with-seed0" / "waiting").exists())
        process.kill()
        process.communicate(timeout=10)
    until(lambda: free(out))
    behave()
    assert [run.error for run in sweep(pair[:1], [0], out=out).runs] == [None]
