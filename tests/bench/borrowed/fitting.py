"""A recipe for the time at hand: as many epochs as fit, and everything of the schedule that depends on them."""

import sys
import tomllib
from dataclasses import dataclass
from typing import Any

from vtzoo import grid
from vtzoo.errors import VtzooError

SHARE = 0.9  # of the time, that the epochs may fill at the measured speed
WARM = 0.1  # of the epochs, that a warm-up takes at the most
AVERAGED = 1 / 20  # of the run, that the averaged weights cover at the most, as in recipes/grid.toml


@dataclass(frozen=True, kw_only=True)
class Pace:
    """How fast a recipe trains here."""

    steps_per_second: float
    steps_per_epoch: int

    def fitting(self, seconds: float) -> int:
        """How many epochs fit into a tenth less than the time."""
        return max(0, int(SHARE * seconds * self.steps_per_second / self.steps_per_epoch))

    def epochs(self, seconds: float, most: int | None = None) -> int:
        """The same, or `most` if that is less; none is a VtzooError."""
        epochs = min(self.fitting(seconds), most or sys.maxsize)
        if epochs < 1:
            raise VtzooError(
                f"no epoch of {self.steps_per_epoch} steps fits into {max(0, seconds):.0f} s at "
                f"{self.steps_per_second:.2f} steps a second",
                "give more minutes, or a smaller model",
            )
        return epochs


def fitted(text: str, epochs: int, steps_per_epoch: int) -> str:
    """The TOML of a recipe that is annealed within so many epochs."""
    recipe = tomllib.loads(text)
    schedule = recipe["schedule"]
    schedule |= {"epochs": epochs, "cosine_epochs": epochs, "warmup_epochs": _warm(schedule, epochs)}
    if schedule["ema_decay"]:
        covered = max(2.0, AVERAGED * epochs * steps_per_epoch)  # steps
        schedule["ema_decay"] = min(schedule["ema_decay"], round(1 - 1 / covered, 6))
    if drloc := recipe.get("drloc"):
        drloc |= {"warmup_epochs": _warm(drloc, epochs), "schedule_epochs": epochs}
    return _text(recipe)


def twin(text: str) -> str:
    """The TOML of a recipe's twin: all the same, without [drloc]. A baseline has none: a VtzooError."""
    recipe = tomllib.loads(text)
    if "drloc" not in recipe:
        raise VtzooError(f"{recipe['name']} is a baseline: it has no twin to train beside it", "leave out --twin")
    del recipe["drloc"]
    return _text(recipe | {"name": recipe["name"].replace("-drloc-", "-baseline-")})


def _warm(table: dict[str, Any], epochs: int) -> float:
    return min(table["warmup_epochs"], WARM * epochs)


def _text(recipe: dict[str, Any]) -> str:
    return grid.text(recipe, [key for key, value in recipe.items() if isinstance(value, dict)])
