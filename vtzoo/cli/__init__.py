"""The command `vtzoo`: each command parses, calls one function and prints. Results go to stdout, all else to stderr."""

import json
import sys
import textwrap
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from .sentences import Sentences

if TYPE_CHECKING:
    from vtzoo.inference.bulk import Answer

DEFAULT_MODEL = "swin_t-drloc-cifar100"

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

ModelOption = Annotated[
    str, typer.Option("--model", "-m", metavar="MODEL", help="Name of a model (see `vtzoo list`), or its folder.")
]
BackendOption = Annotated[
    Literal["onnx", "torch"], typer.Option(help="What runs the model. ONNX Runtime starts faster and needs no torch.")
]
DeviceOption = Annotated[
    Literal["auto", "cpu", "cuda"], typer.Option(help="auto takes CUDA where it works; cuda fails where it does not.")
]
DataOption = Annotated[
    Path | None,
    typer.Option(metavar="FOLDER", help="Read the dataset from Parquet or image folders here, not from the Hub."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]


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
    _print_json(rows)
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
    from vtzoo import zoo
    from vtzoo.recipe import shipped

    if recipes:
        rows = [{"name": name, "file": str(path)} for name, path in shipped().items()]
    else:
        rows = [zoo.summary(entry) for entry in zoo.entries()]
    if as_json:
        _print_json(rows)
        return
    for row in rows:
        measured = "  {top1:.2%} top-1 on {images:,} test images of {dataset}" if "top1" in row else ""
        typer.echo(row["name"] + measured.format(**row))


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
        _print_json(facts)
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
        _print_json(metrics)
        return
    typer.echo(f"top-1 {metrics['top1']:.2%}, top-5 {metrics['top5']:.2%} on {metrics['images']:,} images")
    typer.echo(f"manifest of the split: {metrics['manifest']}")
    typer.echo(f"{metrics['images_per_second']:.0f} images/s")


@app.command(short_help="Train a recipe into a model folder.")
def train(
    recipe: Annotated[
        str,
        typer.Argument(
            metavar="RECIPE", help="Name of a recipe (see `vtzoo list --recipes`), or a TOML file.", show_default=False
        ),
    ],
    data: DataOption = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="The model folder to write; runs/RECIPE if not given.")
    ] = None,
    seed: Annotated[int, typer.Option(metavar="N", min=0, help="The one value that is not in the recipe.")] = 0,
    device: DeviceOption = "auto",
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the interrupted run in --out.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Train a recipe into a model folder, which predicts, evaluates and exports at once.

    Ctrl-C leaves a checkpoint: the same command with --resume goes on from there, to the same losses. Needs the extra
    `train`: pip install "vtzoo[train]".
    """
    from vtzoo.progress import training
    from vtzoo.recipe import locate

    path = locate(recipe)
    out = out or Path("runs") / path.stem
    with training(path.stem) as report:
        from vtzoo.training.run import train as run

        result = run(path, data=data, out=out, seed=seed, device=device, resume=resume, progress=report)
    if as_json:
        _print_json(result)
        return
    typer.echo(f"{out}: top-1 {result['top1']:.2%}, top-5 {result['top5']:.2%} on {result['images']:,} test images")
    typer.echo(f"next: vtzoo predict --model {out} photo.jpg")


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
        _print_json(vars(certificate))
        return
    typer.echo(
        f"{onnx}: verified on {certificate.images} images, top-1 agreement {certificate.top1_agreement:.2%}, "
        f"logits differ by at most {certificate.max_logit_difference:.1e}"
    )


def _print_json(content: Any) -> None:
    typer.echo(json.dumps(content, indent=2))  # ASCII, hence valid in every terminal's encoding


def main() -> None:
    """Run the command line."""
    app(prog_name="vtzoo")
