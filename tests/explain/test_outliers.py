"""The areas and tables of the benchmark of foreign images; its measurement is run by hand."""

import runpy
from pathlib import Path

import numpy as np
import pytest

BENCH = runpy.run_path(str(Path(__file__).parents[1] / "bench" / "outliers.py"))


def test_the_area_is_the_share_of_pairs_in_which_the_foreign_image_scores_higher() -> None:
    random = np.random.default_rng(0)
    own, other = random.normal(size=40), random.normal(0.7, size=30)
    found = BENCH["separation"](own, other)
    assert found["auroc"] == pytest.approx((other[:, None] > own[None]).mean())
    assert found["low"] < found["auroc"] < found["high"]


def test_scores_that_are_the_wrong_way_round_are_below_a_half() -> None:
    assert BENCH["separation"](np.ones(5), np.zeros(5))["auroc"] == 0


def test_digits_and_noise_are_of_the_models_size_and_need_no_data(tmp_path: Path) -> None:
    found = dict(BENCH["kinds"](tmp_path, 3, 32))
    assert list(found) == ["uniform noise", "handwritten digits"]
    assert {pixels.shape for pixels in found.values()} == {(3, 3, 32, 32)}
    assert found["handwritten digits"].max() > 230


def test_a_table_has_a_row_a_kind_and_no_area_for_the_models_own() -> None:
    area = {"auroc": 0.75, "low": 0.7, "high": 0.8}
    rows = [
        {"kind": "own", "images": 5, "means": {"error": 0.5, "doubt": 0.4}},
        {"kind": "other", "images": 5, "means": {"error": 0.6, "doubt": 0.4}, "error": area, "doubt": area},
    ]
    lines = BENCH["render"]({"model": "m", "machine": "a", "versions": {"vtzoo": "1"}, "rows": rows}).splitlines()
    assert lines[4] == "| own | 5 | 0.500 |  |  |"
    assert lines[5] == "| other | 5 | 0.600 | 0.750 (0.700 to 0.800) | 0.750 (0.700 to 0.800) |"
