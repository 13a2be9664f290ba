"""Labelled images from a CSV of paths and labels, and the errors for a wrong CSV."""

import unicodedata
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from vtzoo.data import labels
from vtzoo.data.read import read_images
from vtzoo.data.table import read_table
from vtzoo.errors import VtzooError

Make = Callable[..., Path]
NAN = np.nan


@pytest.fixture
def make(tmp_path: Path, photo: Callable[[], bytes]) -> Make:
    """Writes a CSV beside the images 0.png to 5.png, and returns its path."""

    def make(text: str, encoding: str = "utf-8") -> Path:
        for number in range(6):
            (tmp_path / f"{number}.png").write_bytes(photo())
        (tmp_path / "labels.csv").write_bytes(text.encode(encoding))
        return tmp_path / "labels.csv"

    return make


def failure(file: Path, **columns: str) -> VtzooError:
    with pytest.raises(VtzooError) as caught:
        read_table(file, **columns)
    assert "\n" not in caught.value.message
    return caught.value


def test_paths_start_at_the_folder_of_the_csv_and_labels_are_names(make: Make, tmp_path: Path) -> None:
    images = read_table(make(f"path,label\n0.png,NA\n./1.png, dog \n{tmp_path / '2.png'},NA\n"))
    assert images.classes == ("NA", "dog")
    assert images.targets.tolist() == [0, 1, 0]
    assert images.targets.dtype == np.int64
    assert [images.encoded.name(index) for index in range(3)] == [
        str(tmp_path / f"{number}.png") for number in range(3)
    ]
    assert images.encoded[2].size == (8, 8)


@pytest.mark.parametrize("header", ["image,category", "File, Class", "filename,labels", "classes,IMG,note"])
def test_usual_names_of_columns_are_known_in_any_order_and_case(make: Make, header: str) -> None:
    line = {"note": "?", "path": "0.png"}
    cells = ["0.png" if name.strip().lower() in ("image", "file", "filename", "img") else line.get(name, "cat")
             for name in header.split(",")]  # fmt: skip
    images = read_table(make(f"{header}\n{','.join(cells)}\n"))
    assert images.classes == ("cat",)
    assert images.encoded.name(0).endswith("0.png")


def test_columns_may_be_named(make: Make) -> None:
    images = read_table(make("photo,label,kind\n0.png,x,cat\n1.png,y,dog\n"), image_column="photo", label_column="kind")
    assert images.classes == ("cat", "dog")


def test_all_labels_of_a_cell_are_positive_and_the_other_classes_negative(make: Make) -> None:
    images = read_table(make("path,labels\n0.png,cat; dog\n1.png,bird\n2.png,\n"))
    assert images.classes == ("bird", "cat", "dog")
    assert images.targets.dtype == np.float32
    assert np.array_equal(images.targets, [[0, 1, 1], [1, 0, 0], [NAN, NAN, NAN]], equal_nan=True)


def test_negatives_that_a_mask_does_not_name_are_unknown(make: Make) -> None:
    images = read_table(make("path,labels,mask\n0.png,cat,cat;dog\n1.png,bird,\n2.png,,dog\n3.png,cat,bird\n"))
    assert images.classes == ("bird", "cat", "dog")
    expected = [[NAN, 1, 0], [1, 0, 0], [NAN, NAN, 0], [0, 1, NAN]]
    assert np.array_equal(images.targets, expected, equal_nan=True)


def test_with_one_column_per_class_the_columns_keep_their_order_and_empty_cells_are_unknown(make: Make) -> None:
    images = read_table(make("path,split,wet,cold\n0.png,train,1,0\n1.png,val,,yes\n2.png,train,No,1.0\n"))
    assert images.classes == ("wet", "cold")
    assert np.array_equal(images.targets, [[1, 0], [NAN, 1], [0, 1]], equal_nan=True)
    assert images.splits.tolist() == ["train", "val", "train"]


def test_a_split_column_says_train_val_or_test_and_empty_is_train(make: Make) -> None:
    images = read_table(make("path,label,split\n0.png,a,Train\n1.png,a,valid\n2.png,b,test\n3.png,b,\n"))
    assert images.splits.tolist() == ["train", "val", "test", "train"]


def test_a_byte_order_mark_blank_lines_and_crlf_are_accepted(make: Make) -> None:
    images = read_table(make('path,label\r\n\r\n0.png,"a, b"\r\n,\r\n1.png,c\r\n', "utf-8-sig"))
    assert images.classes == ("a, b", "c")


def test_non_ascii_names_are_found_composed_or_decomposed(make: Make, tmp_path: Path) -> None:
    composed, decomposed = (unicodedata.normalize(form, "été") for form in ("NFC", "NFD"))
    file = make(f"path,label\n{composed}.png,{composed}\n{decomposed}.jpg,{decomposed}\n0.png,冬\n")
    (tmp_path / f"{decomposed}.png").write_bytes((tmp_path / "0.png").read_bytes())
    (tmp_path / f"{composed}.jpg").write_bytes((tmp_path / "1.png").read_bytes())
    images = read_table(file)
    assert images.classes == (composed, "冬")
    assert [image.size for image in images.encoded] == [(8, 8)] * 3


