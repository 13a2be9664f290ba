"""What a sweep found: each recipe's mean and deviation over its seeds, and what each gains over its twin."""

import statistics
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from vtzoo.sweep.local import LOG
from vtzoo.sweep.plan import Run
from vtzoo.zoo.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a run ended."""

    recipe: str
    seed: int
    folder: str
    top1: float | None = None  # a fraction of the test images
    images: int | None = None  # of the test split
    steps: int | None = None
    train_seconds: int | None = None
    error: str | None = None  # why it failed


@dataclass(frozen=True, kw_only=True)
class Row:
    """One number a seed, of the runs that finished, and their mean."""

    recipe: str
    baseline: str | None = None  # its twin, where the numbers are what the recipe gains over that with the same seed
    by_seed: dict[int, float]  # top-1, or a difference of two, as fractions
    mean: float | None  # None without a number
    deviation: float | None  # standard, of a sample (n - 1); None of fewer than two numbers


@dataclass(frozen=True, kw_only=True)
class Report:
    """A sweep in numbers."""

    out: str
    seeds: list[int]
    runs: list[Outcome]
    recipes: list[Row]
    twins: list[Row]

    @property
    def failed(self) -> list[Outcome]:
        """The runs that failed."""
        return [run for run in self.runs if run.error]


def summarize(runs: Iterable[Run], problems: Mapping[Run, str], *, out: Path) -> Report:
    """The report on runs that have ended; those that failed are in `problems`, which says why."""
    runs = list(runs)
    outcomes = [_outcome(run, problems.get(run)) for run in runs]
    top1: dict[str, dict[int, float]] = {run.stem: {} for run in runs}
    for run in outcomes:
        if run.top1 is not None:
            top1[run.recipe][run.seed] = run.top1
    pairs = twins({run.stem: run.recipe for run in runs})
    return Report(
        out=str(out), seeds=list(dict.fromkeys(run.seed for run in runs)), runs=outcomes,
        recipes=[_row(name, found) for name, found in top1.items()],
        twins=[_row(name, _gains(top1[name], top1[baseline]), baseline) for name, baseline in pairs],
    )  # fmt: skip


def twins(recipes: Mapping[str, Recipe]) -> Iterator[tuple[str, str]]:
    """Each recipe with [drloc] and the baseline that differs from it in that table, and in the name, alone."""
    for name, recipe in recipes.items():
        for other, baseline in recipes.items():
            if recipe.drloc and replace(recipe, drloc=None, name=baseline.name) == baseline:
                yield name, other


def _outcome(run: Run, problem: str | None) -> Outcome:
    known = {"recipe": run.stem, "seed": run.seed, "folder": str(run.folder)}
    if problem or not run.result:
        return Outcome(**known, error=problem)
    return Outcome(**known, **{key: run.result[key] for key in ("top1", "images", "steps", "train_seconds")})


def _gains(top1: dict[int, float], baseline: dict[int, float]) -> dict[int, float]:
    """The differences of the seeds that both have."""
    return {seed: found - baseline[seed] for seed, found in top1.items() if seed in baseline}


def _row(recipe: str, by_seed: dict[int, float], baseline: str | None = None) -> Row:
    numbers = list(by_seed.values())
    return Row(
        recipe=recipe, baseline=baseline, by_seed=by_seed,
        mean=statistics.fmean(numbers) if numbers else None,
        deviation=statistics.stdev(numbers) if len(numbers) > 1 else None,
    )  # fmt: skip


def render(report: Report) -> str:
    """The report as a Markdown table, in percent, and a line for each run that failed."""
    header = ["top-1, %", *(f"seed {seed}" for seed in report.seeds), "mean", "deviation"]
    rows = [header, *(_cells(row, report) for row in (*report.recipes, *report.twins))]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    rows.insert(1, ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])])
    return "\n".join([*(_line(row, widths) for row in rows), *_failures(report)])


def _cells(row: Row, report: Report) -> list[str]:
    """A row's cells: what it is called, each seed's number, the mean and the deviation."""
    name, sign = (f"{row.recipe} over {row.baseline}", "+") if row.baseline else (row.recipe, "")
    by_seed = [_percent(row.by_seed.get(seed), sign, absent="" if row.baseline else "failed") for seed in report.seeds]
    return [name, *by_seed, _percent(row.mean, sign), _percent(row.deviation)]


def _percent(number: float | None, sign: str = "", *, absent: str = "") -> str:
    return absent if number is None else f"{100 * number:{sign}.2f}"


def _line(cells: list[str], widths: list[int]) -> str:
    first, *rest = zip(cells, widths, strict=True)
    return "| " + " | ".join([first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in rest)]) + " |"


def _failures(report: Report) -> Iterator[str]:
    for run in report.failed:
        yield f"{Path(run.folder).name} failed: {run.error}; see {Path(run.folder, LOG)}"
