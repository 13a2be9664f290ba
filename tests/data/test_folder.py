"""Folders with one folder per class, with and without train/, val/ and test/ above."""

import os
import unicodedata
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from vtzoo.data.folder import read_folder
from vtzoo.data.read import read_images
from vtzoo.errors import VtzooError

Write = Callable[..., Path]


def failure(folder: Path) -> VtzooError:
    with pytest.raises(VtzooError) as caught:
        read_images(folder)
    assert "\n" not in caught.value.message
    return caught.value


def test_each_folder_is_a_class_and_includes_the_images_in_its_subfolders(write: Write) -> None:
    images = read_folder(write({"cat/2021/may": 1, "cat": 2, "dog": 1}))
    assert images.classes == ("cat", "dog")
    assert images.targets.tolist() == [0, 0, 0, 1]
    assert images.targets.dtype == np.int64
    assert set(images.splits) == {"train"}


def test_classes_are_in_alphabetical_order_and_numbers_by_value(write: Write) -> None:
    assert read_folder(write({"10": 1, "2": 1, "b10": 1, "b9": 1, "a": 1})).classes == ("2", "10", "a", "b9", "b10")


def test_suffixes_of_any_case_are_read_and_hidden_files_and_folders_are_skipped(write: Write) -> None:
    root = write({"cat": 1, "dog": 1, ".git": 1, "dog/.thumbnails": 1})
    image = (root / "cat" / "0.png").read_bytes()
    for name in ("a.JPG", "b.jpeg", "c.WebP", ".d.png", "notes.txt", "Thumbs.db"):
        (root / "cat" / name).write_bytes(image)
    images = read_folder(root)
    assert [Path(images.encoded.name(index)).name for index in range(len(images.encoded))] == [
        "0.png", "a.JPG", "b.jpeg", "c.WebP", "0.png",
    ]  # fmt: skip
    assert not images.notes


@pytest.mark.parametrize("name", ["val", "valid", "Validation"])
def test_given_validation_and_test_images_are_used_as_they_are(write: Write, name: str) -> None:
    root = write({"Train/cat": 5, "Train/dog": 5, f"{name}/cat": 1, f"{name}/dog": 2, "test/cat": 3})
    images = read_images(root)
    assert not images.val_drawn
    assert np.bincount(images.train.targets).tolist() == [5, 5]
    assert np.bincount(images.val.targets).tolist() == [1, 2]
    assert images.test is not None
    assert images.test.targets.tolist() == [0, 0, 0]


def test_without_a_validation_folder_validation_images_are_drawn_from_train(write: Write) -> None:
    images = read_images(write({"train/cat": 5, "train/dog": 5, "test/cat": 1}))
    assert images.val_drawn
    assert all("/train/" in images.val.encoded.name(index) for index in range(len(images.val)))


def test_a_class_may_be_called_train(write: Write) -> None:
    images = read_folder(write({"car": 2, "train": 2}))
    assert images.classes == ("car", "train")
    assert images.targets.tolist() == [0, 0, 1, 1]


def test_composed_and_decomposed_accents_are_one_class(write: Write) -> None:
    names = [unicodedata.normalize(form, "café") for form in ("NFC", "NFD")]
    assert names[0] != names[1]
    images = read_folder(write({names[0]: 1, names[1]: 2, "мост": 1, "橋": 1}))
    assert images.classes == (names[0], "мост", "橋")
    assert sorted(images.targets.tolist()) == [0, 0, 0, 1, 2]


def test_files_with_non_ascii_names_are_read(write: Write) -> None:
    root = write({"橋": 2, "мост": 2})
    (root / "橋" / "0.png").rename(root / "橋" / "café été.png")
    images = read_images(root)
    assert {image.size for part in (images.train, images.val) for image in part.encoded} == {(8, 8)}


def test_a_file_whose_name_is_not_utf_8_is_left_out_with_a_note(write: Write) -> None:
    root = write({"cat": 1, "dog": 1})
    try:
        (Path(os.fsdecode(bytes(root / "cat") + b"/\xff.png"))).write_bytes(b"image")
    except OSError:
        pytest.skip("this file system takes UTF-8 alone")
    images = read_folder(root)
    assert len(images.encoded) == 2
    assert "1 file left out for names that are not UTF-8" in images.notes[0]
    assert "udcff.png" in images.notes[0]


