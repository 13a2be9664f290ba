"""Runs one run of a sweep on this machine: `vtzoo train` in a process of its own, whose output goes to train.log."""

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
LOG = "train.log"  # of a run's folder
FULL = 1 << 20  # bytes; a disk with less room is full
PR_SET_PDEATHSIG = 1  # of Linux's prctl: which signal a process gets when its parent ends


@dataclass(frozen=True, kw_only=True)
class Options:
    """What `vtzoo train` is told of all runs."""

    data: Path | None = None
    device: str = "auto"
    accumulate: int = 1
    compiled: bool = False
    workers: int | None = None
    skip_bad: bool = False
    teacher: Path | None = None  # of those whose recipe names one

    def words(self, recipe: Recipe) -> list[str]:
        """The options of a recipe's run as they are typed."""
        valued = {
            "--data": self.data, "--device": self.device, "--accumulate": self.accumulate, "--workers": self.workers,
            "--teacher": self.teacher if recipe.teacher else None,
        }  # fmt: skip
        words = [word for name, value in valued.items() if value is not None for word in (name, str(value))]
        flags = {"--compile": self.compiled, "--skip-bad": self.skip_bad}
        return words + [name for name, given in flags.items() if given]


@dataclass(frozen=True, kw_only=True)
class Job:
    """A run under way; one that is elsewhere would have these methods too."""

    process: "subprocess.Popen[bytes]"
    log: Path
    began: int  # bytes of the log that are older

    def ended(self) -> bool:
        """Whether it has ended, well or not."""
        return self.process.poll() is not None

    def stop(self) -> None:
        """Have it leave a checkpoint and end."""
        self.process.send_signal(signal.SIGINT)

    def kill(self) -> None:
        """End it at once."""
        self.process.kill()

    def wait(self) -> None:
        """Wait for its end."""
        self.process.wait()

    def problem(self) -> str | None:
        """Why it did not end well, in one line; None where it did."""
        code = self.process.returncode
        if code == 0:
            return None
        if code < 0:
            return f"it was ended by signal {-code}: {signal.strsignal(-code)}"
        return self._last_word() or f"it ended with exit code {code}, and its log says nothing"

    def _last_word(self) -> str | None:
        """The log's last error, else its last line: a traceback's. A full disk may have no room for either."""
        with self.log.open("rb") as file:
            file.seek(self.began)
            lines = [line for line in file.read().decode(errors="replace").splitlines() if line.strip()]
        errors = [line.removeprefix("Error: ") for line in lines if line.startswith("Error: ")]
        if not lines and shutil.disk_usage(self.log.parent).free < FULL:
            return f"no space is left on the disk of {self.log.parent}"
        return (errors or lines or [None])[-1]


def start(run: Run, options: Options, *, jobs: int, lock: int) -> Job:
    """Start or resume a run, one of `jobs` at a time. It holds the file `lock` too, for as long as it goes on."""
    run.folder.mkdir(exist_ok=True)
    recipe = run.folder / "recipe.toml"
    files.write(recipe, run.text)
    command = [
        *TRAIN, str(recipe), "--out", str(run.folder), "--seed", str(run.seed), *options.words(run.recipe), "--resume"
    ]  # fmt: skip
    log = run.folder / LOG
    with log.open("ab") as file:
        file.write(f"$ {shlex.join(command)}\n".encode())
        file.flush()
        began = file.tell()
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, env=os.environ | threads(jobs),
            pass_fds=[lock],
            process_group=0,  # a terminal's Ctrl-C goes to the sweep alone, which passes it on once: twice would kill
            preexec_fn=_ending_with_parent(),
        )  # fmt: skip
    return Job(process=process, log=log, began=began)


def threads(jobs: int) -> dict[str, str]:
    """The environment in which `jobs` processes share the cores out; what the user's own says stays as it is."""
    if jobs == 1 or "OMP_NUM_THREADS" in os.environ:
        return {}
    cores = min(machine.cores(), machine.core_limit() or math.inf)
    return {"OMP_NUM_THREADS": str(max(1, int(cores / jobs)))}


def _ending_with_parent() -> Callable[[], int] | None:
    """What has Linux kill a new process when the sweep is killed: the same command can then resume its run at once."""
    if sys.platform != "linux":
        return None
    return partial(ctypes.CDLL(None).prctl, PR_SET_PDEATHSIG, signal.SIGKILL)
