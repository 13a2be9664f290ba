"""Functions in new processes: their messages, and the error that ends them."""

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

def count(number, send):
    print("a library that prints")
    for index in range(number):
        send({"index": index, "process": os.getpid()})

def fail(message, send):
    send("begun")
    raise ValueError(message)

def refuse(message, send):
    from vtzoo.errors import VtzooError
    raise VtzooError(message, "a hint")

def crash(_, send):
    send("begun")
    os.abort()

def leave(_, send):
    print("why it left", file=sys.stderr)
    sys.stderr.flush()
    os._exit(3)

def sleep(seconds, send):
    send("begun")
    time.sleep(seconds)
    send("too late")
"""


@pytest.fixture
def functions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module `sending`, which only this process's sys.path finds."""
    (tmp_path / "sending.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "sending", raising=False)
    return importlib.import_module("sending")


def test_messages_arrive_in_order_from_another_process_without_its_printed_text(functions: Any) -> None:
    outcome = subprocess_runner.run(functions.count, 3)
    assert outcome.error is None
    assert [message["index"] for message in outcome.messages] == [0, 1, 2]
    assert os.getpid() not in [message["process"] for message in outcome.messages]
    assert 0 < outcome.seconds[0] <= outcome.seconds[1] <= outcome.seconds[2]


def test_a_file_in_the_working_folder_replaces_no_module(
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
        (lambda functions: subprocess_runner.run(functions.fail, "no\nroom"), "ValueError: no"),
        (lambda functions: subprocess_runner.run(functions.fail, ""), "ValueError: no reason is given"),
        (lambda functions: subprocess_runner.run(functions.refuse, "a sentence"), "a sentence"),
        (lambda functions: subprocess_runner.run(functions.leave), "why it left"),
        (lambda functions: subprocess_runner.run(functions.sleep, 60, timeout=0.5), "it did not end within 0.5 s"),
    ],
)
def test_a_process_that_fails_has_an_error_of_one_line(functions: Any, ending: Callable[..., Any], error: str) -> None:
    assert ending(functions).error == error


@pytest.mark.skipif(sys.platform == "win32", reason="Windows knows no signals")
def test_a_crash_is_named_and_earlier_messages_are_kept(functions: Any) -> None:
    outcome = subprocess_runner.run(functions.crash)
    assert outcome.messages == ["begun"]
    assert outcome.error is not None
    assert outcome.error.startswith("the process was ended by signal 6")
