"""Matches the classes of data with those of a model, by exact names only."""

import re
from collections.abc import Sequence
from difflib import get_close_matches
from unicodedata import normalize

import numpy as np

from vtzoo.base.wording import SHOWN, counted, few
from vtzoo.errors import VtzooError

UNKNOWN = -1  # the index of a class that the model lacks
ALIKE = 0.8  # difflib's least similarity, 0 to 1, of a name that may be meant


def match(data: Sequence[str], model: Sequence[str]) -> np.ndarray:
    """The model's index of each of the data's classes, int64 (classes of the data,); UNKNOWN for a class it lacks.

    Names match if their composed forms (NFC) are equal, because macOS decomposes names. Names that differ in case, or
    between `_`, `-` and a space, do not match: `refusal` suggests them.
    """
    numbers: dict[str, int] = {}
    for number, label in enumerate(model):
        if (other := numbers.setdefault(normalize("NFC", label), number)) != number:
            message = f"classes {other} and {number} of the model are both called {label!r}"
            raise VtzooError(message, "rename one of them in label_names of its config.json")
    return np.array([numbers.get(normalize("NFC", name), UNKNOWN) for name in data], dtype=np.int64)


def similar(name: str, labels: Sequence[str]) -> list[str]:
    """The labels that a name may mean: those that differ only in case and separators, or else the nearest label."""
    same = [label for label in labels if _plain(label) == _plain(name)]
    return same or get_close_matches(name, labels, n=1, cutoff=ALIKE)


def refusal(
    lacking: Sequence[str], of: int, images: int, labels: Sequence[str], *, model: str, data: str, skippable: bool
) -> VtzooError:
    """The error for a model that lacks some of the data's `of` classes, those of `images` images.

    `skippable` says whether images of other classes are left.
    """
    meant = [f"{near!r} for {name!r}" for name in lacking[:SHOWN] for near in similar(name, labels)]
    hints = [f"did you mean {', '.join(meant)}? give the data the model's names"] if meant else []
    if skippable:
        hints.append("leave these images out: --skip-unknown")
    else:
        hints.append(f"teach it these classes: vtzoo finetune --model {model} --data {data}")
    hints.append(f"vtzoo show {model} lists the classes that it knows")
    message = f"{model} lacks {_share(len(lacking), of)} in {data}, {few(lacking)}"
    return VtzooError(f"{message}: those of {counted(images, 'image')}", "; ".join(hints))


def _share(lacking: int, of: int) -> str:
    if lacking < of:
        return f"{lacking:,} of the {of:,} classes"
    return "the only class" if of == 1 else f"all {of:,} classes"


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]+", "", normalize("NFC", name).casefold())
