"""The commands that speak with the Hugging Face Hub: publish, pull and verify."""

from pathlib import Path
from typing import Annotated, Any

import typer

from .options import BackendOption, DataOption, DeviceOption, JsonOption, RevisionOption, print_json


def publish(
    org: Annotated[str, typer.Option("--org", metavar="ORG", help="User or organization.", show_default=False)],
    runs: Annotated[
        list[str] | None,
        typer.Argument(metavar="RUN", help="Folders of finished runs, or embedded models.", show_default=False),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Publish all embedded models.")] = False,
    private: Annotated[bool, typer.Option("--private", help="Make a repository that only ORG can see.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be published, and send nothing.")] = False,
    tag: Annotated[str, typer.Option("--tag", metavar="TAG", help="Name of this version.")] = "v1.0",
    index: Annotated[
        Path | None, typer.Option("--index", metavar="FILE", help="Index to enter it in; index.toml beside the run.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Publish models on the Hugging Face Hub as ORG/NAME: one commit each, of weights, ONNX, recipe, metrics, card.

    Nothing is published without its metrics, with weights that are not finite, or with another recipe than the run's.
    Stopped at any moment, the same command goes on; what is published already is not sent again. The card is rendered
    from result.json, whatever README.md says: `vtzoo card RUN` shows it. --json prints an object; a list of several,
    and with --all.

    Log in first: hf auth login; or set HF_TOKEN.
    """
    from vtzoo.publish import prepare
    from vtzoo.publish import publish as send

    told = []
    for run in _chosen(runs, everything):
        publication = prepare(run, org, index)
        row: dict[str, Any] = {"repo": publication.repo}
        row["files"] = {path: content.size for path, content in publication.contents.items()}
        if dry_run:
            row["card"] = publication.files["README.md"].decode()
        else:
            pin = send(publication, tag=tag, private=private)
            row |= {"revision": pin.revision, "tag": tag, "index": str(publication.index)}
        told.append(row)
        if not as_json:
            _tell_publication(row)
    if as_json:
        print_json(told if everything or len(told) > 1 else told[0])


def _chosen(runs: list[str] | None, everything: bool) -> list[str]:
    """The models to publish: those named, or all whose weights are here; a record of others is told."""
    from vtzoo import zoo
    from vtzoo.errors import VtzooError

    if bool(runs) == everything:
        raise typer.BadParameter("name the runs to publish, or publish --all embedded models", param_hint="RUN")
    if runs:
        return runs
    for record in zoo.records():
        typer.echo(f"{record.name} is a record without weights: not published", err=True)
    if not (names := [entry.name for entry in zoo.entries()]):
        raise VtzooError("there are no weights of any embedded model here", "vtzoo publish RUN publishes a run")
    return names


def _tell_publication(row: dict[str, Any]) -> None:
    """What was published, or what a dry run would publish."""
    repo, sizes = row["repo"], row["files"]
    told = f"{repo}: {len(sizes)} files, {_size(sum(sizes.values()))}"
    if "card" not in row:
        typer.echo(f"{told}, commit {row['revision']}, tag {row['tag']}")
        typer.echo(f"entered in {row['index']}")
        typer.echo(f"next: vtzoo predict --model {repo} photo.jpg")
        return
    typer.echo(f"{told}; nothing was sent")
    for path, size in sizes.items():
        typer.echo(f"  {_size(size):>10}  {path}")
    typer.echo(f"\nREADME.md:\n\n{row['card']}", nl=False)


def pull(
    models: Annotated[
        list[str], typer.Argument(metavar="MODEL", help="NAME, ORG/NAME or ORG/NAME@REVISION.", show_default=False)
    ],
    revision: RevisionOption = None,
    local_dir: Annotated[
        Path | None, typer.Option("--local-dir", metavar="FOLDER", help="Copy the model folder here, too.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Download models from the Hub, all their files, checked by their hashes; then they work without a network.

    They are kept in the Hub's own cache (in $HF_HOME). Other commands download what they need by themselves. --json
    prints an object, or a list of several.
    """
    from vtzoo import hub
    from vtzoo.errors import VtzooError

    if local_dir and len(models) > 1:
        raise VtzooError(f"--local-dir takes one model, not {len(models)}", "pull them one by one")
    told = []
    for model in models:
        entry = hub.pull(model, revision=revision, folder=local_dir)
        sizes = {path: (entry.folder / path).stat().st_size for path in hub.FILES if (entry.folder / path).exists()}
        told.append({"name": entry.name, "folder": str(entry.folder), "files": sizes})
        if not as_json:
            typer.echo(f"{entry.name}: {len(sizes)} files, {_size(sum(sizes.values()))}, verified, in {entry.folder}")
            typer.echo(f"next: vtzoo predict --model {local_dir or model} photo.jpg")
    if as_json:
        print_json(told if len(told) > 1 else told[0])


def verify(
    model: Annotated[
        str | None, typer.Argument(metavar="[MODEL]", help="One model; without, all that are here.", show_default=False)
    ] = None,
    metrics: Annotated[bool, typer.Option("--metrics", help="Measure the accuracy on its card again.")] = False,
    data: DataOption = None,
    backend: BackendOption = "auto",
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Hash the files of a model, or of all models here, again; with --metrics, measure its accuracy again too.

    Exit code 1 where a file is not what it should be, or where the accuracy is not the one on the card.
    """
    from vtzoo import hub
    from vtzoo.errors import VtzooError

    verdicts = hub.verify(model)
    rows = [{**vars(verdict), "damaged": list(verdict.damaged)} for verdict in verdicts]
    if metrics:
        if model is None or rows[0]["damaged"]:
            raise VtzooError("--metrics measures one model, whose files are sound", "vtzoo verify MODEL --metrics")
        rows[0] |= _measure(model, data, backend, device)
    if as_json:
        print_json(rows)
    else:
        for row in rows:
            _tell(row)
    if any(row["damaged"] or not row.get("reproduced", True) for row in rows):
        raise typer.Exit(1)


def _measure(model: str, data: Path | None, backend: str, device: str) -> dict[str, Any]:
    """What a new measurement gives, and whether it is what the card says."""
    from vtzoo.evaluation.metrics import reproduce
    from vtzoo.progress import counting

    with counting("evaluating") as count:
        return reproduce(model, data, backend=backend, device=device, progress=count)


def _tell(row: dict[str, Any]) -> None:
    name = row["name"] + (f"@{row['revision'][:12]}" if row["revision"] else "")
    state = f"DAMAGED: {', '.join(row['damaged'])}" if row["damaged"] else f"{row['files']} files as they should be"
    typer.echo(f"{name}: {state}")
    if row["damaged"]:
        typer.echo(f"Hint: vtzoo pull {row['name']} downloads them again", err=True)
    for key, name in (("top1", "top-1"), ("map", "mAP")):
        if key in row:
            same = "as" if row["reproduced"] else "NOT as"
            typer.echo(f"{name} {row[key]:.2%} on {row['images']:,} images, {same} on its card: {row['stated']:.2%}")


def _size(size: int) -> str:
    return f"{size / 1e6:,.1f} MB" if size >= 1e5 else f"{size:,} bytes"
