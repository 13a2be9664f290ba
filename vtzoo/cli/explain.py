"""The command `vtzoo explain`."""

from pathlib import Path
from typing import Annotated

import typer

from vtzoo.cli.options import DEFAULT_MODEL, DeviceOption, JsonOption, ModelOption, RevisionOption, print_json


def explain(
    image: Annotated[str, typer.Argument(metavar="IMAGE", show_default=False, help="The photograph.")],
    model: ModelOption = DEFAULT_MODEL,
    revision: RevisionOption = None,
    out: Annotated[Path | None, typer.Option(
        metavar="FILE", help="The PNG file to write; by default IMAGE-explained.png."
    )] = None,
    label: Annotated[
        str | None, typer.Option("--class", metavar="NAME", help="Explain this class instead of the most probable one.")
    ] = None,
    top_k: Annotated[
        int, typer.Option("--top-k", "-k", metavar="N", min=1, help="Explain the N most probable classes.")
    ] = 1,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:  # fmt: skip
    """Draw where a model looked in a photograph, and the errors of its localization head.

    Plain vision transformers (ViT, T2T-ViT) are explained by attention rollout, with the same map for every class.
    Other architectures, --class and --top-k are explained by Grad-CAM, with a map for each class. The part of the
    photograph that the model did not see is dark.

    For a model with a localization head (localizer.safetensors), the picture also shows the predicted and the true
    distances between all pairs of tokens. The mean error in cells stands beside that of the best constant guess.

    --json prints one object: {"image", "class", "probability", "method", "grid", "crop", "classes", "localization"},
    with crop as left, top, right and bottom in the photograph's pixels, and localization as {"error_cells",
    "constant_cells", "pairs"} or null.

    Needs the extra `train`: pip install "vtzoo[train]".
    """
    from vtzoo.explain import explanation
    from vtzoo.explain.drawing import check_output, write_picture

    if label is not None and top_k > 1:
        raise typer.BadParameter("--class explains one class, and --top-k several")
    out = out or Path(f"{Path(image).stem}-explained.png")
    check_output(out, image)
    found = explanation.explain(model, image, label=label, top_k=top_k, revision=revision, device=device)
    write_picture(found, out)
    if as_json:
        print_json({"image": image, **found.as_json()})
        return
    typer.echo(f"{image}\n{found.as_text()}")
    typer.echo(f"drawn: {out}", err=True)
