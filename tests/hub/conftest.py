"""A local Hub per test, and processes that use only this Hub."""

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from forked import Python

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))  # the modules of the server, which also run by themselves

from server import Hub  # noqa: E402


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    """An empty Hub."""
    with Hub(tmp_path / "hub") as hub:
        yield hub
    assert hub.failures == []


@pytest.fixture
def run(hub: Hub, python: Python, tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a Python program, or `-m module arguments`, that uses only the test's Hub.

    `home` is the folder of its downloads; `token` is None without a login; if `hurried`, it waits a twentieth of the
    time before it retries. Other keywords are environment variables.
    """

    def run(
        *arguments: object, home: Path = tmp_path / "home", token: str | None = "hf_write", hurried: bool = False,
        **variables: str,
    ) -> subprocess.CompletedProcess[str]:  # fmt: skip
        switch = [] if arguments[0] == "-m" else ["-c"]
        known = hub.environment(home, token) | {"PYTHONPATH": str(HERE.parents[1])} | variables
        return python(*switch, *arguments, env=known, hurried=hurried)

    return run


@pytest.fixture
def vt(run: Callable[..., subprocess.CompletedProcess[str]]) -> Callable[..., subprocess.CompletedProcess[str]]:
    """The command `vtzoo` in a new process; it must print no traceback and no token, and exit with 0 if `check`."""

    def vt(*arguments: object, check: bool = True, **settings: Any) -> subprocess.CompletedProcess[str]:
        done = run("-m", "vtzoo", *arguments, **settings)
        told = done.stdout + done.stderr
        assert "Traceback" not in told, told
        assert str(settings.get("token", "hf_write")) not in told, "a token was printed"
        assert done.returncode == 0 or not check, told
        return done

    return vt


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run; tests that change it take `folder`."""
    from folders import NAME, make_run

    return make_run(tmp_path_factory.mktemp("runs") / NAME)


@pytest.fixture
def folder(finished: Path, tmp_path: Path) -> Path:
    """A copy of the finished run."""
    return shutil.copytree(finished, tmp_path / "runs" / finished.name)


@pytest.fixture(scope="session")
def files(finished: Path) -> dict[str, bytes]:
    """The published files of the finished run, content by path."""
    from vtzoo.publish.commit import prepare

    return prepare(finished, "zoo").files
