"""A Hub of a test's own, and processes that know no other."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))  # the modules of the server, which also run by themselves

from server import Hub  # noqa: E402


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    """A Hub with no repository."""
    with Hub(tmp_path / "hub") as hub:
        yield hub
    assert hub.failures == []


@pytest.fixture
def run(hub: Hub, tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a Python program, or `-m module arguments`, that knows the test's Hub alone.

    `home` is where it keeps its downloads, and `token` is None for nobody; other keywords are environment variables.
    """

    def run(
        *arguments: object, home: Path = tmp_path / "home", token: str | None = "hf_write", **variables: str
    ) -> subprocess.CompletedProcess[str]:
        switch = [] if arguments[0] == "-m" else ["-c"]
        command = [sys.executable, *switch, *map(str, arguments)]
        known = hub.environment(home, token) | {"PYTHONPATH": str(HERE.parents[1])} | variables
        return subprocess.run(command, capture_output=True, text=True, env=known, timeout=120)

    return run