def test_loops_of_links_end_and_add_no_images_of_other_classes(write: Write) -> None:
    root = write({"cat": 2, "dog": 2})
    (root / "cat" / "back").symlink_to(root)
    (root / "cat" / "self").symlink_to(root / "cat")
    (root / "dog" / "loop").symlink_to(root / "dog" / "loop")
    images = read_folder(root)
    assert np.bincount(images.targets).tolist() == [2, 2]


def test_links_to_folders_and_files_elsewhere_are_followed(write: Write, tmp_path: Path) -> None:
    elsewhere = write({"kept/old": 3}, tmp_path / "elsewhere")
    root = write({"cat": 1, "dog": 1}, tmp_path / "photos")
    (root / "bird").symlink_to(elsewhere / "kept")
    (root / "cat" / "more").symlink_to(elsewhere / "kept")
    (root / "dog" / "one.png").symlink_to(root / "dog" / "0.png")
    images = read_folder(root)
    assert images.classes == ("bird", "cat", "dog")
    assert np.bincount(images.targets).tolist() == [3, 4, 2]


def test_a_folder_that_may_not_be_read_is_named(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write({"cat": 2, "dog": 2})
    scan = os.scandir

    def refuse(path: str) -> object:
        if str(path).endswith("dog"):
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    error = failure(root)
    assert error.message == f"cannot read the folder {str(root / 'dog')!r}: Permission denied"


# Left-out images and folders


def test_images_in_unsupported_formats_are_named(write: Write) -> None:
    root = write({"cat": 2, "dog": 2})
    for number in range(5):
        (root / "cat" / f"{number}.HEIC").write_bytes(b"image")
    (note,) = read_folder(root).notes
    assert note.startswith("5 images in formats that vtzoo cannot read, ")
    assert f"{root / 'cat' / '0.HEIC'}, " in note
    assert note.endswith(" and 2 more: convert them to JPEG or PNG, or they are left out")


def test_images_beside_the_class_folders_are_left_out_with_a_note(write: Write) -> None:
    root = write({"": 2, "train/cat": 1, "train/dog": 1, "train": 0})
    (note,) = read_folder(root).notes
    assert note == f"2 images of {root} in no class folder, 0.png, 1.png: they are left out"


def test_folders_beside_train_are_left_out_with_a_note(write: Write) -> None:
    root = write({"train/cat": 1, "train/dog": 1, "test": 3, "extra/cat": 1})
    (note,) = read_folder(root).notes
    assert note == f"beside train there is also extra, test in {root}: left out"


def test_a_class_folder_without_images_is_no_class(write: Write) -> None:
    root = write({"cat": 1, "dog": 1, "empty": 0})
    images = read_folder(root)
    assert images.classes == ("cat", "dog")
    assert images.notes == (f"{root / 'empty'} holds no images and is not a class",)


# Errors


def test_the_error_for_a_folder_without_images_names_its_contents(write: Write) -> None:
    root = write({"cat": 0, "dog": 0})
    error = failure(root)
    assert error.message == f"no images in class folders in {root}"
    assert error.hint is not None
    assert error.hint.startswith("it has cat, dog; put the images of each class into a folder of their own: ")


def test_images_in_no_class_folders_are_refused(write: Write) -> None:
    error = failure(write({"train": 2, "val": 2}))
    assert error.message.endswith(" lie in train, val, and in no class folders there")


def test_validation_without_train_is_refused(write: Write) -> None:
    root = write({"val/cat": 2, "val/dog": 2, "test/cat": 1, "test/dog": 1})
    error = failure(root)
    assert error.message == f"no training images in {root}"
    assert error.hint == "put some into a folder train/, or call their split train"


def test_one_class_alone_is_refused(write: Write) -> None:
    root = write({"cat": 5})
    assert failure(root).message == f"all the training images in {root} are of one class, 'cat'"


def test_the_error_for_an_archive_unpacked_into_its_own_folder_names_the_inner_folder(write: Write) -> None:
    root = write({"photos/cat": 2, "photos/dog": 2})
    error = failure(root)
    assert error.message == f"all the training images in {root} are of one class, 'photos'"
    assert error.hint is not None
    advice = f"photos is taken for one class: if cat, dog are the classes, give {root / 'photos'}"
    assert error.hint.startswith(advice)


def test_a_single_class_with_one_subfolder_has_no_note(write: Write) -> None:
    assert not read_folder(write({"cat/2021": 2, "cat": 1})).notes


def test_the_error_for_a_folder_with_a_csv_suggests_the_csv(write: Write) -> None:
    root = write({"images": 4})
    (root / "labels.csv").write_text("path,label\n")
    assert failure(root).hint == f"give the file of the labels instead: --data {root / 'labels.csv'}"
