"""Recipes to sweep, and a substitute for `vtzoo train` that does not train."""

import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from small_training import recipe_text as recipe_text
from small_training import tiny_data as tiny_data

from vtzoo.sweep import schedule, train_process
from vtzoo.zoo import resources

STUB = (sys.executable, "-I", "-S", str(Path(__file__).with_name("train.py")))


@pytest.fixture
def recipe(tmp_path: Path) -> Callable[..., str]:
    """Writes a copy of a recipe of the zoo with replaced or added values, and returns its path."""

    def write(name: str, of: str = "swin_t-drloc-cifar10-untaught", **replaced: str) -> str:
        text = (resources.recipes_folder() / f"{of}.toml").read_text()
        for key, value in replaced.items():
            text, found = re.subn(rf"(?m)^{key} = .*$", f"{key} = {value}", text, count=1)
            text = text if found else text.replace("\n\n", f"\n{key} = {value}\n\n", 1)
        (tmp_path / f"{name}.toml").write_text(text)
        return str(tmp_path / f"{name}.toml")

    return write


@pytest.fixture
def pair(recipe: Callable[..., str]) -> list[str]:
    """A recipe and its baseline: `with.toml` and `without.toml`."""
    return [recipe("with"), recipe("without", of="swin_t-baseline-cifar10-untaught")]


@pytest.fixture(autouse=True)
def _stub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train_process, "TRAIN", STUB)
    monkeypatch.setattr(schedule, "POLL", 0.01)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
