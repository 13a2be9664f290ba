"""Labelled images from Parquet files and from data sets on the Hub."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets as library
import huggingface_hub
import numpy as np
import pandas
import pyarrow
import pytest
from pyarrow import parquet

from vtzoo.data.hub import read_hub
from vtzoo.data.parquet import read_parquet
from vtzoo.data.read import read_images
from vtzoo.errors import VtzooError

NAN = np.nan
PETS = library.ClassLabel(names=["dog", "cat"])


@pytest.fixture
def table(photo: Callable[[], bytes]) -> Callable[..., library.Dataset]:
    """Makes a data set with one image for each cell of its columns; `label` has the given feature."""

    def table(feature: Any = None, image: str = "image", **columns: list) -> library.Dataset:
        images = [{"bytes": photo(), "path": None} for _ in next(iter(columns.values()))]
        dataset = library.Dataset.from_dict({image: images} | columns).cast_column(image, library.Image())
        return dataset if feature is None else dataset.cast_column("label", feature)

    return table


def failure(path: Path, **columns: str) -> VtzooError:
    with pytest.raises(VtzooError) as caught:
        read_parquet(path, **columns)
    assert "\n" not in caught.value.message
    return caught.value


def test_a_class_label_keeps_its_own_order_and_minus_one_is_unknown(table, tmp_path: Path) -> None:
    table(PETS, label=[0, 1, -1, None]).to_parquet(tmp_path / "pets.parquet")
    images = read_parquet(tmp_path / "pets.parquet")
    assert images.classes == ("dog", "cat")
    assert images.targets.tolist() == [0, 1, -1, -1]
    assert images.encoded.name(1) == "pets.parquet#1"
    assert images.encoded[1].size == (8, 8)


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        (["b", "a", None, "b"], ("a", "b")),
        ([10, 2, None, 10], ("2", "10")),
        ([2.0, 1.0, NAN, 2.0], ("1", "2")),
        ([True, False, None, True], ("False", "True")),
        (pandas.Categorical(["z", "y", None, "z"]), ("y", "z")),
    ],
    ids=["names", "numbers", "whole numbers as pandas stores them", "truths", "pandas's categories"],
)
def test_labels_without_stated_names_are_named_by_their_values(photo, tmp_path: Path, labels, classes) -> None:
    frame = pandas.DataFrame({"image": [photo() for _ in range(4)], "label": labels})
    frame.to_parquet(tmp_path / "a.parquet")
    images = read_parquet(tmp_path / "a.parquet")
    assert images.classes == classes
    assert images.targets.tolist() == [1, 0, -1, 1]
    assert images.encoded[0].size == (8, 8)


@pytest.mark.parametrize(
    ("feature", "cells"),
    [
        (library.List(PETS), [[0, 1], [1], [], None]),
        (None, [["dog", "cat"], ["cat"], [], None]),
    ],
    ids=["numbers of stated names", "names"],
)
def test_lists_are_multi_label_and_an_empty_list_has_no_class(table, tmp_path: Path, feature, cells) -> None:
    table(feature, label=cells).to_parquet(tmp_path / "a.parquet")
    images = read_parquet(tmp_path / "a.parquet")
    expected = [[1, 1], [0, 1] if feature else [1, 0], [0, 0], [NAN, NAN]]
    assert images.classes == (("dog", "cat") if feature else ("cat", "dog"))
    assert np.array_equal(images.targets, expected, equal_nan=True)


@pytest.mark.parametrize(
    "mask", [[["dog"], None, []], [[False, True], None, [False, False]]], ids=["names", "a truth a class"]
)
def test_a_mask_names_the_classes_that_are_known(table, tmp_path: Path, mask) -> None:
    table(label=[["dog"], ["cat"], ["cat"]], mask=mask).to_parquet(tmp_path / "a.parquet")
    images = read_parquet(tmp_path / "a.parquet")
    assert np.array_equal(images.targets, [[NAN, 1], [1, 0], [1, NAN]], equal_nan=True)


def test_with_one_column_per_class_a_null_is_unknown(table, tmp_path: Path) -> None:
    table(wet=[1, 0, None], cold=[True, None, False]).to_parquet(tmp_path / "a.parquet")
    images = read_parquet(tmp_path / "a.parquet")
    assert images.classes == ("wet", "cold")
    assert np.array_equal(images.targets, [[1, 1], [0, NAN], [NAN, 0]], equal_nan=True)


def test_columns_of_other_names_are_recognised_by_type_or_named_by_the_caller(table, tmp_path: Path) -> None:
    dataset = table(image="photo", kind=[0, 1], place=["a", "b"])
    dataset.cast_column("kind", PETS).to_parquet(tmp_path / "a.parquet")
    assert read_parquet(tmp_path).classes == ("dog", "cat")
    assert read_parquet(tmp_path, label_column="place").classes == ("a", "b")
    assert failure(tmp_path, image_column="foto").message.startswith("unknown column of ")


def test_the_split_of_a_file_is_in_its_name_or_its_folder(table, tmp_path: Path) -> None:
    for number, name in enumerate(("train-0-of-2", "train-1-of-2", "Validation_0", "data/test/0000")):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        table(label=[str(number)] * (number + 1)).to_parquet(tmp_path / f"{name}.parquet")
    images = read_parquet(tmp_path)
    parts = {0: "train", 1: "train", 2: "val", 3: "test"}
    assert [parts[int(images.classes[target])] for target in images.targets] == images.splits.tolist()
    assert [np.count_nonzero(images.splits == split) for split in ("train", "val", "test")] == [3, 3, 4]
    assert images.encoded.name(9) == "train-1-of-2.parquet#1"
    assert "data/test/0000.parquet#0" in [images.encoded.name(row) for row in range(10)]


def test_files_without_a_split_are_for_training_unless_a_split_column_divides_them(table, tmp_path: Path) -> None:
    table(label=["a", "b", "a"], split=["train", "val", None]).to_parquet(tmp_path / "mine.parquet")
    assert read_parquet(tmp_path).splits.tolist() == ["train", "val", "train"]


def test_reading_writes_no_copy_into_the_library_s_cache(table, tmp_path: Path, monkeypatch) -> None:
    table(label=["a", "b"] * 5).to_parquet(tmp_path / "a.parquet")
    monkeypatch.setattr(library.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    read_images(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["a.parquet"]


# Errors


def test_a_file_without_a_split_among_others_is_named(table, tmp_path: Path) -> None:
    for name in ("train", "more"):
        table(label=["a"]).to_parquet(tmp_path / f"{name}.parquet")
    message = f"{tmp_path / 'more.parquet'} does not say whether it is train, validation or test, and others do"
    assert failure(tmp_path).message == message


def test_files_of_other_classes_are_refused(table, tmp_path: Path) -> None:
    table(PETS, label=[0]).to_parquet(tmp_path / "train.parquet")
    table(library.ClassLabel(names=["cat", "dog"]), label=[0]).to_parquet(tmp_path / "test.parquet")
    assert failure(tmp_path).message == "train.parquet has other column types or classes than test.parquet"


def test_a_label_beyond_the_stated_names_is_named_by_its_row(table, tmp_path: Path) -> None:
    dataset = table(PETS, label=[0, 1])
    wrong = dataset.data.table.set_column(1, dataset.data.table.schema.field("label"), [pyarrow.array([0, 7])])
    parquet.write_table(wrong, tmp_path / "a.parquet")
    error = failure(tmp_path)
    assert error.message == "label 7 in a.parquet#1"
    assert error.hint == "its column states the names of 0 to 1"


@pytest.mark.parametrize("value", [0.5, {"a": 1}])
def test_values_that_are_no_labels_are_named_by_their_row(table, tmp_path: Path, value) -> None:
    table(label=[value]).to_parquet(tmp_path / "a.parquet")
    assert failure(tmp_path).message == f"{value!r} in a.parquet#0 is no label"


def test_a_mask_of_another_length_is_named_by_its_row(table, tmp_path: Path) -> None:
    table(label=[["a"], ["b"]], mask=[[True, True], [True]]).to_parquet(tmp_path / "a.parquet")
    assert failure(tmp_path).message == "the mask of a.parquet#1 has 1 entries, for 2 classes"


def test_a_column_that_holds_no_images_is_refused(tmp_path: Path) -> None:
    parquet.write_table(pyarrow.table({"image": [1], "label": [1]}), tmp_path / "a.parquet")
    error = failure(tmp_path)
    assert error.message == "column 'image' holds int64, not images"
    assert error.hint == "name the column of images: --image-column NAME"


def test_a_column_of_a_type_that_the_library_does_not_know_is_ignored(table, tmp_path: Path) -> None:
    arrow_table = table(label=["a", "b"]).data.table
    strange = pyarrow.array([[("a", 1)], []], pyarrow.map_(pyarrow.string(), pyarrow.int64()))
    parquet.write_table(arrow_table.append_column("more", strange), tmp_path / "a.parquet")
    assert read_parquet(tmp_path).classes == ("a", "b")


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    assert failure(tmp_path).message.startswith(f"cannot read {tmp_path / 'a.parquet'}: ")


# The Hub


def test_the_hub_is_asked_for_a_revision_and_its_splits_are_used(table, monkeypatch) -> None:
    calls = []
    splits = {"train": table(label=["a", "b"] * 5), "validation": table(label=["b"]), "extra": table(label=["c"])}
    monkeypatch.setattr(library, "load_dataset", lambda *args, **options: calls.append((args, options)) or splits)
    images = read_images("my-org/my.pets@v1")
    assert calls == [(("my-org/my.pets", None), {"revision": "v1"})]
    assert (images.name, images.classes, len(images.train), len(images.val)) == ("my_pets", ("a", "b"), 10, 1)
    assert images.train.encoded.name(3) == "my-org/my.pets@v1:train#3"
    assert images.notes == ("my-org/my.pets@v1 also has extra: left out",)


def test_the_only_split_on_the_hub_is_for_training_whatever_its_name(table, monkeypatch) -> None:
    monkeypatch.setattr(library, "load_dataset", lambda *_, **__: {"everything": table(label=["a", "b"])})
    assert read_hub("my-org/pets").splits.tolist() == ["train", "train"]


def test_several_unknown_splits_on_the_hub_are_refused(table, monkeypatch) -> None:
    splits = {name: table(label=["a"]) for name in ("one", "two")}
    monkeypatch.setattr(library, "load_dataset", lambda *_, **__: splits)
    with pytest.raises(VtzooError, match=r"^my-org/pets has no train, but one, two$"):
        read_hub("my-org/pets")


def test_offline_the_error_is_one_sentence(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(library.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(library.config, "HF_DATASETS_CACHE", tmp_path)
    with pytest.raises(VtzooError, match=r"^cannot read my-org/pets from the Hub: [^\n]*$") as caught:
        read_images("my-org/pets")
    hint = "there is no file or folder 'my-org/pets' here either: check the name, the revision and the connection"
    assert caught.value.hint == hint


def test_a_source_that_is_neither_a_file_nor_a_hub_name_is_refused() -> None:
    with pytest.raises(VtzooError, match=r"^no file or folder '\./nowhere/photos'$"):
        read_images("./nowhere/photos")
