import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vtzoo.train.curves import draw_curves, epoch_means


def test_epoch_means_are_those_of_whole_epochs() -> None:
    np.testing.assert_array_equal(epoch_means([1, 3, 5, 7, 100], 2), [2, 6])


def test_a_log_without_a_whole_epoch_has_no_means() -> None:
    assert epoch_means([1.0], 2).shape == (0,)


@pytest.mark.parametrize(
    ("losses", "panels"),
    [
        ({"localization": 0.0}, 2),
        ({"localization": 1.5}, 3),
        ({"localization": 0.0, "distillation": 2.0}, 3),
        ({"localization": 1.5, "distillation": 2.0}, 4),
    ],
)
def test_each_curve_that_is_not_all_zeros_has_a_panel(losses: dict[str, float], panels: int, tmp_path: Path) -> None:
    lines = [{"cross_entropy": 3.0 - step / 4, "accuracy": step / 8, **losses} for step in range(8)]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    draw_curves(tmp_path / "metrics.jsonl", tmp_path / "curves.png", 2, None)
    with Image.open(tmp_path / "curves.png") as picture:
        assert picture.size == (panels * 440, 330)
