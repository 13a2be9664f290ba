"""Writes verified ONNX: one self-contained file, or a small graph that uses a model folder's own weights.

`write_onnx` and `export_model` write the self-contained file. `write_packaged_graph` writes the `onnx/model.onnx` of a
model folder, whose initializers point into `model.safetensors`, so that the weights are stored once. Every graph takes
uint8 images `(batch, 3, height, width)`, normalizes them, and returns `logits` and pooled `features` in float32. Before
it is written, ONNX Runtime runs it on real images, and the certificate says how well its outputs agree with torch's.
"""

import hashlib
import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from torch import nn

from vtzoo.base import files
from vtzoo.data.transform import Preprocess
from vtzoo.errors import VtzooError, unknown
from vtzoo.export.certificate import verify
from vtzoo.export.fp16 import to_fp16
from vtzoo.export.images import VerificationImages, calibration_images, photograph_crops, verification_images
from vtzoo.export.int8 import quantize
from vtzoo.export.tracing import predictor_of, quiet, refuse_opset, trace
from vtzoo.hub import fetch
from vtzoo.predict.onnx import CPU, open_session
from vtzoo.predict.torch import TorchClassifier, load_weights
from vtzoo.zoo import safetensors_reader
from vtzoo.zoo.model_folder import ModelFolder
from vtzoo.zoo.packaged_graph import point_into
from vtzoo.zoo.result import Certificate

PRECISIONS = ("fp32", "fp16", "int8")
VERIFIED = 128  # images by default; ViT-B/16 at 224 pixels takes a minute on two cores


def write_onnx(
    model: nn.Module, config: dict[str, Any], out: Path, *, source: str, precision: str = "fp32",
    opset: int | None = None, images: VerificationImages | None = None, calibration: np.ndarray | None = None,
) -> Certificate:  # fmt: skip
    """Write one self-contained ONNX file to `out`, and return its certificate.

    `config` is the model folder's config.json, and `source` the origin of the weights. The graph is verified on
    `images`, and int8 is calibrated on `calibration`, uint8 (n, 3, height, width); both are crops of photographs by
    default. `opset` is the ONNX operator set, by default the exporter's own. Nothing is written after a
    VtzooError: the model cannot be traced, the graph disagrees with torch, or `out` cannot be written.
    """
    if precision not in PRECISIONS:
        raise unknown("precision", precision, PRECISIONS)
    _refuse_unwritable(out)
    if opset is not None:
        refuse_opset(opset)
    predictor, preprocess = predictor_of(model, config), Preprocess.from_config(config)
    graph = trace(predictor, config["architecture"], preprocess, optimize=True, opset=opset)
    if precision == "fp16":
        graph = to_fp16(graph)
    elif precision == "int8":
        if calibration is None:
            calibration = photograph_crops(preprocess, VERIFIED, seed=1).pixels
        graph = quantize(graph, calibration)
    session = open_session(graph.SerializeToString(), None, CPU)
    images = images or photograph_crops(preprocess, VERIFIED)
    certificate = verify(session, predictor, config["architecture"], images, precision)
    _write(out, _serialize(graph, config, certificate, source))
    return certificate


def write_packaged_graph(
    model: nn.Module, config: dict[str, Any], folder: Path, *, images: VerificationImages | None = None
) -> Certificate:
    """Write `folder`/onnx/model.onnx, which uses the weights in `folder`/model.safetensors; return its certificate.

    `model` gives only the architecture: its weights are replaced by those in the file. The graph's `vtzoo.source` is
    the sha256 of that file. Errors are those of `write_onnx`, and weights that do not fit the model.
    """
    weights = safetensors_reader.read(folder / "model.safetensors")
    predictor, preprocess = predictor_of(model, config), Preprocess.from_config(config)
    load_weights(predictor.model, weights)
    graph = trace(predictor, config["architecture"], preprocess, optimize=False, opset=None)
    with quiet():
        graph = point_into(graph, weights, prefix="model.")
    session = open_session(graph.SerializeToString(), weights.content, CPU)
    images = images or photograph_crops(preprocess, VERIFIED)
    certificate = verify(session, predictor, config["architecture"], images, "fp32")
    _write(folder / "onnx" / "model.onnx", _serialize(graph, config, certificate, _hash(weights.content)))
    return certificate


