"""Verified ONNX, in two shapes: one self-contained file, or a small graph over a model folder's own weights.

`export` and `export_model` write the self-contained file; `package` writes the `onnx/model.onnx` of a model folder: its
initializers point into the `model.safetensors` beside it, so that the weights are stored once. Every graph takes uint8
images `(batch, 3, height, width)`, normalizes them itself, and gives `logits` and pooled `features` in float32. None is
written before ONNX Runtime has run it on real images beside torch: the certificate says how well they agree.
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
from vtzoo.export.certificate import Certificate, verify
from vtzoo.export.images import Pictures, sample, sample_images, to_calibrate_on, to_verify_on
from vtzoo.export.int8 import quantize
from vtzoo.export.reduced import reduce
from vtzoo.export.tracing import predictor_of, quiet, refuse_opset, trace
from vtzoo.hub import fetch
from vtzoo.predict.onnx import CPU, open_session
from vtzoo.predict.torch import TorchClassifier, fill
from vtzoo.zoo import safetensors_reader
from vtzoo.zoo.model_folder import Entry
from vtzoo.zoo.packaged_graph import point_into

__all__ = [
    "PRECISIONS", "Certificate", "Pictures", "export", "export_model", "package", "require_graph", "sample_images",
]  # fmt: skip

PRECISIONS = ("fp32", "fp16", "int8")
VERIFIED = 128  # images, unless the caller says how many: a minute of ViT-B/16 at 224 pixels on two cores


def export(
    model: nn.Module,
    config: dict[str, Any],
    out: Path,
    *,
    source: str,
    precision: str = "fp32",
    opset: int | None = None,
    images: np.ndarray | Pictures | None = None,
    calibration: np.ndarray | None = None,
) -> Certificate:
    """Write one self-contained ONNX file to `out`; the certificate says how well it agrees with torch.

    `config` is the model folder's config.json; `source` says where the weights are from. `images` are real ones,
    uint8 (n, 3, height, width), to verify on, and `calibration` others, for int8 to find its ranges on; crops of
    photographs stand in for both. `opset` is the ONNX operator set, by default the exporter's own. On a VtzooError (the
    model has no graph, the graph disagrees with torch, `out` cannot be written) nothing is left behind.
    """
    if precision not in PRECISIONS:
        raise unknown("precision", precision, PRECISIONS)
    _refuse_unwritable(out)
    if opset is not None:
        refuse_opset(opset)
    predictor, preprocess = predictor_of(model, config), Preprocess.from_config(config)
    graph = trace(predictor, config["architecture"], preprocess, optimize=True, opset=opset)
    if precision == "fp16":
        graph = reduce(graph)
    elif precision == "int8":
        graph = quantize(graph, sample(preprocess, VERIFIED, seed=1).pixels if calibration is None else calibration)
    session = open_session(graph.SerializeToString(), None, CPU)
    certificate = verify(session, predictor, config["architecture"], _pictures(images, preprocess), precision)
    _write(out, _finish(graph, config, certificate, source))
    return certificate


def package(
    model: nn.Module, config: dict[str, Any], folder: Path, *, images: np.ndarray | Pictures | None = None
) -> Certificate:
    """Write `folder`/onnx/model.onnx over the weights in `folder`/model.safetensors, which it verifies with.

    `model` gives the architecture alone: the file's weights are the ones that count. The graph's `vtzoo.source` is the
    sha256 of that file. Errors are those of `export`, and weights that do not fit the model.
    """
    weights = safetensors_reader.read(folder / "model.safetensors")
    predictor, preprocess = predictor_of(model, config), Preprocess.from_config(config)
    fill(predictor.model, weights)
    graph = trace(predictor, config["architecture"], preprocess, optimize=False, opset=None)
    with quiet():
        graph = point_into(graph, weights, prefix="model.")
    session = open_session(graph.SerializeToString(), weights.content, CPU)
    certificate = verify(session, predictor, config["architecture"], _pictures(images, preprocess), "fp32")
    _write(folder / "onnx" / "model.onnx", _finish(graph, config, certificate, _hash(weights.content)))
    return certificate


def require_graph(model: nn.Module, config: dict[str, Any]) -> None:
    """Raise a VtzooError where a model has no graph, so that nobody trains for hours what cannot be packaged."""
    trace(
        predictor_of(model, config), config["architecture"], Preprocess.from_config(config), optimize=False, opset=None
    )


def export_model(
    name: str | Path,
    out: Path,
    *,
    revision: str | None = None,
    precision: str = "fp32",
    opset: int | None = None,
    images: int = VERIFIED,
    data: Path | None = None,
) -> Certificate:
    """Write the model of that name, in that model folder or on the Hub, to `out` as `export` does.

    It is verified on so many `images` of its data set's test split, read from `data` or from the `datasets` library's
    cache, but never downloaded for this; where the split is at neither, on crops of photographs.
    """
    entry = fetch.find(name, revision=revision, use="torch")
    classifier = TorchClassifier.from_folder(entry, "cpu")
    config = entry.config | {"label_names": list(classifier.labels), "num_classes": len(classifier.labels)}
    chosen = to_verify_on(entry, classifier, images, data)
    calibration = to_calibrate_on(entry, classifier, data) if precision == "int8" else None
    return export(
        classifier.model, config, out, source=_source(entry), precision=precision, opset=opset, images=chosen,
        calibration=calibration,
    )  # fmt: skip


def _source(entry: Entry) -> str:
    """The model's name and the hash of its weights; of one from the Hub, where it is there: ORG/NAME@COMMIT."""
    known = f"{entry.name} {_hash(safetensors_reader.read_bytes(entry.folder / 'model.safetensors'))}"
    if not entry.pinned:
        return known
    repo = entry.folder.parent.parent.name.removeprefix("models--").replace("--", "/", 1)  # as its cache is laid out
    return f"{known} {repo}@{entry.folder.name}"


