"""Real training processes, killed with SIGKILL."""

import json
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from forked import Python
from safetensors.torch import load_file

EPOCHS = 5  # of three steps, as in killed_training.py
COLOURS = """color_jitter = 0.4
rand_augment = { operations = 2, magnitude = 9.0, magnitude_std = 0.5, probability = 0.5 }
"""
SCRIPT = Path(__file__).with_name("killed_training.py")


class Trainer:
    """Starts a training process in a folder, and kills it on demand."""

    def __init__(self, python: Python, source: Path, data: Path, whole: Path) -> None:
        self.python, self.source, self.data, self.whole = python, source, data, whole
        began = time.monotonic()
        assert self.train(whole) == 0
        self.seconds = time.monotonic() - began

    def train(self, folder: Path, kill_after: float | None = None, workers: int = 0) -> int:
        """Train, or resume, in `folder`; return the exit code: 0, or -9 after a kill in time."""
        done = self.python(SCRIPT, self.source, self.data, folder, workers, cwd=folder.parent, kill_after=kill_after)
        assert done.returncode in (-signal.SIGKILL, 0), done.stderr
        return done.returncode


@pytest.fixture(scope="module", params=["train", "train with muon", "finetune"])
def trainer(
    request: pytest.FixtureRequest, training_python: Python, recipe_text: Callable[..., str], tiny_data: Path,
    tiny_source: Path, people: Path, tmp_path_factory: pytest.TempPathFactory,
) -> Trainer:  # fmt: skip
    """A trainer after one run without a kill."""
    folder = tmp_path_factory.mktemp("kill")
    text = recipe_text(
        muon="muon" in request.param, epochs=EPOCHS, cosine_epochs=EPOCHS, schedule_epochs=EPOCHS
    )  # fmt: skip
    (folder / "recipe.toml").write_text(text.replace("flip = true\n", f"flip = true\n{COLOURS}"))
    arguments = (tiny_source, people) if request.param == "finetune" else (folder / "recipe.toml", tiny_data)
    return Trainer(training_python, *arguments, folder / "whole")


def lines(folder: Path) -> list[dict[str, float]]:
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name != "seconds"} for line in records]


def killed_at_random(trainer: Trainer, folder: Path, seed: int) -> None:
    """Kill a run at a random moment, resume it to its end, and compare it with the undisturbed run.

    With an odd seed, two processes decode a recipe's images, before the kill and after it.
    """
    moment, workers = random.Random(seed).random() * trainer.seconds, 2 * (seed % 2)
    trainer.train(folder, kill_after=moment, workers=workers)  # the run may be faster than the timed one
    assert trainer.train(folder, workers=workers) == 0
    assert len(lines(folder)) == 3 * EPOCHS
    assert lines(folder) == lines(trainer.whole)
    actual, expected = (load_file(place / "checkpoint.safetensors") for place in (folder, trainer.whole))
    assert actual.keys() == expected.keys()
    assert all(torch.equal(actual[name], expected[name]) for name in actual)


@pytest.mark.parametrize("seed", range(3))
def test_a_run_killed_at_a_random_moment_resumes_to_the_same_losses(
    seed: int, trainer: Trainer, tmp_path: Path
) -> None:
    killed_at_random(trainer, tmp_path / "run", seed)


@pytest.mark.stress
@pytest.mark.parametrize("seed", range(3, 23))
def test_a_run_killed_at_twenty_random_moments_resumes_to_the_same_losses(
    seed: int, trainer: Trainer, tmp_path: Path
) -> None:
    killed_at_random(trainer, tmp_path / "run", seed)


def test_a_run_killed_repeatedly_ends_with_the_same_losses(trainer: Trainer, tmp_path: Path) -> None:
    for seed in range(3):
        if trainer.train(tmp_path / "run", kill_after=random.Random(seed).uniform(0.2, 0.5) * trainer.seconds) == 0:
            break
    assert trainer.train(tmp_path / "run") == 0
    assert lines(tmp_path / "run") == lines(trainer.whole)
