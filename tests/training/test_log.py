import json
import os
from pathlib import Path

import pytest

from vtzoo.training.distributed import World
from vtzoo.training.log import Log


class Killed(BaseException):
    """What ends a run at once in these tests."""


def die(*_: object) -> None:
    raise Killed


def opened(folder: Path, step: int) -> Log:
    with Log(folder, step, 8, World()) as log:
        return log


def test_the_seconds_of_a_run_go_on_where_its_log_ended(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(json.dumps({"step": step, "seconds": 10.0 * step}) + "\n" for step in range(1, 6)))
    assert opened(tmp_path, 3).seconds == 30.0
    assert len(path.read_text().splitlines()) == 3
    assert opened(tmp_path, 0).seconds == 0.0
    assert path.read_text() == ""


def test_a_log_that_cannot_be_cut_back_stays_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "seconds": 1.0}\n{"step": 2, "seconds": 2.0}\n')
    before = path.read_text()
    monkeypatch.setattr(os, "replace", die)
    monkeypatch.setattr(Path, "replace", lambda self, target: die())
    with pytest.raises(Killed):
        opened(tmp_path, 1)
    assert path.read_text() == before
