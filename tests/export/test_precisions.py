"""fp16, int8 and operator sets of exported graphs, against torch, numpy and the onnx package's own reading."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from vtzoo.errors import VtzooError
from vtzoo.export import int8
from vtzoo.export.images import sample_images
from vtzoo.export.onnx_files import PRECISIONS, write_onnx
from vtzoo.models import MODELS, create
from vtzoo.predict.load import load
from vtzoo.predict.onnx import CPU, open_session

SMALL: dict[str, dict[str, Any]] = {
    "swin_t": {"img_size": 32, "patch_size": 2, "window_size": 4, "embed_dim": 16, "depths": [1, 1],
               "num_heads": [1, 2]},
    "vit_b_16": {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2},
    "resnet_50": {"layers": [1, 1, 1, 1]},
}  # fmt: skip


def describe(model: str, classes: int = 5, **arguments: Any) -> dict[str, Any]:
    return {
        "architecture": MODELS.get(model, model),
        "num_classes": classes,
        "model_args": SMALL.get(model, {}) | arguments,
        "pretrained_cfg": {"input_size": [3, 32, 32], "interpolation": "bicubic", "crop_pct": 1.0,
                           "mean": [0.5, 0.4, 0.3], "std": [0.2, 0.25, 0.3]},
        "label_names": [f"class {index}" for index in range(classes)],
    }  # fmt: skip


def build(config: dict[str, Any]) -> nn.Module:
    torch.manual_seed(0)
    model = create(config)
    for name, parameter in model.named_parameters():  # with initial weights all images would have the same class
        if name.endswith("weight") and parameter.ndim > 1:
            nn.init.normal_(parameter, std=0.15)
    return model.eval()


def torch_logits(model: nn.Module, images: np.ndarray) -> np.ndarray:
    mean, std = (np.reshape(values, (1, 3, 1, 1)) for values in ((0.5, 0.4, 0.3), (0.2, 0.25, 0.3)))
    with torch.no_grad():
        return model(torch.from_numpy(((images / 255 - mean) / std).astype(np.float32))).numpy()


def run(file: Path | bytes, images: np.ndarray) -> np.ndarray:
    session = open_session(file if isinstance(file, bytes) else file.read_bytes(), None, CPU)
    return np.asarray(session.run(["logits"], {"images": images})[0])


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A small Swin in every precision."""
    config, folder = describe("swin_t"), tmp_path_factory.mktemp("swin")
    model = build(config)
    for precision in PRECISIONS:
        write_onnx(model, config, folder / f"{precision}.onnx", source="here", precision=precision)
    return {precision: folder / f"{precision}.onnx" for precision in PRECISIONS}


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_file_of_any_precision_predicts_by_itself_and_says_what_it_is(precision: str, files: dict[str, Path]) -> None:
    images, classifier = sample_images(32, 40), load(files[precision], device="cpu")
    logits = torch_logits(build(describe("swin_t")), images)
    assert (classifier(images).argmax(1) == logits.argmax(1)).mean() >= 0.95
    facts = {item.key: item.value for item in onnx.load(files[precision]).metadata_props}
    assert facts["vtzoo.precision"] == precision == json.loads(facts["vtzoo.certificate"])["precision"]
    assert run(files[precision], images).dtype == np.float32


def test_the_certificate_says_what_a_precision_loses(files: dict[str, Path]) -> None:
    images = sample_images(32, 128)
    logits = torch_logits(build(describe("swin_t")), images)
    for precision in ("fp16", "int8"):
        stated = json.loads({p.key: p.value for p in onnx.load(files[precision]).metadata_props}["vtzoo.certificate"])
        given = run(files[precision], images)
        assert stated["max_logit_difference"] == pytest.approx(np.abs(given - logits).max(), rel=0.02)
        assert stated["top1_agreement"] == (given.argmax(1) == logits.argmax(1)).mean()
    assert stated["max_logit_difference"] > 1e-4  # otherwise the file is not int8


def test_fp16_halves_the_weights_and_keeps_sums_and_exponentials_in_float32(files: dict[str, Path]) -> None:
    graph = onnx.shape_inference.infer_shapes(onnx.load(files["fp16"])).graph
    half = sum(np.prod(t.dims) for t in graph.initializer if t.data_type == onnx.TensorProto.FLOAT16)
    assert half > 0.9 * sum(np.prod(tensor.dims) for tensor in graph.initializer)
    kinds = {value.name: value.type.tensor_type.elem_type for value in (*graph.value_info, *graph.output)}
    by_operator = {node.op_type: kinds[node.output[0]] for node in graph.node}
    assert by_operator["MatMul"] == onnx.TensorProto.FLOAT16
    assert by_operator["Softmax"] == by_operator["LayerNormalization"] == onnx.TensorProto.FLOAT


