"""The command `vtzoo evaluate`."""

import typer

from .options import (
    DEFAULT_MODEL,
    BackendOption,
    DataOption,
    DeviceOption,
    JsonOption,
    ModelOption,
    RevisionOption,
    print_json,
)


def evaluate(
    model: ModelOption = DEFAULT_MODEL,
    revision: RevisionOption = None,
    data: DataOption = None,
    backend: BackendOption = "auto",
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Measure top-1 and top-5 on the test split of the model's own dataset: the numbers on its card.

    Needs the extra `train`: pip install "vtzoo[train]".
    """
    from vtzoo.evaluation.metrics import evaluate_model
    from vtzoo.progress import counting

    with counting("evaluating") as count:
        metrics = evaluate_model(
            model, data, revision=revision, backend=backend, device=device, progress=count
        ).as_json()
    if as_json:
        print_json(metrics)
        return
    typer.echo(f"top-1 {metrics['top1']:.2%}, top-5 {metrics['top5']:.2%} on {metrics['images']:,} images")
    typer.echo(f"manifest of the split: {metrics['manifest']}")
    typer.echo(f"{metrics['images_per_second']:.0f} images/s")
