"""Compares a graph in ONNX Runtime with torch on real images, and refuses a graph that differs too much."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from vtzoo.errors import VtzooError
from vtzoo.export.images import VerificationImages
from vtzoo.export.tracing import INPUT, OUTPUTS, Predictor
from vtzoo.zoo.result import Certificate

# Allowed fp32 difference, relative to the largest output, or to 1 if all are smaller. It is relative because rounding
# errors grow with the numbers: logits in the hundreds would never pass an absolute limit. It also bounds changes of the
# top-1 class: a difference of at most t swaps only classes whose logits are less than 2t apart.
TOLERANCE = 1e-4
AGREEMENT = 0.9  # smallest top-1 agreement of a reduced precision; less is a fault
BATCH = 16  # images in one verification run


def verify(
    session: Any, predictor: Predictor, architecture: str, images: VerificationImages, precision: str
) -> Certificate:
    """The certificate. A graph that differs from torch by more than its precision explains is a VtzooError."""
    with torch.no_grad():
        expected = _outputs(lambda batch: [output.numpy() for output in predictor(torch.tensor(batch))], images)
    measured = _outputs(lambda batch: [np.asarray(output) for output in session.run(OUTPUTS, {INPUT: batch})], images)
    certificate = _compare(expected[0], measured[0], images, precision)
    if precision == "fp32":
        for name, truth, output in zip(OUTPUTS, expected, measured, strict=True):
            _refuse_difference(f"{name} of the exported {architecture}", truth, output)
    elif not all(np.isfinite(output).all() for output in measured) or certificate.top1_agreement < AGREEMENT:
        raise VtzooError(
            f"{architecture} in {precision} gives torch's top-1 class on {certificate.top1_agreement:.1%} of "
            f"{certificate.images} images, less than {AGREEMENT:.0%}; nothing was written",
            "export it in fp32: --precision fp32",
        )
    return certificate


def _compare(expected: np.ndarray, measured: np.ndarray, images: VerificationImages, precision: str) -> Certificate:
    """The certificate, from torch's and the graph's logits (n, classes)."""
    torch_classes, onnx_classes = expected.argmax(1), measured.argmax(1)
    known = images.labels is not None
    return Certificate(
        precision=precision, images=len(expected), source=images.source, manifest=images.manifest,
        max_logit_difference=float(np.abs(expected - measured).max()),
        top1_agreement=float((torch_classes == onnx_classes).mean()),
        torch_top1=float((torch_classes == images.labels).mean()) if known else None,
        onnx_top1=float((onnx_classes == images.labels).mean()) if known else None,
    )  # fmt: skip


def _outputs(run: Callable[[np.ndarray], Sequence[np.ndarray]], images: VerificationImages) -> list[np.ndarray]:
    """Each output over all images."""
    batches = np.array_split(images.pixels, -(-len(images.pixels) // BATCH))
    return [np.concatenate(outputs) for outputs in zip(*map(run, batches), strict=True)]


def _refuse_difference(name: str, truth: np.ndarray, output: np.ndarray) -> None:
    difference = np.abs(truth - output).max()
    allowed = TOLERANCE * max(1, np.abs(truth).max())
    if not (np.isfinite(difference) and difference <= allowed):
        raise VtzooError(
            f"the {name} differ from torch's by {difference:.2g}, more than {allowed:.2g}; nothing was written",
            "check that the weights are finite, and install torch, onnxscript and onnxruntime of the same time",
        )
