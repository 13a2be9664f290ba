import json
import math
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from vtzoo import models
from vtzoo.drloc import DenseRelativeLocalization
from vtzoo.errors import VtzooError
from vtzoo.recipe import Recipe
from vtzoo.training import checkpoint, loop
from vtzoo.training.data import Batch
from vtzoo.training.optim import learning_rate_at

FOUR = {"depths": [1, 1, 1, 1], "num_heads": [1, 1, 2, 2], "image_size": 32}  # grids of 16, 8, 4 and 2 cells
STEPS = 12  # of the tiny recipe: 4 epochs of 3
NAMES = {"step", "loss", "cross_entropy", "localization", "accuracy"}

Starter = Callable[..., loop.Run]
Tiny = Callable[..., Recipe]
Hook = Callable[[loop.Run], object]


def lines(folder: Path) -> list[dict[str, float]]:
    """metrics.jsonl but for the seconds, which no two runs share."""
    found = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name != "seconds"} for line in found]


def go(run: loop.Run, recipe: Recipe, folder: Path, **options: Any) -> loop.Run:
    loop.fit(run, recipe, seed=0, identity="x", folder=folder, **options)
    return run


def resume(run: loop.Run, recipe: Recipe, folder: Path) -> loop.Run:
    run.step = checkpoint.restore(folder / "checkpoint.safetensors", run="x", **run.parts())
    return go(run, recipe, folder)


def before_step(monkeypatch: pytest.MonkeyPatch, number: int, act: Hook) -> None:
    """Have something happen, once, before the step that follows `number` others."""
    real = loop._step

    def step(run: loop.Run, recipe: Recipe, seed: int) -> dict[str, torch.Tensor]:
        if run.step == number and not done:
            done.append(number)
            act(run)
        return real(run, recipe, seed)

    done: list[int] = []
    monkeypatch.setattr(loop, "_step", step)


@pytest.fixture
def every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint after every step."""
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", -1)


@pytest.fixture(scope="module")
def whole(tiny: Tiny, start: Starter, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an uninterrupted run, with every source of randomness on."""
    folder = tmp_path_factory.mktemp("whole")
    go(start(tiny()), tiny(), folder)
    return folder


def assert_same(folder: Path, whole: Path) -> None:
    """The same losses, and the same weights, averages and moments, bit for bit."""
    assert lines(folder) == lines(whole)
    one, other = (load_file(place / "checkpoint.safetensors") for place in (folder, whole))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_run_logs_every_step_once_and_ends_with_a_checkpoint(whole: Path) -> None:
    found = lines(whole)
    assert [line["step"] for line in found] == list(range(1, STEPS + 1))
    assert all(line.keys() == NAMES and math.isfinite(line["loss"]) for line in found)
    assert sorted(path.name for path in whole.iterdir()) == ["checkpoint.safetensors", "metrics.jsonl"]


def test_two_runs_of_a_seed_are_the_same_and_another_seed_is_not(
    whole: Path, tiny: Tiny, start: Starter, tmp_path: Path
) -> None:
    go(start(tiny()), tiny(), tmp_path)
    assert_same(tmp_path, whole)
    other = tmp_path / "other"
    other.mkdir()
    loop.fit(start(tiny(), 1), tiny(), seed=1, identity="x", folder=other)
    assert {line["loss"] for line in lines(other)}.isdisjoint(line["loss"] for line in lines(whole))


class Killed(BaseException):
    """What ends a run at once in these tests."""


def die(run: loop.Run) -> None:
    raise Killed


