"""The command `vtzoo export`."""

from pathlib import Path
from typing import Annotated

import typer

from .options import DEFAULT_MODEL, JsonOption, ModelOption, RevisionOption, print_json


def export(
    onnx: Annotated[Path, typer.Option("--onnx", metavar="FILE", help="The file to write.", show_default=False)],
    model: ModelOption = DEFAULT_MODEL,
    revision: RevisionOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write a model as one ONNX file that predicts by itself, and verify it against torch.

    The file carries weights, classes and preprocessing: `vtzoo predict --model FILE` needs nothing else. Needs the
    extra `train`: pip install "vtzoo[train]".
    """
    from vtzoo.export import export_model

    certificate = export_model(model, onnx, revision=revision)
    if as_json:
        print_json(vars(certificate))
        return
    typer.echo(
        f"{onnx}: verified on {certificate.images} images, top-1 agreement {certificate.top1_agreement:.2%}, "
        f"logits differ by at most {certificate.max_logit_difference:.1e}"
    )
