"""Which tensors of an ONNX graph lie in other files, and the graph with them inside, without the onnx package.

An ONNX file is one Protocol Buffers message: fields of (number, wire type, value), a nested message being a field of
bytes. Only the few fields that can lead to external data are followed; field numbers are from onnx.proto.

google.protobuf refuses the same files in 69 lines less, but its import adds 33 ms to `vtzoo predict`; inlining the
weights of Swin-T takes it 168 MB of memory and 0.45 s, in the place of 52 MB and 0.14 s (protobuf 7.36.2, x86-64).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from vtzoo.errors import VtzooError
from vtzoo.zoo.safetensors_reader import Weights

LOCATION = "../model.safetensors"  # the one location that a packaged graph may name, relative to the graph
TYPES = {"F32": 1, "U8": 2, "I8": 3, "I16": 5, "I32": 6, "I64": 7, "BOOL": 9, "F16": 10, "F64": 11, "BF16": 16}

Field = tuple[int, int | memoryview]  # number; an integer of wire type 0, else the bytes, not copied


@dataclass(frozen=True, kw_only=True)
class External:
    """An initializer whose values lie in another file."""

    name: str
    data_type: int  # onnx.TensorProto's code
    shape: tuple[int, ...]
    entries: dict[str, str]  # location, offset and length in bytes


def refuse_external(content: bytes, name: str) -> None:
    """A VtzooError where the graph needs any other file."""
    if external(content, name):
        raise VtzooError(
            f"{name} keeps its weights in other files", "a file that predicts by itself is made by: vtzoo export"
        )


def refuse_foreign(content: bytes, weights: Weights, name: str) -> None:
    """A VtzooError unless every external initializer is exactly one of the checked weights, of that name and place."""
    for initializer in external(content, name):
        tensor = weights.tensors.get(initializer.name)
        expected = tensor and External(
            name=initializer.name,
            data_type=TYPES[tensor.dtype],
            shape=tensor.shape,
            entries={"location": LOCATION, "offset": str(tensor.offset), "length": str(tensor.length)},
        )
        if initializer != expected:
            raise VtzooError(
                f"{name} does not point at {initializer.name!r} as {weights.path} holds it",
                "its graph and its weights do not belong together: copy or download the model again",
            )


def external(content: bytes, name: str) -> list[External]:
    """The graph's external initializers. External data anywhere else, or what is not ONNX at all, is a VtzooError."""
    try:
        fields = list(_fields(memoryview(content)))
        found = [item for number, graph in fields if number == 7 for item in _in_graph(_message(graph), name)]
        if not any(number == 7 for number, _ in fields):
            raise ValueError("it has no graph")
        _refuse_elsewhere(fields, (20, 25), name)  # training_info, functions
    except (ValueError, TypeError, IndexError, KeyError) as error:
        raise VtzooError(f"{name} is not an ONNX file, or a truncated one: {error}") from error
    return found


def inline(content: bytes, weights: Weights) -> bytes:
    """The same graph with the values that it reads from the weights file inside it, in the types they have there.

    `refuse_foreign` must have let it pass. Only what changes is touched, and the weights are copied once.
    """

    def whole(tensor: memoryview) -> list[bytes | memoryview]:
        found = _tensor(tensor)
        if found is None:
            return [tensor]
        stored = weights.tensors[found.name]
        kept = [_encoded(number, value) for number, value in _fields(tensor) if number not in (13, 14)]
        values = memoryview(weights.content)[stored.offset : stored.offset + stored.length]
        return [piece for pieces in (*kept, _encoded(9, values)) for piece in pieces]  # raw_data

    def in_graph(graph: memoryview) -> list[bytes | memoryview]:
        return _changed(graph, 5, whole)  # initializer

    return b"".join(_changed(memoryview(content), 7, in_graph))