def test_int8_stores_each_constant_matrix_in_8_bits(files: dict[str, Path]) -> None:
    graph = onnx.load(files["int8"]).graph
    large = [tensor for tensor in graph.initializer if len(tensor.dims) == 2 and np.prod(tensor.dims) >= 256]
    assert {tensor.data_type for tensor in large} == {onnx.TensorProto.INT8}
    quantized = {node.output[0] for node in graph.node if node.op_type == "DequantizeLinear"}
    products = [node.input[:2] for node in graph.node if node.op_type in ("MatMul", "Gemm")]
    assert sum(set(factors) <= quantized for factors in products) == 10
    assert not {name for factors in products for name in factors} & {tensor.name for tensor in graph.initializer}
    assert "DynamicQuantizeLinear" not in {node.op_type for node in graph.node}


def test_int8_answers_an_image_alike_in_any_batch(files: dict[str, Path]) -> None:
    images = sample_images(32, 6)
    alone = np.concatenate([run(files["int8"], images[i : i + 1]) for i in range(6)])
    np.testing.assert_allclose(run(files["int8"], images), alone, atol=1e-5)


@pytest.mark.parametrize("name", ["vit_b_16", "resnet_50"])
@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_other_architectures_are_reduced_too(name: str, precision: str, tmp_path: Path) -> None:
    config = describe(name)
    torch.manual_seed(0)
    certificate = write_onnx(create(config), config, tmp_path / "a.onnx", source="here", precision=precision)
    assert certificate.precision == precision
    assert certificate.top1_agreement >= 0.9


class Product(nn.Module):
    """The mean of each channel times a matrix, which a test can quantize by hand."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.head = nn.Linear(3, 4)

    def forward_features(self, images: torch.Tensor) -> torch.Tensor:
        return images.mean((2, 3))

    def forward_head(self, tokens: torch.Tensor, pre_logits: bool = False) -> torch.Tensor:
        return tokens if pre_logits else self.head(tokens)


def test_an_integer_product_is_the_one_worked_out_by_hand(tmp_path: Path) -> None:
    model, calibration = Product(), sample_images(32, 20)
    write_onnx(model, describe("mine", 4), tmp_path / "a.onnx", source="x", precision="int8", calibration=calibration)

    def features(images: np.ndarray) -> np.ndarray:
        scaled = (images.mean((2, 3)) / 255 - [0.5, 0.4, 0.3]) / [0.2, 0.25, 0.3]
        return scaled.astype(np.float64)

    low, high = features(calibration).min(), features(calibration).max()
    step = (high - low) / 255
    matrix, bias = model.head.weight.detach().numpy().T.astype(np.float64), model.head.bias.detach().numpy()
    scales = np.abs(matrix).max(0) / 127
    images = calibration[:7]
    levels = np.clip(np.round(features(images) / step) + round(-low / step), 0, 255) - round(-low / step)
    expected = (levels * step) @ (np.round(matrix / scales) * scales) + bias
    np.testing.assert_allclose(run(tmp_path / "a.onnx", images), expected, atol=2 * step * np.abs(matrix).max())


def product(matrix: np.ndarray) -> onnx.ModelProto:
    """A graph of the channels' means times a matrix."""
    nodes = [
        onnx.helper.make_node("Cast", ["images"], ["numbers"], to=onnx.TensorProto.FLOAT),
        onnx.helper.make_node("ReduceMean", ["numbers", "axes"], ["features"], keepdims=0),
        onnx.helper.make_node("MatMul", ["features", "matrix"], ["logits"], name="product"),
    ]
    given = onnx.helper.make_tensor_value_info("images", onnx.TensorProto.UINT8, ["batch", 3, 32, 32])
    output = onnx.helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, ["batch", matrix.shape[1]])
    constants = {"axes": np.array([2, 3]), "matrix": matrix}
    initializers = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = onnx.helper.make_graph(nodes, "g", [given], [output], initializers)
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=10)


def test_sums_of_the_largest_products_do_not_overflow() -> None:
    """Without VNNI, 16-bit sums overflow unless ONNX Runtime is set to be exact."""
    images = np.stack([np.full((3, 32, 32), shade, np.uint8) for shade in (0, 255)])
    answer = run(int8.quantize(product(np.full((3, 5), 127, np.float32)), images).SerializeToString(), images)
    np.testing.assert_allclose(answer, [[0] * 5, [3 * 255 * 127] * 5], rtol=0.01)


