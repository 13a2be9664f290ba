"""The graph in 8 bits: its matrix products by integers, calibrated on real images.

Products with constant weights become integer ones, where the time of a transformer goes; convolutions, and products of
activations with each other, stay in float32. Weights have a scale for each output channel. Activations have ranges that
were seen on the calibration images: an image's answer does not depend on its batch, as it does where ranges are taken
from each batch ("dynamic"), and is found faster. What 8 bits lose of an activation can be a second 8-bit term, in steps
255 times as fine: its product with the same weights is added. That doubles the integers and restores the answer, so the
products of as few layers have it as will do.

On x86-64 without VNNI (Intel's before 2019, AMD's before 2022) ONNX Runtime adds pairs of products in 16 bits, which
can saturate, unless its session has `session.x64quantprecision` set to 1: ours have, and other programs there want it
too. Where a product has two terms, which share their weights, it cannot be had: these are judged by what comes out.
"""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from vtzoo.export.tracing import INPUT
from vtzoo.predict.onnx import CPU, open_session

BATCH = 16  # images in one calibration run
DESIRED = 0.995  # of the first classes, expected to stay fp32's: calibration images are easier than others
WORTH = 2 / 3  # of the classes that change, how many still may with more second terms, to be worth their time
MARGIN = 1.5  # how much wider than seen is the range of an activation with two terms, whose steps are fine anyway

Ranges = dict[str, tuple[float, float]]  # lowest and highest value by name of an activation


def quantize(graph: onnx.ModelProto, images: np.ndarray) -> onnx.ModelProto:
    """The same graph in 8 bits, with second terms in none, in the wider half or in all of its products.

    It is the first of these that is expected to keep 99.5% of the first classes, or that the next hardly betters, as
    where it is the weights that lose. It is judged by how far the logits of the calibration `images`, uint8
    (n, 3, height, width), move, and how close their best two are.
    """
    products = list(_products(graph))
    if not products:
        return graph
    ranges, truth = _calibrate(graph, products, images)
    widths = [_weights(graph, node).shape[0] for node in products]
    kept, changing = graph, math.inf
    for least in (math.inf, float(np.median(widths)), 0):
        twice = {node.name for node, width in zip(products, widths, strict=True) if width >= least}
        quantized = _quantized(graph, {node.name for node in products}, ranges, twice)
        still = 1 - _expected_agreement(truth, _run(quantized, ["logits"], images)[0])
        if still > WORTH * changing:
            break
        kept, changing = quantized, still
        if changing <= 1 - DESIRED:
            break
    return kept


