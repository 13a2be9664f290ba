"""Data sets on the Hugging Face Hub, through the `datasets` library and its own cache."""

import re
from types import ModuleType
from typing import Any

from vtzoo.base.wording import few
from vtzoo.data.labelled_images import LabelledImages
from vtzoo.data.split import SPLIT_NAMES
from vtzoo.errors import VtzooError

HUB_NAME = re.compile(r"([\w.-]+/[\w.-]+)(?:@(.+))?")


def library() -> ModuleType:
    """The `datasets` library; a VtzooError without the extra [train], which installs it."""
    try:
        import datasets
    except ImportError as error:
        raise VtzooError("reading data needs the datasets library", "pip install 'vtzoo[train]'") from error
    return datasets


def load_hub(hub_id: str, hint: str, config: str | None = None, **choice: str | None) -> Any:
    """The result of `datasets.load_dataset`; a failure is a VtzooError with the hint."""
    datasets = library()
    from huggingface_hub.errors import HTTPError  # a failed connection raises it, not an OSError

    try:
        return datasets.load_dataset(hub_id, config, **choice)
    except (OSError, ValueError, HTTPError, datasets.exceptions.DatasetsError) as error:
        reason = str(error).partition("\n")[0].rstrip(".")
        raise VtzooError(f"cannot read {hub_id} from the Hub: {reason}", hint) from error


def read_hub(name: str, *, image_column: str | None = None, label_column: str | None = None) -> LabelledImages:
    """The images of a data set on the Hub, ORG/NAME or ORG/NAME@REVISION."""
    from vtzoo.data.rows import Table, labelled_rows

    matched = HUB_NAME.fullmatch(name)
    if matched is None:
        raise VtzooError(f"no file or folder {name!r}", "give a folder, a CSV, a Parquet file or ORG/NAME on the Hub")
    hint = f"there is no file or folder {name!r} here either: check the name, the revision and the connection"
    loaded = dict(load_hub(matched[1], hint, revision=matched[2]))
    splits = {given: SPLIT_NAMES.get(given.lower(), "train" if len(loaded) == 1 else None) for given in loaded}
    left = [given for given, split in splits.items() if split is None]
    notes = (f"{name} also has {few(left)}: left out",) if left else ()
    tables = [Table(f"{name}:{given}", split, loaded[given]) for given, split in splits.items() if split is not None]
    if not tables:
        raise VtzooError(f"{name} has no train, but {few(left)}", "give a data set with a split train")
    return labelled_rows(tables, image_column, label_column, notes)
