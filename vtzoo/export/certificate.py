"""Compares a graph in ONNX Runtime with torch on real images, and refuses a graph that differs too much."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from vtzoo.errors import VtzooError
from vtzoo.export.images import VerificationImages
from vtzoo.export.tracing import INPUT, OUTPUTS, Predictor

# Allowed fp32 difference, relative to the largest output, or to 1 if all are smaller. It is relative because rounding
# errors grow with the numbers: logits in the hundreds would never pass an absolute limit. It also bounds changes of the
# top-1 class: a difference of at most t swaps only classes whose logits are less than 2t apart.
TOLERANCE = 1e-4
AGREEMENT = 0.9  # smallest top-1 agreement of a reduced precision; less is a fault
BATCH = 16  # images in one verification run


@dataclass(frozen=True, kw_only=True)
class Certificate:
    """The measured difference between the written graph in ONNX Runtime and the float32 torch model."""

    precision: str = "fp32"  # of the graph
    images: int
    source: str  # of the images, a phrase
    manifest: str | None = None  # sha256 of the images and labels in order, if they are from a dataset
    max_logit_difference: float  # largest absolute difference over all images and classes
    top1_agreement: float  # fraction of the images with the same top-1 class
    torch_top1: float | None = None  # accuracy on these images, if their labels are known
    onnx_top1: float | None = None

    def summary(self) -> str:
        """The certificate in one sentence."""
        agreement = (
            f"{self.precision}, verified on {self.images} images ({self.source}), "
            f"top-1 agreement {self.top1_agreement:.2%}, logits differ by at most {self.max_logit_difference:.1e}"
        )
        if self.torch_top1 is None or self.onnx_top1 is None:
            return agreement
        return f"{agreement}, top-1 {self.onnx_top1:.2%} (torch {self.torch_top1:.2%})"


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
        precision=precision,
        images=len(expected),
        source=images.source,
        manifest=images.manifest,
        max_logit_difference=float(np.abs(expected - measured).max()),
        top1_agreement=float((torch_classes == onnx_classes).mean()),
        torch_top1=float((torch_classes == images.labels).mean()) if known else None,
        onnx_top1=float((onnx_classes == images.labels).mean()) if known else None,
    )


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
