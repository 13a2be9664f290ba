"""The graph in half precision: float16 weights and products, float32 outputs."""

import onnx

# Sums over many numbers and exponentials stay in float32, because float16 loses digits or overflows, as under torch's
# autocast (https://docs.pytorch.org/docs/stable/amp.html). The pixels stay in float32 until they are normalized.
EXACT = ("LayerNormalization", "Softmax", "ReduceMean", "ReduceSum", "GlobalAveragePool", "Exp", "Pow")
PIXELS = ("Cast", "Sub", "Div")


def to_fp16(graph: onnx.ModelProto) -> onnx.ModelProto:
    """The same graph in float16, with unchanged inputs and outputs.

    It runs everywhere: without a float16 kernel, ONNX Runtime casts to float32 and back.
    """
    from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16

    graph = unshared(graph)
    pixels = [node.name for node in graph.graph.node[: len(PIXELS)] if node.op_type in PIXELS]
    return convert_float_to_float16(
        graph, keep_io_types=True, op_block_list=[*DEFAULT_OP_BLOCK_LIST, *EXACT], node_block_list=pixels
    )


def unshared(graph: onnx.ModelProto) -> onnx.ModelProto:
    """The graph with a separate float constant for each use.

    A converter to fp16 casts a shared constant twice under one name, and ONNX Runtime cannot sum 8-bit products with
    shared weights exactly: see `open_session`.
    """
    floats = [tensor for tensor in graph.graph.initializer if tensor.data_type == onnx.TensorProto.FLOAT]
    constants, used = {tensor.name: tensor for tensor in floats}, set()
    for node in graph.graph.node:
        for place, name in enumerate(node.input):
            if name in constants and name in used:
                copy = graph.graph.initializer.add()
                copy.CopyFrom(constants[name])
                copy.name = node.input[place] = f"{name}.{node.name}.{place}"
            used.add(name)
    return graph
