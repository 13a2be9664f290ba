"""The files of an evaluation's report folder."""

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from vtzoo.errors import VtzooError
from vtzoo.evaluate import report
from vtzoo.evaluate.images import Request
from vtzoo.evaluate.run import Assessment, of_classifier
from vtzoo.zoo.result import Result

Photos = Callable[..., Path]


@pytest.fixture
def pets(photos: Photos, sees: type) -> Assessment:
    root = photos(**{"кошка": [1, 1, 1, 1, 0], "dog, red": [0] * 5})
    return of_classifier("mine", sees("dog, red", "кошка"), Request(data=str(root)), Result())


@pytest.fixture
def tags(tmp_path: Path, paint: Photos, sees: type) -> Assessment:
    colours = [(255, 0, 0), (250, 255, 0), (0, 200, 0), (100, 0, 255), (255, 255, 9), (1, 1, 1)]
    for number, colour in enumerate(colours):
        paint(f"{number}.png", colour)
    cells = ["1,0", "1,", "0,1", "1,0", "1,1", "0,0"]
    lines = "\n".join(f"{number}.png,{cell}" for number, cell in enumerate(cells))
    (tmp_path / "labels.csv").write_text(f"path,red,green\n{lines}\n")
    return of_classifier("mine", sees("red", "green", multi=True), Request(data=str(tmp_path / "labels.csv")), Result())


def test_a_report_is_everything_and_report_md_names_every_picture(pets: Assessment, tmp_path: Path) -> None:
    folder = tmp_path / "new" / "report"
    assert report.write(pets, folder) == folder / "report.md"
    assert {file.name for file in folder.iterdir()} == set(report.FILES)
    assert json.loads((folder / "report.json").read_text()) == json.loads(json.dumps(pets.as_json()))
    text = (folder / "report.md").read_text(encoding="utf-8")
    for name in report.PICTURES:
        assert f"]({name})" in text
        with Image.open(folder / name) as picture:
            assert picture.format == "PNG"
            assert min(picture.size) > 150
    assert "| top-1 | 90.00% (95% interval " in text
    assert "| кошка | dog, red | 1 |" in text
    assert "| кошка | 100.0% | 80.0% | 88.9% | 5 |" in text


def test_predictions_have_a_line_an_image_whatever_is_in_a_name(pets: Assessment, tmp_path: Path) -> None:
    report.write(pets, tmp_path / "report")
    with (tmp_path / "report" / "predictions.csv").open(encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    assert list(lines[0]) == ["image", "label", "predicted", "probability", "correct"]
    assert len(lines) == 10
    (wrong,) = [line for line in lines if line["correct"] == "false"]
    assert (Path(wrong["image"]).name, wrong["label"], wrong["predicted"]) == ("4.png", "кошка", "dog, red")
    assert float(wrong["probability"]) == pytest.approx(0.7)


def test_multi_label_reports_have_no_confusion_matrix_and_share_a_cell(tags: Assessment, tmp_path: Path) -> None:
    report.write(tags, tmp_path / "report")
    assert {file.name for file in (tmp_path / "report").iterdir()} == set(report.FILES) - {"confusion.png"}
    lines = (tmp_path / "report" / "predictions.csv").read_text().splitlines()
    assert [line.partition(".png,")[2] for line in lines[1:]] == [
        "red,red,1,true", "red,red;green,0.980392;1,true", "green,green,0.784314,true", "red,,,false",
        "red;green,red;green,1;1,true", ",,,true",
    ]  # fmt: skip
    text = (tmp_path / "report" / "report.md").read_text()
    assert "| mAP | 100.00% |" in text
    assert "| red | 100.0% | 85.7% | 4 | 2 |" in text


def test_the_worst_and_the_least_certain_come_first(
    tags: Assessment, pets: Assessment, monkeypatch: pytest.MonkeyPatch
) -> None:
    sheets = []
    monkeypatch.setattr(report, "contact_sheet", lambda rows, numbers, captions: sheets.append((numbers, captions)))
    report.pictures(tags)
    assert sheets[0] == ([3], [("red: yes", "predicted 39.2%")])  # the only wrong prediction, at a threshold of 0.5
    assert sheets[1][0][0] == 3
    assert len(sheets[1][0]) == 6
    sheets.clear()
    pets.probabilities[2] = [0.1, 0.9]  # a dog; the last of the cats is taken for one as well, at 0.7
    pets.probabilities[7] = [0.55, 0.45]  # a cat
    report.pictures(pets)
    assert sheets[0] == ([2, 9, 7], [("is dog, red", "90.0% кошка"), ("is кошка", "70.0% dog, red"),
                                     ("is кошка", "55.0% dog, red")])  # fmt: skip
    assert sheets[1][0] == [7, 0, 1, 3, 4, 5, 6, 8, 9, 2]


def test_an_earlier_report_leaves_nothing_behind(pets: Assessment, photos: Photos, sees: type, tmp_path: Path) -> None:
    folder = tmp_path / "report"
    report.write(pets, folder)
    (folder / "mine.txt").write_text("stays")
    root = photos("right", cat=[1] * 5, dog=[0] * 5)
    report.write(of_classifier("mine", sees("dog", "cat"), Request(data=str(root)), Result()), folder)
    assert {file.name for file in folder.iterdir()} == {"mine.txt"} | set(report.FILES) - {"mistakes.png"}
    assert "mistakes.png" not in (folder / "report.md").read_text()


def test_what_markdown_would_read_is_escaped(photos: Photos, sees: type) -> None:
    root = photos(**{"a|b": [0] * 5, "*c* <d>": [0] * 5})
    text = report.markdown(of_classifier("mine", sees("a|b", "*c* <d>"), Request(data=str(root)), Result()), [])
    assert r"| \*c\* \<d> | a\|b | 5 |" in text


def test_a_file_in_the_way_is_refused(tmp_path: Path) -> None:
    (tmp_path / "report").write_text("")
    with pytest.raises(VtzooError, match="report is not a folder"):
        report.check(tmp_path / "report")
    report.check(tmp_path)
    report.check(tmp_path / "new")
    assert not (tmp_path / "new").exists()
