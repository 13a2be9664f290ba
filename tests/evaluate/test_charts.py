"""Charts and contact sheets, and the fonts in them."""

import io
import unicodedata

import numpy as np
import pyarrow
import pytest
from PIL import Image, ImageFont
from sklearn.metrics import confusion_matrix

from vtzoo.data.encoded_images import EncodedImages
from vtzoo.evaluate import charts, contact_sheet, fonts
from vtzoo.evaluate.calibration import reliability

NAMES = tuple(f"class {number}" for number in range(1200))


def opened(png: bytes) -> Image.Image:
    return Image.open(io.BytesIO(png))


# Letters


@pytest.mark.parametrize("text", ["café", "мост", "γάτα", "Łódź", "a $b$ _c_", "…"])
def test_the_font_has_what_europe_writes(text: str) -> None:
    assert fonts.drawable(text) == text


@pytest.mark.parametrize(
    ("text", "drawn"),
    [("橋", r"\u6a4b"), ("a橋b", r"a\u6a4bb"), ("ก", r"\u0e01"), ("a\nb", r"a\nb"), ("🦥", r"\U0001f9a5")],
)  # fmt: skip
def test_what_the_font_lacks_is_escaped(text: str, drawn: str) -> None:
    assert fonts.drawable(text) == drawn


def test_nothing_that_is_drawn_as_it_is_is_the_font_s_box_for_the_missing() -> None:
    letters = fonts.font(20)
    box = bytes(letters.getmask("\u6a4b"))
    marks = ("L", "N")  # letters and numbers
    some = [chr(code) for code in range(0x20, 0x3000, 7) if unicodedata.category(chr(code))[0] in marks]
    kept = [char for char in some if fonts.drawable(char) == char]
    assert len(kept) > 200
    assert [char for char in kept if bytes(letters.getmask(char)) == box] == []


@pytest.mark.parametrize("end", [False, True])
def test_a_long_name_is_cut_to_fit_and_keeps_its_beginning_or_its_end(end: bool) -> None:
    letters: ImageFont.FreeTypeFont = fonts.font(12)
    text = "".join(map(str, range(100)))
    shown = fonts.fitted(text, letters, 100, end=end)
    assert 80 < letters.getlength(shown) <= 100
    assert text.endswith(shown[1:]) if end else text.startswith(shown[:-1])
    assert fonts.fitted("cat", letters, 100) == "cat"


# The confusion matrix


def test_the_table_is_scikit_learn_s_with_a_column_for_classes_that_have_no_images() -> None:
    random = np.random.default_rng(0)
    labels, predicted = random.choice([2, 5, 7], 300), random.choice([2, 5, 7, 8, 9], 300)
    matrix, shown, left = charts.table(labels, predicted, NAMES)
    expected = confusion_matrix(labels, predicted, labels=[2, 5, 7, 8, 9])[:3]
    assert np.array_equal(matrix[:, :3], expected[:, :3])
    assert np.array_equal(matrix[:, 3], expected[:, 3] + expected[:, 4])
    assert (shown.tolist(), left) == ([2, 5, 7], 0)
    assert charts.table(labels, labels, NAMES)[0].shape == (3, 3)


def test_of_too_many_classes_those_with_the_most_images_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(charts, "LARGEST", 2)
    labels = np.array([0, 1, 1, 2, 2, 2, 3])
    matrix, shown, left = charts.table(labels, np.array([0, 1, 2, 2, 2, 0, 3]), NAMES)
    assert (shown.tolist(), left) == ([1, 2], 2)
    assert matrix.tolist() == [[1, 1, 0], [0, 2, 1]]


@pytest.mark.parametrize("classes", [1, 2, 10, 1000])
def test_a_matrix_of_any_size_is_dark_on_its_diagonal_where_all_is_right(classes: int) -> None:
    labels = np.arange(classes)
    right = np.asarray(opened(charts.confusion(labels, labels, NAMES)).convert("L"))
    wrong = np.asarray(opened(charts.confusion(labels, np.roll(labels, classes // 2), NAMES)).convert("L"))
    assert min(right.shape) > 400
    assert max(right.shape) < 2500
    assert (right != wrong).any() == (classes > 1)


def test_names_that_no_font_has_and_that_look_like_mathematics_are_drawn_without_a_warning() -> None:
    labels = np.arange(4)
    assert opened(charts.confusion(labels, labels[::-1], ("橋", "$x", "a_b^", "x" * 500))).format == "PNG"


def test_the_reliability_diagram_draws_empty_bins_too() -> None:
    found = reliability(np.array([0.9, 0.92, 0.5]), np.array([True, False, True]))
    assert opened(charts.reliability(found, frequency="accuracy")).size == (660, 780)


# Contact sheets


def some_rows(*colours: tuple[int, int, int], size: tuple[int, int] = (16, 8)) -> EncodedImages:
    encoded = []
    for colour in colours:
        stream = io.BytesIO()
        Image.new("RGB", size, colour).save(stream, "PNG")
        encoded.append({"bytes": stream.getvalue(), "path": None})
    return EncodedImages(
        stored=pyarrow.chunked_array([encoded]), positions=np.arange(len(colours)), origin="photo {}".format
    )


def test_images_are_shown_in_the_order_that_is_asked_for() -> None:
    red, blue = (255, 0, 0), (0, 0, 255)
    sheet = opened(contact_sheet.contact_sheet(some_rows(red, blue), [1, 0], [("is red",), ("is 橋",)]))
    middle = contact_sheet.GAP + contact_sheet.TILE // 2
    assert sheet.getpixel((middle, middle)) == blue
    assert sheet.getpixel((middle + contact_sheet.TILE + contact_sheet.GAP, middle)) == red
    below = np.asarray(sheet)[contact_sheet.GAP + contact_sheet.TILE :]
    assert (below < 128).any()  # letters


def test_a_sheet_ends_after_so_many_images() -> None:
    rows = some_rows(*[(9, 9, 9)] * 40)
    sizes = [
        opened(contact_sheet.contact_sheet(rows, range(count), [("", "")] * count)).size for count in (1, 6, 7, 30, 40)
    ]
    one = contact_sheet.TILE + contact_sheet.GAP
    assert [width for width, _ in sizes] == [one + contact_sheet.GAP] + [6 * one + contact_sheet.GAP] * 4
    assert sizes[1][1] < sizes[2][1] < sizes[3][1] == sizes[4][1]


@pytest.mark.parametrize(("size", "shown"), [((16, 8), (144, 72)), ((1000, 2), (144, 1)), ((3000, 4000), (108, 144))])
def test_a_thumbnail_keeps_an_image_s_proportions(size: tuple[int, int], shown: tuple[int, int]) -> None:
    assert contact_sheet.thumbnail(Image.new("RGB", size)).size == shown
