"""Trains the runs of a sweep, several at a time, and reports on all of them."""

import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

from vtzoo.sweep import lock
from vtzoo.sweep.board import Board, board
from vtzoo.sweep.plan import Run, plan_runs
from vtzoo.sweep.summary import Report, summarize
from vtzoo.sweep.train_process import TrainOptions, TrainProcess, start

POLL = 0.5  # seconds between two checks of the processes


def sweep(
    recipes: Sequence[str], seeds: Sequence[int], *, out: Path, options: TrainOptions | None = None, jobs: int = 1
) -> Report:
    """Train every recipe with every seed, `jobs` runs at a time, each into a folder in `out`, and compare them.

    Finished runs are skipped, and interrupted ones resumed. A failed run stops no other run, and the report has its
    error. Ctrl-C stops all runs, each with a checkpoint, and raises KeyboardInterrupt; a second Ctrl-C kills them.
    """
    options = options or TrainOptions()
    runs = plan_runs(recipes, seeds, out=out, data=options.data, teacher=options.teacher)
    with lock.locked(out) as descriptor, board() as shown:
        for run in runs:
            if run.result:
                shown.tell(f"{_finished(run, run.result)}; finished before")
        todo = [run for run in runs if not run.result]
        schedule = Schedule(todo, partial(start, options=options, jobs=jobs, lock=descriptor), jobs=jobs, shown=shown)
        return summarize(runs, schedule.work(), out=out)


class Schedule:
    """Runs to train, `jobs` at a time. `start` starts the process of a run."""

    def __init__(self, runs: Iterable[Run], start: Callable[[Run], TrainProcess], *, jobs: int, shown: Board) -> None:
        self.start, self.jobs, self.shown = start, jobs, shown
        self.waiting, self.working = deque(runs), dict[Run, TrainProcess]()
        self.finished, self.problems = 0, dict[Run, str]()

    def work(self) -> dict[Run, str]:
        """Train all runs; the failed ones, and why they failed."""
        try:
            while self.waiting or self.working:
                self._begin()
                ended = [run for run, process in self.working.items() if process.ended()]
                for run in ended:
                    self._end(run, self.working.pop(run).problem())
                self._show()
                if not ended:
                    time.sleep(POLL)
        finally:
            self._stop()
        return self.problems

    def _begin(self) -> None:
        """Start waiting runs while fewer than `jobs` are in progress."""
        while self.waiting and len(self.working) < self.jobs:
            run = self.waiting.popleft()
            try:
                self.working[run] = self.start(run)
            except OSError as error:  # a full disk, or a folder that is not writable
                self._end(run, f"{run.folder}: {error.strerror}")

    def _end(self, run: Run, problem: str | None) -> None:
        """Record and show how a run ended."""
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
        """Stop the runs in progress, each with a checkpoint; another Ctrl-C kills them."""
        processes = self.working.values()
        try:
            for process in processes:
                process.stop()
            if processes:
                self.shown.tell("stopping; every run writes a checkpoint, and the same command continues from there")
            for process in processes:
                process.wait()
        except KeyboardInterrupt:
            for process in processes:
                process.kill()
            for process in processes:
                process.wait()


def _finished(run: Run, result: dict[str, Any]) -> str:
    took = timedelta(seconds=result["train_seconds"])
    return f"{run.name}: top-1 {result['top1']:.2%} after {result['steps']:,} steps, {took}"
