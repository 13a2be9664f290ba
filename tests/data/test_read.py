"""The user's own images as a whole: splits, name, summary and manifest."""

import hashlib
import io
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow
import pytest
from pyarrow import parquet

from vtzoo.data.folder import read_folder
from vtzoo.data.labelled_images import LabelledImages
from vtzoo.data.read import read_images, read_source, summary
from vtzoo.errors import VtzooError
from vtzoo.predict import sources

Write = Callable[..., Path]


def names(part: LabelledImages) -> list[str]:
    return [part.encoded.name(index) for index in range(len(part))]


def test_ten_images_in_two_folders_are_split_with_an_image_of_each_class_held_out(write: Write) -> None:
    images = read_images(write({"cat": 5, "dog": 5}))
    assert (images.classes, images.multi_label, images.val_drawn, len(images.test)) == (("cat", "dog"), False, True, 0)
    assert np.bincount(images.train.targets).tolist() == [4, 4]
    assert np.bincount(images.val.targets).tolist() == [1, 1]
    assert not set(names(images.train)) & set(names(images.val))
    assert all(Path(name).parent.name == images.classes[target]
               for part in (images.train, images.val)
               for name, target in zip(names(part), part.targets, strict=True))  # fmt: skip


def test_the_split_depends_on_the_seed_and_not_on_the_file_system_s_order(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write({"cat": 20, "dog": 20, "yak": 20})
    first, other = read_images(root, seed=3), read_images(root, seed=4)
    walk, glob = os.walk, Path.glob

    def backwards(*arguments: object, **options: object) -> Iterator[tuple]:
        return ((folder, subfolders, files[::-1]) for folder, subfolders, files in walk(*arguments, **options))

    monkeypatch.setattr(os, "walk", backwards)
    monkeypatch.setattr(Path, "glob", lambda self, pattern: list(glob(self, pattern))[::-1])
    again = read_images(root, seed=3)
    assert names(again.val) == names(first.val)
    assert names(again.train) == names(first.train)
    assert names(other.val) != names(first.val)


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
def test_the_name_of_a_source_is_fit_for_a_model_s_name(write: Write, tmp_path: Path, path: str, name: str) -> None:
    source = tmp_path / path
    if source.suffix == ".csv":
        write({"a": 2, "b": 2}, source.parent)
        lines = [f"{label}/{number}.png,{label}\n" for label in "ab" for number in range(2)]
        source.write_text("".join(["path,label\n", *lines]))
    else:
        write({"a": 2, "b": 2}, source)
    assert read_images(source).name == name


@pytest.mark.parametrize(
    ("name", "hint"),
    [("photos.zip", "unpack it, and give the folder"), ("labels.xlsx", "save it as CSV"), ("a.txt", None)],
)
def test_a_file_of_another_kind_is_refused(tmp_path: Path, name: str, hint: str | None) -> None:
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(VtzooError) as caught:
        read_images(tmp_path / name)
    assert caught.value.message == f"cannot read {tmp_path / name}: it is no folder, CSV or Parquet file"
    assert caught.value.hint == (hint or "give a folder with a folder a class")


def test_the_content_hash_is_of_the_stored_bytes_and_targets_in_order(write: Write) -> None:
    train = read_images(write({"train/cat": 2, "train/dog": 1, "val/cat": 1})).train
    digest = hashlib.sha256()
    for name, target in zip(names(train), (0, 0, 1), strict=True):
        digest.update(hashlib.sha256(Path(name).read_bytes()).digest() + target.to_bytes(8, "little"))
    assert train.content_hash == digest.hexdigest()


@pytest.mark.parametrize("kind", ["fingerprint", "content_hash"])
def test_another_image_label_or_order_has_another_fingerprint(write: Write, kind: str) -> None:
    train = read_images(write({"train/cat": 2, "train/dog": 2, "val/cat": 1})).train
    others = [
        train.select(np.array([0, 1, 3, 2])),
        train.select(np.arange(3)),
        replace(train, targets=train.targets[::-1]),
    ]
    assert len({getattr(images, kind) for images in (train, *others)}) == 4


def test_the_same_pixels_have_one_fingerprint_in_any_file_format(write: Write, tmp_path: Path) -> None:
    images = read_images(write({"cat": 3, "dog": 3}))
    stored = []
    for index in range(len(images)):
        stream = io.BytesIO()
        images.encoded[index].save(stream, "BMP")
        stored.append({"bytes": stream.getvalue(), "path": None})
    labels = [images.classes[target] for target in images.targets]
    parquet.write_table(pyarrow.table({"image": stored, "label": labels}), tmp_path / "again.parquet")
    assert read_images(tmp_path / "again.parquet").fingerprint == images.fingerprint
    assert read_images(tmp_path / "again.parquet").content_hash != images.content_hash


def test_the_fingerprint_of_multi_label_images_hashes_each_row_of_targets(write: Write) -> None:
    images = read_images(write({"cat": 3, "dog": 3}))
    targets = np.eye(2, dtype=np.float32)[images.targets]
    unknown = targets.copy()
    unknown[0, 1] = np.nan
    digest = hashlib.sha256()
    for image, row in zip(images.encoded, targets, strict=True):
        digest.update(np.array([image.height, image.width], "<i8").tobytes() + row.tobytes() + image.tobytes())
    assert replace(images, targets=targets).fingerprint == digest.hexdigest()
    assert replace(images, targets=unknown).fingerprint != digest.hexdigest()


def test_training_and_predicting_see_the_same_images_in_a_folder(write: Write, tmp_path: Path) -> None:
    root = write({"cat": 2, "dog/old": 2, "dog/.hidden": 1})
    (root / "cat" / "back").symlink_to(root)
    (root / "dog" / "cats").symlink_to(root / "cat")
    parquet.write_table(pyarrow.table({"image": [b"x"], "label": ["cat"]}), root / "answers.parquet")
    seen = [source.name for source in sources.image_sources([str(root)])]
    images = read_folder(root)
    assert sorted(names(images)) == sorted(seen)
    assert len(seen) == 6
    assert sorted(names(read_images(root))) == sorted(seen)


@pytest.mark.parametrize("columns", [("Image", "thumb"), ("thumb", "file"), ("picture",)])
def test_training_and_predicting_take_the_same_column_of_a_parquet_file(
    write: Write, tmp_path: Path, columns: tuple[str, ...]
) -> None:
    photos = [path.read_bytes() for path in sorted(write({"cat": 4}).glob("*/*.png"))]
    table = {name: photos if name != "thumb" else photos[::-1] for name in columns}
    parquet.write_table(pyarrow.table({**table, "label": ["a", "a", "b", "b"]}), tmp_path / "a.parquet")
    images = read_source(str(tmp_path / "a.parquet"), None, None)
    seen = [source.content for source in sources.image_sources([str(tmp_path / "a.parquet")])]
    assert [images.encoded.content(index) for index in range(4)] == seen == photos


def test_the_summary_has_the_classes_the_splits_and_the_notes(write: Write) -> None:
    images = read_images(write({"cat": 10, "dog": 5, "yak": 1}))
    assert summary(images)[1:] == [
        "train 13 images; the fewest are of yak, 1; the most of cat, 8",
        "validation 3 images, drawn from the training images, every class in proportion",
        "test images: none given",
        "note: 1 class has one training image, and none to validate on: yak; add images of them",
    ]
    assert summary(images)[0].endswith(": 3 classes, one an image")


def test_the_summary_of_multi_label_images_states_the_unknown_share(write: Write, tmp_path: Path) -> None:
    write({"images": 4})
    lines = ["images/0.png,1,,train", "images/1.png,,1,train", "images/2.png,1,1,val", "images/3.png,0,0,test"]
    (tmp_path / "pets.csv").write_text("\n".join(["path,cat,dog,split", *lines]))
    assert summary(read_images(tmp_path / "pets.csv"))[:4] == [
        "pets: 2 classes, several an image, 50% of the training labels not known",
        "train 2 images; the fewest are of cat, 1; the most of cat, 1",
        "validation 1 image, as given",
        "test 1 image, not looked at",
    ]


def test_without_the_library_the_error_says_what_to_install(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write({"cat": 2, "dog": 2})
    monkeypatch.setitem(__import__("sys").modules, "datasets", None)
    with pytest.raises(VtzooError, match="reading data needs the datasets library"):
        read_folder(root)


def test_100_000_classes_are_read_within_two_minutes_as_one_number_per_image(tmp_path: Path) -> None:
    numbers = [*range(100_000), *range(100)]  # a hundred classes have two images
    contents = [b"\x89PNG\r\n\x1a\n" + row.to_bytes(8, "big") for row in range(len(numbers))]
    columns = {"image": contents, "label": [f"class {number}" for number in numbers]}
    parquet.write_table(pyarrow.table(columns), tmp_path / "many.parquet")
    began = time.perf_counter()
    images = read_images(tmp_path / "many.parquet")
    assert time.perf_counter() - began < 120
    assert images.classes[:3] == ("class 0", "class 1", "class 2")
    assert images.train.targets.shape == (100_000,)
    assert sorted(images.val.targets) == list(range(100))


@pytest.mark.parametrize("name", ["flowers102_64px"])
def test_the_official_split_of_real_parquet_is_used_and_its_duplicates_are_noted(name: str, real_data) -> None:
    images = read_images(real_data(name))
    assert not images.val_drawn
    assert (len(images.classes), len(images.train), len(images.val)) == (102, 1019, 1018)
    assert images.test is not None
    assert len(images.test) == 6149
    assert len(images.notes) == 2
