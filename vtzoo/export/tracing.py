"""Traces a torch model into an ONNX graph with torch's exporter, and checks the operator set."""

import contextlib
import copy
import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import onnx
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from vtzoo.data.transform import Preprocess, complete
from vtzoo.errors import VtzooError
from vtzoo.predict.onnx import CPU, open_session
from vtzoo.zoo.packaged_graph import strip

INPUT, OUTPUTS = "images", ("logits", "features")
OPSETS = range(18, 24)  # that torch 2.9 and later write: https://docs.pytorch.org/docs/stable/onnx_export.html


class Predictor(nn.Module):
    """A timm-style model with the normalization of its images."""

    model: Any
    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(self, model: nn.Module, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.model = model
        # Not `mean`: the exporter names averages `mean`, and a graph with a name twice is invalid.
        self.register_buffer("pixel_mean", 255 * torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("pixel_std", 255 * torch.tensor(std).view(1, 3, 1, 1), persistent=False)

    def forward(self, images: UInt8[Tensor, "b 3 h w"]) -> tuple[Float[Tensor, "b classes"], Float[Tensor, "b c"]]:
        """Logits and pooled features."""
        tokens = self.model.forward_features((images.float() - self.pixel_mean) / self.pixel_std)
        return self.model.forward_head(tokens), self.model.forward_head(tokens, pre_logits=True)


def predictor_of(model: nn.Module, config: dict[str, Any]) -> Predictor:
    """A Predictor of a float32 copy of the model, on the CPU, in evaluation mode."""
    described = complete(config)
    return Predictor(copy.deepcopy(model).cpu().float(), described["mean"], described["std"]).eval()


def trace(
    predictor: Predictor, architecture: str, preprocess: Preprocess, *, optimize: bool, opset: int | None
) -> onnx.ModelProto:
    """The model's graph with a dynamic batch. A VtzooError if it cannot be traced, or not in that operator set."""
    example = torch.zeros(2, *preprocess.shape, dtype=torch.uint8)
    try:
        with quiet(), torch.no_grad():
            program = torch.onnx.export(
                predictor, (example,), dynamo=True, dynamic_shapes=({0: torch.export.Dim("batch")},),
                input_names=[INPUT], output_names=OUTPUTS, opset_version=opset, optimize=optimize,
                external_data=False, verbose=False,
            )  # fmt: skip
    except Exception as error:  # OnnxExporterError, or any error that the model raises
        reason = str(error.__cause__ or error).strip().splitlines()[0]
        raise VtzooError(f"{architecture} cannot be exported to ONNX: {reason}") from error
    graph = strip(program.model_proto)  # pyright: ignore[reportOptionalMemberAccess]  (the old exporter's return value)
    written = {imported.domain: imported.version for imported in graph.opset_import}[""]
    if opset not in (None, written):  # the exporter only logs a failed conversion
        message = f"{architecture} cannot be exported in operator set {opset}: the exporter wrote {written}"
        raise VtzooError(message, f"choose another, or leave out --opset for {written}")
    return graph


def refuse_opset(opset: int) -> None:
    """Raise a VtzooError unless the exporter writes this operator set and the installed ONNX Runtime reads it."""
    allowed = [known for known in OPSETS if known == opset or known <= onnx.defs.onnx_opset_version()]
    if opset not in allowed or not _runs(opset):
        last = max(known for known in allowed if _runs(known))
        hint = f"--opset takes {OPSETS.start} to {last}"
        raise VtzooError(f"operator set {opset} cannot be written and run here", hint)


def _runs(opset: int) -> bool:
    """Whether ONNX Runtime opens a graph in this operator set."""
    value = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1]) for name in "ab"]
    graph = onnx.helper.make_graph([onnx.helper.make_node("Identity", ["a"], ["b"])], "g", value[:1], value[1:])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)], ir_version=10)
    try:
        open_session(model.SerializeToString(), None, CPU)
    except VtzooError:
        return False
    return True


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Suppress the exporter's progress, warnings and log lines."""
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
