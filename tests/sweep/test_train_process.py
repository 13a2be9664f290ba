"""The start of a run's process on this machine, and the report of its end."""

import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import typer

from vtzoo.base import machine
from vtzoo.cli import app
from vtzoo.sweep import lock, train_process
from vtzoo.sweep.plan import Run, plan_runs
from vtzoo.sweep.train_process import TrainOptions, TrainProcess, start
from vtzoo.zoo.recipe_files import load_recipe

TEACHER = '{ name = "wise", weight = 0.5, temperature = 2.0 }'


@pytest.fixture
def run(recipe: Callable[..., str], tmp_path: Path) -> Run:
    (found,) = plan_runs([recipe("mine")], [1], out=tmp_path)
    return found


@pytest.fixture
def begin(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., TrainProcess]]:
    """Starts a run with the given behaviour, and waits for its end."""
    with lock.locked(tmp_path) as held:

        def begin(behaviour: str, **options: object) -> TrainProcess:
            monkeypatch.setenv("STUB", f'{{"mine-seed1": "{behaviour}"}}')
            job = start(run, TrainOptions(**options), jobs=1, lock=held)  # type: ignore[arg-type]
            job.wait()
            return job

        yield begin


@pytest.mark.parametrize(
    ("behaviour", "problem"),
    [
        ("finish", None),
        ("diverge", "the loss is nan at step 3"),
        ("crash", "MemoryError: CUDA has none left"),
        ("die", "it was ended by signal 9: Killed"),
        ("silent", "it ended with exit code 3, and its log is empty"),
    ],
)
def test_the_problem_of_a_run_is_the_last_error_that_it_told(
    begin: Callable[..., TrainProcess], behaviour: str, problem: str | None
) -> None:
    assert begin(behaviour).problem() == problem


def test_a_run_that_could_not_even_tell_that_the_disk_is_full_is_understood(
    begin: Callable[..., TrainProcess], run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = begin("silent")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=4096))
    assert job.problem() == f"the disk of {run.folder} is full"


def test_the_log_has_the_command_and_what_it_told_time_after_time(begin: Callable[..., TrainProcess], run: Run) -> None:
    begin("diverge")
    assert begin("silent").problem() == "it ended with exit code 3, and its log is empty"
    first, *told, last = (run.folder / "train.log").read_text().splitlines()
    assert first == last
    assert first.startswith("$ ")
    assert first.endswith(f"{run.folder}/recipe.toml --out {run.folder} --seed 1 --device auto --accumulate 1 --resume")
    assert told[1] == "Error: the loss is nan at step 3"


def test_a_run_has_the_recipe_as_the_sweep_found_it_whatever_is_edited_meanwhile(
    begin: Callable[..., TrainProcess], run: Run, recipe: Callable[..., str]
) -> None:
    recipe("mine", batch_size="63")
    begin("finish")
    assert b"batch_size = 63" not in (run.folder / "recipe.toml").read_bytes() == run.text


def test_vtzoo_train_understands_every_option(recipe: Callable[..., str], tmp_path: Path) -> None:
    wanted = {
        "data": tmp_path, "device": "cpu", "accumulate": 4, "compiled": True, "workers": 2, "skip_bad": True,
        "teacher": tmp_path / "teacher",
    }  # fmt: skip
    train = typer.main.get_command(app).commands["train"]  # type: ignore[attr-defined]
    taught = load_recipe(Path(recipe("taught", teacher=TEACHER)))
    told = train.make_context("train", ["RECIPE", *TrainOptions(**wanted).arguments(taught)]).params
    assert {key: told[key] for key in wanted} == wanted
    assert train.make_context("train", ["RECIPE", *TrainOptions().arguments(taught)]).params["data"] is None


def test_a_teacher_is_told_of_to_the_recipes_that_have_one(recipe: Callable[..., str], tmp_path: Path) -> None:
    options = TrainOptions(teacher=tmp_path)
    assert "--teacher" in options.arguments(load_recipe(Path(recipe("taught", teacher=TEACHER))))
    assert "--teacher" not in options.arguments(load_recipe(Path(recipe("plain"))))


@pytest.mark.parametrize(
    ("jobs", "cores", "limit", "threads"),
    [(2, 16, None, "8"), (3, 16, None, "5"), (4, 2, None, "1"), (2, 16, 4.5, "2"), (1, 16, None, None)],
)
def test_runs_share_out_the_cores_that_this_process_may_use(
    monkeypatch: pytest.MonkeyPatch, jobs: int, cores: int, limit: float | None, threads: str | None
) -> None:
    monkeypatch.setattr(machine, "cores", lambda: cores)
    monkeypatch.setattr(machine, "core_limit", lambda: limit)
    assert train_process.thread_limit(jobs).get("OMP_NUM_THREADS") == threads


def test_whoever_has_said_how_many_threads_there_are_is_obeyed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "6")
    assert train_process.thread_limit(2) == {}


def test_runs_start_with_their_share_of_threads_in_a_process_group_of_their_own(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "cores", lambda: 6)
    monkeypatch.setattr(machine, "core_limit", lambda: None)
    script = "import os; print(os.environ['OMP_NUM_THREADS'], os.getpgrp(), os.getpid())"
    monkeypatch.setattr(train_process, "TRAIN", (sys.executable, "-I", "-c", script))
    with lock.locked(tmp_path) as held:
        job = start(run, TrainOptions(), jobs=3, lock=held)
        job.wait()
    threads, group, process = job.log.read_text().split()[-3:]
    assert threads == "2"
    assert group == process
