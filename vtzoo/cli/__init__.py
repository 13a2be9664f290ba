"""The command `vtzoo`: each command parses, calls one function and prints. Results go to stdout, all else to stderr."""

import sys
import textwrap
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .options import DEFAULT_MODEL, BackendOption, DataOption, DeviceOption, JsonOption, ModelOption, print_json
from .recipe import app as recipe_app
from .sentences import Sentences
from .training import train

if TYPE_CHECKING:
    from vtzoo.inference.bulk import Answer

HELP = """Visual transformers for small datasets: classify images with the zoo's models, measure them, train your own.

\b
Examples:
  vtzoo predict photo.jpg                  name what is in a photograph
  vtzoo predict photos/ --json > out.json  a folder, for a program to read
  vtzoo list                               the models, with their accuracy
  vtzoo train swin_t-drloc-cifar100        train one of them again
"""
EPILOG = """\b
Results go to stdout, everything else to stderr. Exit codes: 0 for success,
1 for any failure, 2 for arguments that do not parse, 130 after Ctrl-C.
"""


app = typer.Typer(
    cls=Sentences,
    help=HELP,
    epilog=EPILOG,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,  # rich would cost more time than all of --help
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        from vtzoo import __version__

        typer.echo(f"vtzoo {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None: ...


@app.command(short_help="Name what is in images, with probabilities.")
def predict(
    images: Annotated[
        list[str], typer.Argument(metavar="IMAGE", help="Image files, folders or glob patterns.", show_default=False)
    ],
    model: ModelOption = DEFAULT_MODEL,
    top_k: Annotated[int, typer.Option("--top-k", "-k", metavar="N", min=1, help="Classes to show an image.")] = 5,
    backend: BackendOption = "onnx",
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Name what is in images: the most probable classes of each, best first.

    Answers come in the order of the arguments. A folder stands for the images in it and below it, sorted, hidden ones
    left out. An image that cannot be read is reported by name, all others are answered, and the exit code is 1. The
    model may also be an .onnx file that `vtzoo export` wrote.

    --json prints one list with an object an image: {"image", "predictions": [{"label", "probability"}], "error"}.
    """
    from vtzoo.inference import load
    from vtzoo.inference.bulk import expand, predict_files
    from vtzoo.progress import counted

    files = expand(images)
    answers: Iterable[Answer] = predict_files(load(model, backend=backend, device=device), files, top_k)
    if not sys.stdout.isatty():  # on a terminal the answers themselves show how far it is
        answers = counted(answers, "predicting", len(files))
    if (_print_list(answers) if as_json else _print_answers(answers)) > 0:
        raise typer.Exit(1)


def _print_list(answers: "Iterable[Answer]") -> int:
    """Print one JSON list and return how many images failed."""
    rows = [
        {"image": answer.image, "predictions": [vars(one) for one in answer.predictions], "error": answer.error}
        for answer in answers
    ]
    print_json(rows)
    return sum(row["error"] is not None for row in rows)


def _print_answers(answers: "Iterable[Answer]") -> int:
    """Print a block an image and return how many images failed."""
    failed = 0
    for answer in answers:
        if answer.error is not None:
            failed += 1
            typer.echo(f"Error: {answer.image}: {answer.error}", err=True)
            continue
        typer.echo(answer.image)
        for one in answer.predictions:
            typer.echo(f"  {one.probability:6.1%}  {one.label}")
    return failed


@app.command("list", short_help="List the models with their accuracy, or the recipes.")
def list_models(
    recipes: Annotated[bool, typer.Option("--recipes", help="List the recipes that `vtzoo train` takes.")] = False,
    as_json: JsonOption = False,
) -> None:
    """List the models that predict here, with the accuracy measured on their test images."""
    from vtzoo import recipe, zoo

    if recipes:
        rows = [recipe.facts(path) for path in recipe.shipped().values()]
        line = "{name:<36}{steps:>8,} steps of {batch:>5,} images, {image_size:>3} px"
    else:
        rows = [zoo.summary(entry) for entry in zoo.entries()]
        line = "{name}  {top1:.2%} top-1 on {images:,} test images of {dataset}"
    if as_json:
        print_json(rows)
        return
    for row in rows:
        typer.echo(line.format(**row) if recipes or "top1" in row else row["name"])


@app.command(short_help="Show what is known of a model: training, accuracy, classes.")
def show(
    model: Annotated[
        str,
        typer.Argument(metavar="MODEL", help="Name of a model (see `vtzoo list`), or its folder.", show_default=False),
    ],
    as_json: JsonOption = False,
) -> None:
    """Show what is known of a model: what it is, how it was trained, how good it is, and its classes."""
    from vtzoo import zoo

    facts = zoo.facts(zoo.find(model))
    if as_json:
        print_json(facts)
        return
    width = max(len(key) for key in facts) + 2
    for key, value in facts.items():
        line = f"{key.replace('_', ' '):<{width}}{_text(key, value)}"
        fold = textwrap.TextWrapper(100, subsequent_indent=" " * width, break_long_words=False, break_on_hyphens=False)
        typer.echo(fold.fill(line))


def _text(key: str, value: Any) -> str:
    """A fact in words: a fraction of the images as a percentage, a size in megabytes."""
    if key in ("top1", "top5"):
        return f"{value:.2%}"
    if key == "bytes":
        return f"{value:,} ({value / 1e6:.1f} MB)"
    if isinstance(value, dict):
        return ", ".join(f"{name.replace('_', ' ')} {_text(name, one)}" for name, one in value.items())
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return f"{value:,}" if type(value) is int else f"{value:.3g}" if isinstance(value, float) else str(value)


@app.command(short_help="Measure a model on its test images.")
def evaluate(
    model: ModelOption = DEFAULT_MODEL,
    data: DataOption = None,
    backend: BackendOption = "onnx",
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Measure top-1 and top-5 on the test split of the model's own dataset: the numbers on its card.

    Needs the extra `train`: pip install "vtzoo[train]".
    """
    from vtzoo.evaluation.metrics import evaluate_model
    from vtzoo.progress import counting

    with counting("evaluating") as count:
        metrics = evaluate_model(model, data, backend=backend, device=device, progress=count).as_json()
    if as_json:
        print_json(metrics)
        return
    typer.echo(f"top-1 {metrics['top1']:.2%}, top-5 {metrics['top5']:.2%} on {metrics['images']:,} images")
    typer.echo(f"manifest of the split: {metrics['manifest']}")
    typer.echo(f"{metrics['images_per_second']:.0f} images/s")


app.command(short_help="Train a recipe into a model folder.")(train)
app.add_typer(recipe_app, name="recipe", short_help="Show a recipe, or copy one to edit.")


@app.command(short_help="Write a model as one verified ONNX file.")
def export(
    onnx: Annotated[Path, typer.Option("--onnx", metavar="FILE", help="The file to write.", show_default=False)],
    model: ModelOption = DEFAULT_MODEL,
    as_json: JsonOption = False,
) -> None:
    """Write a model as one ONNX file that predicts by itself, and verify it against torch.

    The file carries weights, classes and preprocessing: `vtzoo predict --model FILE` needs nothing else. Needs the
    extra `train`: pip install "vtzoo[train]".
    """
    from vtzoo.export import export_model

    certificate = export_model(model, onnx)
    if as_json:
        print_json(vars(certificate))
        return
    typer.echo(
        f"{onnx}: verified on {certificate.images} images, top-1 agreement {certificate.top1_agreement:.2%}, "
        f"logits differ by at most {certificate.max_logit_difference:.1e}"
    )


def main() -> None:
    """Run the command line."""
    app(prog_name="vtzoo")