def _products(graph: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    """The products of an activation with a constant matrix."""
    constant = {tensor.name for tensor in graph.graph.initializer if len(tensor.dims) == 2}
    for node in graph.graph.node:
        stated: Any = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
        plain = (stated.get("alpha", 1), stated.get("beta", 1), stated.get("transA", 0)) == (1, 1, 0)
        if node.op_type in ("MatMul", "Gemm") and node.input[1] in constant and plain:
            yield node


def _weights(graph: onnx.ModelProto, node: onnx.NodeProto) -> np.ndarray:
    """The constant matrix of a product, float32 (inputs, outputs)."""
    (tensor,) = [tensor for tensor in graph.graph.initializer if tensor.name == node.input[1]]
    transposed = any(attribute.name == "transB" and attribute.i for attribute in node.attribute)
    weights = numpy_helper.to_array(tensor)
    return weights.T if transposed else weights


def _calibrate(graph: onnx.ModelProto, products: list[onnx.NodeProto], images: np.ndarray) -> tuple[Ranges, np.ndarray]:
    """The ranges of what is multiplied, and the logits, over all the images."""
    watched = onnx.ModelProto()
    watched.CopyFrom(graph)
    names = sorted({node.input[0] for node in products})
    for name in names:  # reduced within the graph: the activations themselves would fill the memory
        for operator in ("ReduceMin", "ReduceMax"):
            watched.graph.node.append(helper.make_node(operator, [name], [f"{name}.{operator}"], keepdims=0))
            watched.graph.output.append(helper.make_tensor_value_info(f"{name}.{operator}", onnx.TensorProto.FLOAT, []))
    outputs = [f"{name}.{operator}" for operator in ("ReduceMin", "ReduceMax") for name in names]
    logits, *reduced = _run(watched, ["logits", *outputs], images)
    lowest, highest = reduced[: len(names)], reduced[len(names) :]
    return {
        name: (min(0.0, float(low.min())), max(0.0, float(high.max())))
        for name, low, high in zip(names, lowest, highest, strict=True)
    }, logits


def _run(graph: onnx.ModelProto, outputs: list[str], images: np.ndarray) -> list[np.ndarray]:
    """Outputs over all the images; those that are one number a batch, as one a batch."""
    session = open_session(graph.SerializeToString(), None, CPU)
    batches = [images[start : start + BATCH] for start in range(0, len(images), BATCH)]
    answers = [session.run(outputs, {INPUT: batch}) for batch in batches]
    return [np.concatenate([np.atleast_1d(part) for part in parts]) for parts in zip(*answers, strict=True)]


def _expected_agreement(truth: np.ndarray, answer: np.ndarray) -> float:
    """The fraction of first classes that stay, were the error of the best two's difference a Gaussian of one width.

    A count would need thousands of images: of 256, one that changes is 0.4%.
    """
    rows, best = np.arange(len(truth)), np.argsort(truth, axis=1)[:, -2:]
    if truth.shape[1] < 2:
        return 1.0
    margins = truth[rows, best[:, 1]] - truth[rows, best[:, 0]]
    moved = answer[rows, best[:, 1]] - answer[rows, best[:, 0]] - margins
    width = math.sqrt(float((moved**2).mean())) or 1e-12
    return 1 - float(np.mean([math.erfc(margin / width / math.sqrt(2)) / 2 for margin in margins]))


def _quantized(graph: onnx.ModelProto, products: set[str], ranges: Ranges, twice: set[str]) -> onnx.ModelProto:
    """The graph with each of the products in integers; those of `twice` in two terms."""
    made = onnx.ModelProto()
    made.CopyFrom(graph)
    del made.graph.node[:]
    for node in graph.graph.node:
        if node.name in products:
            nodes, constants = _integer_product(node, _weights(graph, node), ranges[node.input[0]], node.name in twice)
            made.graph.node.extend(nodes)
            made.graph.initializer.extend(constants)
        else:
            made.graph.node.append(node)
    used = {name for node in made.graph.node for name in node.input}
    kept = [tensor for tensor in made.graph.initializer if tensor.name in used]
    del made.graph.initializer[:]
    made.graph.initializer.extend(kept)
    return made


def _integer_product(
    node: onnx.NodeProto, weights: np.ndarray, seen: tuple[float, float], twice: bool
) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    """The nodes and constants that stand for a product; ONNX Runtime makes integer ones of them.

    Quantized to integers and back, in the standard operators: whatever runs ONNX understands the file.
    """
    name, activation = node.name, node.input[0]
    scales = (np.maximum(np.abs(weights).max(0), 1e-12) / 127).astype(np.float32)
    constants = {"weights": np.round(weights / scales).astype(np.int8), "scales": scales}
    constants["middles"] = np.zeros(len(scales), np.int8)  # ONNX Runtime supplies absent ones in a wrong shape
    low, high = (edge * (MARGIN if twice else 1) for edge in seen)
    step = max(high - low, 1e-12) / 255
    constants |= {"step": np.float32(step), "zero": np.uint8(round(-low / step))}
    stored = [f"{name}.{key}" for key in ("weights", "scales", "middles")]
    rest = [_node("DequantizeLinear", stored, f"{name}.matrix", axis=1)]
    rest += _rounded(activation, f"{name}.first", [f"{name}.step", f"{name}.zero"])
    terms = [f"{name}.first"]
    if twice:
        constants |= {"fine_step": np.float32(step / 255), "middle": np.uint8(128)}
        rest.append(_node("Sub", [activation, f"{name}.first"], f"{name}.lost"))
        rest += _rounded(f"{name}.lost", f"{name}.second", [f"{name}.fine_step", f"{name}.middle"])
        terms.append(f"{name}.second")
    rest += [_node("MatMul", [term, f"{name}.matrix"], f"{term}.product") for term in terms]
    sums = [f"{term}.product" for term in terms] + list(node.input[2:])  # the last may be the bias of a Gemm
    while len(sums) > 1:
        rest.append(_node("Add", sums[:2], f"{name}.sum{len(sums)}"))
        sums = [f"{name}.sum{len(sums)}", *sums[2:]]
    rest[-1].output[0] = node.output[0]
    tensors = [numpy_helper.from_array(np.asarray(value), f"{name}.{key}") for key, value in constants.items()]
    return rest, tensors


def _rounded(given: str, rounded: str, scale: list[str]) -> list[onnx.NodeProto]:
    """An activation to 8 bits and back."""
    return [
        _node("QuantizeLinear", [given, *scale], f"{rounded}.integers"),
        _node("DequantizeLinear", [f"{rounded}.integers", *scale], rounded),
    ]


def _node(operator: str, inputs: list[str], output: str, **attributes: Any) -> onnx.NodeProto:
    """A node that is named after its output."""
    return helper.make_node(operator, inputs, [output], name=output, **attributes)
