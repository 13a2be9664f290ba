"""A function in a Python process of its own: its memory is its own, and what ends it ends nothing else."""

import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO, Any

from vtzoo.errors import VtzooError

Tell = Callable[[Any], None]  # what a function tells the process that started it: anything that JSON holds

# The process finds modules exactly where this one does, whatever lies in the folder that it is started in.
START = "import json, sys; given = json.loads(sys.argv[1]); sys.path[:] = given.pop(); "
START += "from vtzoo.base.subprocess_runner import answer; answer(*given)"


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a process told, and why it did not end well."""

    told: list[Any]
    moments: list[float]  # seconds from its start to each of them
    error: str | None = None  # one line


def run(function: Callable[[Any, Tell], None], argument: Any = None, *, timeout: float = 600) -> Outcome:
    """Call `function(argument, tell)`, one of a module's own, in a fresh process; `argument` is JSON's.

    Nothing it may do raises here: an exception, a crash and `timeout` seconds are the outcome's error.
    """
    given = json.dumps([function.__module__, function.__name__, argument, sys.path])
    started = time.perf_counter()
    with tempfile.TemporaryFile() as complaints:
        command = [sys.executable, "-P", "-c", START, given]
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=complaints, text=True, encoding="utf-8"
        )
        late = threading.Timer(timeout, process.kill)
        late.start()
        try:
            told, moments, failed = _listen(process, started)
            process.wait()
        finally:
            late.cancel()
            process.kill()  # it is gone already, but where this one is interrupted
            process.wait()
        over = time.perf_counter() - started >= timeout
        error = f"it did not end within {timeout:g} s" if over else failed or _complaint(process, complaints)
    return Outcome(told=told, moments=moments, error=error)


def _listen(process: Any, started: float) -> tuple[list[Any], list[float], str | None]:
    """All that the process tells until its end, when, and the exception that ends it."""
    told, moments, failed = [], [], None
    with process.stdout:
        for line in process.stdout:
            try:
                kind, content = json.loads(line)
            except ValueError:  # a line that a crash cut short
                continue
            if kind == "failed":
                failed = content
                continue
            told.append(content)
            moments.append(time.perf_counter() - started)
    return told, moments, failed


def _complaint(process: Any, complaints: IO[bytes]) -> str | None:
    """Why a process ended that could not say so itself; None where it ended well."""
    if process.returncode == 0:
        return None
    if process.returncode < 0:
        return f"the process was ended by signal {-process.returncode}: {signal.strsignal(-process.returncode)}"
    complaints.seek(0)
    lines = complaints.read().decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else f"the process ended with exit code {process.returncode}"


def answer(module: str, function: str, argument: Any) -> None:
    """Run in the fresh process: call the function, whose telling goes to stdout and all else to stderr."""
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # libraries print where they like

    def send(kind: str, content: Any) -> None:
        channel.write(json.dumps([kind, content]) + "\n")
        channel.flush()

    try:
        getattr(importlib.import_module(module), function)(argument, lambda content: send("told", content))
    except BaseException as error:
        send("failed", reason(error))
        sys.exit(1)


def reason(error: BaseException) -> str:
    """An exception in one line."""
    lines = str(error).strip().splitlines() or ["no reason is given"]
    return lines[0] if isinstance(error, VtzooError) else f"{type(error).__name__}: {lines[0]}"
