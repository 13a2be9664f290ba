"""Fixtures and settings of all tests. In tests, beartype enforces jaxtyping's shapes."""

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

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # before huggingface_hub is imported, so that no test waits for a network
if "PYTEST_XDIST_WORKER" in os.environ:  # workers share the cores: one thread each
    os.environ.setdefault("OMP_NUM_THREADS", "1")

if sys.dont_write_bytecode:  # otherwise every process that imports torch would compile thousands of files again
    BYTECODE = tempfile.mkdtemp(prefix="vtzoo-bytecode-")
    atexit.register(shutil.rmtree, BYTECODE, ignore_errors=True)
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # the child processes' switch for the same
    os.environ["PYTHONPYCACHEPREFIX"] = sys.pycache_prefix = BYTECODE
    sys.dont_write_bytecode = False

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in background jobs; child processes inherit it
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
    """Returns the folder of a real dataset, in $VTZOO_DATA or in shared/data beside the checkout; skips without it."""

    def locate(name: str) -> Path:
        folder = Path(os.environ.get("VTZOO_DATA", ROOT.parent / "shared" / "data")) / name
        if not folder.is_dir():
            pytest.skip(f"no real {name}: set VTZOO_DATA to the folder that holds it")
        return folder

    return locate


@pytest.fixture(scope="session")
def python() -> Iterator[Python]:
    """Runs Python commands like `subprocess.run`, in forks of a process with torch and ONNX Runtime."""
    with closing(Python("onnxruntime", "onnx", "rich.progress", "typer")) as python:
        yield python


@pytest.fixture(scope="session")
def traced_once() -> Iterator[None]:
    """Traces equal models once, because tracing a tiny model takes longer than training it.

    For packaged graphs, models with different weights are equal too: the graph refers to the weights, and the export
    verifies the graph with them. Self-contained files hold the weights, so their models are equal with equal weights.
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
    """An ONNX file whose features are an image's mean red, green and blue, and whose logits are these over 255."""
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
