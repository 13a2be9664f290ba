"""The classes of the data matched with a model's classes: by exact name, never by a guess."""

import re
from collections.abc import Sequence
from difflib import get_close_matches
from unicodedata import normalize

import numpy as np

from vtzoo.base.wording import SHOWN, counted, few
from vtzoo.errors import VtzooError

UNKNOWN = -1  # the number of a class that the model lacks
ALIKE = 0.8  # difflib's similarity, 0 to 1: names from here on are suggested


def match(data: Sequence[str], model: Sequence[str]) -> np.ndarray:
    """The model's number of each class of the data, int64 (classes of the data,); UNKNOWN for a class that it lacks.

    Names are compared in their composed form (NFC), because macOS decomposes accents. Names that differ in any other
    way, in case or in `_`, `-` and spaces, are different classes: `refusal` suggests similar ones. Two classes of the
    model with one name are a VtzooError.
    """
    numbers: dict[str, int] = {}
    for number, label in enumerate(model):
        if (other := numbers.setdefault(normalize("NFC", label), number)) != number:
            message = f"classes {other} and {number} of the model are both called {label!r}"
            raise VtzooError(message, "rename one of them in label_names of its config.json")
    return np.array([numbers.get(normalize("NFC", name), UNKNOWN) for name in data], dtype=np.int64)


def similar(name: str, labels: Sequence[str]) -> list[str]:
    """The labels that differ from the name only in case and separators; without any, the most similar label."""
    same = [label for label in labels if _plain(label) == _plain(name)]
    return same or get_close_matches(name, labels, n=1, cutoff=ALIKE)


def refusal(
    lacking: Sequence[str], of: int, images: int, labels: Sequence[str], *, model: str, data: str, skippable: bool
) -> VtzooError:
    """The error of a model that lacks some of the data's classes, `of` in all, which `images` images have.

    `skippable` says whether other images remain if these are left out.
    """
    meant = [f"{near!r} for {name!r}" for name in lacking[:SHOWN] for near in similar(name, labels)]
    hints = [f"did you mean {', '.join(meant)}? give the data the model's names"] if meant else []
    hints += [
        "leave these images out: --skip-unknown" if skippable
        else f"fine-tune on these classes: vtzoo finetune --model {model} --data {data}",
        f"vtzoo show {model} lists the classes that it knows",
    ]  # fmt: skip
    message = f"{model} lacks {_share(len(lacking), of)} in {data}, {few(lacking)}"
    return VtzooError(f"{message}: those of {counted(images, 'image')}", "; ".join(hints))


def _share(lacking: int, of: int) -> str:
    if lacking < of:
        return f"{lacking:,} of the {of:,} classes"
    return "the only class" if of == 1 else f"all {of:,} classes"


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]+", "", normalize("NFC", name).casefold())
