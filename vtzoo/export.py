"""Verified ONNX, in two shapes: one self-contained file, or a small graph over a model folder's own weights.

`export` and `export_model` write the self-contained file; `package` writes the `onnx/model.onnx` of a model folder: its
initializers point into the `model.safetensors` beside it, so that the weights are stored once. Every graph takes uint8
images `(batch, 3, height, width)`, normalizes them itself, and gives `logits` and pooled `features` in float32. None is
written before ONNX Runtime has reproduced torch's answers with it.
"""

import contextlib
import copy
import hashlib
import io
import json
import logging
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor, nn

from . import checked, files, hub
from .errors import VtzooError
from .inference.onnx import CPU, open_session
from .inference.torch import TorchClassifier, fill
from .packaging import point_into, strip
from .preprocess import Preprocess

INPUT, OUTPUTS = "images", ("logits", "features")
TOLERANCE = 1e-4  # of the largest output, or of 1 where all are smaller: what fp32 kernels may differ by
BATCH = 16  # images in one verification run


@dataclass(frozen=True, kw_only=True)
class Certificate:
    """How far the written graph in ONNX Runtime is from the torch model of the same weights."""

    images: int
    max_logit_difference: float  # largest absolute difference over images and classes
    top1_agreement: float  # fraction of the images with the same first class


