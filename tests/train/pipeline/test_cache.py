"""The cache of decoded images: its content and reuse, damaged files, and missing disk space."""

import errno
import json
import logging
import os
import struct
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import numpy as np
import PIL
import pytest
import torch
from safetensors.numpy import load_file, save_file
from safetensors.torch import safe_open

from vtzoo.base.files import cache_folder
from vtzoo.data import decoding, encoded_images
from vtzoo.data.labelled_images import LabelledImages
from vtzoo.train.pipeline import cache, memory_budget
from vtzoo.train.pipeline.cache import OverBudgetError, Stored, content_key, estimate, open_stored
from vtzoo.train.pipeline.storage import CenterSquare, CheckOnly, Storage, WholeImage

MakeSplit = Callable[..., LabelledImages]
SAME, MANY = [(6, 9)] * 20, [(6, 9), (30, 14), (5, 5), (40, 40), (3, 60)] * 4  # heights and widths
LARGE = WholeImage(side=20)
CHECK = CheckOnly(storage=LARGE)
BROKEN = b"not an image"


def flat(images: list[np.ndarray]) -> np.ndarray:
    return np.concatenate([image.ravel() for image in images])


def noise(extents: list[tuple[int, int]]) -> list[np.ndarray]:
    random = np.random.default_rng(len(set(extents)))
    return [random.integers(0, 256, (*extent, 3), dtype=np.uint8) for extent in extents]


def opened(split: LabelledImages, folder: Path, storage: Storage = LARGE, **options: object) -> Stored:
    return open_stored(split, storage, name="tiny", folder=folder, **options)  # pyright: ignore[reportArgumentType]


def file_in(folder: Path) -> Path:
    (file,) = folder.iterdir()
    return file


def images_of(stored: Stored) -> list[np.ndarray]:
    """The stored images, each (3, height, width)."""
    pixels, images = stored.pixels.flatten(), []
    for height, width in stored.extents.tolist():
        images.append(pixels[: 3 * height * width].view(3, height, width).numpy())
        pixels = pixels[3 * height * width :]
    assert not len(pixels)
    return images


def assert_correct(stored: Stored, split: LabelledImages, storage: Storage = LARGE) -> None:
    """Assert that `stored` has the split's images in the form of the storage, in order, and the split's manifest."""
    expected = [storage.pixels(image) for image in split.encoded]
    assert all(np.array_equal(image, reference) for image, reference in zip(images_of(stored), expected, strict=True))
    assert stored.manifest == split.fingerprint


