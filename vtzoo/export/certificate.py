"""How far a graph in ONNX Runtime is from torch, measured on real images; and what is too far to be written."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from vtzoo.errors import VtzooError
from vtzoo.export.images import Pictures
from vtzoo.export.tracing import INPUT, OUTPUTS, Predictor

# What fp32 kernels may differ by: of the largest output, or of 1 where all are smaller. Not absolute throughout: their
# rounding grows with the numbers, and logits in the hundreds, as a model of large weights gives, would never pass. It
# covers the first class too: logits within t of torch's swap only classes that are less than 2t apart.
TOLERANCE = 1e-4
AGREEMENT = 0.9  # of the first classes, below which a reduced precision is not a loss but a fault
BATCH = 16  # images in one verification run


@dataclass(frozen=True, kw_only=True)
class Certificate:
    """How far the written graph in ONNX Runtime is from the torch model of the same weights, in float32."""

    precision: str = "fp32"  # what the graph computes in
    images: int
    source: str = "the caller's images"
    manifest: str | None = None  # sha256 of the images and labels in order, where they are a data set's
    max_logit_difference: float  # largest absolute difference over images and classes
    top1_agreement: float  # fraction of the images with the same first class
    torch_top1: float | None = None  # fraction right on these images, where their classes are known
    onnx_top1: float | None = None


def verify(session: Any, predictor: Predictor, architecture: str, pictures: Pictures, precision: str) -> Certificate:
    """The certificate; a graph that answers otherwise than its precision explains is a VtzooError."""
    with torch.no_grad():
        expected = _answers(lambda batch: [output.numpy() for output in predictor(torch.tensor(batch))], pictures)
    given = _answers(lambda batch: [np.asarray(output) for output in session.run(OUTPUTS, {INPUT: batch})], pictures)
    certificate = _compare(expected[0], given[0], pictures, precision)
    if precision == "fp32":
        for name, truth, answer in zip(OUTPUTS, expected, given, strict=True):
            _refuse_difference(f"{name} of the exported {architecture}", truth, answer)
    elif not all(np.isfinite(output).all() for output in given) or certificate.top1_agreement < AGREEMENT:
        raise VtzooError(
            f"{architecture} in {precision} gives torch's first class on {certificate.top1_agreement:.1%} of "
            f"{certificate.images} images, where {AGREEMENT:.0%} is the least; nothing was written",
            "export it in fp32: --precision fp32",
        )
    return certificate


def _compare(expected: np.ndarray, given: np.ndarray, pictures: Pictures, precision: str) -> Certificate:
    classes, answers = expected.argmax(1), given.argmax(1)
    known = pictures.labels is not None
    return Certificate(
        precision=precision,
        images=len(expected),
        source=pictures.source,
        manifest=pictures.manifest,
        max_logit_difference=float(np.abs(expected - given).max()),
        top1_agreement=float((classes == answers).mean()),
        torch_top1=float((classes == pictures.labels).mean()) if known else None,
        onnx_top1=float((answers == pictures.labels).mean()) if known else None,
    )


def _answers(predict: Callable[[np.ndarray], Sequence[np.ndarray]], pictures: Pictures) -> list[np.ndarray]:
    """Each output over all the images."""
    batches = np.array_split(pictures.pixels, -(-len(pictures.pixels) // BATCH))
    return [np.concatenate(outputs) for outputs in zip(*map(predict, batches), strict=True)]


def _refuse_difference(name: str, truth: np.ndarray, answer: np.ndarray) -> None:
    difference = np.abs(truth - answer).max()
    allowed = TOLERANCE * max(1, np.abs(truth).max())
    if not (np.isfinite(difference) and difference <= allowed):
        raise VtzooError(
            f"the {name} differ from torch's by {difference:.2g}, where {allowed:.2g} is allowed; nothing was written",
            "check that the weights are finite, and that torch, onnxscript and onnxruntime are of one time",
        )
