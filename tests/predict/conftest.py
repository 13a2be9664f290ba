"""Model folders for classification: a hand-made model, which numpy can check, and a small Swin."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import save_file
from safetensors.torch import save_file as save_torch

SIZE, LABELS = 8, ["apple", "Bär", "猫", "rocket"]
LOCATION = "../model.safetensors"
METADATA = {
    "vtzoo.labels": json.dumps(LABELS),
    "vtzoo.preprocess": json.dumps({"size": SIZE, "interpolation": "bicubic", "crop": 1.0}),
}

# The hand-made model: features are the mean of each channel (0 to 255), logits their product with this matrix.
WEIGHT = (np.random.default_rng(0).normal(size=(3, 4)) / 20).astype(np.float16)


def answers(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Logits and features of the hand-made model, in float64."""
    features = pixels.astype(np.float64).mean((2, 3))
    return features @ WEIGHT.astype(np.float64), features


def pixels(count: int, size: int = SIZE) -> np.ndarray:
    return np.random.default_rng(count).integers(0, 256, (count, 3, size, size), dtype=np.uint8)


def graph(weight: onnx.TensorProto, *, images: Any = None, **changes: Any) -> onnx.ModelProto:
    """The hand-made model as ONNX, over a float16 initializer named head.weight."""
    nodes = [
        helper.make_node("Cast", ["images"], ["numbers"], to=TensorProto.FLOAT),
        helper.make_node("Cast", ["head.weight"], ["weight"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["numbers", "axes"], ["features"], keepdims=0),
        helper.make_node("MatMul", ["features", "weight"], ["logits"]),
    ]
    inputs = [images or helper.make_tensor_value_info("images", TensorProto.UINT8, ["batch", 3, SIZE, SIZE])]
    outputs = changes.get("outputs") or [
        helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", len(LABELS)]),
        helper.make_tensor_value_info("features", TensorProto.FLOAT, ["batch", 3]),
    ]
    axes = numpy_helper.from_array(np.array([2, 3]), "axes")
    made = helper.make_graph([*changes.get("nodes", []), *nodes], "handmade", inputs, outputs, [weight, axes])
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    helper.set_model_props(model, changes.get("metadata", METADATA))
    return model


def inlined() -> onnx.TensorProto:
    return numpy_helper.from_array(WEIGHT, "head.weight")


def pointing(offset: int, **changes: Any) -> onnx.TensorProto:
    """head.weight in the safetensors file, `offset` bytes after its beginning."""
    tensor = TensorProto(
        name=changes.get("name", "head.weight"),
        data_type=changes.get("data_type", TensorProto.FLOAT16),
        dims=changes.get("dims", WEIGHT.shape),
        data_location=TensorProto.EXTERNAL,
    )
    entries = {"location": LOCATION, "offset": str(offset), "length": str(WEIGHT.nbytes)}
    for key, value in (entries | changes.get("entries", {})).items():
        tensor.external_data.add(key=key, value=value)
    return tensor


def sign(folder: Path) -> None:
    """Write the files' true hashes into result.json."""
    files = ("model.safetensors", "onnx/model.onnx")
    hashes = {file: hashlib.sha256((folder / file).read_bytes()).hexdigest() for file in files}
    (folder / "result.json").write_text(json.dumps({"weights": hashes}), encoding="utf-8")


def offset_of(folder: Path) -> int:
    """The offset of head.weight in model.safetensors, in bytes."""
    content = (folder / "model.safetensors").read_bytes()
    length = int.from_bytes(content[:8], "little")
    return 8 + length + json.loads(content[8 : 8 + length])["head.weight"]["data_offsets"][0]


def write_graph(folder: Path, model: onnx.ModelProto) -> None:
    (folder / "onnx").mkdir(exist_ok=True)
    (folder / "onnx" / "model.onnx").write_bytes(model.SerializeToString())
    sign(folder)


def describe(classes: list[str], size: int, **model: Any) -> dict[str, Any]:
    return {
        "architecture": "swin_tiny_patch4_window7_224",
        "num_classes": len(classes),
        "pretrained_cfg": {
            "input_size": [3, size, size],
            "interpolation": "bicubic",
            "crop_pct": 1.0,
            "crop_mode": "center",
            "mean": [0.5, 0.4, 0.3],
            "std": [0.2, 0.25, 0.3],
        },
        "label_names": classes,
        **model,
    }


@pytest.fixture
def hand() -> SimpleNamespace:
    """Tools for variants of the hand-made model, as a fixture because tests cannot import a conftest."""
    return SimpleNamespace(
        labels=LABELS,
        weight=WEIGHT,
        metadata=METADATA,
        answers=answers,
        pixels=pixels,
        graph=graph,
        inlined=inlined,
        pointing=pointing,
        sign=sign,
        offset_of=offset_of,
        write_graph=write_graph,
    )


@pytest.fixture
def handmade(tmp_path: Path) -> Path:
    """The hand-made model's folder; the graph refers to its weights."""
    folder = tmp_path / "handmade"
    folder.mkdir()
    save_file({"head.weight": WEIGHT, "other": np.ones(3, np.float32)}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(describe(LABELS, SIZE)), encoding="utf-8")
    write_graph(folder, graph(pointing(offset_of(folder))))
    return folder


@pytest.fixture
def bare(tmp_path: Path) -> Callable[..., Path]:
    """Writes the hand-made model, or a changed one, as one self-contained file."""

    def write(**changes: Any) -> Path:
        path = tmp_path / "bare.onnx"
        path.write_bytes(graph(changes.pop("weight", inlined()), **changes).SerializeToString())
        return path

    return write


@pytest.fixture(scope="session")
def swin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small Swin with random weights, in float16, packaged as a training run is."""
    from vtzoo.export.onnx_files import write_packaged_graph
    from vtzoo.models import create

    folder = tmp_path_factory.mktemp("models") / "small-swin"
    folder.mkdir()
    arguments = {"img_size": 32, "patch_size": 2, "window_size": 4, "embed_dim": 16, "depths": [1, 1]}
    config = describe([f"class {index}" for index in range(10)], 32, model_args=arguments | {"num_heads": [1, 2]})
    torch.manual_seed(0)
    model = create(config)
    for parameter in model.parameters():  # with initial weights all images would have the same class
        torch.nn.init.normal_(parameter, std=0.2)
    save_torch({name: tensor.half() for name, tensor in model.state_dict().items()}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    write_packaged_graph(model, config, folder)
    sign(folder)
    return folder
