"""The command `vtzoo export`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from vtzoo.cli.options import DEFAULT_MODEL, JsonOption, ModelOption, RevisionOption, print_json

if TYPE_CHECKING:
    from vtzoo.export.run import Certificate


def export(
    onnx: Annotated[Path, typer.Option("--onnx", metavar="FILE", help="The file to write.", show_default=False)],
    model: ModelOption = DEFAULT_MODEL,
    revision: RevisionOption = None,
    precision: Annotated[
        Literal["fp32", "fp16", "int8"], typer.Option(help="What the file computes in; fp32 is torch's own.")
    ] = "fp32",
    opset: Annotated[
        int | None, typer.Option("--opset", metavar="N", help="ONNX operator set; by default the exporter's own.")
    ] = None,
    verify: Annotated[int, typer.Option("--verify", metavar="N", min=1, help="Images to verify it on.")] = 128,
    data: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Take them from the model's dataset, which is here.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Write a model as one ONNX file that predicts by itself, and verify it against torch.

    The file carries weights, classes and preprocessing: `vtzoo predict --model FILE` needs nothing else. It is verified
    on images of the dataset's test split, where that is at hand, or on crops of photographs, and says in
    `vtzoo.certificate` how well it agrees. In fp32 a file that disagrees is not written; int8 computes matrix products
    in 8 bits and leaves convolutions as they are. Needs the extra `train`: pip install "vtzoo[train]".
    """
    from vtzoo.export.run import export_model

    certificate = export_model(
        model, onnx, revision=revision, precision=precision, opset=opset, images=verify, data=data
    )
    if as_json:
        print_json(vars(certificate))
        return
    typer.echo(f"{onnx}: {_summary(certificate)}")


def _summary(certificate: "Certificate") -> str:
    """The certificate in one sentence, and what a reduced precision loses in it."""
    told = (
        f"{certificate.precision}, verified on {certificate.images} images ({certificate.source}), "
        f"top-1 agreement {certificate.top1_agreement:.2%}, "
        f"logits differ by at most {certificate.max_logit_difference:.1e}"
    )
    if certificate.torch_top1 is None or certificate.onnx_top1 is None:
        return told
    return f"{told}, top-1 {certificate.onnx_top1:.2%} (torch {certificate.torch_top1:.2%})"
