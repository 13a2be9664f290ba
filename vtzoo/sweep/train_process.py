"""Starts a run of a sweep: `vtzoo train` in a new process, whose output goes to train.log."""

import ctypes
import math
import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from vtzoo.base import files, machine
from vtzoo.sweep.plan import Run
from vtzoo.zoo.recipe import Recipe

TRAIN = (sys.executable, "-m", "vtzoo", "train")
LOG = "train.log"  # in a run's folder
FULL = 1 << 20  # bytes; a disk with less free space is full
PR_SET_PDEATHSIG = 1  # of Linux's prctl: the signal that a process gets when its parent ends


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """The options of `vtzoo train` that all runs share."""

    data: Path | None = None
    device: str = "auto"
    accumulate: int = 1
    compiled: bool = False
    workers: int | None = None
    skip_bad: bool = False
    teacher: Path | None = None  # for the recipes that name one

    def arguments(self, recipe: Recipe) -> list[str]:
        """The command-line arguments for a recipe."""
        valued = {
            "--data": self.data, "--device": self.device, "--accumulate": self.accumulate, "--workers": self.workers,
            "--teacher": self.teacher if recipe.teacher else None,
        }  # fmt: skip
        arguments = [word for name, value in valued.items() if value is not None for word in (name, str(value))]
        flags = {"--compile": self.compiled, "--skip-bad": self.skip_bad}
        return arguments + [name for name, given in flags.items() if given]


@dataclass(frozen=True, kw_only=True)
class TrainProcess:
    """The process of a run in progress."""

    process: "subprocess.Popen[bytes]"
    log: Path
    began: int  # bytes of the log from earlier processes

    def ended(self) -> bool:
        """Whether it has ended, with or without success."""
        return self.process.poll() is not None

    def stop(self) -> None:
        """Ask it to write a checkpoint and end."""
        self.process.send_signal(signal.SIGINT)

    def kill(self) -> None:
        """End it at once."""
        self.process.kill()

    def wait(self) -> None:
        """Wait until it has ended."""
        self.process.wait()

    def problem(self) -> str | None:
        """Why it failed, in one line; None if it succeeded."""
        code = self.process.returncode
        if code == 0:
            return None
        if code < 0:
            return f"it was ended by signal {-code}: {signal.strsignal(-code)}"
        return self._last_error() or f"it ended with exit code {code}, and its log is empty"

    def _last_error(self) -> str | None:
        """The last error in the log, or its last line, as of a traceback. A full disk may have no room for either."""
        with self.log.open("rb") as file:
            file.seek(self.began)
            lines = [line for line in file.read().decode(errors="replace").splitlines() if line.strip()]
        errors = [line.removeprefix("Error: ") for line in lines if line.startswith("Error: ")]
        if not lines and shutil.disk_usage(self.log.parent).free < FULL:
            return f"the disk of {self.log.parent} is full"
        return (errors or lines or [None])[-1]


def start(run: Run, options: TrainOptions, *, jobs: int, lock: int) -> TrainProcess:
    """Start or resume a run, one of `jobs` at a time. The process also holds the file descriptor `lock`."""
    run.folder.mkdir(exist_ok=True)
    recipe = run.folder / "recipe.toml"
    files.write(recipe, run.text)
    command = [
        *TRAIN, str(recipe), "--out", str(run.folder), "--seed", str(run.seed), *options.arguments(run.recipe),
        "--resume",
    ]  # fmt: skip
    log = run.folder / LOG
    with log.open("ab") as file:
        file.write(f"$ {shlex.join(command)}\n".encode())
        file.flush()
        began = file.tell()
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, env=os.environ | thread_limit(jobs),
            pass_fds=[lock],
            process_group=0,  # a terminal sends Ctrl-C only to the sweep, which passes it on once: twice would kill
            preexec_fn=_end_with_parent(),
        )  # fmt: skip
    return TrainProcess(process=process, log=log, began=began)


def thread_limit(jobs: int) -> dict[str, str]:
    """The environment variable that divides the cores among `jobs` processes; none if the user has set it."""
    if jobs == 1 or "OMP_NUM_THREADS" in os.environ:
        return {}
    cores = min(machine.cores(), machine.core_limit() or math.inf)
    return {"OMP_NUM_THREADS": str(max(1, int(cores / jobs)))}


def _end_with_parent() -> Callable[[], int] | None:
    """A function with which Linux kills the new process when the sweep is killed, so that its run can be resumed."""
    if sys.platform != "linux":
        return None
    return partial(ctypes.CDLL(None).prctl, PR_SET_PDEATHSIG, signal.SIGKILL)
