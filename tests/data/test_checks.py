"""Checks of labelled images before training: the notes, and the images that are left out."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from vtzoo.data import checks
from vtzoo.data.encoded_images import EncodedImages
from vtzoo.data.folder import read_folder
from vtzoo.data.labelled_images import LabelledImages
from vtzoo.data.read import read_images
from vtzoo.errors import VtzooError

Write = Callable[..., Path]


def failure(source: Path) -> VtzooError:
    with pytest.raises(VtzooError) as caught:
        read_images(source)
    assert "\n" not in caught.value.message
    return caught.value


def names(part: LabelledImages) -> list[str]:
    return [part.encoded.name(index) for index in range(len(part))]


@pytest.mark.parametrize(
    "content", [b"", b"<html>not found</html>", b"\0\0\0\x1cftypheic"], ids=["empty", "html", "heic"]
)
def test_files_that_do_not_start_like_a_readable_image_are_left_out_and_named(write: Write, content: bytes) -> None:
    root = write({"cat": 5, "dog": 5})
    (root / "cat" / "3.png").write_bytes(content)
    images = read_images(root)
    assert len(images.train) + len(images.val) == 9
    note = f"1 image is no image: {root / 'cat' / '3.png'}; left out (replace them or delete them)"
    assert images.notes == (note,)


def test_a_broken_link_is_left_out_and_named(write: Write) -> None:
    root = write({"cat": 5, "dog": 5})
    (root / "cat" / "x.png").symlink_to(root / "gone.png")
    (note,) = read_images(root).notes
    assert f"{root / 'cat' / 'x.png'}; left out" in note


def test_images_are_recognised_by_their_first_bytes_alone(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write({"cat": 1, "dog": 1})
    for number, image in enumerate(root.glob("*/*.png")):
        image.write_bytes(image.read_bytes() + b"." * number)  # a size of its own
    monkeypatch.setattr(EncodedImages, "content", lambda *_: pytest.fail("the whole file was read"))
    kept, sizes = checks.usable(read_folder(root), root)
    assert len(kept.encoded) == 2
    assert sizes.tolist() == [path.stat().st_size for path in sorted(root.glob("*/*.png"))]
    assert checks.copies_of(kept.encoded, sizes).tolist() == [-1, -1]


def test_a_source_without_readable_images_is_an_error(write: Write) -> None:
    root = write({"cat": 1, "dog": 1})
    for path in root.glob("*/*"):
        path.write_bytes(b"")
    error = failure(root)
    assert error.message == f"no labelled images that can be read in {root}"
    assert error.hint is not None
    assert error.hint.startswith("2 images are no images: ")


# Copies


def test_train_loses_copies_of_val_and_test_images_and_val_loses_copies_of_test_images(write: Write) -> None:
    root = write({f"{part}/{name}": 5 for part in ("train", "val", "test") for name in ("cat", "dog")})
    shutil.copy(root / "train/cat/1.png", root / "val/cat/copy.png")
    shutil.copy(root / "train/cat/2.png", root / "val/cat/again.png")
    shutil.copy(root / "train/dog/0.png", root / "test/dog/copy.png")
    shutil.copy(root / "val/dog/4.png", root / "test/dog/more.png")
    images = read_images(root)
    assert set(names(images.train)) == {
        str(root / f"train/{name}/{number}.png") for name in ("cat", "dog") for number in range(5)
    } - {str(root / path) for path in ("train/cat/1.png", "train/cat/2.png", "train/dog/0.png")}
    assert len(images.val) == 11
    assert images.test is not None
    assert len(images.test) == 12
    assert images.notes == (
        f"3 images of train are also in val or test ({root / 'train/cat/1.png'} is the same as "
        f"{root / 'val/cat/copy.png'}): left out of train",
        f"1 image of val is also in test ({root / 'val/dog/4.png'} is the same as {root / 'test/dog/more.png'}): "
        "left out of val",
    )


def test_validation_images_are_drawn_if_all_given_ones_are_also_in_test(write: Write) -> None:
    root = write({"train/cat": 5, "train/dog": 5, "val/cat": 1, "val/dog": 1})
    shutil.copytree(root / "val", root / "test")
    images = read_images(root)
    assert images.val_drawn
    assert all("/train/" in name for name in names(images.val))
    assert "2 images of val are also in test" in images.notes[0]


def test_a_train_split_that_is_all_in_validation_is_refused(write: Write) -> None:
    root = write({"train/cat": 2, "train/dog": 2})
    shutil.copytree(root / "train", root / "val")
    error = failure(root)
    assert error.message == f"no training images in {root}"
    assert error.hint is not None
    assert error.hint.startswith("4 images of train are also in val or test (")


def test_the_same_image_under_two_classes_is_noted_and_kept(write: Write) -> None:
    root = write({"cat": 5, "dog": 5})
    shutil.copy(root / "cat/1.png", root / "dog/9.png")
    images = read_images(root)
    assert len(images.train) + len(images.val) == 11
    pair = f"{root / 'cat/1.png'} (cat) and {root / 'dog/9.png'} (dog)"
    assert images.notes[0] == f"the same image has different labels: {pair}: correct one, or delete it"


def test_copies_in_train_are_trained_on_and_never_drawn_for_validation(write: Write) -> None:
    root = write({"cat": 5, "dog": 5})
    for number in range(20):
        shutil.copy(root / "cat/0.png", root / f"cat/copy{number}.png")
    for seed in range(5):
        images = read_images(root, seed=seed)
        assert not [name for name in names(images.val) if "copy" in name or name.endswith("cat/0.png")]
    assert len(images.train) + len(images.val) == 30
    (note,) = images.notes
    assert note.startswith(f"21 training images are the same as others, {root / 'cat/0.png'}, ")
    assert note.endswith(" and 18 more: kept out of validation")


def test_classes_with_only_one_distinct_image_cannot_be_validated(write: Write) -> None:
    root = write({"cat": 1, "dog": 1})
    shutil.copy(root / "cat/0.png", root / "cat/1.png")
    error = failure(root)
    assert error.message == f"validation needs a class with two different images, and {root} has none"


# Classes


def test_a_class_with_one_image_stays_in_train_with_a_note(write: Write) -> None:
    images = read_images(write({"cat": 5, "dog": 5, "yak": 1}))
    assert np.bincount(images.train.targets).tolist() == [4, 4, 1]
    assert images.notes == ("1 class has one training image, and none to validate on: yak; add images of them",)


def test_a_class_that_only_validation_or_test_has_is_refused(write: Write) -> None:
    root = write({"train/cat": 2, "train/dog": 2, "val/cat": 1, "val/emu": 1, "val/yak": 1})
    error = failure(root)
    assert error.message == "val has 2 classes that train lacks: emu, yak"
    assert error.hint == f"add images of them to train, or remove them from val in {root}"
    for name in ("emu", "yak"):
        shutil.rmtree(root / "val" / name)
    write({"test/yak": 1}, root)
    assert failure(root).message == "test has 1 class that train lacks: yak"


def test_a_table_with_fewer_than_two_training_classes_is_refused(write: Write, tmp_path: Path) -> None:
    root = write({"images": 3})
    file = tmp_path / "labels.csv"
    file.write_text("path,label\nimages/0.png,cat\nimages/1.png,cat\n")
    assert failure(file).message == f"all the training images in {file} are of one class, 'cat'"
    file.write_text("path,cat,dog\nimages/0.png,0,0\nimages/1.png,0,\n")
    assert failure(file).message == f"all the training images in {file} are of no class"
    file.write_text("path,label,split\nimages/0.png,cat,val\nimages/1.png,dog,test\n")
    assert failure(file).message == f"no training images in {file}"
    assert root == tmp_path


def test_a_class_without_images_is_noted(write: Write, tmp_path: Path) -> None:
    write({"images": 4})
    file = tmp_path / "labels.csv"
    file.write_text("path,cat,dog,yak\n" + "".join(f"images/{number}.png,{number % 2},1,0\n" for number in range(4)))
    notes = read_images(file).notes
    assert notes == ("1 class has no training images, and is never learnt: yak",)
