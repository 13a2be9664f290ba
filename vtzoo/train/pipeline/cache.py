"""The cache of decoded images: a file on the disk that every later run of the same data reads.

A cache is a safetensors file: `pixels`, uint8 (n, 3, height, width) or, for images of several sizes, one image after
another; `extents`, int32 (rows, 2), each row's stored height and width, 0 for an unreadable image. It may be deleted at
any time; the next run rebuilds it.
"""

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import numpy as np
import PIL
import torch
from jaxtyping import Int, UInt8
from safetensors import SafetensorError, safe_open
from torch import Tensor

from vtzoo.base import files
from vtzoo.data.labelled_images import DecodingPass, LabelledImages
from vtzoo.train.pipeline import memory_budget
from vtzoo.train.pipeline.storage import Storage

VERSION = 2  # of the file's layout, a part of the key
HEADER = 1024  # bytes reserved for the header, which is written last, with the size and the hash
SAMPLE = 2048  # images whose headers give the estimate of the total size
ABANDONED = 3600  # seconds after its last write until an unfinished file counts as abandoned

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, eq=False)
class Stored:
    """The decoded images of a split."""

    pixels: UInt8[Tensor, "*shape"]  # (n, 3, height, width), or flat, in the order of the rows
    extents: Int[Tensor, "rows 2"]  # height and width; 0 for an unreadable image, which has no pixels
    manifest: str  # the readable images' `LabelledImages.fingerprint`
    mapped: bool  # whether the pixels are mapped from the file, and read on use


class OverBudgetError(Exception):
    """The decoded images exceed the budgets of the disk and of memory; the message says why."""


def open_stored(
    images: LabelledImages, storage: Storage, *, name: str, folder: Path, progress: Callable[[int], None] | None = None
) -> Stored:
    """The decoded images of a split, from the cache; without a cache they are decoded into it, or else into memory.

    `name` starts the file's name. A reason for slower runs is logged as a warning. `progress` is called with the number
    of newly decoded images. Images that exceed all budgets are an OverBudgetError.
    """
    key = content_key(images, storage)
    path = folder / f"{name}-{key[:16]}.safetensors"
    try:
        return read(path, key)
    except OSError:  # missing, or no permission: then the write below fails too, and its error is reported
        pass
    except (SafetensorError, ValueError) as error:
        log.warning("the cache %s is damaged (%s): it is rebuilt", path, error)
    size = estimate(images, storage)
    try:
        if size <= memory_budget.on_disk(folder):
            build(path, key, DecodingPass(images=images, keep=storage.pixels, progress=progress))
            return read(path, key)
        reason = f"{size / 1e9:.1f} GB of decoded images would take more than half of the disk's free space in {folder}"
    except OSError as error:
        reason = f"cannot write the cache {path}: {error.strerror}"
    if size > memory_budget.on_device(torch.device("cpu")):
        raise OverBudgetError(reason)
    log.warning("%s; they are decoded into memory, for this run alone", reason)
    return in_memory(DecodingPass(images=images, keep=storage.pixels, progress=progress))


def content_key(images: LabelledImages, storage: Storage) -> str:
    """The sha256 of the encoded images, their targets, the storage and the decoder's version."""
    return sha256(f"{VERSION} {storage} Pillow {PIL.__version__} {images.content_hash}".encode()).hexdigest()


def estimate(images: LabelledImages, storage: Storage) -> int:
    """The approximate bytes of the stored images, from the headers of a sample."""
    numbers = np.linspace(0, len(images) - 1, min(SAMPLE, len(images))).astype(int)
    shapes = [shape for number in numbers if (shape := images.encoded.shape(int(number)))]
    areas = [np.prod(storage.extent(*shape)) for shape in shapes]
    return int(3 * np.mean(areas or 0) * len(images))


def read(path: Path, key: str) -> Stored:
    """The images of a cache, mapped from the file, after a check of its hash.

    A missing or unreachable file is an OSError; a damaged file, or one with another key, is a ValueError or a
    SafetensorError.
    """
    path.stat()  # raises an error with a reason, which safe_open's lacks
    with safe_open(path, framework="pt") as file:
        facts = file.metadata() or {}
        if facts.get("key") != key:
            raise ValueError("it has another key")
        pixels, extents = file.get_tensor("pixels"), file.get_tensor("extents")
    manifest = facts.get("manifest", "")
    if facts.get("sha256") != seal(sha256(pixels.numpy()).hexdigest(), extents.numpy(), manifest):
        raise ValueError("its content has another hash")
    return Stored(pixels=pixels, extents=extents, manifest=manifest, mapped=True)


def build(path: Path, key: str, images: DecodingPass[np.ndarray]) -> None:
    """Decode images into a cache, which appears whole or not at all; a failed write is an OSError.

    Of two processes that build the same cache, the later replaces the file by an equal file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    files.remove_partials(path, older_than=ABANDONED)
    # Not durable: `read` detects a file that a power cut damages.
    with files.replacing(path, durable=False) as partial, partial.open("wb") as file:
        write(file, key, images)


def write(file: BinaryIO, key: str, images: DecodingPass[np.ndarray]) -> None:
    """Decode images into an open file, one after another, then write the header and the extents before them."""
    rows = len(images.images)
    first = 8 * rows  # bytes of the extents, where the pixels begin
    file.seek(HEADER + first)
    extents, hashed = fill(file, images)
    end = file.tell() - HEADER
    facts = {"key": key, "manifest": images.fingerprint, "sha256": seal(hashed, extents, images.fingerprint)}
    header = {
        "__metadata__": facts,
        "extents": {"dtype": "I32", "shape": [rows, 2], "data_offsets": [0, first]},
        "pixels": {"dtype": "U8", "shape": shape_of(extents, end - first), "data_offsets": [first, end]},
    }
    content = json.dumps(header).encode().ljust(HEADER - 8)  # safetensors ignores spaces after the header
    file.seek(0)
    file.write(len(content).to_bytes(8, "little") + content + extents.tobytes())


def in_memory(images: DecodingPass[np.ndarray]) -> Stored:
    """Decode images into memory."""
    stream = BytesIO()  # grows without copies
    extents, _ = fill(stream, images)
    pixels = torch.from_numpy(np.frombuffer(stream.getbuffer(), np.uint8))
    return Stored(
        pixels=pixels.view(shape_of(extents, len(pixels))), extents=torch.from_numpy(extents),
        manifest=images.fingerprint, mapped=False,
    )  # fmt: skip


def fill(stream: BinaryIO, images: DecodingPass[np.ndarray]) -> tuple[np.ndarray, str]:
    """Write the pixels of every readable image; return the extents of all rows, and the pixels' sha256."""
    extents, digest = np.zeros((len(images.images), 2), "<i4"), sha256()
    for number, pixels in images:
        stream.write(pixels.data)
        digest.update(pixels.data)
        extents[number] = pixels.shape[1:]
    return extents, digest.hexdigest()


def shape_of(extents: np.ndarray, size: int) -> list[int]:
    """The shape of `size` bytes of pixels: (n, 3, height, width) if all images have the same size, else flat."""
    kept = extents[extents.any(1)]
    if size and (kept == kept[0]).all():
        return [len(kept), 3, *kept[0].tolist()]
    return [size]


def seal(pixels: str, extents: np.ndarray, manifest: str) -> str:
    """The sha256 of a cache's content, from its pixels' sha256."""
    return sha256(f"{pixels} {manifest} ".encode() + extents.tobytes()).hexdigest()
