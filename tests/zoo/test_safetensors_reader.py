"""Reading whole weight files, against the safetensors package, and refusing damaged files."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError
from safetensors.numpy import load as load_numpy
from safetensors.numpy import save as save_numpy
from safetensors.torch import save as save_torch

from vtzoo.errors import VtzooError
from vtzoo.zoo.safetensors_reader import parse_header, read, read_bytes

GENERATOR = np.random.default_rng(0)
ARRAYS = {
    "head.weight": GENERATOR.normal(size=(5, 4)).astype(np.float16),
    "head.bias": GENERATOR.normal(size=5).astype(np.float32),
    "index": np.arange(6).reshape(2, 3),
    "mask": np.array([True, False]),
    "scale": np.array(2.0),
    "bytes": np.arange(3, dtype=np.uint8),
    "none": np.zeros((0, 3), np.int32),
}
WHOLE = save_numpy(ARRAYS, metadata={"format": "pt"})


def file(folder: Path, content: bytes) -> Path:
    path = folder / "model.safetensors"
    path.write_bytes(content)
    return path


def craft(header: Any, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def entry(dtype: str, shape: list[int], first: int, end: int) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [first, end]}


def refusal(folder: Path, content: bytes, sha256: str | None = None) -> str:
    with pytest.raises(VtzooError) as caught:
        read(file(folder, content), sha256)
    assert "model.safetensors" in caught.value.message
    return caught.value.message


def test_a_whole_file_is_read_as_the_safetensors_package_reads_it(tmp_path: Path) -> None:
    weights = read(file(tmp_path, WHOLE), hashlib.sha256(WHOLE).hexdigest())
    expected = load_numpy(WHOLE)
    assert weights.tensors.keys() == expected.keys() == ARRAYS.keys()
    for name, array in expected.items():
        assert weights.array(name).dtype == array.dtype
        np.testing.assert_array_equal(weights.array(name), array)


def test_bfloat16_becomes_the_same_numbers_in_float32(tmp_path: Path) -> None:
    tensor = torch.randn(7, 3, generator=torch.Generator().manual_seed(0)).bfloat16()
    weights = read(file(tmp_path, save_torch({"weight": tensor})))
    np.testing.assert_array_equal(weights.array("weight"), tensor.float().numpy())


def test_the_offsets_are_where_the_numbers_lie_in_the_file() -> None:
    for name, tensor in parse_header(WHOLE, "it").items():
        assert WHOLE[tensor.offset : tensor.offset + tensor.length] == ARRAYS[name].tobytes()


def test_every_truncation_is_refused() -> None:
    for length in range(len(WHOLE)):
        with pytest.raises(VtzooError, match="it is "):
            parse_header(WHOLE[:length], "it")


def test_a_truncated_file_says_how_many_bytes_are_missing(tmp_path: Path) -> None:
    assert f"is truncated: it has {len(WHOLE) - 1:,} bytes, and its header describes {len(WHOLE):,}" in refusal(
        tmp_path, WHOLE[:-1]
    )


def test_trailing_bytes_are_refused(tmp_path: Path) -> None:
    assert "holds data that belongs to nothing" in refusal(tmp_path, WHOLE + b"\0")


def test_another_hash_is_refused(tmp_path: Path) -> None:
    changed = WHOLE[:-1] + bytes([WHOLE[-1] ^ 1])
    assert "does not have the sha256" in refusal(tmp_path, changed, hashlib.sha256(WHOLE).hexdigest())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("value", [float("nan"), -float("nan"), float("inf"), -float("inf")])
def test_numbers_that_are_not_finite_are_refused_by_name(dtype: torch.dtype, value: float, tmp_path: Path) -> None:
    tensor = torch.ones(3, 5, dtype=dtype)
    tensor[2, 4] = value
    assert "blocks.0.weight in" in refusal(tmp_path, save_torch({"blocks.0.weight": tensor, "fine": torch.ones(2)}))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_the_largest_numbers_are_finite(dtype: torch.dtype, tmp_path: Path) -> None:
    limits = torch.finfo(dtype)
    tensor = torch.tensor([limits.max, limits.min, limits.tiny, 0.0], dtype=dtype)
    assert read(file(tmp_path, save_torch({"weight": tensor}))).finite("weight")


@pytest.mark.parametrize("name", ["localizer.0.weight", "localizer"])
def test_a_tensor_of_a_localizer_is_refused(name: str, tmp_path: Path) -> None:
    assert f"holds {name}, a part of the localizer" in refusal(tmp_path, save_numpy({name: np.ones(2)}))


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ({"a": entry("F32", [2], 0, 4)}, "a has 4 bytes for shape [2]"),
        ({"a": entry("F8_E4M3", [8], 0, 8)}, "a is of type 'F8_E4M3'"),
        ({"a": entry("F32", [-2], 0, -8)}, "not a whole number"),
        ({"a": entry("F32", [2.0], 0, 8)}, "not a whole number"),
        ({"a": entry("F32", [2], 1, 9)}, "overlap or leave a gap"),
        ({"a": entry("U8", [8], 0, 8), "b": entry("U8", [8], 0, 8)}, "overlap or leave a gap"),
        ({"a": entry("U8", [2], 0, 2), "b": entry("U8", [4], 4, 8)}, "overlap or leave a gap"),
        ({"a": {"dtype": "U8"}}, "is not a safetensors file: 'shape'"),
        ({"a": 3}, "is not a safetensors file"),
        ([1, 2], "is not a safetensors file"),
        (b"{not json", "is not a safetensors file"),
        (b"\xff\xfe", "is not a safetensors file"),
        (b"[" * 100_000, "is not a safetensors file"),
        (
            b'{"a": {"dtype": "U8", "shape": [8], "data_offsets": [0, 8]},'
            b' "a": {"dtype": "U8", "shape": [8], "data_offsets": [0, 8]}}',
            "a name occurs twice",
        ),
    ],
)
def test_a_wrong_header_is_refused(header: Any, message: str, tmp_path: Path) -> None:
    assert message in refusal(tmp_path, craft(header, bytes(8)))


def test_a_header_longer_than_the_file_is_refused(tmp_path: Path) -> None:
    assert "ends within its header" in refusal(tmp_path, (2**63).to_bytes(8, "little") + b"{}")


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 8 + int.from_bytes(WHOLE[:8], "little") - 1), st.integers(0, 255))
def test_a_damaged_header_that_the_safetensors_package_refuses_is_refused(position: int, byte: int) -> None:
    damaged = WHOLE[:position] + bytes([byte]) + WHOLE[position + 1 :]
    try:
        ours = parse_header(damaged, "it")
    except VtzooError:
        return
    try:
        theirs = load_numpy(damaged)
    except SafetensorError as error:  # safetensors also checks the metadata, which vtzoo does not read
        reason = str(error)
    else:
        reason = "metadata" if ours.keys() == theirs.keys() else "other names"
    assert "metadata" in reason or "expected a string" in reason


def test_a_missing_file_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(VtzooError, match=r"cannot read .*gone\.safetensors: No such file"):
        read_bytes(tmp_path / "gone.safetensors")
