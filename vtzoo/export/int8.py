"""The graph in 8 bits, by ONNX Runtime's quantize_static: integer matrix products, calibrated on real images.

Only products with constant weights, most of a transformer's time, become integer products. Convolutions, and products
of activations with each other, stay in float32. Weights have a scale for each output channel. Activations have the
ranges of the calibration images, so that a prediction does not depend on the other images of a batch; with
quantize_dynamic it does. `tests/bench/int8.py` compares the two: of 2,000 test images quantize_static keeps fp32's
first class on 98.2% (Swin-T) and 98.5% (CvT-13), quantize_dynamic on 98.8% and 99.1%, at about the same speed.

On x86-64 without VNNI (Intel before 2019, AMD before 2022) ONNX Runtime adds pairs of products in 16 bits, which can
saturate. The session option `session.x64quantprecision` = 1 prevents that: vtzoo sets it, and other programs should.
"""

import tempfile
from pathlib import Path

import numpy as np
import onnx
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
from onnxruntime.quantization.quant_utils import add_pre_process_metadata

from vtzoo.export.fp16 import unshared
from vtzoo.export.tracing import INPUT

BATCH = 16  # images in one calibration run
PRODUCTS = ["MatMul", "Gemm"]


def quantize(graph: onnx.ModelProto, images: np.ndarray) -> onnx.ModelProto:
    """The same graph with its products in 8 bits; `images`, uint8 (n, 3, height, width), give the ranges.

    Every ONNX runtime can run the result, which uses only standard operators: QuantizeLinear and DequantizeLinear. The
    output of a product stays in float32. The graph is marked as pre-processed: the exporter has folded its constants.
    """
    if not _products(graph):  # an empty list would mean all nodes to quantize_static
        return graph
    graph = unshared(graph)
    add_pre_process_metadata(graph)
    with tempfile.TemporaryDirectory() as folder:
        before, after = Path(folder) / "fp32.onnx", Path(folder) / "int8.onnx"
        onnx.save(graph, before)  # given a ModelProto, quantize_static would move the weights out of it
        quantize_static(
            before, after, _Batches(images), op_types_to_quantize=PRODUCTS, nodes_to_quantize=_products(graph),
            per_channel=True, activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
            extra_options={"OpTypesToExcludeOutputQuantization": PRODUCTS},
        )  # fmt: skip
        return onnx.load(after)


def _products(graph: onnx.ModelProto) -> list[str]:
    """The names of the products of an activation with a constant matrix."""
    constant = {tensor.name for tensor in graph.graph.initializer if len(tensor.dims) == 2}
    return [node.name for node in graph.graph.node if node.op_type in PRODUCTS and node.input[1] in constant]


class _Batches(CalibrationDataReader):
    """Images in the form of quantize_static: batches, then None."""

    def __init__(self, images: np.ndarray) -> None:
        self.batches = iter([images[start : start + BATCH] for start in range(0, len(images), BATCH)])

    def get_next(self) -> dict[str, np.ndarray] | None:  # pyright: ignore[reportIncompatibleMethodOverride]
        batch = next(self.batches, None)
        return None if batch is None else {INPUT: batch}