@pytest.mark.usefixtures("every_step")
@pytest.mark.parametrize("number", [1, 3, 5, STEPS - 1])
def test_a_run_resumed_at_any_step_is_an_uninterrupted_one_bit_for_bit(
    number: int, whole: Path, tiny: Tiny, start: Starter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before_step(monkeypatch, number, die)
    with pytest.raises(Killed):
        go(start(tiny()), tiny(), tmp_path)
    resume(start(tiny()), tiny(), tmp_path)
    assert_same(tmp_path, whole)


def test_steps_after_the_last_checkpoint_are_taken_again(
    whole: Path, tiny: Tiny, start: Starter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def save(run: loop.Run) -> None:
        checkpoint.save(tmp_path / "checkpoint.safetensors", step=run.step, run="x", **run.parts())

    before_step(monkeypatch, 4, save)
    go(start(tiny()), tiny(), tmp_path)  # its log is whole, and half a line more
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 13, "lo')
    resume(start(tiny()), tiny(), tmp_path)
    assert_same(tmp_path, whole)


def test_a_finished_run_resumes_to_itself(whole: Path, tiny: Tiny, start: Starter, tmp_path: Path) -> None:
    for path in whole.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    resume(start(tiny()), tiny(), tmp_path)
    assert_same(tmp_path, whole)


@pytest.mark.parametrize("log", [None, "", '{"step": 3, "seconds": 1.0}\n', '{"step": 1', "[]\n" * STEPS])
def test_a_checkpoint_without_the_log_that_leads_up_to_it_is_refused(
    log: str | None, whole: Path, tiny: Tiny, start: Starter, tmp_path: Path
) -> None:
    (tmp_path / "checkpoint.safetensors").write_bytes((whole / "checkpoint.safetensors").read_bytes())
    if log is not None:
        (tmp_path / "metrics.jsonl").write_text(log)
    with pytest.raises(VtzooError, match=f"does not lead up to step {STEPS}"):
        resume(start(tiny()), tiny(), tmp_path)
    assert log is None or (tmp_path / "metrics.jsonl").read_text() == log


def interrupt(run: loop.Run) -> None:
    signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize("number", [0, 4, STEPS - 1])
def test_ctrl_c_ends_the_step_at_hand_and_leaves_a_checkpoint(
    number: int, whole: Path, tiny: Tiny, start: Starter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    handler = signal.getsignal(signal.SIGINT)
    before_step(monkeypatch, number, interrupt)
    with pytest.raises(KeyboardInterrupt):
        go(start(tiny()), tiny(), tmp_path)
    assert signal.getsignal(signal.SIGINT) is handler
    assert lines(tmp_path) == lines(whole)[: number + 1]
    resume(start(tiny()), tiny(), tmp_path)
    assert_same(tmp_path, whole)


def test_ctrl_c_before_the_first_step_leaves_a_checkpoint_too(
    whole: Path, tiny: Tiny, start: Starter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextmanager
    def at_once() -> Iterator[list[int]]:
        yield [signal.SIGINT]

    with monkeypatch.context() as patch:
        patch.setattr(loop, "_interruptions", at_once)
        with pytest.raises(KeyboardInterrupt):
            go(start(tiny()), tiny(), tmp_path)
    assert lines(tmp_path) == []
    resume(start(tiny(), 0), tiny(), tmp_path)
    assert_same(tmp_path, whole)


def test_a_second_ctrl_c_ends_the_run_at_once(
    tiny: Tiny, start: Starter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    handler = signal.getsignal(signal.SIGINT)
    before_step(monkeypatch, 2, lambda run: [interrupt(run), interrupt(run)])
    run = start(tiny())
    with pytest.raises(KeyboardInterrupt):
        go(run, tiny(), tmp_path)
    assert run.step == 2
    assert not (tmp_path / "checkpoint.safetensors").exists()
    assert signal.getsignal(signal.SIGINT) is handler


def poison_images(run: loop.Run) -> None:
    """The next batch holds NaN."""
    real = run.batches.batch

    def batch(step: int) -> Batch:
        run.batches.batch = real
        found = real(step)
        return Batch(images=torch.full_like(found.images, float("nan")), targets=found.targets)

    run.batches.batch = batch


@pytest.mark.usefixtures("every_step")
def test_a_loss_that_is_not_a_number_ends_the_run_with_the_last_checkpoint_intact(
    whole: Path, tiny: Tiny, start: Starter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before_step(monkeypatch, 5, poison_images)
    with pytest.raises(VtzooError, match="the loss is nan at step 6") as raised:
        go(start(tiny()), tiny(), tmp_path)
    assert "learning_rate" in str(raised.value.hint)
    assert lines(tmp_path) == lines(whole)[:5]
    resume(start(tiny()), tiny(), tmp_path)
    assert_same(tmp_path, whole)


def test_a_divergence_between_two_flushes_is_named_by_its_first_step(
    whole: Path, tiny: Tiny, start: Starter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before_step(monkeypatch, 5, poison_images)
    with pytest.raises(VtzooError, match="the loss is nan at step 6"):
        go(start(tiny()), tiny(), tmp_path)
    assert lines(tmp_path) == lines(whole)[:5]
    assert not (tmp_path / "checkpoint.safetensors").exists()


@pytest.mark.usefixtures("every_step")
def test_a_step_with_a_finite_loss_that_spoils_the_weights_is_not_saved(
    whole: Path, tiny: Tiny, start: Starter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spoil(run: loop.Run) -> None:
        parameter = run.model.head.fc.weight
        hook = parameter.register_hook(lambda gradient: [hook.remove(), gradient * float("nan")][1])

    before_step(monkeypatch, 5, spoil)
    with pytest.raises(VtzooError, match="the weights are not finite after step 6"):
        go(start(tiny()), tiny(), tmp_path)
    stored = load_file(tmp_path / "checkpoint.safetensors")
    assert all(tensor.isfinite().all() for tensor in stored.values())
    resume(start(tiny()), tiny(), tmp_path)
    assert_same(tmp_path, whole)


def test_a_baseline_starts_from_the_weights_of_its_twin_and_builds_no_head(
    tiny: Tiny, start: Starter, monkeypatch: pytest.MonkeyPatch
) -> None:
    twin = start(tiny())
    monkeypatch.setattr(loop, "DenseRelativeLocalization", None)
    baseline = start(tiny(baseline=True))
    assert baseline.head is None
    assert isinstance(twin.head, DenseRelativeLocalization)
    one, other = baseline.model.state_dict(), twin.model.state_dict()
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_twins_see_the_same_batches(tiny: Tiny, start: Starter) -> None:
    one, other = (start(tiny(baseline=baseline)).batches.batch(7) for baseline in (True, False))
    assert torch.equal(one.images, other.images)
    assert torch.equal(one.targets, other.targets)


def test_a_model_with_a_head_is_left_in_training_mode(tiny: Tiny, start: Starter) -> None:
    assert all(module.training for module in start(tiny()).model.modules())


@pytest.mark.parametrize(("stage", "channels"), [(0, 16), (1, 32), (2, 64), (-3, 32)])
def test_the_head_is_built_for_the_grid_of_its_stage(stage: int, channels: int, tiny: Tiny, start: Starter) -> None:
    assert start(tiny(stage=stage, **FOUR)).head.head[0].in_features == 2 * channels


@pytest.mark.parametrize("stage", [3, -1])
def test_a_grid_too_small_to_localize_in_is_refused(stage: int, tiny: Tiny, start: Starter) -> None:
    with pytest.raises(VtzooError, match="a 2x2 grid is too small to localize in") as raised:
        start(tiny(stage=stage, **FOUR))
    assert "earlier stage" in str(raised.value.hint)


@pytest.mark.parametrize("stage", [4, -5])
def test_a_stage_that_does_not_exist_is_refused(stage: int, tiny: Tiny, start: Starter) -> None:
    with pytest.raises(VtzooError, match=f"swin_t has 4 grids, so there is no stage {stage}") as raised:
        start(tiny(stage=stage, **FOUR))
    assert "0 to 3" in str(raised.value.hint)


def pairs() -> torch.Generator:
    return torch.Generator().manual_seed(11)


@pytest.mark.parametrize("stage", [0, 1])
def test_a_step_descends_on_cross_entropy_plus_weight_times_localization(
    stage: int, tiny: Tiny, start: Starter
) -> None:
    run = start(tiny(stage=stage, drop_path_rate=0.0))
    batch, parameters = run.batches.batch(0), [*run.model.parameters(), *run.head.parameters()]
    features, (grid,) = run.model.forward_intermediates(batch.images, indices=[stage], output_fmt="NCHW")
    assert grid.shape[-1] == (8, 4)[stage]
    cross_entropy = -(batch.targets * run.model.forward_head(features).log_softmax(1)).sum(1).mean()
    localization = run.head(grid, pairs())
    gradients = torch.autograd.grad(cross_entropy + 0.3 * localization, parameters)
    expected = [p.detach() - 0.1 * gradient for p, gradient in zip(parameters, gradients, strict=True)]
    losses = loop.train_step(
        run.model, run.head, torch.optim.SGD(parameters, lr=0.1), batch,
        stage=stage, weight=0.3, pairs=pairs(), clip_norm=0.0, precision=torch.float32,
    )  # fmt: skip
    torch.testing.assert_close(losses["cross_entropy"], cross_entropy.detach())
    torch.testing.assert_close(losses["localization"], localization.detach())
    torch.testing.assert_close(losses["loss"], (cross_entropy + 0.3 * localization).detach())
    for parameter, wanted in zip(parameters, expected, strict=True):
        torch.testing.assert_close(parameter.detach(), wanted)


def test_a_step_without_a_head_descends_on_the_cross_entropy_alone(tiny: Tiny, start: Starter) -> None:
    run = start(tiny(baseline=True, drop_path_rate=0.0))
    batch = run.batches.batch(0)
    with torch.no_grad():
        expected = torch.nn.functional.cross_entropy(run.model(batch.images), batch.targets)
    losses = loop.train_step(
        run.model, None, run.optimizer, batch,
        stage=-1, weight=0.0, pairs=pairs(), clip_norm=0.0, precision=torch.float32,
    )  # fmt: skip
    torch.testing.assert_close(losses["loss"], expected)
    assert losses["localization"] == 0


def test_a_gradient_is_clipped_to_its_norm_over_model_and_head(tiny: Tiny, start: Starter) -> None:
    run = start(tiny(baseline=False))
    parameters = [*run.model.parameters(), *run.head.parameters()]
    before = [parameter.detach().clone() for parameter in parameters]
    loop.train_step(
        run.model, run.head, torch.optim.SGD(parameters, lr=1.0), run.batches.batch(0),
        stage=1, weight=1.0, pairs=pairs(), clip_norm=0.01, precision=torch.float32,
    )  # fmt: skip
    moved = sum(((new.detach() - old) ** 2).sum() for new, old in zip(parameters, before, strict=True)) ** 0.5
    assert moved.item() == pytest.approx(0.01, rel=1e-3)


def test_the_model_runs_in_the_recipes_precision(tiny: Tiny, start: Starter, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    for precision in ("float32", "bfloat16"):
        recipe = tiny(precision=f'"{precision}"')
        run = start(recipe)
        run.model.head.fc.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
        assert loop._step(run, recipe, 0)["loss"].dtype == torch.float32
    assert seen == [torch.float32, torch.bfloat16]


def test_every_step_gets_the_rate_the_weight_and_the_stage_of_its_recipe(
    tiny: Tiny, start: Starter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, real = [], loop.train_step

    def spy(model: Any, head: Any, optimizer: torch.optim.Optimizer, batch: Batch, **how: Any) -> dict[str, Any]:
        rates = {group["lr"] for group in optimizer.param_groups}
        seen.append((rates, how["weight"], how["stage"], how["clip_norm"], how["precision"]))
        return real(model, head, optimizer, batch, **how)

    monkeypatch.setattr(loop, "train_step", spy)
    go(start(tiny(schedule_epochs=3)), tiny(schedule_epochs=3), tmp_path)
    weights = [0, 1 / 6, 1 / 3, 1 / 2, 5 / 12, 1 / 3, 1 / 4, 1 / 6, 1 / 12, 0, 0, 0]  # up in 3 steps, down in 6
    for step, ((rates, weight, *rest), expected) in enumerate(zip(seen, weights, strict=True), 1):
        rate = learning_rate_at(step / 3, peak=2e-3, warmup_epochs=1, cosine_epochs=4, final=1e-6)
        assert [*rates] == [pytest.approx(rate, rel=1e-12)]
        assert weight == pytest.approx(expected, abs=1e-12)
        assert rest == [1, 5.0, torch.float32]
    assert [*seen[-1][0]] == [pytest.approx(1e-6)]


def test_the_average_follows_the_weights_and_is_none_at_a_decay_of_zero(tiny: Tiny, start: Starter) -> None:
    assert start(tiny(ema_decay=0)).average is None
    recipe = tiny()
    run = start(recipe)
    before = run.average.tensors["head.fc.weight"].clone()
    loop._step(run, recipe, 0)
    after = run.model.head.fc.weight.detach()
    torch.testing.assert_close(run.average.tensors["head.fc.weight"], before + (1 - 2 / 11) * (after - before))


def test_a_small_set_is_learned_by_heart(tiny: Tiny, start: Starter, tmp_path: Path) -> None:
    recipe = tiny(
        epochs=40, cosine_epochs=40, schedule_epochs=40, batch_size=16, crop_padding=0, flip="false", mix_probability=0,
        erasing=0, label_smoothing=0, drop_path_rate=0.0, learning_rate=5e-3,
    )  # fmt: skip
    reports: list[loop.Progress] = []
    go(start(recipe, images=16), recipe, tmp_path, progress=reports.append)
    found = lines(tmp_path)
    assert found[0]["cross_entropy"] == pytest.approx(math.log(10), rel=0.1)  # it starts as a guess
    assert found[-1]["cross_entropy"] < 0.5
    assert found[-1]["accuracy"] == 1
    assert [(report.step, report.steps) for report in reports] == [(20, 40), (40, 40)]
    last = found[20:]
    assert reports[1].loss == pytest.approx(sum(line["loss"] for line in last) / 20)
    assert reports[1].accuracy == pytest.approx(sum(line["accuracy"] for line in last) / 20)
    assert reports[1].images_per_second > 0


def test_the_seconds_of_a_run_go_on_where_its_log_ended(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(json.dumps({"step": step, "seconds": 10.0 * step}) + "\n" for step in range(1, 6)))
    assert loop.Log(path, 3).seconds == 30.0
    assert len(path.read_text().splitlines()) == 3
    assert loop.Log(path, 0).seconds == 0.0
    assert path.read_text() == ""


def test_a_log_that_cannot_be_cut_back_stays_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "seconds": 1.0}\n{"step": 2, "seconds": 2.0}\n')
    before = path.read_text()
    monkeypatch.setattr(os, "replace", die)
    monkeypatch.setattr(Path, "replace", lambda self, target: die(self))
    with pytest.raises(Killed):
        loop.Log(path, 1)
    assert path.read_text() == before


def test_a_model_without_grids_has_nothing_to_localize_in(
    tiny: Tiny, start: Starter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(models, "build", lambda *_, **__: torch.nn.Linear(1, 1))
    with pytest.raises(VtzooError, match="no token grid to localize in"):
        start(tiny())
