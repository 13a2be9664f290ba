"""Images decoded once, and kept on the disk for every later run of the same data.

A cache is a safetensors file: `pixels`, uint8 (n, 3, height, width) or, where sizes differ, one image after another;
`extents`, int32 (rows, 2), every row's height and width as stored, 0 where its image cannot be read. It may be deleted
at any time: it is built anew.
"""

import json
import logging
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import BinaryIO
from uuid import uuid4

import numpy as np
import PIL
import torch
from jaxtyping import Int, UInt8
from safetensors import SafetensorError, safe_open
from torch import Tensor

from vtzoo.data.decoding import Pass, Split, in_threads
from vtzoo.train.pipeline import memory_budget
from vtzoo.train.pipeline.storage import Form

VERSION = 1  # of the file's layout; another one is another key
HEADER = 1024  # bytes reserved for the header, which is written last: only then the size and the hash are known
SAMPLE = 2048  # images whose headers are read, to estimate the size of all
ABANDONED = 3600  # seconds, after which an unfinished file is taken for one that nobody writes any more

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, eq=False)
class Stored:
    """The decoded images of a split."""

    pixels: UInt8[Tensor, "*shape"]  # (n, 3, height, width), or flat, in the order of the rows
    extents: Int[Tensor, "rows 2"]  # height and width; 0 for a row whose image cannot be read, which has no pixels
    manifest: str  # of the images that can be read, as `Split.manifest` has it
    mapped: bool  # whether the pixels are still in a file, and are read when they are used


class NoRoomError(Exception):
    """Decoded images have room neither on the disk nor in memory: why."""


def open_stored(
    split: Split, form: Form, *, name: str, folder: Path, progress: Callable[[int], None] | None = None
) -> Stored:
    """The decoded images of a split, out of the cache where it has them; else they are decoded into it, or into memory.

    `name` begins the file's name. What makes this and later runs slower than they need be is logged as a warning.
    `progress` is called with every further number of images. Images that have no room anywhere are NoRoomError.
    """
    key = content_key(split, form)
    path = folder / f"{name}-{key[:16]}.safetensors"
    try:
        return read(path, key)
    except OSError:  # it is not there, or not for us: then it cannot be written either, which is told below
        pass
    except (SafetensorError, ValueError) as error:
        log.warning("the cache %s is not as it was written (%s): it is built anew", path, error)
    size = estimate(split, form)
    try:
        if size <= memory_budget.on_disk(folder):
            build(path, key, Pass(split=split, keep=form.pixels, progress=progress))
            return read(path, key)
        reason = f"{size / 1e9:.1f} GB of decoded images would take more than half of the disk's free space in {folder}"
    except OSError as error:
        reason = f"cannot write the cache {path}: {error.strerror}"
    if size > memory_budget.on_device(torch.device("cpu")):
        raise NoRoomError(reason)
    log.warning("%s; they are decoded into memory, for this run alone", reason)
    return in_memory(Pass(split=split, keep=form.pixels, progress=progress))


def content_key(split: Split, form: Form) -> str:
    """The sha256 of all that decides what is stored: the encoded images, their labels, the form, and what decodes."""

    def hashed(number: int) -> bytes:
        content = split.rows.content(number)
        return b"no image" if content is None else sha256(content).digest()

    whole = sha256(f"{VERSION} {form} Pillow {PIL.__version__}".encode())
    whole.update(split.labels.astype("<i8").tobytes())
    for hashes in in_threads(hashed, len(split)):
        whole.update(b"".join(hashes))
    return whole.hexdigest()


def estimate(split: Split, form: Form) -> int:
    """About how many bytes the stored images take, by the headers of some of them."""
    numbers = np.linspace(0, len(split) - 1, min(SAMPLE, len(split))).astype(int)
    shapes = [shape for number in numbers if (shape := split.rows.shape(int(number)))]
    areas = [np.prod(form.extent(*shape)) for shape in shapes]
    return int(3 * np.mean(areas or 0) * len(split))


