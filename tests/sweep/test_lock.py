"""One sweep at a time in a folder."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from vtzoo.errors import VtzooError
from vtzoo.sweep import lock

HOLD = """
import sys
from pathlib import Path
from vtzoo.sweep import lock
with lock.locked(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_second_sweep_in_a_folder_is_refused_and_one_after_the_first_is_not(tmp_path: Path) -> None:
    with lock.locked(tmp_path / "a" / "b"):
        message = rf"^another sweep is in progress in {tmp_path}/a/b$"
        with pytest.raises(VtzooError, match=message), lock.locked(tmp_path / "a" / "b"):
            pass
        with lock.locked(tmp_path / "c"):
            pass
    with lock.locked(tmp_path / "a" / "b"):
        pass


def test_a_killed_process_holds_nothing(tmp_path: Path) -> None:
    root = Path(__file__).resolve().parents[2]
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=root
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == b"held\n"
        with pytest.raises(VtzooError), lock.locked(tmp_path):
            pass
        process.kill()
    with lock.locked(tmp_path):
        pass


def test_whoever_has_the_descriptor_still_holds_it(tmp_path: Path) -> None:
    with lock.locked(tmp_path) as descriptor:
        other = os.dup(descriptor)
    with pytest.raises(VtzooError), lock.locked(tmp_path):
        pass
    os.close(other)
    with lock.locked(tmp_path):
        pass


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(VtzooError, match=rf"^cannot create the folder {tmp_path}/file: File exists$"),
        lock.locked(tmp_path / "file"),
    ):
        pass


def test_a_system_without_these_locks_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fcntl", None)
    with (
        pytest.raises(VtzooError, match=r"^vtzoo sweep needs the file locks of Linux or macOS$"),
        lock.locked(tmp_path),
    ):
        pass
