"""Functions in processes of their own: what they tell, and how they may end."""

import importlib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vtzoo.base import subprocess_runner

SOURCE = """
import os, sys, time

def count(number, tell):
    print("a library that prints")
    for index in range(number):
        tell({"index": index, "process": os.getpid()})

def fail(message, tell):
    tell("begun")
    raise ValueError(message)

def refuse(message, tell):
    from vtzoo.errors import VtzooError
    raise VtzooError(message, "a hint")

def crash(_, tell):
    tell("begun")
    os.abort()

def leave(_, tell):
    print("why it left", file=sys.stderr)
    sys.stderr.flush()
    os._exit(3)

def sleep(seconds, tell):
    tell("begun")
    time.sleep(seconds)
    tell("too late")
"""


@pytest.fixture
def functions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A module that only this process's sys.path leads to."""
    (tmp_path / "told_of.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "told_of", raising=False)
    return importlib.import_module("told_of")


def test_what_is_told_arrives_in_order_from_another_process_without_what_is_printed(functions: Any) -> None:
    outcome = subprocess_runner.run(functions.count, 3)
    assert outcome.error is None
    assert [told["index"] for told in outcome.told] == [0, 1, 2]
    assert os.getpid() not in [told["process"] for told in outcome.told]
    assert 0 < outcome.moments[0] <= outcome.moments[1] <= outcome.moments[2]


def test_a_file_in_the_working_folder_takes_no_modules_place(
    functions: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    (folder / "json.py").write_text("raise SystemExit('the wrong json')")
    monkeypatch.chdir(folder)
    assert subprocess_runner.run(functions.count, 1).error is None


@pytest.mark.parametrize(
    ("ending", "error"),
    [
        (lambda ends: subprocess_runner.run(ends.fail, "no\nroom"), "ValueError: no"),
        (lambda ends: subprocess_runner.run(ends.fail, ""), "ValueError: no reason is given"),
        (lambda ends: subprocess_runner.run(ends.refuse, "a sentence"), "a sentence"),
        (lambda ends: subprocess_runner.run(ends.leave), "why it left"),
        (lambda ends: subprocess_runner.run(ends.sleep, 60, timeout=0.5), "it did not end within 0.5 s"),
    ],
)
def test_a_process_that_fails_says_why_in_one_line(functions: Any, ending: Callable[..., Any], error: str) -> None:
    assert ending(functions).error == error


@pytest.mark.skipif(sys.platform == "win32", reason="Windows knows no signals")
def test_a_crash_is_named_and_what_was_told_before_is_kept(functions: Any) -> None:
    outcome = subprocess_runner.run(functions.crash)
    assert outcome.told == ["begun"]
    assert outcome.error is not None
    assert outcome.error.startswith("the process was ended by signal 6")
