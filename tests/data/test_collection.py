"""People's own images as a whole: split, named, summed up, and known by a manifest."""

import hashlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow
import pytest
from pyarrow import parquet

from vtzoo.data import collection, folder
from vtzoo.errors import VtzooError

Write = Callable[..., Path]


def names(part: collection.Labelled) -> list[str]:
    return [part.rows.name(index) for index in range(len(part))]


def test_ten_images_in_two_folders_are_split_with_an_image_of_each_class_held_out(write: Write) -> None:
    read = collection.read(write({"cat": 5, "dog": 5}))
    assert (read.classes, read.multi, read.drawn, read.test) == (("cat", "dog"), False, True, None)
    assert np.bincount(read.train.targets).tolist() == [4, 4]
    assert np.bincount(read.held.targets).tolist() == [1, 1]
    assert not set(names(read.train)) & set(names(read.held))
    assert all(Path(name).parent.name == read.classes[target]
               for part in (read.train, read.held)
               for name, target in zip(names(part), part.targets, strict=True))  # fmt: skip


def test_the_split_is_that_of_the_seed_whatever_the_file_system_s_order(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write({"cat": 20, "dog": 20, "yak": 20})
    first, other = collection.read(root, seed=3), collection.read(root, seed=4)
    walk, glob = os.walk, Path.glob

    def backwards(*arguments: object, **named: object) -> Iterator[tuple]:
        return ((above, below, files[::-1]) for above, below, files in walk(*arguments, **named))

    monkeypatch.setattr(os, "walk", backwards)
    monkeypatch.setattr(Path, "glob", lambda self, pattern: list(glob(self, pattern))[::-1])
    again = collection.read(root, seed=3)
    assert names(again.held) == names(first.held)
    assert names(again.train) == names(first.train)
    assert names(other.held) != names(first.held)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("My Photos (2)", "my_photos_2"),
        ("Blüten-été", "bluten_ete"),
        ("橋", "images"),
        ("birds.v2", "birds_v2"),
        ("birds/labels.csv", "birds"),
        ("birds/train-0.csv", "birds"),
        ("birds/garden.csv", "garden"),
    ],
)
def test_a_name_is_made_fit_for_a_model_s(write: Write, tmp_path: Path, path: str, name: str) -> None:
    source = tmp_path / path
    if source.suffix == ".csv":
        write({"a": 2, "b": 2}, source.parent)
        lines = [f"{label}/{number}.png,{label}\n" for label in "ab" for number in range(2)]
        source.write_text("".join(["path,label\n", *lines]))
    else:
        write({"a": 2, "b": 2}, source)
    assert collection.read(source).name == name


@pytest.mark.parametrize(
    ("name", "hint"),
    [("photos.zip", "unpack it, and give the folder"), ("labels.xlsx", "save it as CSV"), ("a.txt", None)],
)
def test_a_file_of_another_kind_is_refused(tmp_path: Path, name: str, hint: str | None) -> None:
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(VtzooError) as caught:
        collection.read(tmp_path / name)
    assert caught.value.message == f"cannot read {tmp_path / name}: it is no folder, CSV or Parquet file"
    assert caught.value.hint == (hint or "give a folder with a folder a class")


def test_the_manifest_is_of_the_stored_bytes_and_targets_in_order(write: Write) -> None:
    read = collection.read(write({"train/cat": 2, "train/dog": 1, "val/cat": 1}))
    digest = hashlib.sha256()
    for name, target in zip(names(read.train), (0, 0, 1), strict=True):
        digest.update(hashlib.sha256(Path(name).read_bytes()).digest() + target.to_bytes(8, "little"))
    assert read.train.manifest == digest.hexdigest()
    of_parts = f"cat\ndog\n{read.train.manifest}\n{read.held.manifest}\n"
    assert read.manifest == hashlib.sha256(of_parts.encode()).hexdigest()


def test_another_image_label_or_order_is_another_manifest(write: Write) -> None:
    read = collection.read(write({"train/cat": 2, "train/dog": 2, "val/cat": 1}))
    train = read.train
    others = [
        train.select(np.array([0, 1, 3, 2])),
        train.select(np.arange(3)),
        collection.Labelled(rows=train.rows, targets=train.targets[::-1]),
    ]
    assert len({train.manifest, *(other.manifest for other in others)}) == 4


def test_the_summary_says_what_was_found_and_how_it_was_split(write: Write) -> None:
    read = collection.read(write({"cat": 10, "dog": 5, "yak": 1}))
    assert read.summary()[1:] == [
        "train 13 images; the fewest are of yak, 1; the most of cat, 8",
        "validation 3 images, drawn from the training images, every class in proportion",
        "test images: none given",
        "note: 1 class has one training image, and none to validate on: yak; add images of them",
    ]
    assert read.summary()[0].endswith(": 3 classes, one an image")


def test_the_summary_of_several_labels_says_how_much_is_unknown(write: Write, tmp_path: Path) -> None:
    write({"images": 4})
    lines = ["images/0.png,1,,train", "images/1.png,,1,train", "images/2.png,1,1,val", "images/3.png,0,0,test"]
    (tmp_path / "pets.csv").write_text("\n".join(["path,cat,dog,split", *lines]))
    assert collection.read(tmp_path / "pets.csv").summary()[:4] == [
        "pets: 2 classes, several an image, 50% of the training labels not known",
        "train 2 images; the fewest are of cat, 1; the most of cat, 1",
        "validation 1 image, as given",
        "test 1 image, not looked at",
    ]


def test_without_the_library_the_error_says_what_to_install(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write({"cat": 2, "dog": 2})
    monkeypatch.setitem(__import__("sys").modules, "datasets", None)
    with pytest.raises(VtzooError, match="reading data needs the datasets library"):
        folder.find(root)


def test_100_000_classes_are_read_in_time_and_their_targets_stay_one_number_an_image(tmp_path: Path) -> None:
    numbers = [*range(100_000), *range(100)]  # a hundred classes have two images
    images = [b"\x89PNG\r\n\x1a\n" + place.to_bytes(8, "big") for place in range(len(numbers))]
    columns = {"image": images, "label": [f"class {number}" for number in numbers]}
    parquet.write_table(pyarrow.table(columns), tmp_path / "many.parquet")
    began = time.perf_counter()
    read = collection.read(tmp_path / "many.parquet")
    assert time.perf_counter() - began < 120
    assert read.classes[:3] == ("class 0", "class 1", "class 2")
    assert read.train.targets.shape == (100_000,)
    assert sorted(read.held.targets) == list(range(100))


@pytest.mark.parametrize("name", ["flowers102_64px"])
def test_the_official_split_of_real_parquet_is_used_and_its_repeats_are_said(name: str, real_data) -> None:
    read = collection.read(real_data(name))
    assert not read.drawn
    assert (len(read.classes), len(read.train), len(read.held)) == (102, 1019, 1018)
    assert read.test is not None
    assert len(read.test) == 6149
    assert len(read.notes) == 2
