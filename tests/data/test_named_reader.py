"""Reading the splits of named data sets from Parquet, folders and the Hub, and the errors for wrong data."""

import dataclasses
import hashlib
import io
import json
import sys
from pathlib import Path

import datasets as library
import huggingface_hub
import numpy as np
import pyarrow
import pytest
from PIL import Image
from pyarrow import parquet

from vtzoo.data import named, named_reader
from vtzoo.data.transform import Preprocess
from vtzoo.errors import VtzooError

CIFAR10 = named.named_set("cifar10")
FLOWERS102 = named.named_set("flowers102")
CLIPART = named.named_set("clipart")
SVHN = named.named_set("svhn")


def pictures(count: int, size: int = 8) -> np.ndarray:
    """Random images, uint8 (count, size, size, 3)."""
    return np.random.default_rng(count).integers(0, 256, (count, size, size, 3), dtype=np.uint8)


def encode(pixels: np.ndarray, encoding: str = "PNG") -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, encoding, lossless=True)
    return stream.getvalue()


def write_parquet(file: Path, row: named.NamedSet, images: list[bytes | None], labels: list, **columns: list) -> Path:
    """Writes a file like the Hub's: images as {bytes, path}, labels as a ClassLabel with names; returns its folder."""
    names = named.labels(row.name) or [f"class {number}" for number in range(row.classes)]
    table = library.Dataset.from_dict(
        {row.image_column: [image and {"bytes": image, "path": None} for image in images], row.label_column: labels}
        | columns,
        features=library.Features(
            {row.image_column: library.Image(), row.label_column: library.ClassLabel(names=list(names))}
            | {name: library.Value("string") for name in columns}
        ),
    )
    file.parent.mkdir(exist_ok=True)
    parquet.write_table(table.data.table, file)
    return file.parent


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of twenty training and ten test images of cifar10, in three Parquet files."""
    images = [encode(image) for image in pictures(30)]
    write_parquet(tmp_path / "train-00000-of-00002.parquet", CIFAR10, images[:10], list(range(10)))
    write_parquet(tmp_path / "train-00001-of-00002.parquet", CIFAR10, images[10:20], list(range(10)))
    return write_parquet(tmp_path / "test-00000-of-00001.parquet", CIFAR10, images[20:], list(range(10)))


def write_folders(root: Path, split: str, **classes: list[np.ndarray]) -> Path:
    for name, images in classes.items():
        (root / split / name).mkdir(parents=True)
        for number, image in enumerate(images):
            Image.fromarray(image).save(root / split / name / f"{number}.png")
    return root


def failure(row: named.NamedSet, split: str, source: Path | None) -> VtzooError:
    """The error of reading the split and decoding every image."""
    with pytest.raises(VtzooError) as caught:
        list(named_reader.read(row, split, source).encoded)
    assert "\n" not in caught.value.message
    return caught.value


# Images and labels


def test_parquet_files_are_read_in_order_with_their_labels_and_names(folder: Path) -> None:
    train = named_reader.read(CIFAR10, "train", folder)
    assert len(train) == len(train.encoded) == 20
    assert train.targets.dtype == np.int64
    assert train.targets.tolist() == [*range(10), *range(10)]
    assert train.classes == named.labels("cifar10")
    assert all((np.asarray(image) == pixels).all() for image, pixels in zip(train.encoded, pictures(30), strict=False))
    assert (np.asarray(train.encoded[11]) == pictures(30)[11]).all()


def test_reading_a_folder_writes_no_copy_into_the_cache(folder: Path, tmp_path: Path, monkeypatch) -> None:
    cache = tmp_path / "cache"
    monkeypatch.setattr(library.config, "HF_DATASETS_CACHE", cache)
    before = sorted(tmp_path.rglob("*"))
    list(named_reader.read(CIFAR10, "train", folder).encoded)
    assert sorted(tmp_path.rglob("*")) == before


def test_flowers102_trains_on_train_then_validation(tmp_path: Path) -> None:
    images = [encode(image) for image in pictures(2)]
    write_parquet(tmp_path / "validation-00000-of-00001.parquet", FLOWERS102, images[1:], [101])
    write_parquet(tmp_path / "train-00000-of-00001.parquet", FLOWERS102, images[:1], [7])
    assert named_reader.read(FLOWERS102, "train", tmp_path).targets.tolist() == [7, 101]


def test_only_the_rows_of_the_domain_are_read(tmp_path: Path) -> None:
    images, domains = [encode(image) for image in pictures(4)], ["real", "clipart", "sketch", "clipart"]
    write_parquet(tmp_path / "test-0.parquet", CLIPART, images, [1, 2, 3, 344], domain=domains)
    test = named_reader.read(CLIPART, "test", tmp_path)
    assert test.targets.tolist() == [2, 344]
    assert [(np.asarray(image) == pictures(4)[row]).all() for image, row in zip(test.encoded, (1, 3), strict=True)]


def test_a_domain_column_of_class_numbers_is_understood() -> None:
    features = library.Features({"domain": library.ClassLabel(names=["sketch", "clipart"])})
    table = library.Dataset.from_dict({"domain": [0, 1, 1]}, features=features)
    assert named_reader.in_domain(table, "clipart").tolist() == [False, True, True]
    assert not named_reader.in_domain(table, "real").any()


def test_plain_numbers_take_the_recorded_names_or_stay_numbers(tmp_path: Path) -> None:
    for row in (CIFAR10, SVHN):
        columns = {row.image_column: [{"bytes": encode(pictures(1)[0]), "path": None}], row.label_column: [9]}
        parquet.write_table(pyarrow.table(columns), tmp_path / "test-0.parquet")
        expected = named.labels(row.name) or tuple("0123456789")
        assert named_reader.read(row, "test", tmp_path).classes == expected


def test_folders_follow_the_order_of_the_recorded_names(tmp_path: Path) -> None:
    names = named.labels("flowers102")
    assert names is not None
    assert names[0] > names[2]
    write_folders(tmp_path, "test", **{names[2]: list(pictures(1)), names[0]: list(pictures(2))})
    test = named_reader.read(FLOWERS102, "test", tmp_path)
    assert test.classes == names
    assert test.targets.tolist() == [2, 0, 0]


def test_folders_are_read_with_subfolders_but_without_hidden_files_and_other_suffixes(tmp_path: Path) -> None:
    cat = write_folders(tmp_path, "train", cat=list(pictures(1))) / "train" / "cat"
    for name in (".hidden.png", "notes.txt"):
        (cat / name).write_bytes(encode(pictures(1)[0]))
    (cat / "more").mkdir()
    (cat / "more" / "UPPER.PNG").write_bytes(encode(pictures(1)[0]))
    (tmp_path / "train" / ".cache").mkdir()
    assert named_reader.read(CIFAR10, "train", tmp_path).targets.tolist() == [3, 3]


def test_classes_without_recorded_names_have_the_same_numbers_in_the_folders_of_both_splits(tmp_path: Path) -> None:
    images = list(pictures(1))
    write_folders(tmp_path, "train", **{f"class {number}": images for number in range(9)})
    write_folders(tmp_path, "test", **{f"class {number}": images for number in range(1, 10)})
    assert named_reader.read(SVHN, "train", tmp_path).targets.tolist() == list(range(9))
    assert named_reader.read(SVHN, "test", tmp_path).targets.tolist() == list(range(1, 10))


def test_folders_may_call_the_test_split_val(tmp_path: Path) -> None:
    write_folders(tmp_path, "val", ship=list(pictures(1)))
    assert named_reader.read(CIFAR10, "test", tmp_path).targets.tolist() == [8]


def test_training_images_never_pass_for_test_images(tmp_path: Path) -> None:
    write_folders(tmp_path, "validation", **{"pink primrose": list(pictures(1))})
    assert failure(FLOWERS102, "test", tmp_path).message == f"no 'test' images of flowers102 in {tmp_path}"


# The manifest and the pixels


def test_the_manifest_is_the_hash_of_shapes_labels_and_pixels(folder: Path) -> None:
    digest = hashlib.sha256()
    for label, pixels in enumerate(pictures(30)[20:]):
        digest.update(b"".join(number.to_bytes(8, "little") for number in (8, 8, label)) + pixels.tobytes())
    assert named_reader.read(CIFAR10, "test", folder).fingerprint == digest.hexdigest()


def test_the_manifest_is_the_same_for_any_lossless_encoding_and_layout(tmp_path: Path) -> None:
    images = list(pictures(2))
    png = write_parquet(tmp_path / "png" / "test-0.parquet", CIFAR10, [encode(image) for image in images], [3, 8])
    webp = [encode(image, "WEBP") for image in images]
    webp_folder = write_parquet(tmp_path / "webp" / "test-0.parquet", CIFAR10, webp, [3, 8])
    plain = write_folders(tmp_path / "plain", "test", cat=images[:1], ship=images[1:])
    assert len({named_reader.read(CIFAR10, "test", source).fingerprint for source in (png, webp_folder, plain)}) == 1


def test_the_manifest_changes_with_a_pixel_a_label_and_the_order(folder: Path) -> None:
    test = named_reader.read(CIFAR10, "test", folder)
    other_label = dataclasses.replace(test, targets=np.roll(test.targets, 1))
    other_pixels = dataclasses.replace(
        named_reader.read(CIFAR10, "train", folder).select(np.arange(10)), targets=test.targets
    )
    other_order = test.select(np.arange(10)[::-1])
    assert len({split.fingerprint for split in (test, other_label, other_pixels, other_order)}) == 4


def test_pixels_of_the_same_size_are_unchanged(folder: Path) -> None:
    pixels = named_reader.read(CIFAR10, "test", folder).pixels(Preprocess.square(8))
    assert pixels.dtype == np.uint8
    assert (pixels == pictures(30)[20:].transpose(0, 3, 1, 2)).all()


def test_pixels_of_another_size_are_resized_by_the_shorter_side_and_centre_cropped(tmp_path: Path) -> None:
    wide = np.random.default_rng(0).integers(0, 256, (20, 40, 3), dtype=np.uint8)
    write_folders(tmp_path, "test", cat=[wide])
    expected = Image.fromarray(wide).resize((20, 10), Image.Resampling.BICUBIC).crop((5, 0, 15, 10))
    pixels = named_reader.read(CIFAR10, "test", tmp_path).pixels(Preprocess.square(10))
    assert (pixels == np.asarray(expected).transpose(2, 0, 1)).all()


# Slices of a split


def test_a_slice_and_the_rest_make_the_whole_without_overlap(folder: Path) -> None:
    train = named_reader.read(CIFAR10, "train", folder)
    rest, held = train.hold_out(0.5, seed=0)
    positions = [*rest.encoded.positions, *held.encoded.positions]
    assert len(rest) == len(held) == 10
    assert sorted(positions) == list(range(20))
    assert sorted(held.targets) == list(range(10))  # an image of each class


def test_a_slice_depends_on_the_seed_alone(folder: Path) -> None:
    train = named_reader.read(CIFAR10, "train", folder)
    first, again, other = (train.hold_out(0.5, seed=seed)[1].encoded.positions.tolist() for seed in (0, 0, 1))
    assert first == again != other


def test_a_selection_keeps_image_and_label_together(folder: Path) -> None:
    chosen = named_reader.read(CIFAR10, "test", folder).select(np.array([4, 2]))
    assert chosen.targets.tolist() == [4, 2]
    assert (np.asarray(chosen.encoded[1]) == pictures(30)[22]).all()


@pytest.mark.parametrize("fraction", [0.0, 0.001, 1.0, -1.0, 1.5])
def test_a_slice_of_nothing_or_everything_is_refused(folder: Path, fraction: float) -> None:
    with pytest.raises(VtzooError, match=f"cannot hold out {fraction} of 20 images"):
        named_reader.read(CIFAR10, "train", folder).hold_out(fraction, seed=0)


# Errors


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    error = failure(CIFAR10, "test", tmp_path / "nowhere")
    assert error.message == f"no folder {str(tmp_path / 'nowhere')!r}"
    assert error.hint is not None
    assert "--data PATH" in error.hint


def test_the_error_for_a_missing_split_names_the_files_of_the_folder(folder: Path) -> None:
    next(folder.glob("test-*")).unlink()
    error = failure(CIFAR10, "test", folder)
    assert error.message == f"no test-*.parquet in {folder}"
    assert error.hint == "the folder has train-00000-of-00002.parquet, train-00001-of-00002.parquet"


def test_flowers102_without_its_validation_files_is_refused(tmp_path: Path) -> None:
    write_parquet(tmp_path / "train-0.parquet", FLOWERS102, [encode(pictures(1)[0])], [0])
    assert failure(FLOWERS102, "train", tmp_path).message == f"no validation-*.parquet in {tmp_path}"


def test_the_error_for_an_unknown_layout_names_the_expected_layouts(tmp_path: Path) -> None:
    error = failure(CIFAR10, "train", tmp_path)
    assert error.message == f"no 'train' images of cifar10 in {tmp_path}"
    assert error.hint == "expected train-*.parquet or train/<class>/<image> there; it has nothing"


@pytest.mark.parametrize("column", ["image", "label", "domain"])
def test_a_missing_column_is_named(tmp_path: Path, column: str) -> None:
    write_parquet(tmp_path / "test-0.parquet", CLIPART, [encode(pictures(1)[0])], [0], domain=["clipart"])
    file = tmp_path / "test-0.parquet"
    parquet.write_table(parquet.read_table(file).drop_columns(column), file)
    error = failure(CLIPART, "test", tmp_path)
    assert error.message == f"no column {column!r} in {file}"
    assert error.hint is not None
    assert "is it another data set?" in error.hint


def test_a_column_that_holds_no_images_is_named(tmp_path: Path) -> None:
    parquet.write_table(pyarrow.table({"img": [0.5], "label": [0]}), tmp_path / "test-0.parquet")
    assert failure(CIFAR10, "test", tmp_path).message == "column 'img' holds double, not images"


@pytest.mark.parametrize("label", [10, -1, None])
def test_a_label_outside_the_classes_is_named_with_its_row(tmp_path: Path, label: int | None) -> None:
    columns = {"img": [{"bytes": encode(pictures(1)[0]), "path": None}] * 2, "label": [0, label]}
    parquet.write_table(pyarrow.table(columns), tmp_path / "test-0.parquet")
    error = failure(CIFAR10, "test", tmp_path)
    assert error.message == f"label {label} in test-0.parquet#1"
    assert error.hint == "cifar10 has labels 0 to 9"


def test_files_that_disagree_on_the_classes_are_refused(folder: Path) -> None:
    file = folder / "train-00001-of-00002.parquet"
    table = parquet.read_table(file)
    metadata = {b"huggingface": (table.schema.metadata or {})[b"huggingface"].replace(b"ship", b"frigate")}
    parquet.write_table(table.replace_schema_metadata(metadata), file)
    error = failure(CIFAR10, "train", folder)
    assert error.message == f"{file} has other column types or classes than the files before it"


def test_another_number_of_classes_is_refused(tmp_path: Path) -> None:
    imposter = dataclasses.replace(SVHN, classes=12, image_column="img")
    write_parquet(tmp_path / "test-0.parquet", imposter, [encode(pictures(1)[0])], [0])
    assert failure(CIFAR10, "test", tmp_path).message == "the data has 12 classes, cifar10 has 10"


def test_an_unknown_class_folder_is_answered_with_the_nearest(tmp_path: Path) -> None:
    error = failure(CIFAR10, "test", write_folders(tmp_path, "test", shipp=list(pictures(1))))
    assert error.message == "unknown class 'shipp'"
    assert error.hint is not None
    assert "did you mean ship?" in error.hint


@pytest.mark.parametrize("stored", [b"", b"not an image", encode(pictures(1)[0])[:60]])
def test_an_unreadable_image_is_named_by_file_and_row(tmp_path: Path, stored: bytes) -> None:
    images = [encode(image) for image in pictures(2)]
    write_parquet(tmp_path / "test-0.parquet", CIFAR10, images, [0, 1])
    write_parquet(tmp_path / "test-1.parquet", CIFAR10, [images[0], stored], [0, 1])
    assert failure(CIFAR10, "test", tmp_path).message.startswith("unreadable image test-1.parquet#1: ")


def test_a_row_without_an_image_is_named(tmp_path: Path) -> None:
    write_parquet(tmp_path / "test-0.parquet", CIFAR10, [None], [0])
    assert failure(CIFAR10, "test", tmp_path).message == "no image in test-0.parquet#0"


def test_an_unreadable_image_of_a_domain_keeps_its_row_in_the_file(tmp_path: Path) -> None:
    images, domains = [encode(pictures(1)[0]), b"broken"], ["real", "clipart"]
    write_parquet(tmp_path / "test-0.parquet", CLIPART, images, [0, 1], domain=domains)
    assert failure(CLIPART, "test", tmp_path).message.startswith("unreadable image test-0.parquet#1: ")


def test_an_unreadable_file_of_a_folder_is_named_by_its_path(tmp_path: Path) -> None:
    bad = write_folders(tmp_path, "test", cat=list(pictures(1))) / "test" / "cat" / "0.png"
    bad.write_bytes(b"broken")
    assert failure(CIFAR10, "test", tmp_path).message.startswith(f"unreadable image {bad}: ")


def test_a_truncated_parquet_file_is_named(folder: Path) -> None:
    file = folder / "train-00001-of-00002.parquet"
    file.write_bytes(file.read_bytes()[:-100])
    assert failure(CIFAR10, "train", folder).message.startswith(f"cannot read {file}: ")


@pytest.mark.parametrize("row", [CIFAR10, CLIPART], ids=["no rows", "no rows of the domain"])
def test_an_empty_split_is_refused(tmp_path: Path, row: named.NamedSet) -> None:
    images = [] if row is CIFAR10 else [encode(pictures(1)[0])]
    columns = {} if row is CIFAR10 else {"domain": ["sketch"]}
    write_parquet(tmp_path / "test-0.parquet", row, images, [0] * len(images), **columns)
    assert failure(row, "test", tmp_path).message == f"no images of {row.name} in split 'test' of {tmp_path}"


def test_empty_class_folders_are_an_empty_split(tmp_path: Path) -> None:
    write_folders(tmp_path, "test", cat=[])
    assert failure(CIFAR10, "test", tmp_path).message == f"no images of cifar10 in split 'test' of {tmp_path}"


def test_without_the_library_the_error_says_what_to_install(folder: Path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    assert failure(CIFAR10, "test", folder).hint == "pip install 'vtzoo[train]'"


# The Hub


def test_the_hub_is_asked_for_the_pinned_revision_and_the_domain_is_kept(monkeypatch) -> None:
    calls = []
    features = {
        "image": library.Image(),
        "label": library.ClassLabel(num_classes=345),
        "domain": library.Value("string"),
    }
    images = [{"bytes": encode(pictures(1)[0]), "path": None}, {"bytes": b"broken", "path": None}]
    table = library.Dataset.from_dict(
        {"image": images, "label": [5, 6], "domain": ["real", "clipart"]}, features=library.Features(features)
    )
    monkeypatch.setattr(library, "load_dataset", lambda *args, **options: calls.append((args, options)) or table)
    test = named_reader.read(CLIPART, "test")
    assert calls == [(("wltjr1007/DomainNet", None), {"revision": CLIPART.revision, "split": "test"})]
    assert test.targets.tolist() == [6]
    with pytest.raises(VtzooError, match="unreadable image wltjr1007/DomainNet:test#1"):
        list(test.encoded)


def test_the_hub_is_asked_for_both_splits_that_flowers102_trains_on(monkeypatch) -> None:
    calls = []
    monkeypatch.setattr(library, "load_dataset", lambda *args, **options: calls.append(options) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        named_reader.read(FLOWERS102, "train")
    assert calls[0]["split"] == "train+validation"


def test_a_hub_table_with_other_columns_is_refused(monkeypatch) -> None:
    monkeypatch.setattr(library, "load_dataset", lambda *args, **options: library.Dataset.from_dict({"image": [0]}))
    assert failure(CIFAR10, "test", None).message == "no column 'img' in uoft-cs/cifar10"


def test_offline_the_error_is_one_sentence_and_offers_a_folder(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(library.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(library.config, "HF_DATASETS_CACHE", tmp_path)
    error = failure(named.named_set("cifar100"), "test", None)
    assert error.message.startswith("cannot read uoft-cs/cifar100 from the Hub: ")
    assert error.hint is not None
    assert "--data PATH" in error.hint


@pytest.mark.parametrize(
    "raised",
    [
        ConnectionError("no route\nto the host"),
        huggingface_hub.errors.OfflineModeIsEnabled("offline"),
        library.exceptions.DatasetNotFoundError("no such data set"),
        ValueError("unknown split"),
        huggingface_hub.errors.HTTPError("handshake failed"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_failure_of_the_hub_is_one_sentence(monkeypatch, raised: Exception) -> None:
    def fail(*_: object, **__: object) -> None:
        raise raised

    monkeypatch.setattr(library, "load_dataset", fail)
    first_line = str(raised).splitlines()[0]
    assert failure(CIFAR10, "test", None).message == f"cannot read uoft-cs/cifar10 from the Hub: {first_line}"


# Class names


def test_names_are_recorded_from_the_data_beside_those_already_there(folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "labels.json"
    file.write_text('{"svhn": ["0"]}')
    assert named_reader.record_labels(CIFAR10, folder, file) == named.labels("cifar10")
    assert list(json.loads(file.read_text())) == ["cifar10", "svhn"]


def test_plain_numbers_are_not_recorded_as_names(tmp_path: Path) -> None:
    columns = {"img": [{"bytes": b"", "path": None}], "label": [0]}
    parquet.write_table(pyarrow.table(columns), tmp_path / "test-0.parquet")
    with pytest.raises(VtzooError, match="plain numbers: no class names to record"):
        named_reader.record_labels(CIFAR10, tmp_path, tmp_path / "labels.json")
    assert not (tmp_path / "labels.json").exists()


# Real data


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_real_images_are_32_pixels_and_their_mean_is_near_the_recorded_mean(name: str, real_data) -> None:
    row = named.named_set(name)
    test = named_reader.read(row, "test", real_data(name)).select(np.arange(1000))
    pixels = test.pixels(Preprocess.square(32))
    assert test.encoded[0].size == (32, 32)
    assert np.abs(pixels.mean(axis=(0, 2, 3)) / 255 - row.mean).max() < 0.02