def twice(graph: onnx.ModelProto) -> onnx.ModelProto:
    """The graph with its last product repeated, with the same weights."""
    last = graph.graph.node[-1]
    last.output[0] = "once"
    graph.graph.node.append(onnx.helper.make_node("MatMul", ["once", last.input[1]], ["logits"], name="again"))
    return graph


def test_sums_do_not_overflow_where_two_products_share_their_weights() -> None:
    matrix = np.random.default_rng(0).normal(size=(3, 3)).astype(np.float32)
    graph, images = twice(product(matrix)), sample_images(32, 64)
    expected = images.mean((2, 3)) @ matrix @ matrix
    answer = run(int8.quantize(graph, images).SerializeToString(), images)
    np.testing.assert_allclose(answer, expected, atol=0.02 * np.abs(expected).max())


def test_a_file_with_shared_8_bit_weights_runs() -> None:
    """ONNX Runtime refuses to make such a file exact."""
    images, matrix = sample_images(32, 8), np.eye(3, dtype=np.float32)
    answer = run(twice(int8.quantize(product(matrix), images)).SerializeToString(), images)
    np.testing.assert_allclose(answer, images.mean((2, 3)), atol=2)


def test_the_graph_that_was_quantized_still_runs(files: dict[str, Path]) -> None:
    graph, images = onnx.load(files["fp32"]), sample_images(32, 8)
    int8.quantize(graph, images)
    np.testing.assert_array_equal(run(graph.SerializeToString(), images), run(files["fp32"], images))


def test_a_graph_without_products_stays_as_it_is() -> None:
    nodes = [onnx.helper.make_node("Relu", ["images"], ["logits"])]
    value = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1]) for name in ("images", "logits")]
    graph = onnx.helper.make_model(onnx.helper.make_graph(nodes, "g", value[:1], value[1:]))
    assert int8.quantize(graph, sample_images(8, 2)) is graph


class Overflowing(Product):
    """A model with intermediate values beyond float16."""

    def forward_features(self, images: torch.Tensor) -> torch.Tensor:
        return (images.mean((2, 3)) * 1e6) * 1e-6


def test_a_precision_that_ruins_the_answers_is_refused_and_nothing_written(tmp_path: Path) -> None:
    with pytest.raises(VtzooError, match="mine in fp16 gives torch's top-1 class on") as caught:
        write_onnx(Overflowing(), describe("mine", 4), tmp_path / "a.onnx", source="here", precision="fp16")
    assert "--precision fp32" in str(caught.value.hint)
    assert not list(tmp_path.iterdir())


def test_an_unknown_precision_is_refused(tmp_path: Path) -> None:
    with pytest.raises(VtzooError, match="unknown precision 'fp8'"):
        write_onnx(Product(), describe("mine", 4), tmp_path / "a.onnx", source="here", precision="fp8")


@pytest.mark.parametrize("opset", [17, 999])
def test_an_operator_set_out_of_range_is_refused_with_the_range(opset: int, tmp_path: Path) -> None:
    with pytest.raises(VtzooError, match=f"operator set {opset} cannot be written and run here") as caught:
        write_onnx(Product(), describe("mine", 4), tmp_path / "a.onnx", source="here", opset=opset)
    assert str(caught.value.hint).startswith("--opset takes 18 to 2")


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("opset", [18, 21])
def test_a_graph_is_in_the_operator_set_that_was_asked_for(opset: int, precision: str, tmp_path: Path) -> None:
    write_onnx(Product(), describe("mine", 4), tmp_path / "a.onnx", source="here", precision=precision, opset=opset)
    versions = {item.domain: item.version for item in onnx.load(tmp_path / "a.onnx").opset_import}
    assert versions[""] == opset


def test_weights_in_8_bits_are_within_half_a_step_of_their_column(files: dict[str, Path]) -> None:
    constants = {t.name: numpy_helper.to_array(t) for t in onnx.load(files["int8"]).graph.initializer}
    originals = {t.name: numpy_helper.to_array(t) for t in onnx.load(files["fp32"]).graph.initializer}
    products = [n for n in onnx.load(files["fp32"]).graph.node if n.op_type == "MatMul" and n.input[1] in originals]
    assert len(products) >= 8
    for node in products:
        scales = constants[f"{node.input[1]}_scale"]
        restored = constants[f"{node.input[1]}_quantized"] * scales
        assert (np.abs(restored - originals[node.input[1]]) <= scales / 2 + 1e-7).all()
