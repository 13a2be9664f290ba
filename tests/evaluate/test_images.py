"""The choice of images to measure a model on, and the errors if data and model do not fit."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets as library
import numpy as np
import pyarrow
import pytest
from pyarrow import parquet

from vtzoo.data import named
from vtzoo.data.read import read_images
from vtzoo.errors import VtzooError
from vtzoo.evaluate import images as subject
from vtzoo.evaluate.images import EvaluationImages, Request
from vtzoo.zoo.result import Result

LABELS = ("dog", "cat", "owl")
Photos = Callable[..., Path]


def images_of(
    data: Path | None, labels: tuple[str, ...] = LABELS, result: Result | None = None, *, multi: bool = False,
    **settings: Any,
) -> EvaluationImages:  # fmt: skip
    request = Request(data=None if data is None else str(data), **settings)
    return subject.images_for(request, "mine", labels, result or Result(), multi_label=multi)


def failure(*arguments: Any, **settings: Any) -> VtzooError:
    with pytest.raises(VtzooError) as caught:
        images_of(*arguments, **settings)
    assert "\n" not in caught.value.message
    return caught.value


def names(found: EvaluationImages) -> list[str]:
    return ["/".join(Path(found.images.encoded.name(index)).parts[-3:]) for index in range(len(found))]


# The choice of images


def test_all_images_are_taken_in_the_order_of_the_data_where_there_is_no_test_and_no_val(photos: Photos) -> None:
    found = images_of(photos(cat=[1] * 5, dog=[0] * 5))
    assert names(found) == [f"photos/{name}/{number}.png" for name in ("cat", "dog") for number in range(5)]
    assert found.targets.tolist() == [1] * 5 + [0] * 5  # the model's numbers, not the dataset's
    assert found.split == "all"
    assert found.described.endswith("photos, as it has no test or val split")


def test_the_test_images_come_before_validation_images_and_these_before_all(photos: Photos) -> None:
    root = photos(**{"train/cat": [1] * 4, "train/dog": [0] * 4, "val/cat": [1], "val/dog": [0]})
    found = images_of(root)
    assert (found.split, names(found)) == ("val", ["val/cat/0.png", "val/dog/0.png"])
    assert "the val split" in found.described
    found = images_of(photos(**{"test/cat": [1, 1]}))
    assert (found.split, names(found)) == ("test", ["test/cat/0.png", "test/cat/1.png"])
    assert found.described == f"the test split of {root}"


@pytest.mark.parametrize(("split", "count"), [("train", 8), ("val", 2), ("test", 1)])
def test_a_split_that_is_asked_for_is_taken(photos: Photos, split: str, count: int) -> None:
    root = photos(**{"train/cat": [1] * 4, "train/dog": [0] * 4, "val/cat": [1], "val/dog": [0], "test/cat": [1]})
    found = images_of(root, split=split)
    assert (found.split, len(found)) == (split, count)
    assert all(name.startswith(split) for name in names(found))


@pytest.mark.parametrize(("above", "split"), [("", "test"), ("test/", "train"), ("test/", "val")])
def test_a_split_that_is_not_there_is_refused(photos: Photos, above: str, split: str) -> None:
    root = photos(**{f"{above}cat": [1] * 5, f"{above}dog": [0] * 5})
    error = failure(root, split=split)
    assert error.message == f"{root} has no {split} split"
    assert error.hint is not None
    assert error.hint.startswith("leave out --split")


@pytest.mark.parametrize(("folders", "split", "targets"), [
    ({"test/cat": [1] * 3, "test/dog": [0] * 2}, "test", [1, 1, 1, 0, 0]),
    ({"val/cat": [1], "val/dog": [0]}, "val", [1, 0]),
    ({"cat": [1] * 3}, "all", [1, 1, 1]),
    ({"train/cat": [1] * 2, "test/dog": [0]}, "test", [0]),
    ({"cat": [1], "dog": [0]}, "all", [1, 0]),
], ids=["test alone", "validation alone", "one class", "a class that train lacks", "an image a class"])  # fmt: skip
def test_images_that_nothing_could_be_learnt_from_are_measured_on_all_the_same(
    photos: Photos, folders: dict[str, list[int]], split: str, targets: list[int]
) -> None:
    found = images_of(photos(**folders))
    assert (found.split, found.targets.tolist()) == (split, targets)


def test_test_images_that_are_in_train_too_are_measured_on(photos: Photos) -> None:
    root = photos(**{"train/cat": [1] * 3, "train/dog": [0] * 3})
    shutil.copytree(root / "train", root / "test")
    assert len(images_of(root)) == 6


@pytest.mark.parametrize("recorded", ["fingerprint", "content_hash"])  # of this version and of an earlier one
def test_a_model_is_not_measured_on_the_images_that_it_was_fine_tuned_on(photos: Photos, recorded: str) -> None:
    root = photos(cat=[1] * 10, dog=[0] * 10)
    learnt = read_images(root, seed=3)
    manifest = getattr(learnt.train, recorded)
    result = Result(dataset="photos", split="validation", seed=3, train_manifest=manifest)
    found = images_of(root, result=result)
    assert found.split == "val"
    assert found.images.fingerprint == learnt.val.fingerprint
    assert found.described.endswith("that fine-tuning drew from " + str(root) + ": the weights were chosen by it")
    assert images_of(root, result=replace(result, train_manifest="of other images")).split == "all"


# Classes


def test_classes_that_the_data_lacks_are_a_note(photos: Photos) -> None:
    (note,) = images_of(photos(cat=[1] * 5, dog=[0] * 5)).images.notes
    assert note == "1 of the model's 3 classes have no images here, owl: the model may still predict them"


def test_images_of_a_class_that_the_model_lacks_are_an_error_that_says_what_may_be_meant(photos: Photos) -> None:
    root = photos(Cat=[1] * 5, dog=[0] * 5)
    error = failure(root)
    assert error.message == f"mine lacks 1 of the 2 classes in {root}, Cat: those of 5 images"
    assert error.hint is not None
    assert error.hint.startswith(
        "did you mean 'cat' for 'Cat'? give the data the model's names; leave these images out"
    )


def test_images_of_unknown_classes_are_left_out_and_counted_where_that_is_asked_for(photos: Photos) -> None:
    found = images_of(photos(cat=[1] * 5, zebra=[0] * 3), skip_unknown=True)
    assert found.targets.tolist() == [1] * 5
    assert found.unknown == 3
    assert found.images.notes[0] == "3 images of classes that the model lacks, zebra: left out, as --skip-unknown says"


def test_where_no_class_is_known_there_is_nothing_to_skip(photos: Photos) -> None:
    error = failure(photos(yak=[1] * 5, zebra=[0] * 5), skip_unknown=True)
    assert error.message.startswith("mine lacks all 2 classes in ")
    assert error.hint is not None
    assert error.hint.startswith("fine-tune on these classes: vtzoo finetune --model mine --data ")


def test_a_class_that_the_model_lacks_and_that_has_no_images_is_a_note(photos: Photos) -> None:
    root = photos(**{"train/cat": [1] * 4, "train/dog": [0] * 4, "train/zebra": [0] * 4, "test/cat": [1]})
    assert images_of(root).images.notes[0] == "the model lacks zebra, of which there are no images here"


# Multi-label images


@pytest.fixture
def table(tmp_path: Path, paint: Callable[..., Path]) -> Callable[[str], Path]:
    """A CSV of six images, below a header."""

    def table(header: str, *lines: str) -> Path:
        for number, _ in enumerate(lines):
            paint(f"{number}.png", (255, 0, 0))
        text = "\n".join([f"path,{header}", *(f"{number}.png,{line}" for number, line in enumerate(lines))])
        (tmp_path / "labels.csv").write_text(text)
        return tmp_path / "labels.csv"

    return table


def test_columns_are_matched_by_name_and_what_the_data_do_not_say_is_unknown(table: Callable[..., Path]) -> None:
    found = images_of(table("cat,dog", "1,0", "0,1", ",1", "1,", "0,0", "1,1"), multi=True)
    assert found.images.multi_label
    expected = [[0, 1, np.nan], [1, 0, np.nan], [1, np.nan, np.nan], [np.nan, 1, np.nan], [0] * 2 + [np.nan]]
    assert np.array_equal(found.targets[:5], expected, equal_nan=True)


def test_an_image_with_a_class_that_the_model_lacks_is_left_out_and_an_image_without_it_stays(
    table: Callable[..., Path],
) -> None:
    data = table("cat,dog,yak", "1,0,0", "0,1,1", "1,1,", "0,0,0", ",,0")
    assert "lacks 1 of the 3 classes" in failure(data, multi=True).message
    found = images_of(data, multi=True, skip_unknown=True)
    assert [Path(found.images.encoded.name(index)).stem for index in range(len(found))] == ["0", "2", "3"]
    assert found.unknown == 2


@pytest.mark.parametrize(("multi", "kinds"), [(True, ("any number of classes", "one class")), (False, ("one class",))])
def test_single_label_and_multi_label_do_not_mix(
    table: Callable[..., Path], photos: Photos, multi: bool, kinds: tuple[str, ...]
) -> None:
    data = photos(cat=[1] * 5, dog=[0] * 5) if multi else table("cat,dog", *["1,0", "0,1"] * 3)
    error = failure(data, multi=multi)
    assert error.message.startswith(f"mine predicts {kinds[0]} per image, and {data} has ")
    assert error.hint is not None
    assert f"vtzoo finetune --model mine --data {data}" in error.hint


# The model's own named data set


@pytest.mark.parametrize(
    ("result", "why"),
    [
        (Result(), ""),
        (Result(dataset="my_pets"), ", and it was fine-tuned on 'my_pets'"),
        (Result(dataset="cifar10", split="validation"), ", and it was fine-tuned on 'cifar10'"),
    ],
)
def test_a_model_of_the_users_images_needs_data(result: Result, why: str) -> None:
    error = failure(None, result=result)
    assert error.message == f"mine has no data set that can be fetched to evaluate it on{why}"
    assert error.hint == "give labelled images: vtzoo evaluate --model mine --data FOLDER"


@pytest.fixture
def stored(tmp_path: Path, paint: Callable[..., Path]) -> Callable[..., Path]:
    """Writes test-0.parquet with the columns img and label, of images and of their numbers or names."""

    def stored(names: list[str] | None, *numbers: int) -> Path:
        images = [{"bytes": paint("a.png", number).read_bytes(), "path": None} for number in numbers]
        made = library.Dataset.from_dict({"img": images, "label": list(numbers)}).cast_column("img", library.Image())
        if names:
            made = made.cast_column("label", library.ClassLabel(names=names))
        made.to_parquet(tmp_path / "data" / "test-0.parquet")
        return tmp_path / "data"

    (tmp_path / "data").mkdir()
    return stored


CIFAR10 = named.labels("cifar10") or ()
TRAINED = Result(dataset="cifar10")


@pytest.mark.parametrize("names", [list(CIFAR10), None], ids=["names", "numbers"])
def test_a_folder_with_the_model_s_own_data_set_is_read_as_that(
    stored: Photos, names: list[str] | None, tmp_path: Path
) -> None:
    found = images_of(stored(names, 3, 1, 9), CIFAR10, TRAINED)
    described = f"the test split of cifar10 in {tmp_path / 'data'}"
    assert (found.data, found.split, found.described) == ("cifar10", "test", described)
    assert found.targets.tolist() == [3, 1, 9]
    assert found.images.classes == CIFAR10


def test_the_same_columns_with_other_classes_are_the_users_images(stored: Photos) -> None:
    data = stored(["zebra", *CIFAR10[:0:-1]], 1, 2)
    found = images_of(data, CIFAR10, TRAINED)
    assert found.targets.tolist() == [9, 8]  # by name
    assert found.images.targets.tolist() != [9, 8]  # the dataset has other numbers


def test_a_damaged_file_and_one_of_other_columns_are_no_data_set_of_the_model_s(stored: Photos) -> None:
    file = stored(list(CIFAR10), 3, 1, 9) / "test-0.parquet"
    whole = file.read_bytes()
    file.write_bytes(whole[:-50])
    with pytest.raises(VtzooError, match=r"cannot read .*test-0\.parquet"):
        images_of(file.parent, CIFAR10, TRAINED)
    parquet.write_table(pyarrow.table({"weight": [1.0]}), file)
    with pytest.raises(VtzooError, match="no column of images in "):
        images_of(file.parent, CIFAR10, TRAINED)


def test_class_folders_of_the_model_s_own_data_set_are_read_as_that(photos: Photos) -> None:
    found = images_of(photos(**{"test/cat": [3], "test/dog": [5, 5]}), CIFAR10, TRAINED)
    assert (found.data, found.targets.tolist()) == ("cifar10", [3, 5, 5])


def test_validation_images_of_a_named_data_set_are_refused(photos: Photos) -> None:
    error = failure(photos(**{"test/cat": [3]}), CIFAR10, TRAINED, split="val")
    assert error.message == "unknown split 'val'"
    assert error.hint == "known: test, train"


def test_recorded_labels_that_differ_from_the_model_s_are_refused(photos: Photos) -> None:
    error = failure(photos(**{"test/cat": [3]}), (*CIFAR10[1:], "zebra"), TRAINED)
    assert "class 0 is 'automobile' to the model and 'airplane' to the data" in error.message


def test_flowers_do_not_fit_the_model_of_cifar100(real_data: Callable[[str], Path]) -> None:
    labels = named.labels("cifar100") or ()
    error = failure(real_data("flowers102_64px"), labels, Result(dataset="cifar100"))
    assert " lacks 100 of the 102 classes in " in error.message