class Predictor(nn.Module):
    """A timm-style model that normalizes its images itself."""

    model: Any
    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(self, model: nn.Module, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.model = model
        # Not `mean`: the exporter names an average so, and a graph with that name twice is invalid.
        self.register_buffer("pixel_mean", 255 * torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("pixel_std", 255 * torch.tensor(std).view(1, 3, 1, 1), persistent=False)

    def forward(self, images: UInt8[Tensor, "b 3 h w"]) -> tuple[Float[Tensor, "b classes"], Float[Tensor, "b c"]]:
        """Logits and pooled features."""
        tokens = self.model.forward_features((images.float() - self.pixel_mean) / self.pixel_std)
        return self.model.forward_head(tokens), self.model.forward_head(tokens, pre_logits=True)


def export(
    model: nn.Module,
    config: dict[str, Any],
    out: Path,
    *,
    source: str,
    images: np.ndarray | None = None,
    opset: int | None = None,
) -> Certificate:
    """Write one self-contained ONNX file to `out`; the certificate says how well it agrees with torch.

    `config` is the model folder's config.json; `source` says where the weights are from. `images` are real ones,
    uint8 (n, 3, height, width), to verify on; photograph-like noise stands in for them. `opset` is the ONNX operator
    set, by default the exporter's own. On a VtzooError (the model has no graph, the graph disagrees with torch, `out`
    cannot be written) nothing is left behind.
    """
    _refuse_unwritable(out)
    predictor = _predictor(model, config)
    graph = _trace(predictor, config, optimize=True, opset=opset)
    certificate = _verify(open_session(graph.SerializeToString(), None, CPU), predictor, config, images)
    _write(out, _finish(graph, config, certificate, source))
    return certificate


def package(model: nn.Module, config: dict[str, Any], folder: Path, *, images: np.ndarray | None = None) -> Certificate:
    """Write `folder`/onnx/model.onnx over the weights in `folder`/model.safetensors, which it verifies with.

    `model` gives the architecture alone: the file's weights are the ones that count. The graph's `vtzoo.source` is the
    sha256 of that file. Errors are those of `export`, and weights that do not fit the model.
    """
    weights = checked.read(folder / "model.safetensors")
    predictor = _predictor(model, config)
    fill(predictor.model, weights)
    with _quiet():
        graph = point_into(_trace(predictor, config, optimize=False, opset=None), weights, prefix="model.")
    session = open_session(graph.SerializeToString(), weights.content, CPU)
    certificate = _verify(session, predictor, config, images)
    _write(folder / "onnx" / "model.onnx", _finish(graph, config, certificate, _hash(weights.content)))
    return certificate


def export_model(name: str | Path, out: Path, *, revision: str | None = None) -> Certificate:
    """Write the model of that name, in that model folder or on the Hub, to `out` as `export` does."""
    entry = hub.find(name, revision=revision, use="torch")
    model = TorchClassifier.from_folder(entry, "cpu").model
    source = f"{entry.name} {_hash(checked.read_bytes(entry.folder / 'model.safetensors'))}"
    return export(model, entry.config | {"label_names": list(entry.labels)}, out, source=source)


def _predictor(model: nn.Module, config: dict[str, Any]) -> Predictor:
    """A float32 copy on the CPU, in evaluation mode, so that the caller's model stays as it is."""
    preprocess = config["pretrained_cfg"]
    return Predictor(copy.deepcopy(model).cpu().float(), preprocess["mean"], preprocess["std"]).eval()


def _hash(weights: bytes) -> str:
    """What a packaged graph and its weights are known to belong together by."""
    return f"sha256:{hashlib.sha256(weights).hexdigest()}"


def _trace(predictor: Predictor, config: dict[str, Any], *, optimize: bool, opset: int | None) -> onnx.ModelProto:
    """The model's graph with a dynamic batch; what cannot be traced is a VtzooError."""
    example = torch.zeros(2, *config["pretrained_cfg"]["input_size"], dtype=torch.uint8)
    try:
        with _quiet(), torch.no_grad():
            program = torch.onnx.export(
                predictor, (example,), dynamo=True, dynamic_shapes=({0: torch.export.Dim("batch")},),
                input_names=[INPUT], output_names=OUTPUTS, opset_version=opset, optimize=optimize,
                external_data=False, verbose=False,
            )  # fmt: skip
    except Exception as error:  # the exporter promises no type: OnnxExporterError, or whatever the model raised
        reason = str(error.__cause__ or error).strip().splitlines()[0]
        raise VtzooError(f"{config['architecture']} cannot be exported to ONNX: {reason}") from error
    return strip(program.model_proto)  # pyright: ignore[reportOptionalMemberAccess]  (None is the old exporter's answer)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's progress, warnings and log lines, none of them for the user, off stdout and stderr."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        try:
            for logger in loggers:
                logger.setLevel(logging.CRITICAL)
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


def _finish(graph: onnx.ModelProto, config: dict[str, Any], certificate: Certificate, source: str) -> bytes:
    """The file's content: the graph, and in its metadata what lets a bare .onnx predict by itself."""
    metadata = {
        "vtzoo.labels": json.dumps(config["label_names"], ensure_ascii=False),
        "vtzoo.preprocess": json.dumps(Preprocess.from_config(config["pretrained_cfg"]).as_dict()),
        "vtzoo.certificate": json.dumps(asdict(certificate)),
        "vtzoo.source": source,
    }
    onnx.helper.set_model_props(graph, metadata)
    return graph.SerializeToString()


def _verify(session: Any, predictor: Predictor, config: dict[str, Any], images: np.ndarray | None) -> Certificate:
    """The certificate, or a VtzooError where an output is off by more than the tolerance.

    The tolerance covers the first class too: logits within t of torch's can only swap classes less than 2t apart.
    """
    if images is None:
        images = sample_images(config["pretrained_cfg"]["input_size"][-1])
    with torch.no_grad():
        expected = _answers(lambda batch: [output.numpy() for output in predictor(torch.tensor(batch))], images)
    given = _answers(lambda batch: [np.asarray(output) for output in session.run(OUTPUTS, {INPUT: batch})], images)
    for name, truth, answer in zip(OUTPUTS, expected, given, strict=True):
        _refuse_difference(f"{name} of the exported {config['architecture']}", truth, answer)
    return Certificate(
        images=len(images),
        max_logit_difference=float(np.abs(expected[0] - given[0]).max()),
        top1_agreement=float((expected[0].argmax(1) == given[0].argmax(1)).mean()),
    )


def _answers(predict: Callable[[np.ndarray], Sequence[np.ndarray]], images: np.ndarray) -> list[np.ndarray]:
    """Each output over all the images."""
    batches = np.array_split(images, -(-len(images) // BATCH))
    return [np.concatenate(outputs) for outputs in zip(*map(predict, batches), strict=True)]


def _refuse_difference(name: str, truth: np.ndarray, answer: np.ndarray) -> None:
    difference = np.abs(truth - answer).max()
    allowed = TOLERANCE * max(1, np.abs(truth).max())
    if not (np.isfinite(difference) and difference <= allowed):
        raise VtzooError(
            f"the {name} differ from torch's by {difference:.2g}, where {allowed:.2g} is allowed; nothing was written",
            "check that the weights are finite, and that torch, onnxscript and onnxruntime are of one time",
        )


def sample_images(size: int, count: int = 32) -> np.ndarray:
    """Photograph-like noise, uint8 (count, 3, size, size), the same every time: details at every scale, few strong."""
    generator = np.random.default_rng(0)
    images = np.zeros((count, size, size, 3))
    for cells in (1, 2, 4, 8, 16, 32):
        noise = generator.integers(0, 256, (count, cells, cells, 3), dtype=np.uint8)
        images += [np.asarray(Image.fromarray(grid).resize((size, size), Image.Resampling.BICUBIC)) for grid in noise]
    return np.ascontiguousarray((images / 6).astype(np.uint8).transpose(0, 3, 1, 2))


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