def require_traceable(model: nn.Module, config: dict[str, Any]) -> None:
    """Raise a VtzooError if a model cannot be traced, before hours of training that could not be packaged."""
    predictor, preprocess = predictor_of(model, config), Preprocess.from_config(config)
    trace(predictor, config["architecture"], preprocess, optimize=False, opset=None)


def export_model(
    name: str | Path, out: Path, *, revision: str | None = None, precision: str = "fp32", opset: int | None = None,
    images: int = VERIFIED, data: Path | None = None,
) -> Certificate:  # fmt: skip
    """Write a model, by its name, model folder or Hub id, to `out` as `write_onnx` does.

    It is verified on `images` images of its dataset's test split, read from `data` or from the cache of the `datasets`
    library, which downloads nothing; without the split, on crops of photographs.
    """
    entry = fetch.model_folder(name, revision=revision, use="torch")
    classifier = TorchClassifier.from_folder(entry, "cpu")
    config = entry.config.content | {"label_names": list(classifier.labels), "num_classes": len(classifier.labels)}
    chosen = verification_images(entry, classifier, images, data)
    calibration = calibration_images(entry, classifier, data) if precision == "int8" else None
    return write_onnx(
        classifier.model, config, out, source=_source(entry), precision=precision, opset=opset, images=chosen,
        calibration=calibration,
    )  # fmt: skip


def _source(entry: ModelFolder) -> str:
    """The model's name and the hash of its weights; for a model from the Hub, also ORG/NAME@COMMIT."""
    known = f"{entry.name} {_hash(safetensors_reader.read_bytes(entry.folder / 'model.safetensors'))}"
    if not entry.pinned:
        return known
    repo = entry.folder.parent.parent.name.removeprefix("models--").replace("--", "/", 1)  # the cache's layout
    return f"{known} {repo}@{entry.folder.name}"


def _hash(weights: bytes) -> str:
    """The identity of weights, by which a packaged graph knows its own."""
    return f"sha256:{hashlib.sha256(weights).hexdigest()}"


def _serialize(graph: onnx.ModelProto, config: dict[str, Any], certificate: Certificate, source: str) -> bytes:
    """The content of the file: the graph, with the metadata that `vtzoo predict` needs."""
    metadata = {
        "vtzoo.labels": json.dumps(config["label_names"], ensure_ascii=False),
        "vtzoo.preprocess": json.dumps(Preprocess.from_config(config).as_dict()),
        "vtzoo.certificate": json.dumps(asdict(certificate)), "vtzoo.source": source,
        "vtzoo.precision": str(certificate.precision),
        **({"vtzoo.multi_label": "true"} if config.get("multi_label") else {}),
    }  # fmt: skip
    onnx.helper.set_model_props(graph, metadata)
    return graph.SerializeToString()


def _refuse_unwritable(out: Path) -> None:
    """Raise a VtzooError if `out` cannot be written, before minutes of export."""
    if out.is_dir():
        raise VtzooError(f"cannot write {out}: it is a folder", f"name a file, such as {out / 'model.onnx'}")
    if not out.parent.is_dir() or not os.access(out.parent, os.W_OK | os.X_OK):
        raise VtzooError(f"cannot write {out}: {out.parent} is not a writable folder")


def _write(out: Path, content: bytes) -> None:
    try:
        out.parent.mkdir(exist_ok=True)
        files.write(out, content)
    except OSError as error:
        raise VtzooError(f"cannot write {out}: {error.strerror}") from error
