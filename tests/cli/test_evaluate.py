"""`vtzoo evaluate`."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
from PIL import Image
from typer.testing import Result

from vtzoo.cli import DEFAULT_MODEL
from vtzoo.data.transform import Preprocess
from vtzoo.evaluate import run as assessing
from vtzoo.evaluate.images import Request
from vtzoo.zoo.model_folder import ModelFolder

Command = Callable[..., Result]


class Bright:
    """A classifier that takes a bright image for day, and a dark one for night."""

    labels = ("night", "day")
    preprocess = Preprocess(size=8, interpolation="bicubic", crop=1.0)

    def __call__(self, images: Any) -> np.ndarray:
        day = (images.mean(axis=(1, 2, 3)) > 127)[:, None]
        return np.where(day, [[0.25, 0.75]], [[0.75, 0.25]]).astype(np.float32)


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Four images of the day, one of them dark, and four of the night; and a model called `mine` that is measured."""
    monkeypatch.setattr(assessing, "load", Mock(return_value=Bright()))
    monkeypatch.setattr(assessing.fetch, "model_folder", Mock(return_value=ModelFolder("mine", tmp_path)))
    random = np.random.default_rng(0)
    for name, values in {"day": (200, 210, 220, 20), "night": (10, 30, 40, 50)}.items():
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number, value in enumerate(values):
            pixels = random.integers(0, 9, (8, 8, 3)) + value
            Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / "photos" / name / f"{number}.png")
    return tmp_path / "photos"


def test_evaluate_prints_the_numbers_and_every_class_of_a_few(vt: Command, photos: Path) -> None:
    result = vt("evaluate", "-m", "mine", "--data", photos)
    assert (result.exit_code, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    assert lines[0] == f"mine on all the images of {photos}, as it has no test or val split"
    assert lines[1].startswith("  top-1                       87.50% (95% interval ")
    assert "top-5" not in result.stdout  # with two classes, top-5 is meaningless
    assert "  images                      8" in lines
    assert lines[-5:] == [
        "most confused: day as night (1)",
        "class by class:",
        "  class  precision  recall     F1  images",
        "  night      80.0%  100.0%  88.9%       4",
        "  day       100.0%   75.0%  85.7%       4",
    ]


def test_evaluate_json_has_what_it_always_had_first(vt: Command, photos: Path, tmp_path: Path) -> None:
    result = vt("evaluate", "-m", "mine", "--data", photos, "--json", "--report", tmp_path / "report")
    told = json.loads(result.stdout)
    assert list(told)[:6] == ["top1", "top5", "images", "manifest", "seconds", "images_per_second"]
    assert (told["top1"], told["top5"], told["images"]) == (0.875, 1.0, 8)
    assert result.stderr == f"report: {tmp_path / 'report' / 'report.md'}\n"
    assert json.loads((tmp_path / "report" / "report.json").read_text()) == told


def test_evaluate_hands_on_what_it_is_asked(vt: Command, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assess = Mock(side_effect=KeyboardInterrupt)
    monkeypatch.setattr(assessing, "assess", assess)
    vt("evaluate")
    assert assess.call_args.args == (DEFAULT_MODEL, Request())
    vt(
        "evaluate", "--data", "ORG/NAME@v1", "--split", "val", "--skip-unknown", "--image-column", "photo",
        "--label-column", "kind", "--revision", "main", "--backend", "torch", "--device", "cpu",
    )  # fmt: skip
    wanted = Request(data="ORG/NAME@v1", split="val", skip_unknown=True, image_column="photo", label_column="kind")
    assert assess.call_args.args == (DEFAULT_MODEL, wanted)
    told = {key: assess.call_args.kwargs[key] for key in ("revision", "backend", "device")}
    assert told == {"revision": "main", "backend": "torch", "device": "cpu"}


def test_images_that_cannot_be_read_are_named_and_fail_at_the_end_unless_skipped(vt: Command, photos: Path) -> None:
    broken = photos / "day" / "0.png"
    broken.write_bytes(broken.read_bytes()[:60])
    result = vt("evaluate", "-m", "mine", "--data", photos)
    assert result.exit_code == 1
    assert result.stderr.startswith(f"Error: unreadable image {broken}: ")
    assert "  images                      7" in result.stdout
    assert "  unreadable                  1, left out" in result.stdout
    assert vt("evaluate", "-m", "mine", "--data", photos, "--skip-bad").exit_code == 0


def test_classes_that_do_not_fit_are_an_error_before_any_report(vt: Command, photos: Path, tmp_path: Path) -> None:
    (photos / "night").rename(photos / "Night")
    arguments = ("evaluate", "-m", "mine", "--data", photos, "--report", tmp_path / "report")
    result = vt(*arguments)
    assert result.exit_code == 1
    assert result.stderr.startswith(
        f"Error: mine lacks 1 of the 2 classes in {photos}, Night: those of 4 images\nHint: "
    )
    assert "did you mean 'night' for 'Night'?" in result.stderr
    assert not (tmp_path / "report").exists()
    result = vt(*arguments, "--skip-unknown")
    assert result.exit_code == 0
    assert result.stderr.startswith("Note: 4 images of classes that the model lacks, Night: left out")
    assert "  of unknown classes          4, left out" in result.stdout


def test_a_file_where_the_report_would_be_is_refused_before_anything_is_measured(
    vt: Command, photos: Path, tmp_path: Path
) -> None:
    (tmp_path / "report").write_text("")
    result = vt("evaluate", "-m", "mine", "--data", photos, "--report", tmp_path / "report")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == f"Error: {tmp_path / 'report'} is not a folder\nHint: choose another --report\n"


def test_of_many_classes_the_worst_are_shown(vt: Command, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vtzoo.evaluate.text_report.SHOWN", 1)
    lines = vt("evaluate", "-m", "mine", "--data", photos).stdout.splitlines()
    assert lines[-3] == "the 1 worst of 2 classes:"
    assert lines[-1].split()[0] == "day"
