"""Decoding a whole split on all cores, and reading an image's size, bytes and shape without decoding it."""

import io
import pickle
import threading
from pathlib import Path

import datasets as library
import numpy as np
import pyarrow
import pytest
from PIL import Image

from vtzoo.data import decoding, named, named_reader
from vtzoo.data.decoding import in_threads
from vtzoo.data.encoded_images import EncodedImages
from vtzoo.data.labelled_images import DecodingPass, LabelledImages
from vtzoo.errors import VtzooError

COUNT = 75  # images: several tasks of decoding.TOGETHER images


def encode(pixels: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def noise(count: int = COUNT) -> list[np.ndarray]:
    """Random images of several sizes, uint8 (height, width, 3)."""
    random = np.random.default_rng(3)
    return [random.integers(0, 256, (5 + number % 3, 7 + number % 2, 3), dtype=np.uint8) for number in range(count)]


def split_of(images: list[bytes | None]) -> LabelledImages:
    encoded = pyarrow.chunked_array([pyarrow.array([{"bytes": image, "path": None} for image in images])])
    rows = EncodedImages(stored=encoded, positions=np.arange(len(images)), origin="image {}".format)
    targets, splits = np.arange(len(images)) % 4, np.full(len(images), "train")
    return LabelledImages(targets=targets, classes=tuple("abcd"), encoded=rows, splits=splits)


def test_a_pass_yields_every_image_in_order_and_computes_the_manifest() -> None:
    images = noise()
    split = split_of([encode(image) for image in images])
    decoded = DecodingPass(images=split, keep=np.asarray)
    results = list(decoded)
    assert [number for number, _ in results] == list(range(COUNT))
    assert all(np.array_equal(result, image) for (_, result), image in zip(results, images, strict=True))
    assert decoded.fingerprint == split.fingerprint
    assert not decoded.errors


def test_a_pass_has_the_errors_of_unreadable_images_and_the_manifest_of_the_others() -> None:
    images: list[bytes | None] = [encode(image) for image in noise()]
    images[3], images[40], images[74] = None, b"broken", (images[74] or b"")[:50]
    split = split_of(images)
    decoded = DecodingPass(images=split, keep=np.asarray)
    rest = np.delete(np.arange(COUNT), [3, 40, 74])
    assert [number for number, _ in decoded] == rest.tolist()
    assert list(decoded.errors) == [3, 40, 74]
    assert decoded.errors[3].message == "no image in image 3"
    assert decoded.errors[40].message.startswith("unreadable image image 40: ")
    assert decoded.fingerprint == split.select(rest).fingerprint


def test_an_image_that_keep_refuses_is_left_out_and_named() -> None:
    def keep(image: Image.Image) -> None:
        raise VtzooError(f"{image.width} pixels are too few", "take another")

    decoded = DecodingPass(images=split_of([encode(noise(1)[0])]), keep=keep)
    assert not list(decoded)
    assert decoded.errors[0].message == "unreadable image image 0: 7 pixels are too few"
    assert decoded.errors[0].hint == "take another"


def test_progress_counts_every_image_once() -> None:
    counted: list[int] = []
    list(DecodingPass(images=split_of([encode(image) for image in noise()]), keep=np.asarray, progress=counted.append))
    assert sum(counted) == COUNT
    assert len(counted) > 1


def test_threads_stay_only_a_little_ahead_of_the_consumer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "cores", lambda: 2)
    begun: list[int] = []
    results = in_threads(lambda number: begun.append(number) or number, 10_000)
    first = next(results)
    assert first == list(range(decoding.TOGETHER))
    results.close()
    assert len(begun) <= 6 * decoding.TOGETHER


def test_results_are_computed_in_several_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "cores", lambda: 2)
    barrier = threading.Barrier(2, timeout=30)  # a call waits for a call in another thread
    assert [value for values in in_threads(lambda _: barrier.wait() >= 0, 2 * decoding.TOGETHER) for value in values]


# Without decoding


def test_the_encoded_bytes_of_an_image_are_returned_without_decoding(tmp_path: Path) -> None:
    file = tmp_path / "one.png"
    file.write_bytes(b"of a file")
    stored = [
        {"bytes": b"broken", "path": None},
        {"bytes": None, "path": str(file)},
        {"bytes": None, "path": str(tmp_path / "nowhere.png")},
        {"bytes": None, "path": None},
        None,
    ]
    rows = EncodedImages(stored=pyarrow.chunked_array([pyarrow.array(stored)]), positions=np.arange(5), origin=str)
    assert [rows.content(index) for index in range(5)] == [b"broken", b"of a file", None, None, None]


def test_a_glance_returns_the_encoded_size_and_the_first_bytes(tmp_path: Path) -> None:
    file = tmp_path / "one.png"
    file.write_bytes(b"0123456789abcdef and more")
    stored = [
        {"bytes": b"short", "path": None},
        {"bytes": None, "path": str(file)},
        {"bytes": None, "path": str(tmp_path / "nowhere.png")},
        None,
    ]
    rows = EncodedImages(stored=pyarrow.chunked_array([pyarrow.array(stored)]), positions=np.arange(4), origin=str)
    assert [rows.glance(index) for index in range(4)] == [(5, b"short"), (25, b"0123456789abcdef"), (0, b""), (0, b"")]


def test_the_shape_of_an_image_is_read_from_its_header_alone() -> None:
    image = encode(np.zeros((5, 9, 3), np.uint8))
    rows = split_of([image, image[:45], b"broken", b"", None]).encoded
    assert [rows.shape(index) for index in range(5)] == [(5, 9), (5, 9), None, None, None]


@pytest.mark.parametrize("layout", ["parquet", "folders", "hub"])
def test_rows_of_any_source_can_be_pickled(layout: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    row, images = named.named_set("cifar10"), [{"bytes": encode(image), "path": None} for image in noise(2)]
    names = list(named.labels("cifar10") or ())
    features = library.Features({"img": library.Image(), "label": library.ClassLabel(names=names)})
    table = library.Dataset.from_dict({"img": images, "label": [0, 1]}, features=features)
    if layout == "parquet":
        table.to_parquet(tmp_path / "test-0.parquet")
    elif layout == "folders":
        (tmp_path / "test" / "cat").mkdir(parents=True)
        (tmp_path / "test" / "cat" / "0.png").write_bytes(images[0]["bytes"])
    else:
        monkeypatch.setattr(library, "load_dataset", lambda *_, **__: table)
    rows = named_reader.read(row, "test", None if layout == "hub" else tmp_path).encoded
    unpickled = pickle.loads(pickle.dumps(rows))
    assert unpickled.name(0) == rows.name(0)
    assert np.array_equal(np.asarray(unpickled[0]), noise(1)[0])
