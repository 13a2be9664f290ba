"""Fixtures for tests of single commands: the command line, and a substitute for the training function."""

from collections.abc import Callable
from typing import Any
from unittest.mock import Mock

import pytest
from typer.testing import CliRunner, Result

from vtzoo.cli import app
from vtzoo.zoo.result import Result as TrainResult


@pytest.fixture
def vt() -> Callable[..., Result]:
    """The command `vtzoo`, as a function of its arguments."""

    def run(*arguments: Any) -> Result:
        return CliRunner().invoke(app, [str(argument) for argument in arguments], prog_name="vtzoo")

    return run


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> Mock:
    """Replaces the function that `vtzoo train` calls with one that returns a result at once."""
    train = Mock(return_value=TrainResult(top1=0.61234, top5=1.0, images=10_000))
    monkeypatch.setattr("vtzoo.train.run.train", train)
    return train
