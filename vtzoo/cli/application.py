"""The Typer application: its commands, its help and its entry point."""

from typing import Annotated

import typer

from vtzoo.cli.bench import bench
from vtzoo.cli.card import card
from vtzoo.cli.doctor import doctor
from vtzoo.cli.error_messages import ErrorMessages
from vtzoo.cli.evaluate import evaluate
from vtzoo.cli.explain import explain
from vtzoo.cli.export import export
from vtzoo.cli.finetune import finetune
from vtzoo.cli.list import list_models
from vtzoo.cli.predict import predict
from vtzoo.cli.publish import publish
from vtzoo.cli.pull import pull
from vtzoo.cli.recipe import app as recipe_app
from vtzoo.cli.show import show
from vtzoo.cli.sweep import WithSeeds, sweep_recipes
from vtzoo.cli.train import train
from vtzoo.cli.verify import verify

HELP = """Visual transformers for small datasets: classify images, measure models, and train your own.

\b
Examples:
  vtzoo predict photo.jpg                  classify a photograph
  vtzoo predict photos/ --json > out.json  classify a folder, as JSON
  vtzoo list                               list the models with their accuracy
  vtzoo train swin_t-drloc-cifar100        train one of these models
"""
EPILOG = """\b
Results go to stdout, everything else to stderr. Exit codes: 0 for success,
1 for any failure, 2 for arguments that do not parse, 130 after Ctrl-C.
"""


app = typer.Typer(
    cls=ErrorMessages, help=HELP, epilog=EPILOG, no_args_is_help=True, add_completion=False,
    rich_markup_mode=None,  # rich would cost more time than all of --help
    pretty_exceptions_enable=False, context_settings={"help_option_names": ["-h", "--help"]},
)  # fmt: skip


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


app.command(short_help="Classify images, with probabilities.")(predict)
app.command("list", short_help="List the models with their accuracy, or the recipes.")(list_models)
app.command(short_help="Show the training, accuracy and classes of a model.")(show)
app.command(short_help="Print a model's card.")(card)
app.command(short_help="Measure a model's accuracy on test images.")(evaluate)
app.command(short_help="Draw where a model looked in a photograph.")(explain)
app.command(short_help="Train a recipe into a model folder.")(train)
app.command("sweep", cls=WithSeeds, short_help="Train recipes with several seeds each, and compare them.")(
    sweep_recipes
)
app.command(short_help="Teach a model the classes of your own images.")(finetune)
app.add_typer(recipe_app, name="recipe", short_help="Show a recipe, or copy one to edit.")
app.command(short_help="Export a model as one verified ONNX file.")(export)
app.command(short_help="Measure a model's speed on each runtime and precision.")(bench)
app.command(short_help="Check the installation, with advice.")(doctor)
app.command(short_help="Download a model from the Hub, and verify it.")(pull)
app.command(short_help="Check the files of local models, or their accuracy.")(verify)
app.command(short_help="Publish a model on the Hugging Face Hub.")(publish)


def main() -> None:
    """Run the command line."""
    app(prog_name="vtzoo")