def _hash(weights: bytes) -> str:
    """What a packaged graph and its weights are known to belong together by."""
    return f"sha256:{hashlib.sha256(weights).hexdigest()}"


def _pictures(images: np.ndarray | Pictures | None, preprocess: Preprocess) -> Pictures:
    if images is None:
        return sample(preprocess, VERIFIED)
    return images if isinstance(images, Pictures) else Pictures(pixels=images, source="the caller's images")


def _finish(graph: onnx.ModelProto, config: dict[str, Any], certificate: Certificate, source: str) -> bytes:
    """The file's content: the graph, and in its metadata what lets a bare .onnx predict by itself."""
    metadata = {
        "vtzoo.labels": json.dumps(config["label_names"], ensure_ascii=False),
        "vtzoo.preprocess": json.dumps(Preprocess.from_config(config).as_dict()),
        "vtzoo.certificate": json.dumps(asdict(certificate)),
        "vtzoo.source": source,
        "vtzoo.precision": certificate.precision,
        **({"vtzoo.multi_label": "true"} if config.get("multi_label") else {}),
    }
    onnx.helper.set_model_props(graph, metadata)
    return graph.SerializeToString()


def _refuse_unwritable(out: Path) -> None:
    """Say so before minutes of export, not after them."""
    if out.is_dir():
        raise VtzooError(f"cannot write {out}: it is a folder", f"name a file, as {out / 'model.onnx'}")
    if not out.parent.is_dir() or not os.access(out.parent, os.W_OK | os.X_OK):
        raise VtzooError(f"cannot write {out}: {out.parent} is not a folder that can be written to")


def _write(out: Path, content: bytes) -> None:
    try:
        out.parent.mkdir(exist_ok=True)
        files.write(out, content)
    except OSError as error:
        raise VtzooError(f"cannot write {out}: {error.strerror}") from error
