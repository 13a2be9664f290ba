"""Real torchrun processes with gloo, on one machine."""

import json
import os
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from forked import Python
from safetensors.torch import load_file

from vtzoo.data import named
from vtzoo.train import muon, run
from vtzoo.train.distributed import World, process_group

SCRIPT = Path(__file__).with_name("ranks.py")
OPTIMIZERS = ("adamw", "muon")
TOLERANCE = 1e-4  # relative, for the losses of twelve steps: ranks sum their gradients in another order

Torchrun = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def torchrun(training_python: Python) -> Torchrun:
    """Trains in the given number of processes, and asserts that they exit with 0.

    torchrun forks the processes, so that none has to import torch.
    """

    def torchrun(
        ranks: int, *arguments: object, restarts: int = 0, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        command = [
            "-m", "torch.distributed.run", "--run-path", "--start-method", "fork", "--nproc-per-node", ranks,
            "--standalone", "--max-restarts", restarts, "--monitor-interval", 0.05, SCRIPT, *arguments,
        ]  # fmt: skip
        done = training_python(*command, env={**os.environ, "OMP_NUM_THREADS": "1", **environment})
        assert done.returncode == 0, done.stderr[-4000:]
        return done

    return torchrun


def losses(folder: Path) -> list[dict[str, float]]:
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name != "seconds"} for line in records]


def assert_close(folder: Path, other: Path) -> None:
    actual, expected = losses(folder), losses(other)
    assert [line["step"] for line in actual] == [line["step"] for line in expected] == list(range(1, 13))
    for line, reference in zip(actual, expected, strict=True):
        assert line == pytest.approx(reference, rel=TOLERANCE)
    weights, references = (load_file(place / "checkpoint.safetensors") for place in (folder, other))
    for name in weights:
        if name.startswith(("model.", "average.", "localizer.")):
            torch.testing.assert_close(weights[name], references[name], rtol=1e-3, atol=1e-4)


@pytest.fixture(scope="module")
def recipes(recipe_text: Callable[..., str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A recipe file per optimizer, with all randomness but drop path, which each rank draws for itself."""
    folder = tmp_path_factory.mktemp("recipes")
    for name in OPTIMIZERS:
        (folder / f"{name}.toml").write_text(recipe_text(drop_path_rate=0.0, muon=name == "muon"))
    return {name: folder / f"{name}.toml" for name in OPTIMIZERS}


@pytest.fixture(scope="module")
def single_process(
    recipes: dict[str, Path], tiny_data: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """The folder of a run in one process, for each optimizer."""
    folder = tmp_path_factory.mktemp("alone")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(named.DATASETS, "cifar10", replace(named.named_set("cifar10"), train=24, test=20))
        patch.setattr(run, "finish", lambda *_, **__: {})  # these three as in ranks.py
        patch.setattr(muon, "precision", lambda device: torch.float32)
        patch.setattr(muon, "_by_gram", muon._by_product)
        for name, recipe in recipes.items():
            run.train(recipe, data=tiny_data, out=folder / name, device="cpu")
    return {name: folder / name for name in recipes}


@pytest.mark.parametrize(("ranks", "parts", "optimizer"), [(2, 1, "adamw"), (2, 2, "muon")])
def test_two_processes_have_the_losses_of_one(
    ranks: int, parts: int, optimizer: str, torchrun: Torchrun, recipes: dict[str, Path], tiny_data: Path,
    single_process: dict[str, Path], tmp_path: Path,
) -> None:  # fmt: skip
    torchrun(ranks, recipes[optimizer], tiny_data, tmp_path, PARTS=str(parts))
    assert_close(tmp_path, single_process[optimizer])


def test_a_killed_rank_starts_again_at_the_checkpoint(
    torchrun: Torchrun, recipes: dict[str, Path], tiny_data: Path, single_process: dict[str, Path], tmp_path: Path
) -> None:
    """Muon's checkpoint also has AdamW's moments."""
    torchrun(2, recipes["muon"], tiny_data, tmp_path, 7, restarts=1)
    assert (tmp_path / "restarts").read_text() == "1"  # rank 1 was killed
    assert_close(tmp_path, single_process["muon"])


def test_a_process_that_torchrun_did_not_start_is_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with process_group(torch.device("cpu")) as world:
        assert (world.rank, world.size, world.restarts) == (0, 1, 0)
        assert not torch.distributed.is_initialized()


def test_a_world_of_one_process_needs_no_process_group() -> None:
    world = World()
    assert world.leads
    assert world.any(True)
    assert not world.any(False)
    assert torch.equal(world.mean(torch.tensor([3.0])), torch.tensor([3.0]))
    world.wait()
