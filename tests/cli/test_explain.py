"""`vtzoo explain`."""

import json
from collections.abc import Callable
from pathlib import Path
from unittest.mock import Mock

import pytest
from PIL import Image
from typer.testing import Result

ROCKET = Path(__file__).parents[1] / "photos" / "rocket.jpg"
Command = Callable[..., Result]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_explain_writes_a_picture_and_says_what_is_in_it(vt: Command, here: Path) -> None:
    first = json.loads(vt("predict", ROCKET, "--json").stdout)[0]["predictions"][0]["label"]
    result = vt("explain", ROCKET, "--device", "cpu")
    assert result.exit_code == 0, result.stderr
    lines = result.stdout.splitlines()
    assert lines[0] == str(ROCKET)
    assert lines[1].endswith(f"%  {first}")
    assert lines[2] == "method: Grad-CAM on 4x4 cells"
    assert lines[3] == "seen: 320x320 of 480x320 pixels, from column 80 and row 0; the rest was cut off"
    assert lines[4].startswith("localization: off by 0.")
    assert lines[4].endswith(" cells over 256 pairs; the best constant guess by 1.25")
    assert result.stderr == "drawn: rocket-explained.png\n"
    assert [file.name for file in here.iterdir()] == ["rocket-explained.png"]
    with Image.open(here / "rocket-explained.png") as picture:
        assert picture.format == "PNG"


def test_explain_json_is_one_object(vt: Command) -> None:
    result = vt("explain", ROCKET, "--json", "--class", "rocket", "--out", "a.png", "--device", "cpu")
    told = json.loads(result.stdout)
    keys = ["image", "class", "probability", "method", "grid", "crop", "classes", "localization"]
    assert (list(told), result.stderr) == (keys, "")
    assert (told["image"], told["class"], told["method"]) == (str(ROCKET), "rocket", "Grad-CAM")
    assert told["classes"] == [{"class": "rocket", "probability": told["probability"]}]
    assert list(told["localization"]) == ["error_cells", "constant_cells", "pairs"]


def refusal(vt: Command, *arguments: object) -> str:
    """The command's stderr; it must fail, print nothing to stdout, and write no file."""
    before = sorted(Path().iterdir())
    result = vt("explain", *arguments, "--device", "cpu")
    assert (result.exit_code, result.stdout) == (1, "")
    assert sorted(Path().iterdir()) == before
    return result.stderr


def test_an_unknown_class_is_answered_with_the_nearest(vt: Command) -> None:
    assert refusal(vt, ROCKET, "--class", "rockett") == (
        "Error: unknown class 'rockett'\nHint: did you mean rocket or rose or trout? vtzoo show MODEL lists them all\n"
    )


def test_an_image_that_cannot_be_read_is_a_sentence(vt: Command, here: Path) -> None:
    (here / "bad.jpg").write_bytes(b"not an image")
    assert refusal(vt, "bad.jpg") == "Error: 'bad.jpg' is not an image, or of a kind that cannot be read\n"
    assert refusal(vt, "none.jpg") == "Error: there is no file 'none.jpg'\n"


def test_an_onnx_file_is_a_sentence(vt: Command, here: Path) -> None:
    (here / "model.onnx").write_bytes(b"")
    said = refusal(vt, ROCKET, "--model", "model.onnx")
    assert said.startswith("Error: model.onnx is an ONNX file, and only a model on torch can be explained\n")


@pytest.mark.parametrize(
    ("out", "message"),
    [
        (
            "picture.jpg",
            "Error: the picture is a PNG, but 'picture.jpg' does not end in .png\nHint: --out picture.png\n",
        ),
        ("no/a.png", "Error: cannot write no/a.png: there is no folder no\nHint: create it, or choose another --out\n"),
        ("folder.png", "Error: cannot write folder.png\nHint: choose another --out\n"),
        ("photo.png", "Error: photo.png is the photograph itself\nHint: choose another --out\n"),
    ],
)
def test_a_place_where_no_picture_can_be_is_refused_before_any_work(
    out: str, message: str, vt: Command, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (here / "folder.png").mkdir()
    Image.new("RGB", (8, 8)).save(here / "photo.png")
    work = Mock()
    monkeypatch.setattr("vtzoo.explain.explanation.explain", work)
    assert refusal(vt, "photo.png", "--out", out) == message
    work.assert_not_called()


def test_a_disk_that_is_full_leaves_the_old_picture_and_no_half_of_a_new_one(
    vt: Command, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (here / "a.png").write_bytes(b"old")
    monkeypatch.setattr("os.fsync", Mock(side_effect=OSError(28, "No space left on device")))
    assert refusal(vt, ROCKET, "--out", "a.png").startswith("Error: cannot write a.png: No space left on device\n")
    assert (here / "a.png").read_bytes() == b"old"


def test_one_class_and_several_ask_for_two_things(vt: Command) -> None:
    result = vt("explain", ROCKET, "--class", "rocket", "--top-k", 2)
    assert result.exit_code == 2
    assert "--class explains one class, and --top-k several" in result.stderr
