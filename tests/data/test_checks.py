"""What is said of images before anything is trained on them, and what is left out."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from vtzoo.data import checks, collection, found
from vtzoo.data.decoding import Rows
from vtzoo.errors import VtzooError

Write = Callable[..., Path]


def failure(source: Path) -> VtzooError:
    with pytest.raises(VtzooError) as caught:
        collection.read(source)
    assert "\n" not in caught.value.message
    return caught.value


def names(part: collection.Labelled) -> list[str]:
    return [part.rows.name(index) for index in range(len(part))]


@pytest.mark.parametrize(
    "content", [b"", b"<html>not found</html>", b"\0\0\0\x1cftypheic"], ids=["empty", "html", "heic"]
)
def test_files_that_do_not_begin_as_an_image_are_left_out_by_name(write: Write, content: bytes) -> None:
    root = write({"cat": 5, "dog": 5})
    (root / "cat" / "3.png").write_bytes(content)
    read = collection.read(root)
    assert len(read.train) + len(read.held) == 9
    told = f"1 image is no image: {root / 'cat' / '3.png'}; left out (replace them or delete them)"
    assert read.notes == (told,)


def test_a_link_to_nowhere_is_left_out_by_name(write: Write) -> None:
    root = write({"cat": 5, "dog": 5})
    (root / "cat" / "x.png").symlink_to(root / "gone.png")
    (note,) = collection.read(root).notes
    assert f"{root / 'cat' / 'x.png'}; left out" in note


def test_images_are_told_by_their_first_bytes_alone(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write({"cat": 1, "dog": 1})
    for number, image in enumerate(root.glob("*/*.png")):
        image.write_bytes(image.read_bytes() + b"." * number)  # of no size that another has
    monkeypatch.setattr(Rows, "content", lambda *_: pytest.fail("the whole file was read"))
    rows = found.of_files([str(path) for path in sorted(root.glob("*/*.png"))])
    kept, sizes = checks.usable(
        found.Found(classes=("cat", "dog"), rows=rows, targets=np.array([0, 1]), parts=np.zeros(2, np.int8)), root
    )
    assert len(kept.rows) == 2
    assert sizes.tolist() == [path.stat().st_size for path in sorted(root.glob("*/*.png"))]
    assert checks.find_copies(rows, sizes).tolist() == [-1, -1]


def test_where_no_image_can_be_read_that_is_an_error(write: Write) -> None:
    root = write({"cat": 1, "dog": 1})
    for path in root.glob("*/*"):
        path.write_bytes(b"")
    error = failure(root)
    assert error.message == f"no labelled images that can be read in {root}"
    assert error.hint is not None
    assert error.hint.startswith("2 images are no images: ")


# Copies


def test_what_validation_has_is_left_out_of_train_and_what_test_has_of_both(write: Write) -> None:
    root = write({f"{part}/{name}": 5 for part in ("train", "val", "test") for name in ("cat", "dog")})
    shutil.copy(root / "train/cat/1.png", root / "val/cat/copy.png")
    shutil.copy(root / "train/cat/2.png", root / "val/cat/again.png")
    shutil.copy(root / "train/dog/0.png", root / "test/dog/copy.png")
    shutil.copy(root / "val/dog/4.png", root / "test/dog/more.png")
    read = collection.read(root)
    assert set(names(read.train)) == {
        str(root / f"train/{name}/{number}.png") for name in ("cat", "dog") for number in range(5)
    } - {str(root / one) for one in ("train/cat/1.png", "train/cat/2.png", "train/dog/0.png")}
    assert len(read.held) == 11
    assert read.test is not None
    assert len(read.test) == 12
    assert read.notes == (
        f"3 images of train are in validation or test too, as {root / 'train/cat/1.png'} is "
        f"{root / 'val/cat/copy.png'}: left out of train",
        f"1 image of validation is in test too, as {root / 'val/dog/4.png'} is "
        f"{root / 'test/dog/more.png'}: left out of validation",
    )


def test_validation_images_that_are_all_in_test_give_way_to_a_drawn_slice(write: Write) -> None:
    root = write({"train/cat": 5, "train/dog": 5, "val/cat": 1, "val/dog": 1})
    shutil.copytree(root / "val", root / "test")
    read = collection.read(root)
    assert read.drawn
    assert all("/train/" in name for name in names(read.held))
    assert "2 images of validation are in test too" in read.notes[0]


def test_a_train_that_is_all_in_validation_is_refused(write: Write) -> None:
    root = write({"train/cat": 2, "train/dog": 2})
    shutil.copytree(root / "train", root / "val")
    error = failure(root)
    assert error.message == f"no training images in {root}"
    assert error.hint is not None
    assert error.hint.startswith("4 images of train are in validation or test too, as ")


def test_the_same_image_under_two_classes_is_said_and_kept(write: Write) -> None:
    root = write({"cat": 5, "dog": 5})
    shutil.copy(root / "cat/1.png", root / "dog/9.png")
    read = collection.read(root)
    assert len(read.train) + len(read.held) == 11
    told = f"{root / 'cat/1.png'} (cat) and {root / 'dog/9.png'} (dog)"
    assert read.notes[0] == f"the same image has different labels: {told}: correct one, or delete it"


def test_copies_in_train_are_trained_on_and_never_drawn(write: Write) -> None:
    root = write({"cat": 5, "dog": 5})
    for number in range(20):
        shutil.copy(root / "cat/0.png", root / f"cat/copy{number}.png")
    for seed in range(5):
        read = collection.read(root, seed=seed)
        assert not [name for name in names(read.held) if "copy" in name or name.endswith("cat/0.png")]
    assert len(read.train) + len(read.held) == 30
    (note,) = read.notes
    assert note.startswith(f"21 training images are the same as others, {root / 'cat/0.png'}, ")
    assert note.endswith(" and 18 more: none of them validates")


def test_only_one_image_of_each_class_that_differs_cannot_be_validated(write: Write) -> None:
    root = write({"cat": 1, "dog": 1})
    shutil.copy(root / "cat/0.png", root / "cat/1.png")
    error = failure(root)
    assert error.message == f"no class in {root} has two images that differ: one would be needed to validate on"


# Classes


def test_a_class_with_one_image_stays_in_train_and_is_said(write: Write) -> None:
    read = collection.read(write({"cat": 5, "dog": 5, "yak": 1}))
    assert np.bincount(read.train.targets).tolist() == [4, 4, 1]
    assert read.notes == ("1 class has one training image, and none to validate on: yak; add images of them",)


def test_a_class_that_only_validation_or_test_has_is_refused(write: Write) -> None:
    root = write({"train/cat": 2, "train/dog": 2, "val/cat": 1, "val/emu": 1, "val/yak": 1})
    error = failure(root)
    assert error.message == "validation has 2 classes that train lacks: emu, yak"
    assert error.hint == f"add images of them to train, or remove them from validation in {root}"
    for name in ("emu", "yak"):
        shutil.rmtree(root / "val" / name)
    write({"test/yak": 1}, root)
    assert failure(root).message == "test has 1 class that train lacks: yak"


def test_one_class_in_a_table_is_refused(write: Write, tmp_path: Path) -> None:
    root = write({"images": 3})
    file = tmp_path / "labels.csv"
    file.write_text("path,label\nimages/0.png,cat\nimages/1.png,cat\n")
    assert failure(file).message == f"all the training images in {file} are of one class, 'cat'"
    file.write_text("path,cat,dog\nimages/0.png,0,0\nimages/1.png,0,\n")
    assert failure(file).message == f"all the training images in {file} are of no class"
    file.write_text("path,label,split\nimages/0.png,cat,val\nimages/1.png,dog,test\n")
    assert failure(file).message == f"no training images in {file}"
    assert root == tmp_path


def test_a_class_without_images_is_said(write: Write, tmp_path: Path) -> None:
    write({"images": 4})
    file = tmp_path / "labels.csv"
    file.write_text("path,cat,dog,yak\n" + "".join(f"images/{number}.png,{number % 2},1,0\n" for number in range(4)))
    notes = collection.read(file).notes
    assert notes == ("1 class has no training images, and is never learnt: yak",)