def _changed(
    content: memoryview, number: int, change: Callable[[memoryview], list[bytes | memoryview]]
) -> list[bytes | memoryview]:
    """A message, in pieces, whose fields of that number are changed messages."""
    pieces = []
    for found, value in _fields(content):
        pieces += _encoded(found, *change(_message(value))) if found == number else _encoded(found, value)
    return pieces


def _encoded(number: int, *value: int | bytes | memoryview) -> list[bytes | memoryview]:
    """A field, in pieces: of an integer, or of all the bytes of the others.

    Fixed numbers of 4 or 8 bytes, which the reader gives as bytes too, do not occur in ONNX's models, graphs and
    external tensors.
    """
    if isinstance(value[0], int):
        return [_written(number << 3), _written(value[0])]
    pieces = [piece for piece in value if not isinstance(piece, int)]
    return [_written(number << 3 | 2), _written(sum(map(len, pieces))), *pieces]


def _written(value: int) -> bytes:
    """An integer in 7 bits a byte, least significant first."""
    digits = [value >> shift & 0x7F for shift in range(0, max(value.bit_length(), 1), 7)]
    return bytes([digit | 0x80 for digit in digits[:-1]] + digits[-1:])


def _in_graph(graph: memoryview, name: str) -> Iterator[External]:
    fields = list(_fields(graph))
    for number, value in fields:
        if number == 5:  # initializer
            tensor = _tensor(_message(value))
            if tensor is not None:
                yield tensor
    # Nodes can hold tensors and whole graphs, by the attribute (field 5 of a node).
    for node in [value for number, value in fields if number == 1 and _has_location(value)]:
        _refuse_elsewhere(list(_fields(_message(node))), (5,), name)
    _refuse_elsewhere(fields, (15,), name)  # sparse_initializer


def _refuse_elsewhere(fields: list[Field], numbers: tuple[int, ...], name: str) -> None:
    if any(number in numbers and _has_location(value) for number, value in fields):
        raise VtzooError(f"{name} has external data outside its graph's initializers")


def _has_location(value: int | memoryview) -> bool:
    return b"location" in bytes(_message(value))  # no external data can be written without this key


def _tensor(content: memoryview) -> External | None:
    """The initializer if its data_location is EXTERNAL."""
    name, data_type, shape, entries, location = "", 0, [], {}, 0
    for number, value in _fields(content):
        if number == 1:  # dims
            shape += [value] if isinstance(value, int) else _packed(value)
        elif number == 2:
            data_type = value
        elif number == 8:
            name = _text(value)
        elif number == 13:  # external_data: key, value
            pair = dict(_fields(_message(value)))
            entries[_text(pair[1])] = _text(pair[2])
        elif number == 14:
            location = value
    if not location:
        return None
    return External(name=name, data_type=int(data_type), shape=tuple(shape), entries=entries)


def _fields(content: memoryview) -> Iterator[Field]:
    """The fields of one message, in order."""
    position = 0
    while position < len(content):
        tag, position = _varint(content, position)
        tag &= 0xFFFFFFFF  # as the real parser: nothing may mean one thing here and another there
        if tag & 7 == 0:
            value, position = _varint(content, position)
            yield tag >> 3, value
            continue
        if tag & 7 == 2:
            length, position = _varint(content, position)
        else:
            length = {1: 8, 5: 4}[tag & 7]  # other wire types are not in use
        if length > len(content) - position:
            raise ValueError("a field ends after the file")
        yield tag >> 3, content[position : position + length]
        position += length


def _varint(content: memoryview, position: int) -> tuple[int, int]:
    """An integer of 7 bits a byte, least significant first, and the position after it."""
    value = 0
    for shift in range(0, 70, 7):
        byte = content[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise ValueError("an integer of more than 10 bytes")


def _packed(content: memoryview) -> list[int]:
    values, position = [], 0
    while position < len(content):
        value, position = _varint(content, position)
        values.append(value)
    return values


def _message(value: int | memoryview) -> memoryview:
    if isinstance(value, int):
        raise ValueError("a number where a message was expected")
    return value


def _text(value: int | memoryview) -> str:
    return bytes(_message(value)).decode()
