"""Means, deviations and paired differences, against numpy's."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from vtzoo.sweep.plan import Run, plan_runs
from vtzoo.sweep.summary import Row, render, summarize, twins
from vtzoo.zoo.recipe_files import load_recipe, shipped

WITH, WITHOUT = (0.60, 0.62, 0.67), (0.59, 0.58, 0.66)


@pytest.fixture
def runs(pair: list[str], tmp_path: Path) -> list[Run]:
    """Three finished runs of a recipe and three of its baseline."""
    found = plan_runs(pair, [0, 1, 5], out=tmp_path / "out")
    for run, top1 in zip(found, np.stack([WITH, WITHOUT], axis=1).ravel(), strict=True):
        run.folder.mkdir(parents=True)
        result = {"top1": top1, "images": 100, "seed": run.seed, "steps": 7, "train_seconds": 60}
        (run.folder / "result.json").write_text(json.dumps(result))
        (run.folder / "README.md").touch()
    return found


def numbers(row: Row) -> list[float]:
    assert row.mean is not None
    assert row.deviation is not None
    return [*row.by_seed.values(), row.mean, row.deviation]


def test_each_recipe_has_its_mean_and_the_deviation_of_a_sample(runs: list[Run]) -> None:
    rows = summarize(runs, {}, out=Path("out")).recipes
    assert [(row.recipe, row.baseline) for row in rows] == [("with", None), ("without", None)]
    for row, top1 in zip(rows, (WITH, WITHOUT), strict=True):
        assert numbers(row) == pytest.approx([*top1, np.mean(top1), np.std(top1, ddof=1)])


def test_twins_differ_seed_by_seed(runs: list[Run]) -> None:
    (row,) = summarize(runs, {}, out=Path("out")).twins
    gains = np.subtract(WITH, WITHOUT)
    assert (row.recipe, row.baseline) == ("with", "without")
    assert numbers(row) == pytest.approx([*gains, gains.mean(), gains.std(ddof=1)])


def test_a_failed_run_is_missing_from_its_recipe_and_from_the_pairs(runs: list[Run]) -> None:
    failed = next(run for run in runs if (run.stem, run.seed) == ("without", 5))
    report = summarize(runs, {failed: "it burned"}, out=Path("out"))
    assert [outcome.error for outcome in report.failed] == ["it burned"]
    with_drloc, without = report.recipes
    assert list(with_drloc.by_seed) == [0, 1, 5]
    assert list(without.by_seed) == list(report.twins[0].by_seed) == [0, 1]
    assert without.mean == pytest.approx(0.585)


def test_one_run_has_no_deviation_and_none_has_no_mean(runs: list[Run]) -> None:
    report = summarize(runs[:2], {runs[1]: "it burned"}, out=Path("out"))
    assert [(row.mean, row.deviation) for row in report.recipes] == [(0.6, None), (None, None)]


def test_the_table_is_markdown_in_percent_and_says_which_run_failed_and_why(runs: list[Run]) -> None:
    failed = next(run for run in runs if (run.stem, run.seed) == ("without", 5))
    assert render(summarize(runs, {failed: "it burned"}, out=Path("out"))).splitlines() == [
        "| top-1, %          | seed 0 | seed 1 | seed 5 |  mean | deviation |",
        "| ----------------- | -----: | -----: | -----: | ----: | --------: |",
        "| with              |  60.00 |  62.00 |  67.00 | 63.00 |      3.61 |",
        "| without           |  59.00 |  58.00 | failed | 58.50 |      0.71 |",
        "| with over without |  +1.00 |  +4.00 |        | +2.50 |      2.12 |",
        f"without-seed5 failed: it burned; see {failed.folder}/train.log",
    ]


def test_every_pair_of_the_zoo_is_one_and_nothing_else_is() -> None:
    recipes = {name: load_recipe(path) for name, path in shipped().items()}
    named = {(name, name.replace("-drloc-", "-baseline-")) for name in recipes if "-drloc-" in name}
    assert set(twins(recipes)) == named


def test_what_differs_in_more_than_drloc_is_no_pair(recipe: Callable[..., str], pair: list[str]) -> None:
    other = recipe("other", of="swin_t-baseline-cifar10-untaught", batch_size="32")
    lighter = recipe("lighter", pairs="16", weight="0.1")
    found = {Path(path).stem: load_recipe(Path(path)) for path in [*pair, other, lighter]}
    assert list(twins(found)) == [("with", "without"), ("lighter", "without")]
