"""Fits a recipe to the available time: the number of epochs, and the parts of the schedule that depend on it."""

import sys
import tomllib
from dataclasses import dataclass
from typing import Any

from vtzoo import grid
from vtzoo.errors import VtzooError

SHARE = 0.9  # part of the time that the epochs may take, at the measured speed
WARMUP = 0.1  # largest part of the epochs that a warm-up takes
AVERAGED = 1 / 20  # largest part of the run that the averaged weights cover, as in recipes/grid.toml


@dataclass(frozen=True, kw_only=True)
class Pace:
    """The speed of a recipe on this machine."""

    steps_per_second: float
    steps_per_epoch: int

    def fitting_epochs(self, seconds: float) -> int:
        """The number of epochs that fit into nine tenths of the time."""
        return max(0, int(SHARE * seconds * self.steps_per_second / self.steps_per_epoch))

    def epochs(self, seconds: float, most: int | None = None) -> int:
        """The number of epochs that fit, but at most `most`; a time too short for an epoch is a VtzooError."""
        epochs = min(self.fitting_epochs(seconds), most or sys.maxsize)
        if epochs < 1:
            raise VtzooError(
                f"no epoch of {self.steps_per_epoch} steps fits into {max(0, seconds):.0f} s at "
                f"{self.steps_per_second:.2f} steps a second",
                "give more minutes, or a smaller model",
            )
        return epochs


def fitted(text: str, epochs: int, steps_per_epoch: int) -> str:
    """The TOML of a recipe, with its whole schedule fitted to `epochs`."""
    recipe = tomllib.loads(text)
    schedule = recipe["schedule"]
    schedule |= {"epochs": epochs, "cosine_epochs": epochs, "warmup_epochs": _warmup(schedule, epochs)}
    if schedule["ema_decay"]:
        covered = max(2.0, AVERAGED * epochs * steps_per_epoch)  # steps
        schedule["ema_decay"] = min(schedule["ema_decay"], round(1 - 1 / covered, 6))
    if drloc := recipe.get("drloc"):
        drloc |= {"warmup_epochs": _warmup(drloc, epochs), "schedule_epochs": epochs}
    return _text(recipe)


def twin(text: str) -> str:
    """The TOML of a recipe's twin: the same with the baseline's name, without [drloc]. A baseline is a VtzooError."""
    recipe = tomllib.loads(text)
    if "drloc" not in recipe:
        raise VtzooError(f"{recipe['name']} is a baseline: it has no twin to train beside it", "leave out --twin")
    del recipe["drloc"]
    return _text(recipe | {"name": recipe["name"].replace("-drloc-", "-baseline-")})


def _warmup(table: dict[str, Any], epochs: int) -> float:
    return min(table["warmup_epochs"], WARMUP * epochs)


def _text(recipe: dict[str, Any]) -> str:
    return grid.text(recipe, [key for key, value in recipe.items() if isinstance(value, dict)])