def read(path: Path, key: str) -> Stored:
    """The images of a cache, left in the file, which is checked whole.

    A file that is not there, or out of reach, is an OSError; one that is damaged, or of another key, a ValueError or a
    SafetensorError.
    """
    path.stat()  # an error that says what is wrong, as safe_open's does not
    with safe_open(path, framework="pt") as file:
        facts = file.metadata() or {}
        if facts.get("key") != key:
            raise ValueError("it has another key")
        pixels, extents = file.get_tensor("pixels"), file.get_tensor("extents")
    manifest = facts.get("manifest", "")
    if facts.get("sha256") != seal(sha256(pixels.numpy()).hexdigest(), extents.numpy(), manifest):
        raise ValueError("its content has another hash")
    return Stored(pixels=pixels, extents=extents, manifest=manifest, mapped=True)


def build(path: Path, key: str, images: Pass[np.ndarray]) -> None:
    """Decode images into a cache, which appears whole or not at all; what stops it is an OSError.

    Of two processes that build the same one, the later replaces the file by an equal one.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    for other in path.parent.glob(f".{path.name}.*.partial"):  # a process that was killed could not remove it
        with suppress(OSError):
            if time.time() - other.stat().st_mtime > ABANDONED:
                other.unlink()
    partial = path.with_name(f".{path.name}.{uuid4().hex}.partial")
    try:
        with partial.open("wb") as file:
            write(file, key, images)
        partial.replace(path)  # without fsync: a file that a power cut damages is found out when it is read
    finally:
        with suppress(OSError):  # it is gone where it became `path`
            partial.unlink()


def write(file: BinaryIO, key: str, images: Pass[np.ndarray]) -> None:
    """Decode images into an open file, one after another, then write what goes before them."""
    rows = len(images.split)
    first = 8 * rows  # where the pixels begin, after the extents
    file.seek(HEADER + first)
    extents, hashed = fill(file, images)
    end = file.tell() - HEADER
    facts = {"key": key, "manifest": images.manifest, "sha256": seal(hashed, extents, images.manifest)}
    header = {
        "__metadata__": facts,
        "extents": {"dtype": "I32", "shape": [rows, 2], "data_offsets": [0, first]},
        "pixels": {"dtype": "U8", "shape": shape_of(extents, end - first), "data_offsets": [first, end]},
    }
    content = json.dumps(header).encode().ljust(HEADER - 8)  # safetensors ignores spaces after the header
    file.seek(0)
    file.write(len(content).to_bytes(8, "little") + content + extents.tobytes())


def in_memory(images: Pass[np.ndarray]) -> Stored:
    """Decode images into memory."""
    stream = BytesIO()  # it grows without a copy of what it holds
    extents, _ = fill(stream, images)
    pixels = torch.from_numpy(np.frombuffer(stream.getbuffer(), np.uint8))
    return Stored(
        pixels=pixels.view(shape_of(extents, len(pixels))), extents=torch.from_numpy(extents),
        manifest=images.manifest, mapped=False,
    )  # fmt: skip


def fill(stream: BinaryIO, images: Pass[np.ndarray]) -> tuple[np.ndarray, str]:
    """Write the pixels of every image that can be read, and return the extents of all, and the pixels' sha256."""
    extents, digest = np.zeros((len(images.split), 2), "<i4"), sha256()
    for number, pixels in images:
        stream.write(pixels.data)
        digest.update(pixels.data)
        extents[number] = pixels.shape[1:]
    return extents, digest.hexdigest()


def shape_of(extents: np.ndarray, size: int) -> list[int]:
    """The shape of `size` bytes of pixels: (n, 3, height, width) where all images have one size, else flat."""
    kept = extents[extents.any(1)]
    if size and (kept == kept[0]).all():
        return [len(kept), 3, *kept[0].tolist()]
    return [size]


def seal(pixels: str, extents: np.ndarray, manifest: str) -> str:
    """The sha256 of all that a cache holds, out of its pixels' sha256."""
    return sha256(f"{pixels} {manifest} ".encode() + extents.tobytes()).hexdigest()
