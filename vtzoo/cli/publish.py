"""The command `vtzoo publish`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from vtzoo.cli.options import JsonOption, byte_count, print_json


def publish(
    org: Annotated[str, typer.Option("--org", metavar="ORG", help="User or organization.", show_default=False)],
    runs: Annotated[list[str] | None, typer.Argument(
        metavar="RUN", help="Folders of finished runs, or embedded models.", show_default=False
    )] = None,
    everything: Annotated[bool, typer.Option("--all", help="Publish all embedded models.")] = False,
    private: Annotated[bool, typer.Option("--private", help="Make a repository that only ORG can see.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be published, and send nothing.")] = False,
    tag: Annotated[str, typer.Option("--tag", metavar="TAG", help="Name of this version.")] = "v1.0",
    index: Annotated[
        Path | None, typer.Option("--index", metavar="FILE", help="Index file; by default index.toml beside the run.")
    ] = None,
    as_json: JsonOption = False,
) -> None:  # fmt: skip
    """Publish models on the Hugging Face Hub as ORG/NAME: one commit each, of weights, ONNX, recipe, metrics, card.

    A model without metrics, with weights that are not finite, or with another run's recipe is refused. After an
    interruption, the same command continues, and sends no published file again. The card is rendered anew from
    result.json: `vtzoo card RUN` shows it. --json prints an object, or a list with several runs or --all.

    Log in first: hf auth login; or set HF_TOKEN.
    """
    from vtzoo.publish.commit import prepare
    from vtzoo.publish.commit import publish as send

    rows = []
    for run in _chosen(runs, everything):
        publication = prepare(run, org, index)
        row: dict[str, Any] = {"repo": publication.repo}
        row["files"] = {path: content.size for path, content in publication.contents.items()}
        if dry_run:
            row["card"] = publication.files["README.md"].decode()
        else:
            pin = send(publication, tag=tag, private=private)
            row |= {"revision": pin.revision, "tag": tag, "index": str(publication.index)}
        rows.append(row)
        if not as_json:
            _print_publication(row)
    if as_json:
        print_json(rows if everything or len(rows) > 1 else rows[0])


def _chosen(runs: list[str] | None, everything: bool) -> list[str]:
    """The named models, or all embedded models with weights; names the records without weights on stderr."""
    from vtzoo.errors import VtzooError
    from vtzoo.zoo import lookup

    if bool(runs) == everything:
        raise typer.BadParameter("name the runs to publish, or publish --all embedded models", param_hint="RUN")
    if runs:
        return runs
    for record in lookup.weightless_models():
        typer.echo(f"{record.name} is a record without weights: not published", err=True)
    if not (names := [entry.name for entry in lookup.embedded_models()]):
        raise VtzooError("there are no weights of any embedded model here", "vtzoo publish RUN publishes a run")
    return names


def _print_publication(row: dict[str, Any]) -> None:
    """Print the published files, or those that a dry run would publish."""
    repo, sizes = row["repo"], row["files"]
    summary = f"{repo}: {len(sizes)} files, {byte_count(sum(sizes.values()))}"
    if "card" not in row:
        typer.echo(f"{summary}, commit {row['revision']}, tag {row['tag']}")
        typer.echo(f"entered in {row['index']}")
        typer.echo(f"next: vtzoo predict --model {repo} photo.jpg")
        return
    typer.echo(f"{summary}; nothing was sent")
    for path, size in sizes.items():
        typer.echo(f"  {byte_count(size):>10}  {path}")
    typer.echo(f"\nREADME.md:\n\n{row['card']}", nl=False)
