"""The command `vtzoo explain`."""

from pathlib import Path
from typing import Annotated

import typer

from vtzoo.cli.options import DEFAULT_MODEL, DeviceOption, JsonOption, ModelOption, RevisionOption, print_json


def explain(
    image: Annotated[str, typer.Argument(metavar="IMAGE", show_default=False, help="The photograph.")],
    model: ModelOption = DEFAULT_MODEL,
    revision: RevisionOption = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The picture to write, a PNG; IMAGE-explained.png if not given."),
    ] = None,
    label: Annotated[
        str | None, typer.Option("--class", metavar="NAME", help="Explain this class, not the most probable one.")
    ] = None,
    top_k: Annotated[
        int, typer.Option("--top-k", "-k", metavar="N", min=1, help="Explain the N most probable classes.")
    ] = 1,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:  # fmt: skip
    """Draw where a model looked in a photograph, and where its localization head takes the tokens to be.

    Attention rollout for plain vision transformers (ViT, T2T-ViT), which is one map for every class; Grad-CAM, a map
    for each class, for all others and for classes that are asked for. What the model did not see, because it takes the
    middle of a photograph, is dark.

    Of a model that kept its localization head (localizer.safetensors): the distances it predicts between all pairs of
    tokens against the true ones, and its mean error in cells, beside that of the best constant guess.

    --json prints one object: {"image", "class", "probability", "method", "grid", "crop", "classes", "localization"},
    with crop as left, top, right and bottom in the photograph's pixels, and localization as {"error_cells",
    "constant_cells", "pairs"} or null.

    Needs the extra `train`: pip install "vtzoo[train]".
    """
    from vtzoo.explain import explanation as explaining
    from vtzoo.explain.drawing import check_place, draw

    if label is not None and top_k > 1:
        raise typer.BadParameter("--class explains one class, and --top-k several")
    out = out or Path(f"{Path(image).stem}-explained.png")
    check_place(out, image)
    found = explaining.explain(model, image, label=label, top_k=top_k, revision=revision, device=device)
    draw(found, out)
    if as_json:
        print_json({"image": image, **found.as_json()})
        return
    typer.echo(f"{image}\n{explaining.told(found)}")
    typer.echo(f"drawn: {out}", err=True)
