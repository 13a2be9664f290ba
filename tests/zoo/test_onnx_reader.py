"""vtzoo's reading of external data in ONNX files, against the onnx package's."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from onnx.external_data_helper import _get_all_tensors, uses_external_data

from vtzoo.errors import VtzooError
from vtzoo.zoo import safetensors_reader
from vtzoo.zoo.onnx_reader import External, external, inline, refuse_external


def tensor(name: str, location: str = "weights.bin", dims: tuple[int, ...] = (2, 300)) -> onnx.TensorProto:
    proto = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=dims, data_location=TensorProto.EXTERNAL)
    for key, value in (("location", location), ("offset", "4096"), ("length", "2400")):
        proto.external_data.add(key=key, value=value)
    return proto


def model(nodes: list[onnx.NodeProto] | None = None, initializers: list[onnx.TensorProto] | None = None) -> bytes:
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])
    return helper.make_model(helper.make_graph(nodes or [], "g", [], [output], initializers or [])).SerializeToString()


def by_onnx(content: bytes) -> list[External]:
    tensors = [item for item in _get_all_tensors(onnx.load_model_from_string(content)) if uses_external_data(item)]
    return [
        External(
            name=item.name,
            data_type=item.data_type,
            shape=tuple(item.dims),
            entries={entry.key: entry.value for entry in item.external_data},
        )
        for item in tensors
    ]


INSIDE = numpy_helper.from_array(np.arange(600, dtype=np.float32), "inside")
HOLDERS = {
    "a constant": helper.make_node("Constant", [], ["y"], value=tensor("t")),
    "a list of tensors": helper.make_node("Custom", [], ["y"], values=[tensor("t")]),
    "a nested graph": helper.make_node(
        "If", ["c"], ["y"], then_branch=helper.make_graph([], "then", [], [], [tensor("t")])
    ),
    "a sparse tensor": helper.make_node(
        "Constant", [], ["y"], sparse_value=helper.make_sparse_tensor(tensor("t", dims=(1,)), tensor("i"), [4])
    ),
}


def test_external_initializers_are_those_that_the_onnx_package_finds() -> None:
    initializers = [INSIDE, tensor("a"), tensor("scalar", dims=()), tensor("b", "../model.safetensors", (2**40, 0))]
    content = model(initializers=initializers)
    assert external(content, "it") == by_onnx(content)
    assert len(external(content, "it")) == 3


def test_packed_dimensions_are_read_too() -> None:
    # Field 1, the dimensions, in the packed encoding: one length-delimited field instead of a field per dimension.
    packed = tensor("a").SerializeToString().replace(b"\x08\x02\x08\xac\x02", b"\x0a\x03\x02\xac\x02")
    content = b"\x3a" + bytes([len(packed) + 2]) + b"\x2a" + bytes([len(packed)]) + packed
    assert [item.shape for item in external(content, "it")] == [(2, 300)]
    assert external(content, "it") == by_onnx(content)


def test_a_graph_with_everything_inside_needs_no_other_file() -> None:
    node = helper.make_node("Identity", ["x"], ["y"], name="/location/Identity")
    refuse_external(model([node], [INSIDE]), "it")


def test_an_external_initializer_is_refused_if_the_graph_must_be_self_contained() -> None:
    with pytest.raises(VtzooError, match="it keeps its weights in other files"):
        refuse_external(model(initializers=[INSIDE, tensor("a")]), "it")


@pytest.mark.parametrize("holder", HOLDERS)
def test_external_data_outside_the_initializers_are_refused(holder: str) -> None:
    with pytest.raises(VtzooError, match="external data outside its graph's initializers"):
        external(model([HOLDERS[holder]]), "it")


def test_external_data_in_a_function_are_refused() -> None:
    content = helper.make_model(helper.make_graph([], "g", [], []))
    content.functions.append(
        helper.make_function("ours", "f", [], ["y"], [HOLDERS["a constant"]], [helper.make_opsetid("", 18)])
    )
    with pytest.raises(VtzooError, match="external data outside"):
        external(content.SerializeToString(), "it")


def test_external_data_in_training_information_are_refused() -> None:
    content = helper.make_model(helper.make_graph([], "g", [], []))
    content.training_info.add().initialization.initializer.append(tensor("t"))
    with pytest.raises(VtzooError, match="external data outside"):
        external(content.SerializeToString(), "it")


def test_external_data_in_a_second_graph_are_found() -> None:
    # Protocol Buffers merge a message field that occurs twice: the initializers of both belong to one graph.
    content = model(initializers=[tensor("a")]) + model(initializers=[INSIDE, tensor("b")])
    assert external(content, "it") == by_onnx(content)
    assert [item.name for item in external(content, "it")] == ["a", "b"]


def test_external_data_in_a_sparse_initializer_are_refused() -> None:
    graph = helper.make_graph([], "g", [], [])
    graph.sparse_initializer.append(helper.make_sparse_tensor(tensor("t", dims=(1,)), tensor("i"), [4]))
    with pytest.raises(VtzooError, match="external data outside"):
        external(helper.make_model(graph).SerializeToString(), "it")


@pytest.mark.parametrize("tag", [b"\x70", b"\xf0\x80\x00", b"\xf0\x80\x80\x80\x10"])
@pytest.mark.parametrize("value", [b"\x01", b"\x81\x00", b"\x81\x80\x80\x80\x10"])
def test_no_other_encoding_of_a_number_hides_external_data(tag: bytes, value: bytes) -> None:
    initializer = tensor("t")
    initializer.ClearField("data_location")
    hidden = initializer.SerializeToString() + tag + value  # data_location = EXTERNAL
    content = b"\x3a" + bytes([len(hidden) + 2]) + b"\x2a" + bytes([len(hidden)]) + hidden
    with pytest.raises(VtzooError):
        refuse_external(content, "it")


UNDECODABLE = b"\x3a\x07\x2a\x05\x42\x01\xff\x70\x01"  # an external initializer whose name is not UTF-8
WRONG = [b"", b"Dear diary, today", b"\x3a\x05\x01", b"\xff" * 11, b"\x38\x01", b"\x3b", UNDECODABLE]


@pytest.mark.parametrize("content", WRONG)
def test_a_file_that_is_not_onnx_is_refused(content: bytes) -> None:
    with pytest.raises(VtzooError, match="it is not an ONNX file, or a truncated one"):
        external(content, "it")


WHOLE = model([helper.make_node("Identity", ["a"], ["y"])], [INSIDE, tensor("a")])


@settings(max_examples=150, deadline=None)
@given(st.integers(0, len(WHOLE) - 1), st.integers(0, 255))
def test_a_damaged_file_hides_no_external_data(position: int, byte: int) -> None:
    damaged = WHOLE[:position] + bytes([byte]) + WHOLE[position + 1 :]
    try:
        theirs = by_onnx(damaged)
    except Exception:  # the onnx package cannot read it
        theirs = []
    try:
        ours = external(damaged, "it")
    except VtzooError:
        return
    assert {item.name for item in theirs} <= {item.name for item in ours}


def test_a_graph_with_its_weights_inside_equals_that_of_the_onnx_package_byte_for_byte() -> None:
    values = np.arange(600, dtype=np.float32).reshape(2, 300)
    header = b'{"w":{"dtype":"F32","shape":[2,300],"data_offsets":[0,2400]}}'.ljust(4088)
    content = len(header).to_bytes(8, "little") + header + values.tobytes()
    weights = safetensors_reader.Weights(
        path=Path("w"), content=content, tensors=safetensors_reader.parse_header(content, "w")
    )
    node = helper.make_node("Constant", [], ["c"], value=numpy_helper.from_array(np.array([-1, 2**40]), "v"))
    graph = model([node], [tensor("w"), INSIDE])
    expected = onnx.load_model_from_string(graph)
    expected.graph.initializer[0].CopyFrom(numpy_helper.from_array(values, "w"))
    assert inline(graph, weights) == expected.SerializeToString(deterministic=True)
    assert inline(model([node], [INSIDE]), weights) == model([node], [INSIDE])