@pytest.fixture
def no_decoding(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Returns a function that makes every later decoding of an image fail."""
    return lambda: monkeypatch.setattr(encoded_images, "read_image", None)


# Content and reuse


@pytest.mark.parametrize("extents", [SAME, MANY], ids=["one size", "many sizes"])
@pytest.mark.parametrize("storage", [LARGE, CenterSquare(side=8)], ids=str)
def test_images_are_decoded_once_and_read_after_that(
    extents: list[tuple[int, int]], storage: Storage, make_split: MakeSplit, tmp_path: Path,
    no_decoding: Callable[[], None],
) -> None:  # fmt: skip
    split = make_split(noise(extents))
    first = opened(split, tmp_path, storage)
    assert_correct(first, split, storage)
    no_decoding()
    again = opened(make_split(noise(extents)), tmp_path, storage)
    assert torch.equal(again.pixels, first.pixels)
    assert torch.equal(again.extents, first.extents)
    assert again.manifest == first.manifest


def test_the_pixels_stay_in_the_file_until_they_are_used(make_split: MakeSplit, tmp_path: Path) -> None:
    split = make_split(noise(SAME))
    opened(split, tmp_path)
    stored = opened(split, tmp_path)
    assert stored.mapped
    mapped = Path("/proc/self/maps")
    if mapped.exists():
        assert str(file_in(tmp_path)) in mapped.read_text()


@pytest.mark.parametrize(("extents", "join"), [(SAME, np.stack), (MANY, flat)])
def test_a_cache_is_a_plain_safetensors_file(
    extents: list[tuple[int, int]], join: Callable[[list[np.ndarray]], np.ndarray], make_split: MakeSplit,
    tmp_path: Path,
) -> None:  # fmt: skip
    split = make_split(noise(extents))
    opened(split, tmp_path)
    tensors = load_file(file_in(tmp_path))
    images = [LARGE.pixels(image) for image in split.encoded]
    assert np.array_equal(tensors["pixels"], join(images))
    assert np.array_equal(tensors["extents"], [image.shape[1:] for image in images])
    with safe_open(file_in(tmp_path), framework="pt") as file:
        assert file.metadata()["manifest"] == split.fingerprint


def test_unreadable_images_have_no_pixels_and_are_remembered(
    make_split: MakeSplit, tmp_path: Path, no_decoding: Callable[[], None]
) -> None:
    images: list[np.ndarray | bytes] = list(noise(SAME))
    images[2], images[19] = BROKEN, b""
    split, rest = make_split(images), np.delete(np.arange(20), [2, 19])
    first = opened(split, tmp_path)
    assert np.flatnonzero(~first.extents.any(1)).tolist() == [2, 19]
    assert torch.equal(first.pixels, torch.stack([torch.from_numpy(LARGE.pixels(split.encoded[i])) for i in rest]))
    assert first.manifest == split.select(rest).fingerprint
    no_decoding()
    again = opened(split, tmp_path)
    assert torch.equal(again.extents, first.extents)
    assert again.manifest == first.manifest


def test_a_set_that_is_decoded_in_every_epoch_is_stored_without_pixels(
    make_split: MakeSplit, tmp_path: Path, no_decoding: Callable[[], None]
) -> None:
    split = make_split([*noise(SAME), BROKEN])
    first = opened(split, tmp_path, CHECK)
    assert len(first.pixels) == 0
    assert first.extents.tolist() == [[6, 9]] * 20 + [[0, 0]]
    assert first.manifest == split.select(np.arange(20)).fingerprint
    no_decoding()
    assert opened(split, tmp_path, CHECK).manifest == first.manifest


def test_a_set_without_a_readable_image_has_no_pixels(make_split: MakeSplit, tmp_path: Path) -> None:
    for _ in range(2):
        stored = opened(make_split([BROKEN] * 3), tmp_path)
        assert (len(stored.pixels), stored.extents.tolist()) == (0, [[0, 0]] * 3)


def test_progress_counts_only_newly_decoded_images(make_split: MakeSplit, tmp_path: Path) -> None:
    counted: list[int] = []
    opened(make_split(noise(SAME)), tmp_path, progress=counted.append)
    assert sum(counted) == 20
    opened(make_split(noise(SAME)), tmp_path, progress=counted.append)
    assert sum(counted) == 20


def test_a_build_holds_only_a_part_of_the_images_in_memory(
    make_split: MakeSplit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoding, "cores", lambda: 1)
    split = make_split(noise([(60, 60)] * 600))
    tracemalloc.start()
    stored = opened(split, tmp_path, WholeImage(side=64))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert stored.pixels.nbytes == 600 * 3 * 60 * 60
    assert peak < stored.pixels.nbytes / 2


# The key


def test_the_key_depends_on_every_byte_label_storage_and_version_and_on_the_order(
    make_split: MakeSplit, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = noise(SAME)
    split = make_split(images)
    key = content_key(split, LARGE)
    images[7][5, 8, 2] ^= 1
    relabelled = replace(split, targets=np.roll(split.targets, 1))
    order = np.arange(20)
    order[[3, 13]] = 13, 3  # images with the same label
    other_keys = [
        content_key(make_split(images), LARGE), content_key(relabelled, LARGE), content_key(split, WholeImage(side=21)),
        content_key(split, CenterSquare(side=20)), content_key(split, CHECK), content_key(split.select(order), LARGE),
        content_key(split.select(np.arange(19)), LARGE),
    ]  # fmt: skip
    monkeypatch.setattr(PIL, "__version__", "0.1")
    other_keys.append(content_key(split, LARGE))
    monkeypatch.setattr(cache, "VERSION", 0)
    other_keys.append(content_key(split, LARGE))
    assert len({key, *other_keys}) == 10


def test_the_key_is_the_same_wherever_the_same_bytes_are_stored(make_split: MakeSplit, tmp_path: Path) -> None:
    import pyarrow

    split = make_split(noise(SAME))
    stored = [{"bytes": None, "path": str(tmp_path / f"{number}.png")} for number in range(20)]
    for number, row in enumerate(stored):
        Path(row["path"] or "").write_bytes(split.encoded.content(number) or b"")
    rows = encoded_images.EncodedImages(stored=pyarrow.chunked_array([stored]), positions=np.arange(20), origin=str)
    files = replace(split, encoded=rows)
    assert content_key(files, LARGE) == content_key(split, LARGE)
    Path(stored[4]["path"] or "").unlink()
    assert content_key(replace(files), LARGE) != content_key(split, LARGE)  # `replace` drops the cached hash


def test_changed_images_are_not_read_from_an_old_cache(make_split: MakeSplit, tmp_path: Path) -> None:
    images = noise(SAME)
    opened(make_split(images), tmp_path)
    images[0] = 255 - images[0]
    assert_correct(opened(make_split(images), tmp_path), make_split(images))


# Damaged caches


def truncate(file: Path) -> None:
    os.truncate(file, file.stat().st_size - 1)


def flip(place: int) -> Callable[[Path], None]:
    """Returns a function that flips the lowest bit of a byte; `place` counts from the end of the header."""

    def change(file: Path) -> None:
        content = bytearray(file.read_bytes())
        content[cache.HEADER + place] ^= 1
        file.write_bytes(content)

    return change


def edit(**facts: str) -> Callable[[Path], None]:
    """Returns a function that replaces facts in the header and keeps its size."""

    def change(file: Path) -> None:
        content = file.read_bytes()
        header = json.loads(content[8 : cache.HEADER])
        header["__metadata__"] |= facts
        text = json.dumps(header).encode().ljust(cache.HEADER - 8)
        file.write_bytes(struct.pack("<Q", len(text)) + text + content[cache.HEADER :])

    return change


DAMAGE = {
    "truncated by a byte": truncate,
    "one bit of the last pixel": flip(-1 + 20 * 8 + 20 * 3 * 6 * 9),
    "one bit of an extent": flip(4),
    "another manifest": edit(manifest="0" * 64),
    "another key": edit(key="0" * 64),
    "empty": lambda file: file.write_bytes(b""),
    "text": lambda file: file.write_text("not a cache"),
    "weights": lambda file: save_file({"weight": np.zeros(3, np.float32)}, file),
    "weights under the names of a cache": lambda file: save_file({"pixels": np.zeros(3), "extents": np.zeros(2)}, file),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_cache_is_rebuilt_with_a_warning(
    damage: str, make_split: MakeSplit, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    split = make_split(noise(SAME))
    opened(split, tmp_path)
    whole = file_in(tmp_path).read_bytes()
    DAMAGE[damage](file_in(tmp_path))
    assert_correct(opened(split, tmp_path), split)
    assert file_in(tmp_path).read_bytes() == whole
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert f"the cache {file_in(tmp_path)} is damaged" in record.message
    assert "\n" not in record.message


# Without a cache


def a_file_instead_of_the_folder(cache_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache_file.parent.write_text("")


def a_folder_with_the_files_name(cache_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache_file.mkdir(parents=True)


def a_full_disk(cache_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(file: BinaryIO, key: str, images: object) -> None:
        file.write(b"half of it")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(cache, "write", write)


@pytest.mark.parametrize("obstacle", [a_file_instead_of_the_folder, a_folder_with_the_files_name, a_full_disk])
def test_where_no_cache_can_be_written_images_are_decoded_into_memory(
    obstacle: Callable[[Path, pytest.MonkeyPatch], None], make_split: MakeSplit, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    split, folder = make_split(noise(MANY)), tmp_path / "cache"
    file = folder / f"tiny-{content_key(split, LARGE)[:16]}.safetensors"
    obstacle(file, monkeypatch)
    stored = opened(split, folder)
    assert_correct(stored, split)
    assert not stored.mapped
    (record,) = caplog.records
    assert record.message.startswith(f"cannot write the cache {file}: ")
    assert record.message.endswith("; they are decoded into memory, for this run alone")
    assert not list(tmp_path.rglob("*.partial"))


def test_a_set_that_would_fill_the_disk_is_decoded_into_memory(
    make_split: MakeSplit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    split = make_split(noise(SAME))
    monkeypatch.setattr(memory_budget, "on_disk", lambda folder: 20 * 3 * 6 * 9 - 1)
    stored = opened(split, tmp_path)
    assert_correct(stored, split)
    assert not list(tmp_path.iterdir())
    assert "more than half of the disk's free space" in caplog.text


@pytest.mark.parametrize("disk", [0, 10**9])
def test_a_set_that_fits_neither_disk_nor_memory_is_an_error_with_the_reason(
    disk: int, make_split: MakeSplit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory_budget, "on_disk", lambda folder: disk)
    monkeypatch.setattr(memory_budget, "on_device", lambda device: 20 * 3 * 6 * 9 - 1)
    (tmp_path / "cache").write_text("")
    with pytest.raises(OverBudgetError, match="cannot write the cache" if disk else "the disk's free space"):
        opened(make_split(noise(SAME)), tmp_path / "cache")


@pytest.mark.parametrize("storage", [LARGE, CenterSquare(side=8), CHECK], ids=str)
def test_the_size_is_estimated_from_headers_without_decoding(
    storage: Storage, make_split: MakeSplit, tmp_path: Path, no_decoding: Callable[[], None]
) -> None:
    split = make_split(noise(MANY))
    size = opened(split, tmp_path, storage).pixels.nbytes
    no_decoding()
    assert estimate(split, storage) == size


def test_the_size_of_many_images_is_estimated_from_a_sample(
    make_split: MakeSplit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "SAMPLE", 11)
    split = make_split([*noise(SAME * 5), BROKEN])
    assert estimate(split, LARGE) == 101 * 3 * 6 * 9
    assert estimate(make_split([BROKEN]), LARGE) == 0


# Several processes


def test_two_processes_that_build_the_same_cache_both_have_the_images_and_leave_one_file(
    make_split: MakeSplit, tmp_path: Path
) -> None:
    split, concurrent = make_split(noise(SAME)), []

    def build_concurrently(images: int) -> None:
        if not concurrent:
            concurrent.append(opened(split, tmp_path))  # another process starts later and ends earlier

    stored = opened(split, tmp_path, progress=build_concurrently)
    assert_correct(stored, split)
    assert_correct(concurrent[0], split)
    assert file_in(tmp_path).suffix == ".safetensors"


def test_an_interrupted_build_leaves_no_file(make_split: MakeSplit, tmp_path: Path) -> None:
    def interrupt(images: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        opened(make_split(noise(SAME)), tmp_path, progress=interrupt)
    assert not list(tmp_path.iterdir())


def test_the_partial_file_of_a_killed_process_is_removed_after_an_hour(make_split: MakeSplit, tmp_path: Path) -> None:
    split = make_split(noise(SAME))
    names = [f".tiny-{content_key(split, LARGE)[:16]}.safetensors.{number}.partial" for number in range(2)]
    for name, age in zip(names, (2 * cache.ABANDONED, 0), strict=True):
        (tmp_path / name).write_text("")
        os.utime(tmp_path / name, (time.time() - age,) * 2)
    opened(split, tmp_path)
    assert [(tmp_path / name).exists() for name in names] == [False, True]


# The folder


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"VTZOO_CACHE": "/here", "XDG_CACHE_HOME": "/there", "HOME": "/home"}, "/here"),
        ({"XDG_CACHE_HOME": "/there", "HOME": "/home"}, "/there/vtzoo"),
        ({"XDG_CACHE_HOME": "", "HOME": "/home"}, "/home/.cache/vtzoo"),
        ({"HOME": "/home"}, "/home/.cache/vtzoo"),
    ],
)
def test_the_environment_sets_the_cache_folder(
    variables: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("VTZOO_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert cache_folder() == Path(expected)
