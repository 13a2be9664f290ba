"""Classes are matched by exact name, never by a guess."""

import unicodedata

import pytest

from vtzoo.errors import VtzooError
from vtzoo.evaluate.matching import match, refusal, similar

LABELS = ("aquarium_fish", "café", "橋", "Cat")


def test_the_order_of_the_data_and_of_the_model_may_differ() -> None:
    assert match(["橋", "Cat", "aquarium_fish"], LABELS).tolist() == [2, 3, 0]


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_composed_and_decomposed_accents_are_one_name_on_either_side(form: str) -> None:
    other = {"NFC": "NFD", "NFD": "NFC"}[form]
    assert match([unicodedata.normalize(form, "café")], [unicodedata.normalize(other, "café")]).tolist() == [0]


@pytest.mark.parametrize("name", ["cat", "CAT", "Aquarium_Fish", "aquarium-fish", "aquarium fish", "cafe", "Cat "])
def test_a_name_that_differs_in_case_separators_or_accents_is_unknown(name: str) -> None:
    assert match([name], LABELS).tolist() == [-1]


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("Aquarium Fish", ["aquarium_fish"]), ("cat", ["Cat"]), ("aquarium-fishes", ["aquarium_fish"]), ("zebra", []),
    ],
)  # fmt: skip
def test_what_may_be_meant_is_offered(name: str, near: list[str]) -> None:
    assert similar(name, LABELS) == near


def test_two_labels_of_a_model_that_are_one_name_are_refused() -> None:
    with pytest.raises(VtzooError, match="classes 0 and 1 of the model are both called"):
        match(["é"], [unicodedata.normalize("NFC", "é"), unicodedata.normalize("NFD", "é")])


def test_the_refusal_names_the_classes_the_images_and_every_next_command() -> None:
    error = refusal(["cat", "zebra"], 3, 7, LABELS, model="mine", data="photos", skippable=True)
    assert error.message == "mine lacks 2 of the 3 classes in photos, cat, zebra: those of 7 images"
    assert error.hint == (
        "did you mean 'Cat' for 'cat'? give the data the model's names; leave these images out: --skip-unknown; "
        "vtzoo show mine lists the classes that it knows"
    )


def test_where_no_image_would_be_left_fine_tuning_is_the_next_command() -> None:
    error = refusal(["zebra"], 1, 7, LABELS, model="mine", data="photos", skippable=False)
    assert error.message == "mine lacks the only class in photos, zebra: those of 7 images"
    assert error.hint is not None
    assert error.hint.startswith("fine-tune on these classes: vtzoo finetune --model mine --data photos; ")
    assert "--skip-unknown" not in error.hint
