"""The external tensors of an ONNX graph, and the graph with them inside, without the onnx package.

Google's protobuf package, a dependency of ONNX Runtime, reads the file as ONNX Runtime's own parser does: it merges
repeated occurrences of a field and keeps unknown fields. Its import and its parsing add 12 ms to `vtzoo predict`.
"""

from dataclasses import dataclass
from functools import cache
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

from vtzoo.errors import VtzooError
from vtzoo.zoo.safetensors_reader import Weights

LOCATION = "../model.safetensors"  # the only location that a packaged graph may name, relative to the graph
TYPES = {"F32": 1, "U8": 2, "I8": 3, "I16": 5, "I32": 6, "I64": 7, "BOOL": 9, "F16": 10, "F64": 11, "BF16": 16}

# The messages of onnx.proto that lead to external data, with the number and type of each field; a star marks a repeated
# field. Other messages are bytes, and so is text, which this module decodes itself. The table has fields that nothing
# reads, because protobuf writes unknown fields last: with them `inline` keeps the order of the fields.
MESSAGES: dict[str, dict[str, tuple[int, str]]] = {
    "Model": {
        "ir_version": (1, "int64"), "producer_name": (2, "bytes"), "producer_version": (3, "bytes"),
        "domain": (4, "bytes"), "model_version": (5, "int64"), "doc_string": (6, "bytes"), "graph": (7, "Graph"),
        "opset_import": (8, "bytes*"), "metadata_props": (14, "bytes*"), "training_info": (20, "bytes*"),
        "functions": (25, "bytes*"), "configuration": (26, "bytes*"),
    },
    "Graph": {
        "node": (1, "Node*"), "name": (2, "bytes"), "initializer": (5, "Tensor*"), "doc_string": (10, "bytes"),
        "input": (11, "bytes*"), "output": (12, "bytes*"), "value_info": (13, "bytes*"),
        "quantization_annotation": (14, "bytes*"), "sparse_initializer": (15, "bytes*"),
        "metadata_props": (16, "bytes*"),
    },
    "Node": {
        "input": (1, "bytes*"), "output": (2, "bytes*"), "name": (3, "bytes"), "op_type": (4, "bytes"),
        "attribute": (5, "bytes*"), "doc_string": (6, "bytes"), "domain": (7, "bytes"), "overload": (8, "bytes"),
        "metadata_props": (9, "bytes*"), "device_configurations": (10, "bytes*"),
    },
    "Tensor": {
        "dims": (1, "int64*"), "data_type": (2, "int32"), "float_data": (4, "bytes"), "int32_data": (5, "bytes"),
        "name": (8, "bytes"), "raw_data": (9, "bytes"), "doc_string": (12, "bytes"), "external_data": (13, "Entry*"),
        "data_location": (14, "int32"), "metadata_props": (16, "bytes*"),
    },
    "Entry": {"key": (1, "bytes"), "value": (2, "bytes")},
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class External:
    """An initializer whose values lie in another file."""

    name: str
    data_type: int  # onnx.TensorProto's code
    shape: tuple[int, ...]
    entries: dict[str, str]  # location, offset and length in bytes


def refuse_external(content: bytes, name: str) -> None:
    """Raise a VtzooError if the graph needs another file."""
    if external(content, name):
        raise VtzooError(f"{name} keeps its weights in other files", "vtzoo export makes a self-contained file")


def refuse_foreign(content: bytes, weights: Weights, name: str) -> None:
    """Raise a VtzooError unless every external initializer matches the verified tensor of its name exactly."""
    for initializer in external(content, name):
        tensor = weights.tensors.get(initializer.name)
        expected = tensor and External(
            name=initializer.name, data_type=TYPES[tensor.dtype], shape=tensor.shape,
            entries={"location": LOCATION, "offset": str(tensor.offset), "length": str(tensor.length)},
        )  # fmt: skip
        if initializer != expected:
            raise VtzooError(
                f"{name} does not point at {initializer.name!r} as {weights.path} holds it",
                "its graph and its weights do not belong together: copy or download the model again",
            )


def external(content: bytes, name: str) -> list[External]:
    """The graph's external initializers. A VtzooError for external data elsewhere, or for a file that is not ONNX."""
    try:
        model = _model().FromString(content)
        if not model.HasField("graph"):
            raise ValueError("it has no graph")
        found = [_external(tensor) for tensor in model.graph.initializer if tensor.data_location]
    except (ValueError, DecodeError) as error:
        raise VtzooError(f"{name} is not an ONNX file, or a truncated one: {error}") from error
    attributes = [attribute for node in model.graph.node for attribute in node.attribute]
    elsewhere = (*attributes, *model.graph.sparse_initializer, *model.training_info, *model.functions)
    if any(b"location" in part for part in elsewhere):  # external data requires this key
        raise VtzooError(f"{name} has external data outside its graph's initializers")
    return found


def inline(content: bytes, weights: Weights) -> bytes:
    """The same graph with the tensors of the weights file inside, in their stored types.

    Call `refuse_foreign` first.
    """
    model = _model().FromString(content)
    for tensor in model.graph.initializer:
        if tensor.data_location:
            stored = weights.tensors[tensor.name.decode()]
            tensor.ClearField("external_data")
            tensor.ClearField("data_location")
            tensor.raw_data = weights.content[stored.offset : stored.offset + stored.length]
    return model.SerializeToString()


def _external(tensor: Any) -> External:
    entries = {entry.key.decode(): entry.value.decode() for entry in tensor.external_data}
    return External(name=tensor.name.decode(), data_type=tensor.data_type, shape=tuple(tensor.dims), entries=entries)


@cache
def _model() -> Any:
    """The protobuf class of the message Model."""
    file = descriptor_pb2.FileDescriptorProto(name="vtzoo/onnx.proto", package="vtzoo")
    for message, fields in MESSAGES.items():
        described = file.message_type.add(name=message)
        for field, (number, kind) in fields.items():
            described.field.add(name=field, number=number, **_type(kind))
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("vtzoo.Model"))


def _type(kind: str) -> dict[str, Any]:
    """The arguments of a FieldDescriptorProto for a type of MESSAGES."""
    terms, name = descriptor_pb2.FieldDescriptorProto, kind.rstrip("*")
    label = {"label": terms.LABEL_REPEATED if kind.endswith("*") else terms.LABEL_OPTIONAL}
    if name in MESSAGES:
        return {**label, "type": terms.TYPE_MESSAGE, "type_name": f".vtzoo.{name}"}
    return {**label, "type": terms.Type.Value(f"TYPE_{name.upper()}")}
