import errno
import os
import pickle
import resource
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from vtzoo.errors import VtzooError
from vtzoo.train import checkpoint, loop
from vtzoo.zoo.recipe import Recipe

ID = "recipe/0"


def state(run: loop.Run) -> dict[str, torch.Tensor]:
    """A copy of all state that a checkpoint must restore."""
    tensors = dict(checkpoint._tensors(run.model, run.localizer, run.average))
    for index, (parameter, _) in enumerate(checkpoint._moments(run.optimizer)):
        moments = run.optimizer.state.get(parameter, {})
        tensors |= {f"optimizer.{index}.{name}": tensor for name, tensor in moments.items()}
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def save(run: loop.Run, path: Path, step: int | None = None) -> None:
    checkpoint.save(path, step=run.step if step is None else step, run=ID, **run.parts())


def refused(run: loop.Run, path: Path, identity: str = ID) -> str:
    """The message of the error when the run restores the checkpoint; asserts that the run stays unchanged."""
    before = state(run)
    with pytest.raises(VtzooError) as raised:
        checkpoint.restore(path, run=identity, **run.parts())
    assert same(before, state(run))
    assert raised.value.hint
    assert str(path) in raised.value.message
    return raised.value.message


@pytest.fixture(params=["adamw", "muon"])
def fresh(
    request: pytest.FixtureRequest, tiny: Callable[..., Recipe], start: Callable[..., loop.Run]
) -> Callable[..., loop.Run]:
    """Makes a run of the tiny recipe after the given number of steps, with either optimizer."""

    def make(steps: int = 0, seed: int = 0, **edits: Any) -> loop.Run:
        recipe = tiny(muon=request.param == "muon", **edits)
        run = start(recipe, seed)
        for _ in range(steps):
            loop._step(run, run.network, recipe, seed)
            run.step += 1
        return run

    return make


def test_a_checkpoint_brings_back_everything(fresh: Callable[..., loop.Run], tmp_path: Path) -> None:
    run, other = fresh(2), fresh(1, seed=4)
    save(run, tmp_path / "c.safetensors")
    assert not same(state(run), state(other))
    assert checkpoint.restore(tmp_path / "c.safetensors", run=ID, **other.parts()) == 2
    assert same(state(run), state(other))
    assert [path.name for path in tmp_path.iterdir()] == ["c.safetensors"]


def test_a_checkpoint_before_the_first_step_has_no_moments(fresh: Callable[..., loop.Run], tmp_path: Path) -> None:
    run, other = fresh(), fresh(seed=4)
    save(run, tmp_path / "c.safetensors")
    assert checkpoint.restore(tmp_path / "c.safetensors", run=ID, **other.parts()) == 0
    assert same(state(run), state(other))


def test_a_parameter_without_a_gradient_is_restored(fresh: Callable[..., loop.Run], tmp_path: Path) -> None:
    runs = [fresh(), fresh(seed=4)]
    for run, value in zip(runs, (1.0, 2.0), strict=True):
        run.model.idle = torch.nn.Parameter(torch.full((3,), value))
        run.optimizer.add_param_group({"params": [run.model.idle]})
        run.average = None
    sum(parameter.sum() for parameter in runs[0].model.head.parameters()).backward()
    runs[0].optimizer.step()
    save(runs[0], tmp_path / "c.safetensors", step=1)
    checkpoint.restore(tmp_path / "c.safetensors", run=ID, **runs[1].parts())
    assert same(state(runs[0]), state(runs[1]))
    assert runs[1].model.idle.tolist() == [1, 1, 1]


@pytest.mark.parametrize("identity", ["another/0", "recipe/1"])
def test_a_checkpoint_of_another_recipe_or_seed_is_refused(
    identity: str, fresh: Callable[..., loop.Run], tmp_path: Path
) -> None:
    save(fresh(1), tmp_path / "c.safetensors")
    message = refused(fresh(1, seed=4), tmp_path / "c.safetensors", identity)
    assert "another recipe, seed, data set or teacher" in message


