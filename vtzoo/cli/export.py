"""The command `vtzoo export`."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from vtzoo.cli.options import DEFAULT_MODEL, JsonOption, ModelOption, RevisionOption, print_json


def export(
    onnx: Annotated[Path, typer.Option("--onnx", metavar="FILE", help="The file to write.", show_default=False)],
    model: ModelOption = DEFAULT_MODEL,
    revision: RevisionOption = None,
    precision: Annotated[
        Literal["fp32", "fp16", "int8"], typer.Option(help="Precision of the file; fp32 is that of torch.")
    ] = "fp32",
    opset: Annotated[
        int | None, typer.Option("--opset", metavar="N", help="ONNX operator set; by default that of the exporter.")
    ] = None,
    verify: Annotated[
        int, typer.Option("--verify", metavar="N", min=1, help="Number of images to verify it on.")
    ] = 128,
    data: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Read these images from the model's dataset here.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Export a model as one self-contained ONNX file, verified against torch.

    The file has the weights, classes and preprocessing: `vtzoo predict --model FILE` needs nothing else. It is verified
    on images of the dataset's test split, if available, or on crops of photographs; its metadata `vtzoo.certificate`
    says how well it agrees with torch. An fp32 file that disagrees is not written. int8 computes matrix products in 8
    bits, and convolutions in float32.

    Needs the extra `train`: pip install "vtzoo[train]".
    """
    from vtzoo.export.onnx_files import export_model

    certificate = export_model(
        model, onnx, revision=revision, precision=precision, opset=opset, images=verify, data=data
    )
    if as_json:
        print_json(vars(certificate))
        return
    typer.echo(f"{onnx}: {certificate.summary()}")
