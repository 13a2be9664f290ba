"""Reads model.safetensors, and verifies its hash, header, offsets and finite numbers before anything uses it.

The reader needs numpy alone, neither torch nor the safetensors package: the same checks protect both runtimes.
"""

import hashlib
import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vtzoo.errors import VtzooError

# By safetensors' names of the types of weights: the bytes per number, and for floats the exponent bits, as an integer
# of the same width. Infinities and NaN have all exponent bits set.
WIDTHS = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}
EXPONENTS = {"F64": 0x7FF0000000000000, "F32": 0x7F800000, "F16": 0x7C00, "BF16": 0x7F80}
DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2"}
DTYPES |= {"I8": "i1", "U8": "u1", "BOOL": "?"}
AGAIN = "the file is damaged or not what was published: copy or download the model again"
STEP = 1 << 20  # numbers checked at once, which limits the memory of the check


@dataclass(frozen=True, kw_only=True)
class Tensor:
    """One tensor of a safetensors file."""

    dtype: str  # a key of WIDTHS
    shape: tuple[int, ...]
    offset: int  # in bytes from the beginning of the file
    length: int  # in bytes


@dataclass(frozen=True, kw_only=True)
class Weights:
    """A verified file: its bytes and the place of each tensor in them."""

    path: Path
    content: bytes
    tensors: dict[str, Tensor]

    def array(self, name: str) -> np.ndarray:
        """A tensor as a read-only view; BF16, which numpy lacks, becomes a float32 copy."""
        tensor = self.tensors[name]
        if tensor.dtype == "BF16":
            return (self._numbers(tensor, "<u2").astype(np.uint32) << 16).view(np.float32).reshape(tensor.shape)
        return self._numbers(tensor, DTYPES[tensor.dtype]).reshape(tensor.shape)

    def finite(self, name: str) -> bool:
        """Whether a tensor has neither NaN nor infinity."""
        tensor = self.tensors[name]
        if tensor.dtype not in EXPONENTS:
            return True
        width, exponent = WIDTHS[tensor.dtype], EXPONENTS[tensor.dtype]
        numbers = self._numbers(tensor, f"<u{width}")
        magnitude = numbers.dtype.type((1 << (8 * width - 1)) - 1)  # every bit but the sign's
        return all((numbers[i : i + STEP] & magnitude).max() < exponent for i in range(0, len(numbers), STEP))

    def _numbers(self, tensor: Tensor, dtype: str) -> np.ndarray:
        return np.frombuffer(self.content, dtype, math.prod(tensor.shape), tensor.offset)


def read(path: Path, sha256: str | None = None) -> Weights:
    """The verified weights of a file. A VtzooError for damage, another hash, NaN, infinity or a localizer inside."""
    content = read_bytes(path, sha256)
    weights = Weights(path=path, content=content, tensors=parse_header(content, str(path)))
    for name in weights.tensors:
        if name.split(".")[0] == "localizer":
            hint = "a classifier's weights are published without it"
            raise VtzooError(f"{path} holds {name}, a part of the localizer", hint)
        if not weights.finite(name):
            raise VtzooError(f"{name} in {path} holds NaN or infinity", "the training that wrote it has diverged")
    return weights


def read_bytes(path: Path, sha256: str | None = None) -> bytes:
    """The whole content of a file, so that the used bytes are the verified ones; `sha256` must be its hash."""
    try:
        content = path.read_bytes()
    except OSError as error:
        hint = "check the path; a model folder must be complete"
        raise VtzooError(f"cannot read {path}: {error.strerror}", hint) from error
    if sha256 is not None and hashlib.sha256(content).hexdigest() != sha256:
        raise VtzooError(f"{path} does not have the sha256 that its result.json names", AGAIN)
    return content


def parse_header(content: bytes, name: str) -> dict[str, Tensor]:
    """The tensors of a safetensors file by name, in the order of the file, which they fill without gaps."""
    start = 8 + int.from_bytes(content[:8], "little")
    if len(content) < 8 or start > len(content):
        raise VtzooError(f"{name} is truncated: it ends within its header", AGAIN)
    try:
        header = json.loads(content[8:start].decode(), object_pairs_hook=_refuse_twice)
        header.pop("__metadata__", None)
        tensors = {key: _tensor(key, value, start) for key, value in header.items()}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise VtzooError(f"{name} is not a safetensors file: {error}", AGAIN) from error
    tensors = dict(sorted(tensors.items(), key=lambda item: item[1].offset))
    _refuse_gaps(tensors.values(), start, len(content), name)
    return tensors


def _refuse_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        raise ValueError("a name occurs twice in its header")
    return values


def _tensor(name: str, entry: dict[str, Any], start: int) -> Tensor:
    dtype, shape, (first, end) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
    if dtype not in WIDTHS:
        raise ValueError(f"{name} is of type {dtype!r}")
    if any(type(number) is not int or number < 0 for number in (*shape, first, end)):
        raise ValueError(f"{name} has a shape or an offset that is not a whole number")
    if end - first != math.prod(shape) * WIDTHS[dtype]:
        raise ValueError(f"{name} has {end - first} bytes for shape {list(shape)}")
    return Tensor(dtype=dtype, shape=shape, offset=start + first, length=end - first)


def _refuse_gaps(tensors: Iterable[Tensor], start: int, size: int, name: str) -> None:
    end = start
    for tensor in sorted(tensors, key=lambda tensor: (tensor.offset, tensor.length)):
        if tensor.offset != end:
            raise VtzooError(f"{name} is not a safetensors file: its tensors overlap or leave a gap", AGAIN)
        end += tensor.length
    if end != size:
        what = "is truncated" if end > size else "holds data that belongs to nothing"
        raise VtzooError(f"{name} {what}: it has {size:,} bytes, and its header describes {end:,}", AGAIN)
