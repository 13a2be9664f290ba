"""Which class of a model each class of the data is: by its name, never by a guess."""

import re
from collections.abc import Sequence
from difflib import get_close_matches
from unicodedata import normalize

import numpy as np

from vtzoo.data.found import SHOWN, counted, few
from vtzoo.errors import VtzooError

UNKNOWN = -1  # the number of a class that the model lacks
ALIKE = 0.8  # of difflib's likeness, 0 to 1, from which on a name may be meant


def match(data: Sequence[str], model: Sequence[str]) -> np.ndarray:
    """The model's number of each of the data's classes, int64 (classes of the data,); UNKNOWN where it has none.

    Names are the same where their composed forms (NFC) are: macOS decomposes what is typed on other systems. Any other
    difference, in case or between `_`, `-` and a space, is one: `refusal` asks whether it is meant.
    """
    numbers: dict[str, int] = {}
    for number, label in enumerate(model):
        if (other := numbers.setdefault(normalize("NFC", label), number)) != number:
            told = f"classes {other} and {number} of the model are both called {label!r}"
            raise VtzooError(told, "rename one of them in label_names of its config.json")
    return np.array([numbers.get(normalize("NFC", name), UNKNOWN) for name in data], dtype=np.int64)


def similar(name: str, labels: Sequence[str]) -> list[str]:
    """The labels that a name may stand for: those that differ in case and separators alone, else the nearest one."""
    same = [label for label in labels if _plain(label) == _plain(name)]
    return same or get_close_matches(name, labels, n=1, cutoff=ALIKE)


def refusal(
    lacking: Sequence[str], of: int, images: int, labels: Sequence[str], *, model: str, data: str, skippable: bool
) -> VtzooError:
    """The error where the model lacks some of the data's classes, `of` in all, with so many images.

    `skippable` says whether others have images, so that these can be left out.
    """
    meant = [f"{near!r} for {name!r}" for name in lacking[:SHOWN] for near in similar(name, labels)]
    hints = [f"did you mean {', '.join(meant)}? give the data the model's names"] if meant else []
    if skippable:
        hints.append("leave these images out: --skip-unknown")
    else:
        hints.append(f"teach it these classes: vtzoo finetune --model {model} --data {data}")
    hints.append(f"vtzoo show {model} lists the classes that it knows")
    told = f"{model} lacks {_share(len(lacking), of)} in {data}, {few(lacking)}"
    return VtzooError(f"{told}: those of {counted(images, 'image')}", "; ".join(hints))


def _share(lacking: int, of: int) -> str:
    if lacking < of:
        return f"{lacking:,} of the {of:,} classes"
    return "the only class" if of == 1 else f"all {of:,} classes"


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]+", "", normalize("NFC", name).casefold())
