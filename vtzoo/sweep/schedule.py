"""Runs the runs of a sweep, several at a time, and reports on all of them."""

import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

from vtzoo.sweep import lock
from vtzoo.sweep.board import Board, board
from vtzoo.sweep.local import Job, Options, start
from vtzoo.sweep.plan import Run, plan
from vtzoo.sweep.summary import Report, summarize

POLL = 0.5  # seconds between two looks at the runs


def sweep(
    recipes: Sequence[str], seeds: Sequence[int], *, out: Path, options: Options | None = None, jobs: int = 1
) -> Report:
    """Train every recipe with every seed, `jobs` runs at a time, each into a folder of `out`, and compare them.

    Finished runs are not repeated, and others are resumed. One that fails stops no other, and the report says why it
    did. Ctrl-C stops them all, each with a checkpoint, and raises KeyboardInterrupt; a second one ends them at once.
    """
    options = options or Options()
    runs = plan(recipes, seeds, out=out, data=options.data, teacher=options.teacher)
    with lock.held(out) as held, board() as shown:
        for run in runs:
            if run.result:
                shown.tell(f"{_finished(run, run.result)}; finished before")
        todo = [run for run in runs if not run.result]
        schedule = Schedule(todo, partial(start, options=options, jobs=jobs, lock=held), jobs=jobs, shown=shown)
        return summarize(runs, schedule.work(), out=out)


class Schedule:
    """Runs, `jobs` of them at a time. `start` begins one, here or elsewhere, and gives what it can be asked by."""

    def __init__(self, runs: Iterable[Run], start: Callable[[Run], Job], *, jobs: int, shown: Board) -> None:
        self.start, self.jobs, self.shown = start, jobs, shown
        self.waiting, self.working = deque(runs), dict[Run, Job]()
        self.finished, self.problems = 0, dict[Run, str]()

    def work(self) -> dict[Run, str]:
        """Run them all; those that failed, and why."""
        try:
            while self.waiting or self.working:
                self._begin()
                ended = [run for run, job in self.working.items() if job.ended()]
                for run in ended:
                    self._end(run, self.working.pop(run).problem())
                self._show()
                if not ended:
                    time.sleep(POLL)
        finally:
            self._stop()
        return self.problems

    def _begin(self) -> None:
        """Start what there is room for."""
        while self.waiting and len(self.working) < self.jobs:
            run = self.waiting.popleft()
            try:
                self.working[run] = self.start(run)
            except OSError as error:  # a disk that is full, a folder that may not be written
                self._end(run, f"{run.folder}: {error.strerror}")

    def _end(self, run: Run, problem: str | None) -> None:
        """Take note of how a run ended, and tell."""
        result = run.result
        if result and not problem:
            self.finished += 1
            self.shown.tell(_finished(run, result))
        else:
            self.problems[run] = problem or "it ended without a result"
            self.shown.tell(f"{run.name}: failed: {self.problems[run]}")

    def _show(self) -> None:
        below = f"{self.finished} finished, {len(self.problems)} failed, {len(self.waiting)} waiting"
        self.shown.show(self.working, below)

    def _stop(self) -> None:
        """Have the runs that are still at work leave a checkpoint and end; a Ctrl-C meanwhile ends them at once."""
        jobs = self.working.values()
        try:
            for job in jobs:
                job.stop()
            if jobs:
                self.shown.tell("stopping; every run leaves a checkpoint, and the same command goes on from there")
            for job in jobs:
                job.wait()
        except KeyboardInterrupt:
            for job in jobs:
                job.kill()
            for job in jobs:
                job.wait()


def _finished(run: Run, result: dict[str, Any]) -> str:
    took = timedelta(seconds=result["train_seconds"])
    return f"{run.name}: top-1 {result['top1']:.2%} after {result['steps']:,} steps, {took}"