def test_a_truncated_checkpoint_is_refused(fresh: Callable[..., loop.Run], tmp_path: Path) -> None:
    run, path = fresh(1), tmp_path / "c.safetensors"
    save(run, path)
    content, other = path.read_bytes(), fresh(1, seed=4)
    for length in (0, 4, 8, 100, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:length])
        assert "cannot read the checkpoint" in refused(other, path)


def test_a_checkpoint_with_a_damaged_header_is_refused(fresh: Callable[..., loop.Run], tmp_path: Path) -> None:
    run, path = fresh(1), tmp_path / "c.safetensors"
    save(run, path)
    content = bytearray(path.read_bytes())
    content[8:12] = b"\xff\xff\xff\xff"
    path.write_bytes(content)
    assert "cannot read the checkpoint" in refused(run, path)


def test_a_missing_checkpoint_is_refused(fresh: Callable[..., loop.Run], tmp_path: Path) -> None:
    assert "cannot read the checkpoint" in refused(fresh(), tmp_path / "c.safetensors")


def test_a_file_of_other_weights_is_refused(fresh: Callable[..., loop.Run], tmp_path: Path) -> None:
    save_file({"weight": torch.zeros(2)}, tmp_path / "c.safetensors")
    assert "another recipe" in refused(fresh(), tmp_path / "c.safetensors")


def test_a_checkpoint_that_lacks_or_adds_a_tensor_is_refused(fresh: Callable[..., loop.Run], tmp_path: Path) -> None:
    run, path = fresh(1), tmp_path / "c.safetensors"
    save(run, path)
    stored = load_file(path)
    for name in ("model.head.fc.bias", "localizer.head.0.weight", "average.head.fc.bias", "optimizer.0.exp_avg"):
        kept = {key: tensor for key, tensor in stored.items() if key != name}
        save_file(kept, path, metadata={"step": "1", "run": ID, "updates": "1", "scaler": "{}"})
        assert "has not the tensors of this run" in refused(run, path)
    save_file(
        stored | {"model.more": torch.zeros(1)}, path, metadata={"step": "1", "run": ID, "updates": "1", "scaler": "{}"}
    )
    assert "model.more" in refused(run, path)


@pytest.mark.parametrize("name", ["model.head.fc.bias", "optimizer.0.exp_avg", "average.head.fc.bias"])
@pytest.mark.parametrize("wrong", [torch.zeros(3), "double"])
def test_a_checkpoint_with_another_shape_or_type_is_refused(
    name: str, wrong: Any, fresh: Callable[..., loop.Run], tmp_path: Path
) -> None:
    run, path = fresh(1), tmp_path / "c.safetensors"
    save(run, path)
    stored = load_file(path)
    stored[name] = stored[name].double() if wrong == "double" else wrong
    save_file(stored, path, metadata={"step": "1", "run": ID, "updates": "1", "scaler": "{}"})
    assert f"{name} in" in refused(run, path)


def test_a_baseline_does_not_go_on_from_its_twins_checkpoint(fresh: Callable[..., loop.Run], tmp_path: Path) -> None:
    save(fresh(1), tmp_path / "c.safetensors")
    assert "localizer" in refused(fresh(1, baseline=True), tmp_path / "c.safetensors")


