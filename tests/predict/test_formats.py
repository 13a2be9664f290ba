"""Predictions as text, read back with the standard library."""

import csv
import io
import json

import pytest

from vtzoo.predict.bulk import ImagePredictions
from vtzoo.predict.classifier import Prediction
from vtzoo.predict.formats import text_format

HARD = 'a "quoted", split\nname — 猫.jpg'
ANSWERS = [
    ImagePredictions(image="a.jpg", predictions=[Prediction(label="cat, dog", probability=0.75)]),
    ImagePredictions(image="gone.jpg", error="there is no file 'gone.jpg'"),
    ImagePredictions(image=HARD, predictions=[Prediction(label="Bär", probability=0.1 + 0.2)]),
]
ROWS = [
    {"image": "a.jpg", "predictions": [{"label": "cat, dog", "probability": 0.75}], "error": None},
    {"image": "gone.jpg", "predictions": [], "error": "there is no file 'gone.jpg'"},
    {"image": HARD, "predictions": [{"label": "Bär", "probability": 0.30000000000000004}], "error": None},
]


def written(form: str, pieces: list[list[ImagePredictions]]) -> str:
    made = text_format(form, 1)
    return made.begin + "".join(made.text(piece) for piece in pieces) + made.end


@pytest.mark.parametrize("pieces", [[ANSWERS], [[one] for one in ANSWERS], [ANSWERS[:2], [], ANSWERS[2:]]])
def test_json_is_what_the_standard_library_writes_however_the_answers_come(
    pieces: list[list[ImagePredictions]],
) -> None:
    assert written("json", pieces) == json.dumps(ROWS, indent=2) + "\n"


def test_json_of_no_answers_is_an_empty_list() -> None:
    assert written("json", []) == "[]\n"


def test_a_json_list_that_was_begun_goes_on_with_a_comma() -> None:
    first, second = text_format("json", 1), text_format("json", 1, begun=True)
    text = first.begin + first.text(ANSWERS[:1]) + second.text(ANSWERS[1:]) + second.end
    assert json.loads(text) == ROWS


def test_json_lines_have_an_object_a_line_in_ascii() -> None:
    text = written("jsonl", [ANSWERS])
    assert text.isascii()
    assert [json.loads(line) for line in text.splitlines()] == ROWS


def test_csv_quotes_what_must_be_quoted_and_has_a_column_a_class() -> None:
    text = written("csv", [ANSWERS[:1], ANSWERS[1:]])
    header, *rows = csv.reader(io.StringIO(text, newline=""))
    assert header == ["image", "error", "label_1", "probability_1"]
    assert rows == [
        ["a.jpg", "", "cat, dog", "0.75"],
        ["gone.jpg", "there is no file 'gone.jpg'", "", ""],
        [HARD, "", "Bär", "0.30000000000000004"],
    ]
    assert "\r" not in text


def test_a_table_has_a_block_an_image_and_none_where_there_is_an_error() -> None:
    assert written("table", [ANSWERS]) == f"a.jpg\n   75.0%  cat, dog\n{HARD}\n   30.0%  Bär\n"


def test_a_name_with_control_characters_reaches_no_terminal_as_it_is() -> None:
    hostile = ImagePredictions(image="a.jpg", predictions=[Prediction(label="\x1b]0;owned\x07 Bär", probability=1.0)])
    assert written("table", [[hostile]]) == "a.jpg\n  100.0%  \\x1b]0;owned\\x07 B\\xe4r\n"