def test_a_line_that_repeats_another_counts_once_with_a_note(make: Make) -> None:
    file = make("path,label\n0.png,a\n./0.png,a\n1.png,b\n")
    images = read_table(file)
    assert len(images.encoded) == 2
    assert images.notes == (f"1 line of {file} repeats others, and counts once",)


def test_an_image_without_a_label_is_left_out_with_a_note(make: Make, tmp_path: Path) -> None:
    images = read_images(make("path,label\n0.png,a\n1.png,a\n2.png,b\n3.png,b\n4.png,\n5.png, \n"))
    assert len(images.train) + len(images.val) == 4
    note = f"2 images have no label: {tmp_path / '4.png'}, {tmp_path / '5.png'}; left out (an empty cell is unknown)"
    assert note in images.notes


# Errors


def test_missing_files_are_counted_and_named_with_their_lines(make: Make, tmp_path: Path) -> None:
    file = make("path,label\n0.png,a\nnowhere.png,b\n1.png,b\n,a\n")
    error = failure(file)
    assert error.message == f"2 images of {file} do not exist: 'nowhere.png' (line 3), '' (line 5)"
    assert error.hint == f"a path is absolute or starts at {tmp_path}: correct it, or remove its line"


def test_an_unknown_column_is_answered_with_the_nearest(make: Make) -> None:
    file = make("path,species\n0.png,a\n")
    error = failure(file, label_column="specie")
    assert error.message == f"unknown column of {file}, 'specie'"
    assert error.hint == "did you mean species? --label-column NAME"
    assert failure(file, image_column="foto").message == f"unknown column of {file}, 'foto'"


def test_without_a_column_of_images_the_columns_are_named(make: Make) -> None:
    file = make("photo,label\n0.png,a\n")
    error = failure(file)
    assert error.message == f"no column of images in {file}, which has photo, label"
    assert error.hint == "call it `path` or `image`, or name it: --image-column NAME"


def test_without_a_column_of_labels_the_columns_are_named(make: Make) -> None:
    file = make("path\n0.png\n")
    assert failure(file).message == f"no column of labels in {file}, which has path"
    file = make("path,species\n0.png,a\n")
    error = failure(file)
    assert error.message == f"no column of labels in {file}, and column 'species' has 'a' where 1 or 0 is expected"
    assert error.hint == "call the column of labels `label`, or name it: --label-column NAME"


def test_a_file_without_a_header_is_refused(make: Make) -> None:
    file = make("0.png,a\n1.png,b\n")
    error = failure(file)
    assert error.message == f"{file} has no header: its first line is '0.png,a'"
    assert error.hint == "put a line before it: path,label"


@pytest.mark.parametrize("mark", [";", "\t", "|"])
def test_another_separator_is_named(make: Make, mark: str) -> None:
    file = make(f"path{mark}label\n0.png{mark}a\n")
    first = f"path{mark}label"
    assert failure(file).message == f"the cells of {file} are separated by {mark!r}: its first line is {first!r}"


@pytest.mark.parametrize(("encoding", "name"), [("utf-16", "UTF-16"), ("latin-1", "another encoding")])
def test_another_encoding_is_refused(make: Make, encoding: str, name: str) -> None:
    file = make("path,label\n0.png,été\n", encoding)
    error = failure(file)
    assert error.message == f"cannot read {file}: it is written in {name}"
    assert error.hint == "save it as CSV in UTF-8"


def test_a_cell_that_never_ends_is_refused(make: Make) -> None:
    file = make('path,label\n0.png,"' + "a" * 200_000)
    assert failure(file).message == f"cannot read {file}: field larger than field limit (131072)"


@pytest.mark.parametrize("text", ["", "path,label\n", "\n\n"])
def test_a_file_without_images_is_refused(make: Make, text: str) -> None:
    file = make(text)
    assert failure(file).message == f"{file} lists no images"


def test_a_line_with_another_number_of_cells_is_named(make: Make) -> None:
    file = make("path,label\n0.png,a\n1.png,a,b\n")
    assert failure(file).message == f"line 3 of {file} has 3 cells, its header 2"


def test_two_columns_of_one_name_are_refused(make: Make) -> None:
    file = make("path,label,label\n0.png,a,b\n")
    assert failure(file).message == f"two columns of {file} are called 'label'"


def test_one_path_with_two_labels_is_refused(make: Make) -> None:
    file = make("path,label\n0.png,a\n1.png,b\n./0.png,b\n")
    error = failure(file)
    assert error.message == f"lines 2 and 4 of {file} give './0.png' other labels"
    assert error.hint == "remove one; several classes of an image share a cell: cat;dog"


def test_an_unknown_split_is_named_with_its_line(make: Make) -> None:
    file = make("path,label,split\n0.png,a,train\n1.png,b,vall\n")
    error = failure(file)
    assert error.message == "unknown split 'vall'"
    assert error.hint == f"did you mean val or valid? line 3 of {file} says it"


def test_targets_that_would_take_more_than_the_cap_are_refused(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    file = make("path,label\n0.png,a;b\n1.png,c\n")
    monkeypatch.setattr(labels, "LARGEST", 2 * 3 * 4 - 1)
    error = failure(file)
    assert error.message == "2 images with several of 3 classes each would take 0 GB"
    assert error.hint == "give fewer classes, or one class an image"
