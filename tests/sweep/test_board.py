"""The progress of a run, and its display."""

import io
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from vtzoo.sweep.board import board, cells
from vtzoo.sweep.plan import Run, plan_runs
from vtzoo.sweep.run_progress import read_progress


class Terminal(io.StringIO):
    """A terminal that keeps its output."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def run(recipe: Callable[..., str], tmp_path: Path) -> Run:
    """A run of 7,810 steps of 64 images, not started."""
    (found,) = plan_runs([recipe("mine", batch_size="64", epochs="10")], [1], out=tmp_path)
    found.folder.mkdir()
    assert found.recipe.steps == 7810
    return found


def write(run: Run, steps: int, *, loss: Callable[[int], float] = lambda step: 2.0) -> None:
    """Write the log lines of the given number of steps, ten per second."""
    lines = [{"step": step, "loss": loss(step), "seconds": step / 10} for step in range(1, steps + 1)]
    (run.folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_nothing_is_known_of_a_run_before_its_first_line(run: Run) -> None:
    assert read_progress(run.folder) is None
    (run.folder / "metrics.jsonl").write_text("")
    assert read_progress(run.folder) is None
    (run.folder / "metrics.jsonl").write_text('{"step": 1, "lo')
    assert read_progress(run.folder) is None
    assert cells(run) == ("mine-seed1", "reading the data", "", "", "")


def test_the_loss_is_the_mean_of_the_last_twenty_steps(run: Run) -> None:
    write(run, 1000, loss=float)
    now = read_progress(run.folder)
    assert now
    assert (now.step, now.loss, now.seconds) == (1000, 990.5, 100.0)


def test_a_line_that_is_being_written_counts_for_nothing(run: Run) -> None:
    write(run, 30)
    with (run.folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 31, "loss"')
    now = read_progress(run.folder)
    assert now
    assert now.step == 30


def test_a_row_has_the_speed_in_images_and_the_time_left(run: Run) -> None:
    write(run, 1210)  # ten steps of 64 images a second; 6,600 steps are left
    assert cells(run) == ("mine-seed1", "1,210/7,810", "2.000", "640", "0:11:00")


def test_a_run_that_has_taken_all_its_steps_is_being_measured(run: Run) -> None:
    write(run, 7810)
    assert cells(run) == ("mine-seed1", "measuring", "2.000", "", "")


def test_a_terminal_shows_the_runs_at_work_and_keeps_what_is_told(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    write(run, 1210)
    with board() as shown:
        shown.show([run], "2 finished, 0 failed, 1 waiting")
        shown.tell("[bold]the end")
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", terminal.getvalue())
    assert re.search(r"run +steps +loss +images/s +time left", text)
    assert re.search(r"mine-seed1 +1,210/7,810 +2\.000 +640 +0:11:00", text)
    assert "2 finished, 0 failed, 1 waiting" in text
    assert "[bold]the end\n" in text
    assert terminal.getvalue().endswith("\x1b[1A\x1b[2K")  # the table is erased


def test_without_a_terminal_there_are_the_plain_lines_alone(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    with board() as shown:
        shown.show([run], "2 finished, 0 failed, 1 waiting")
        shown.tell("[bold]the end")
    assert capsys.readouterr().err == "[bold]the end\n"
