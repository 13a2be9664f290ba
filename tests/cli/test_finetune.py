"""`vtzoo finetune`: its settings, and its output before and after the training."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from unittest.mock import MagicMock, Mock

import numpy as np
import pytest
from PIL import Image
from typer.testing import Result

from vtzoo.finetune.defaults import Overrides
from vtzoo.zoo.result import Result as TrainResult

Command = Callable[..., Result]
MEASURED = TrainResult(top1=0.5, top5=1.0, images=6, split="validation")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two folders of six images."""
    random = np.random.default_rng(0)
    for name in ("Äpfel", "Birnen"):
        (tmp_path / "Obst" / name).mkdir(parents=True)
        for number in range(6):
            pixels = random.integers(0, 256, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "Obst" / name / f"{number}.png")
    return tmp_path / "Obst"


@pytest.fixture
def tuned(monkeypatch: pytest.MonkeyPatch) -> Mock:
    """Replaces the training function with one that returns a result at once."""
    function = Mock(return_value=MEASURED)
    monkeypatch.setattr("vtzoo.finetune.run.finetune", function)
    return function


def test_a_dry_run_says_what_would_be_done_and_writes_nothing(
    vt: Command, photos: Path, tuned: Mock, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    result = vt("finetune", "--data", photos, "--dry-run", "--epochs", 3, "--device", "cpu")
    assert (result.exit_code, result.stdout) == (0, "")
    for line in ("obst: 2 classes, one an image", "head: new, 2 classes", "into: runs/swin_t-drloc-obst"):
        assert line in result.stderr.splitlines()
    tuned.assert_not_called()
    assert [path.name for path in tmp_path.iterdir()] == ["Obst"]


def test_options_are_passed_on_and_the_accuracy_is_printed(
    vt: Command, photos: Path, tuned: Mock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare = Mock()
    monkeypatch.setattr("vtzoo.finetune.session.prepare", prepare)
    prepare.return_value.sentences.return_value = ["what will happen"]
    result = vt(
        "finetune", "--data", photos, "--model", "some", "--out", tmp_path / "run", "--no-drloc", "--no-flip",
        "--image-size", 64, "--head-only", "--epochs", 4, "--batch-size", 2, "--lr", 0.1, "--seed", 3, "--skip-bad",
        "--resume",
    )  # fmt: skip
    assert prepare.call_args.args[0] == "some"
    assert prepare.call_args.args[1].classes == ("Birnen", "Äpfel")
    assert prepare.call_args.kwargs == {
        "revision": None, "seed": 3, "device": "auto",
        "overrides": Overrides(
            drloc=False, flip=False, head_only=True, image_size=64, epochs=4, batch_size=2, learning_rate=0.1
        ),
    }  # fmt: skip
    (session, out), how = tuned.call_args
    assert (session, out) == (prepare.return_value, tmp_path / "run")
    assert (how["resume"], how["skip_bad"]) == (True, True)
    assert result.stdout == (
        f"{out}: top-1 50.00%, top-5 100.00% on 6 validation images\nnext: vtzoo predict --model {out} photo.jpg\n"
    )


@pytest.mark.parametrize(
    ("measured", "said"),
    [
        (
            TrainResult(map=0.25, images=7, split="test", held_map=0.5, held_images=6),
            "run: mAP 25.00% on 7 test images\nmAP 50.00% on 6 validation images\n",
        ),
        (
            replace(MEASURED, split="test", held_top1=1.0, held_top5=1.0, held_images=1_000),
            "run: top-1 50.00%, top-5 100.00% on 6 test images\n"
            "top-1 100.00%, top-5 100.00% on 1,000 validation images\n",
        ),
    ],
)
def test_test_and_validation_images_are_told_apart(
    measured: TrainResult, said: str, vt: Command, photos: Path, tuned: Mock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vtzoo.finetune.session.prepare", MagicMock())
    tuned.return_value = measured
    assert vt("finetune", "--data", photos, "--out", "run").stdout.startswith(said)
    assert json.loads(vt("finetune", "--data", photos, "--out", "run", "--json").stdout) == measured.as_json()
