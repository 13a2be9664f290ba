"""The command `vtzoo pull`."""

from pathlib import Path
from typing import Annotated

import typer

from vtzoo.cli.options import JsonOption, RevisionOption, byte_count, print_json


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
    """Download all files of models from the Hub and verify their hashes; the models then work without a network.

    The files are in the Hub's own cache (in $HF_HOME). Other commands download the files that they need by themselves.
    --json prints an object, or a list for several models.
    """
    from vtzoo.errors import VtzooError
    from vtzoo.hub import fetch

    if local_dir and len(models) > 1:
        raise VtzooError(f"--local-dir takes one model, not {len(models)}", "pull them one by one")
    rows = []
    for model in models:
        entry = fetch.pull(model, revision=revision, folder=local_dir)
        sizes = {path: (entry.folder / path).stat().st_size for path in fetch.FILES if (entry.folder / path).exists()}
        rows.append({"name": entry.name, "folder": str(entry.folder), "files": sizes})
        if not as_json:
            size = byte_count(sum(sizes.values()))
            typer.echo(f"{entry.name}: {len(sizes)} files, {size}, verified, in {entry.folder}")
            typer.echo(f"next: vtzoo predict --model {local_dir or model} photo.jpg")
    if as_json:
        print_json(rows if len(rows) > 1 else rows[0])
