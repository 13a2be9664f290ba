"""Inputs and outputs of classifiers on every backend, and the choice of the backend."""

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy.special import softmax as reference

from vtzoo.data.transform import Preprocess
from vtzoo.errors import VtzooError
from vtzoo.predict.classifier import BATCH, Classifier, Prediction, softmax, top_predictions
from vtzoo.predict.load import load


class WeightAverage(Classifier):
    """Logits are the mean of each channel, scaled; it remembers how many images each run had."""

    labels = ("red", "green", "blue")
    preprocess = Preprocess(size=4, interpolation="bilinear", crop=1.0)

    def __init__(self) -> None:
        self.runs: list[int] = []

    def run(self, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        self.runs.append(len(pixels))
        means = pixels.mean((2, 3), dtype=np.float32)
        return means / 64, means


RED = Image.new("RGB", (9, 5), (255, 0, 0))
BLUE = np.full((4, 4, 3), (0, 0, 255), np.uint8)


def test_one_image_gives_one_row(tmp_path: Path) -> None:
    RED.save(tmp_path / "red.png")
    for source in (RED, tmp_path / "red.png", str(tmp_path / "red.png"), (tmp_path / "red.png").read_bytes()):
        probabilities = WeightAverage()(source)
        assert probabilities.shape == (1, 3)
        assert probabilities.dtype == np.float32
        assert probabilities[0].argmax() == 0


def test_a_list_of_images_gives_a_row_each_in_order() -> None:
    assert WeightAverage()([RED, BLUE, RED]).argmax(axis=1).tolist() == [0, 2, 0]
    assert WeightAverage()((BLUE, RED)).argmax(axis=1).tolist() == [2, 0]


def test_no_images_give_no_rows() -> None:
    assert WeightAverage()([]).shape == (0, 3)


def test_no_images_have_no_features() -> None:
    with pytest.raises(VtzooError, match="no image to embed"):
        WeightAverage().embed([])


def test_features_come_out_as_the_model_gives_them() -> None:
    np.testing.assert_array_equal(WeightAverage().embed([RED, BLUE]), [[255, 0, 0], [0, 0, 255]])


def test_a_long_list_is_run_in_batches() -> None:
    classifier = WeightAverage()
    assert classifier([RED] * (BATCH + 3)).shape == (BATCH + 3, 3)
    assert classifier.runs == [BATCH, 3]


def test_a_ready_batch_is_run_at_once() -> None:
    classifier = WeightAverage()
    batch = np.zeros((BATCH + 3, 3, 4, 4), np.uint8)
    batch[:, 1] = 255
    assert (classifier(batch).argmax(axis=1) == 1).all()
    assert classifier.runs == [BATCH + 3]


@pytest.mark.parametrize(
    ("dtype", "shape"), [("float32", (2, 3, 4, 4)), ("uint8", (2, 3, 4, 5)), ("uint8", (2, 4, 4, 3))]
)
def test_a_batch_of_another_type_or_shape_is_refused(dtype: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(VtzooError) as caught:
        WeightAverage()(np.zeros(shape, dtype))
    assert caught.value.message == f"a batch of {dtype} {shape} cannot be classified"


def test_one_bad_image_in_a_list_is_refused_by_name() -> None:
    with pytest.raises(VtzooError, match=r"there is no file 'gone\.jpg'"):
        WeightAverage()([RED, "gone.jpg"])


def test_softmax_equals_scipys_without_overflow() -> None:
    logits = np.random.default_rng(0).normal(size=(6, 5)).astype(np.float32) * np.array(
        [[1], [30], [1e3], [1e30], [0], [3]]
    )
    result = softmax(logits.astype(np.float32))
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, reference(logits, axis=1), atol=1e-6)


def test_the_most_probable_classes_come_best_first() -> None:
    probabilities = np.array([[0.1, 0.6, 0.3]], np.float32)
    (found,) = top_predictions(probabilities, ("a", "b", "c"), 2)
    assert [(one.label, round(one.probability, 6)) for one in found] == [("b", 0.6), ("c", 0.3)]
    assert type(found[0].probability) is float


def test_equal_probabilities_keep_the_order_of_the_classes() -> None:
    (found,) = top_predictions(np.full((1, 3), 1 / 3), ("a", "b", "c"), 3)
    assert [one.label for one in found] == ["a", "b", "c"]


def test_more_classes_than_there_are_give_all() -> None:
    assert top_predictions(np.array([[1.0]]), ("a",), 5) == [[Prediction(label="a", probability=1.0)]]


@pytest.mark.parametrize(("option", "value"), [("backend", "onxx"), ("device", "gpu")])
def test_an_unknown_backend_or_device_is_refused_with_the_known(option: str, value: str) -> None:
    options: Any = {option: value}
    with pytest.raises(VtzooError, match=f"unknown {option} '{value}'"):
        load("any", **options)


def test_torch_cannot_run_an_onnx_file() -> None:
    with pytest.raises(VtzooError, match=r"x\.onnx is an ONNX file, which the torch backend cannot run"):
        load("x.onnx", backend="torch")


def test_a_model_with_a_graph_runs_on_onnx_runtime_unless_told_otherwise(swin: Path) -> None:
    assert [type(load(swin, **options)).__name__ for options in ({}, {"backend": "auto"}, {"backend": "onnx"})] == (
        ["OnnxClassifier"] * 3
    )
    assert type(load(swin, backend="torch")).__name__ == "TorchClassifier"


def test_a_bare_onnx_file_runs_on_onnx_runtime(bare: Callable[..., Path]) -> None:
    assert type(load(bare(), backend="auto")).__name__ == "OnnxClassifier"


def test_a_model_without_a_graph_runs_on_torch(swin: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(swin, tmp_path / "copy", ignore=shutil.ignore_patterns("onnx"))
    np.testing.assert_array_equal(load(copy)(RED), load(swin, backend="torch")(RED))


def test_a_model_without_a_graph_is_refused_for_onnx_runtime(handmade: Path) -> None:
    shutil.rmtree(handmade / "onnx")
    with pytest.raises(VtzooError, match=r"handmade has no onnx/model\.onnx, and ONNX Runtime needs it") as caught:
        load(handmade, backend="onnx")
    assert "--backend torch" in str(caught.value.hint)
    assert "vtzoo export" in str(caught.value.hint)


def test_a_model_without_a_graph_says_what_to_install_where_there_is_no_torch(
    handmade: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.rmtree(handmade / "onnx")
    monkeypatch.delitem(sys.modules, "vtzoo.predict.torch", raising=False)
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(VtzooError, match=r"has no onnx/model\.onnx and needs torch, which is not installed") as caught:
        load(handmade)
    assert caught.value.hint == 'install it: pip install "vtzoo[train]"'


def test_the_torch_backend_without_torch_says_what_to_install(handmade: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "vtzoo.predict.torch", raising=False)
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(VtzooError, match="needs torch, which is not installed") as caught:
        load(handmade, backend="torch")
    assert caught.value.hint == 'install it: pip install "vtzoo[train]"'
