"""Packaged graphs, which read their weights by offset from the safetensors file of the model folder."""

import copy
from typing import Any

import onnx

from vtzoo.zoo import safetensors_reader
from vtzoo.zoo.onnx_reader import LOCATION, TYPES


def strip(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model, changed in place, without the exporter's metadata, which is large and names local paths."""
    graph = model.graph
    for part in (model, graph, *graph.node, *graph.input, *graph.output, *graph.initializer):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    graph.ClearField("value_info")
    return model


def point_into(model: onnx.ModelProto, weights: safetensors_reader.Weights, prefix: str) -> onnx.ModelProto:
    """The optimized graph, which reads every weight from the file by offset and casts it to the type in the graph.

    The initializer of a weight is named `prefix` + its name. Other tensors, such as a mask that the model computes,
    stay in the graph. During the optimization the weights are inputs: shape arithmetic folds, and no weight becomes a
    transposed or merged tensor that the file lacks.
    """
    import onnxscript.optimizer  # a slow import

    keys = {prefix + key: key for key in weights.tensors}
    inside = [tensor for tensor in model.graph.initializer if tensor.name not in keys]
    outside = [tensor for tensor in model.graph.initializer if tensor.name in keys]
    inputs = [onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims) for tensor in outside]
    casts = [onnx.helper.make_node("Cast", [keys[t.name]], [t.name], to=t.data_type) for t in outside]
    pointers = [_external(keys[tensor.name], weights.tensors[keys[tensor.name]]) for tensor in outside]
    _replace(model.graph.initializer, inside)
    model.graph.input.extend(inputs)
    model = onnxscript.optimizer.optimize(model)
    _replace(model.graph.input, [value for value in model.graph.input if value.name not in keys])
    _replace(model.graph.node, [*casts, *model.graph.node])
    model.graph.initializer.extend(pointers)
    return strip(model)


def _replace(field: Any, values: list[Any]) -> None:
    """Replace the values of a repeated protobuf field; the new values may be among the old ones."""
    copies = [copy.deepcopy(value) for value in values]
    del field[:]
    field.extend(copies)


def _external(name: str, tensor: safetensors_reader.Tensor) -> onnx.TensorProto:
    """An initializer that points at a tensor in the weights file."""
    external = onnx.TensorProto(name=name, dims=tensor.shape, data_type=TYPES[tensor.dtype])
    external.data_location = onnx.TensorProto.EXTERNAL
    for key, value in (("location", LOCATION), ("offset", tensor.offset), ("length", tensor.length)):
        external.external_data.add(key=key, value=str(value))
    return external
