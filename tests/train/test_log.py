import json
import os
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from vtzoo.train.distributed import World
from vtzoo.train.log import Log


class Killed(BaseException):
    """The exception that ends a run at once in these tests."""


def die(*_: object) -> None:
    raise Killed


def line(loss: float, right: float = 4.0) -> dict[str, torch.Tensor]:
    values = {"loss": loss, "cross_entropy": loss / 2, "localization": loss / 4, "right": right}
    return {name: torch.tensor(value) for name, value in values.items()}


def write_log(folder: Path, losses: list[float], step: int = 0) -> None:
    """Log one loss per step after `step` other steps, and flush after every second one."""
    with Log(folder, step, 8, World()) as log:
        for number, loss in enumerate(losses, step + 1):
            log.add(number, 0.1 * number, line(loss))
            if number % 2 == 0:
                log.flush()
        log.flush()


def test_a_step_is_a_line_with_its_means_its_accuracy_and_its_learning_rate(tmp_path: Path) -> None:
    write_log(tmp_path, [4.0, 3.0, 2.0])
    rows = [json.loads(text) for text in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [(row["step"], row["loss"], row["accuracy"]) for row in rows] == [(1, 4, 0.5), (2, 3, 0.5), (3, 2, 0.5)]
    assert [row["learning_rate"] for row in rows] == pytest.approx([0.1, 0.2, 0.3])
    assert rows[0]["cross_entropy"] == 2
    assert rows[0]["localization"] == 1


def test_a_flush_returns_the_means_of_the_waiting_steps_or_else_the_last_means(tmp_path: Path) -> None:
    with Log(tmp_path, 0, 8, World()) as log:
        log.add(1, 0.1, line(4.0, right=8))
        log.add(2, 0.1, line(2.0, right=0))
        assert log.flush() == (3.0, 0.5)
        assert log.flush() == (3.0, 0.5)


def test_tensorboard_gets_the_means_between_two_flushes_and_continues_after_a_kill(tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    write_log(tmp_path, [4.0, 2.0, 9.0, 9.0])
    time.sleep(1)  # TensorBoard orders the files of a killed run by the seconds in their names
    write_log(tmp_path, [1.0, 2.0], step=2)  # steps 3 and 4 are repeated
    events = accumulator.EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(event.step, event.value) for event in events.Scalars("loss")] == [(2, 3.0), (4, 1.5)]
    assert {"loss", "cross_entropy", "localization", "accuracy", "learning_rate"} == set(events.Tags()["scalars"])


def test_without_tensorboard_only_the_events_are_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    write_log(tmp_path, [4.0, 2.0])
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_curves_are_drawn_after_an_epoch_and_again_when_that_is_cheap(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, drawn = iter([0.0, 10.0, 12.0, 100.0, 213.0, 214.0]), []
    monkeypatch.setattr("vtzoo.train.log.draw_curves", lambda *arguments: drawn.append(arguments[2]))
    with Log(tmp_path, 0, 8, World()) as log:
        log.add(1, 0.1, line(4.0))
        log.flush()
        monkeypatch.setattr("vtzoo.train.log.time", SimpleNamespace(monotonic=lambda: next(clock)))
        log.draw(2, None)  # at 0: half an epoch
        assert drawn == []
        log.draw(1, None)  # at 10: drawing takes until 12
        log.draw(1, None)  # at 100: sooner than a hundred times the duration of a drawing
        assert drawn == [1]
        log.draw(1, None)  # at 213
        assert drawn == [1, 1]


def open_log(folder: Path, step: int) -> Log:
    with Log(folder, step, 8, World()) as log:
        return log


def test_the_seconds_of_a_run_go_on_where_its_log_ended(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(json.dumps({"step": step, "seconds": 10.0 * step}) + "\n" for step in range(1, 6)))
    assert open_log(tmp_path, 3).seconds == 30.0
    assert len(path.read_text().splitlines()) == 3
    assert open_log(tmp_path, 0).seconds == 0.0
    assert path.read_text() == ""


def test_a_log_that_cannot_be_cut_back_stays_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "seconds": 1.0}\n{"step": 2, "seconds": 2.0}\n')
    before = path.read_text()
    monkeypatch.setattr(os, "replace", die)
    monkeypatch.setattr(Path, "replace", lambda self, target: die())
    with pytest.raises(Killed):
        open_log(tmp_path, 1)
    assert path.read_text() == before
