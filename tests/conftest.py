"""What every test shares. Jaxtyping's shapes are enforced here, by beartype; elsewhere they are documentation."""

import atexit
import copy
import hashlib
import json
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import onnx
import pytest
from forked import Python
from jaxtyping import install_import_hook
from onnx import TensorProto, helper

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # before huggingface_hub is imported: no test may wait for a network
if "PYTEST_XDIST_WORKER" in os.environ:  # workers that run side by side share the cores: a thread each
    os.environ.setdefault("OMP_NUM_THREADS", "1")

if sys.dont_write_bytecode:  # else each process that imports torch would compile thousands of its files again
    BYTECODE = tempfile.mkdtemp(prefix="vtzoo-bytecode-")
    atexit.register(shutil.rmtree, BYTECODE, ignore_errors=True)
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # -B says the same
    os.environ["PYTHONPYCACHEPREFIX"] = sys.pycache_prefix = BYTECODE
    sys.dont_write_bytecode = False

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # in the background of a shell; processes of tests inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).resolve().parents[1]
CHECKED = (
    "vtzoo.drloc", "vtzoo.explain", "vtzoo.models", "vtzoo.train.augment.mix", "vtzoo.train.pipeline.crops",
    "vtzoo.train.pipeline.batches", "vtzoo.train.model_with_drloc", "vtzoo.train.muon", "vtzoo.train.pipeline.pixels",
    "vtzoo.train.teacher", "vtzoo.train.pipeline.workers",
)  # fmt: skip
install_import_hook(list(CHECKED), "beartype.beartype")


@pytest.fixture(scope="session")
def real_data() -> Callable[[str], Path]:
    """The folder of a real data set, in $VTZOO_DATA or in shared/data beside the checkout; skips where it is absent."""

    def locate(name: str) -> Path:
        folder = Path(os.environ.get("VTZOO_DATA", ROOT.parent / "shared" / "data")) / name
        if not folder.is_dir():
            pytest.skip(f"no real {name}: set VTZOO_DATA to the folder that holds it")
        return folder

    return locate


@pytest.fixture(scope="session")
def python() -> Iterator[Python]:
    """Runs Python commands as `subprocess.run` does, in processes that have torch and ONNX Runtime already."""
    with closing(Python("onnxruntime", "onnx", "rich.progress", "typer")) as python:
        yield python


@pytest.fixture(scope="session")
def traced_once() -> Iterator[None]:
    """Traces equal models once: to trace a tiny model takes longer than to train it.

    Models that are packaged are equal whatever their weights, as each graph is verified with its own weights; models of
    self-contained files, whose graphs hold weights, are equal with equal weights.
    """
    from vtzoo.export import onnx_files

    real, graphs = onnx_files.trace, {}

    def trace(predictor: Any, architecture: str, preprocess: Any, *, optimize: bool, opset: int | None) -> Any:
        weights = [
            (name, tensor.shape, hashlib.sha256(tensor.numpy().tobytes()).hexdigest() if optimize else None)
            for name, tensor in predictor.state_dict().items()
        ]
        classes = [(type(module).__module__, type(module).__qualname__) for module in predictor.modules()]
        facts = (predictor, architecture, preprocess, optimize, opset, predictor.pixel_mean, predictor.pixel_std)
        key = str((*facts, classes, weights))
        if key not in graphs:
            graphs[key] = real(predictor, architecture, preprocess, optimize=optimize, opset=opset)
        return copy.deepcopy(graphs[key])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(onnx_files, "trace", trace)
        yield


@pytest.fixture(scope="session")
def colours() -> bytes:
    """An ONNX file that sees colours: features are an image's mean red, green and blue, logits the same, 0 to 1."""
    nodes = [
        helper.make_node("Cast", ["images"], ["numbers"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["numbers", "sides"], ["features"], keepdims=0),
        helper.make_node("Div", ["features", "white"], ["logits"]),
    ]
    constants = [
        helper.make_tensor("sides", TensorProto.INT64, [2], [2, 3]),
        helper.make_tensor("white", TensorProto.FLOAT, [], [255.0]),
    ]
    inputs = [helper.make_tensor_value_info("images", TensorProto.UINT8, ["batch", 3, 8, 8])]
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 3]) for name in ("logits", "features")]
    graph = helper.make_graph(nodes, "colours", inputs, outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    facts = {
        "vtzoo.labels": ["red", "green", "blue"],
        "vtzoo.preprocess": {"size": 8, "interpolation": "bicubic", "crop": 1.0},
    }
    helper.set_model_props(model, {name: json.dumps(value) for name, value in facts.items()})
    onnx.checker.check_model(model)
    return model.SerializeToString()