class Planted:
    """An object whose unpickling creates the file that it names."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize(
    "write", [lambda content, path: path.write_bytes(pickle.dumps(content)), torch.save], ids=["pickle", "torch"]
)
def test_a_pickle_under_the_checkpoints_name_is_refused_and_never_run(
    write: Callable[..., None], fresh: Callable[..., loop.Run], tmp_path: Path
) -> None:
    path, trace = tmp_path / "c.safetensors", tmp_path / "it ran"
    write(Planted(trace), path)
    assert "cannot read the checkpoint" in refused(fresh(), path)
    assert not trace.exists()


def test_a_checkpoint_is_plain_safetensors(fresh: Callable[..., loop.Run], tmp_path: Path) -> None:
    save(fresh(1), tmp_path / "c.safetensors")
    with safe_open(tmp_path / "c.safetensors", framework="np") as file:
        assert file.metadata() == {"step": "1", "run": ID, "updates": "1", "scaler": "{}"}
        assert {name.split(".")[0] for name in file.keys()} == {"model", "localizer", "average", "optimizer"}  # noqa: SIM118


@pytest.fixture
def small_files() -> Iterator[None]:
    """Limits this process to files of 64 KiB, like a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def raise_disk_full(*_: Any, **__: Any) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def assert_failed_save_changes_nothing(run: loop.Run, path: Path, before: bytes) -> None:
    with pytest.raises(VtzooError, match="cannot write") as raised:
        save(run, path, step=9)
    assert "--resume" in str(raised.value.hint)
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("place", ["vtzoo.train.checkpoint.save_file", "os.fsync", "pathlib.Path.replace"])
def test_the_last_checkpoint_survives_a_failure_to_write(
    place: str, fresh: Callable[..., loop.Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, path = fresh(1), tmp_path / "c.safetensors"
    save(run, path)
    before = path.read_bytes()
    monkeypatch.setattr(place, raise_disk_full)
    assert_failed_save_changes_nothing(run, path, before)


def test_the_last_checkpoint_survives_a_disk_that_fills_up(
    fresh: Callable[..., loop.Run], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    run, path = fresh(1), tmp_path / "c.safetensors"
    save(run, path)
    before = path.read_bytes()
    request.getfixturevalue("small_files")
    assert_failed_save_changes_nothing(run, path, before)


def test_a_file_half_written_by_a_killed_run_is_harmless(fresh: Callable[..., loop.Run], tmp_path: Path) -> None:
    run, path = fresh(1), tmp_path / "c.safetensors"
    save(run, path)
    partial = path.with_name(f".{path.name}.0.partial")
    partial.write_bytes(path.read_bytes()[:1000])
    assert checkpoint.restore(path, run=ID, **run.parts()) == 1
    save(run, path, step=2)
    assert checkpoint.restore(path, run=ID, **run.parts()) == 2
    assert not partial.exists()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("where", ["weight", "moment"])
def test_weights_that_are_not_finite_never_replace_a_checkpoint(
    value: float, where: str, fresh: Callable[..., loop.Run], tmp_path: Path
) -> None:
    run, path = fresh(1), tmp_path / "c.safetensors"
    save(run, path)
    before, parameter = path.read_bytes(), run.optimizer.param_groups[-1]["params"][-1]
    tensor = parameter.data if where == "weight" else run.optimizer.state[parameter]["exp_avg_sq"]
    tensor.view(-1)[0] = value
    with pytest.raises(VtzooError, match="not finite after step 2"):
        save(run, path, step=2)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("muon", "matrices", "rate"),
    [
        (True, True, "(Muon's, optimizer.learning_rate in the recipe)"),
        (True, False, "(that of AdamW beside Muon, optimizer.adamw_learning_rate in the recipe)"),
        (False, False, "(AdamW's, --learning-rate when fine-tuning, optimizer.learning_rate in a recipe)"),
    ],
)
def test_the_hint_for_weights_that_are_not_finite_names_the_rate_of_their_optimizer(
    muon: bool, matrices: bool, rate: str, tiny: Callable[..., Recipe], start: Callable[..., loop.Run], tmp_path: Path
) -> None:
    run = start(tiny(muon=muon))
    group = next(group for group in run.optimizer.param_groups if ("matrices" in group) == matrices)
    group["params"][0].data.view(-1)[0] = float("inf")
    with pytest.raises(VtzooError) as raised:
        save(run, tmp_path / "c.safetensors")
    assert raised.value.hint == f"lower the learning rate {rate}, or train in float32; the last checkpoint is intact"
