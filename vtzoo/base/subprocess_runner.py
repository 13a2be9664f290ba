"""Runs a function in a new Python process: its memory is separate, and its crash is an error message here."""

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

Send = Callable[[Any], None]  # sends a message, any JSON value, to the parent process

# The new process searches modules where this one does, and never in its working folder.
START = "import json, sys; given = json.loads(sys.argv[1]); sys.path[:] = given.pop(); "
START += "from vtzoo.base.subprocess_runner import call; call(*given)"


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The messages of a process, and the error that ended it."""

    messages: list[Any]
    seconds: list[float]  # from the start of the process to each message
    error: str | None = None  # one line; None after success


def run(function: Callable[[Any, Send], None], argument: Any = None, *, timeout: float = 600) -> Outcome:
    """Call `function(argument, send)` in a new process. The function is a module's own; `argument` is a JSON value.

    An exception, a crash, and more than `timeout` seconds become the outcome's error: nothing raises here.
    """
    given = json.dumps([function.__module__, function.__name__, argument, sys.path])
    started = time.perf_counter()
    with tempfile.TemporaryFile() as stderr:
        command = [sys.executable, "-P", "-c", START, given]
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=stderr, text=True, encoding="utf-8"
        )
        timer = threading.Timer(timeout, process.kill)
        timer.start()
        try:
            messages, seconds, failure = _receive(process, started)
            process.wait()
        finally:
            timer.cancel()
            process.kill()  # it still runs only where this process is interrupted
            process.wait()
        late = time.perf_counter() - started >= timeout
        error = f"it did not end within {timeout:g} s" if late else failure or _exit_error(process, stderr)
    return Outcome(messages=messages, seconds=seconds, error=error)


def _receive(process: Any, started: float) -> tuple[list[Any], list[float], str | None]:
    """The messages of the process until it ends, their seconds, and the exception that ended it."""
    messages, seconds, failure = [], [], None
    with process.stdout:
        for line in process.stdout:
            try:
                kind, content = json.loads(line)
            except ValueError:  # a crash cut the line short
                continue
            if kind == "failure":
                failure = content
                continue
            messages.append(content)
            seconds.append(time.perf_counter() - started)
    return messages, seconds, failure


def _exit_error(process: Any, stderr: IO[bytes]) -> str | None:
    """Why a process that sent no failure ended: its signal, the last line on stderr, or its exit code."""
    if process.returncode == 0:
        return None
    if process.returncode < 0:
        return f"the process was ended by signal {-process.returncode}: {signal.strsignal(-process.returncode)}"
    stderr.seek(0)
    lines = stderr.read().decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else f"the process ended with exit code {process.returncode}"


def call(module: str, function: str, argument: Any) -> None:
    """Call the function in the new process; messages go to stdout, everything else to stderr."""
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # libraries may print to stdout

    def send(kind: str, content: Any) -> None:
        channel.write(json.dumps([kind, content]) + "\n")
        channel.flush()

    try:
        getattr(importlib.import_module(module), function)(argument, lambda content: send("message", content))
    except BaseException as error:
        send("failure", one_line(error))
        sys.exit(1)


def one_line(error: BaseException) -> str:
    """An exception's type and the first line of its message; of a VtzooError, the message alone."""
    lines = str(error).strip().splitlines() or ["no reason is given"]
    return lines[0] if isinstance(error, VtzooError) else f"{type(error).__name__}: {lines[0]}"
