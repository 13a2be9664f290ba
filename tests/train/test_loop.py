import errno
import json
import math
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch.amp.grad_scaler import GradScaler

from vtzoo.drloc import DenseRelativeLocalization
from vtzoo.errors import VtzooError
from vtzoo.models import localizer
from vtzoo.train import checkpoint, loop
from vtzoo.train.curves import draw_curves
from vtzoo.train.log import Log
from vtzoo.train.model_with_drloc import ModelWithDrloc
from vtzoo.train.optim import learning_rate_at
from vtzoo.train.pipeline.batches import Batch
from vtzoo.zoo.recipe import PRECISIONS, Recipe

STEPS = 12  # of the tiny recipe: 4 epochs of 3
NAMES = {"step", "loss", "cross_entropy", "localization", "accuracy", "learning_rate"}

Starter = Callable[..., loop.Run]
Tiny = Callable[..., Recipe]
Hook = Callable[[loop.Run], object]


def lines(folder: Path) -> list[dict[str, float]]:
    """The lines of metrics.jsonl without the seconds, which differ between runs."""
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name != "seconds"} for line in records]


def fit(run: loop.Run, recipe: Recipe, folder: Path, **options: Any) -> loop.Run:
    folder.mkdir(exist_ok=True)
    loop.fit(run, recipe, seed=0, identity="x", folder=folder, **options)
    return run


def resume(run: loop.Run, recipe: Recipe, folder: Path) -> loop.Run:
    run.step = checkpoint.restore(folder / "checkpoint.safetensors", run="x", **run.parts())
    return fit(run, recipe, folder)


def before_step(monkeypatch: pytest.MonkeyPatch, number: int, act: Hook) -> None:
    """Call `act` once, after `number` steps."""
    real = loop._step

    def step(run: loop.Run, *rest: Any) -> tuple[float, dict[str, torch.Tensor]]:
        if run.step == number and not done:
            done.append(number)
            act(run)
        return real(run, *rest)

    done: list[int] = []
    monkeypatch.setattr(loop, "_step", step)


@pytest.fixture
def every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """Writes a checkpoint after every step."""
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", -1)


@pytest.fixture(scope="module")
def whole(tiny: Tiny, start: Starter, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an uninterrupted run, with every source of randomness on."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vtzoo.train.log.draw_curves", draw_curves)
        fit(start(tiny()), tiny(), folder)
    return folder


def assert_same(folder: Path, whole: Path) -> None:
    """Assert equal losses, weights, averages and moments, bit for bit."""
    assert lines(folder) == lines(whole)
    actual, expected = (load_file(place / "checkpoint.safetensors") for place in (folder, whole))
    assert actual.keys() == expected.keys()
    assert all(torch.equal(actual[name], expected[name]) for name in actual)


def test_a_run_logs_every_step_once_and_ends_with_a_checkpoint(whole: Path) -> None:
    records = lines(whole)
    assert [line["step"] for line in records] == list(range(1, STEPS + 1))
    assert all(line.keys() == NAMES and math.isfinite(line["loss"]) for line in records)
    names = {path.name for path in whole.iterdir()} - {"tensorboard"}  # an optional package
    assert names == {"checkpoint.safetensors", "curves.png", "metrics.jsonl"}


def test_two_runs_of_a_seed_are_the_same_and_another_seed_is_not(
    whole: Path, tiny: Tiny, start: Starter, tmp_path: Path
) -> None:
    fit(start(tiny()), tiny(), tmp_path)
    assert_same(tmp_path, whole)
    other = tmp_path / "other"
    other.mkdir()
    loop.fit(start(tiny(), 1), tiny(), seed=1, identity="x", folder=other)
    assert {line["loss"] for line in lines(other)}.isdisjoint(line["loss"] for line in lines(whole))


class Killed(BaseException):
    """The exception that ends a run at once in these tests."""


def die(run: loop.Run) -> None:
    raise Killed


@pytest.mark.usefixtures("every_step")
@pytest.mark.parametrize("number", [1, 3, 5, STEPS - 1])
def test_a_run_resumed_at_any_step_equals_an_uninterrupted_run_bit_for_bit(
    number: int, whole: Path, tiny: Tiny, start: Starter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before_step(monkeypatch, number, die)
    with pytest.raises(Killed):
        fit(start(tiny()), tiny(), tmp_path)
    resume(start(tiny()), tiny(), tmp_path)
    assert_same(tmp_path, whole)


@pytest.mark.usefixtures("every_step")
@pytest.mark.parametrize("muon", [False, True])
def test_a_run_in_fp16_resumes_with_the_scale_of_its_losses_and_the_steps_it_skipped(
    muon: bool, tiny: Tiny, start: Starter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The scale starts so high that the first steps overflow: the optimizer skips them, and the scale is halved."""
    recipe = tiny(precision='"float16"', muon=muon)

    def fresh() -> loop.Run:
        run = start(recipe)
        run.scaler = GradScaler("cpu", init_scale=2.0**60, growth_interval=3)
        return run

    fit(fresh(), recipe, tmp_path / "whole")
    before_step(monkeypatch, 7, die)
    with pytest.raises(Killed):
        fit(fresh(), recipe, tmp_path / "killed")
    resume(fresh(), recipe, tmp_path / "killed")
    assert_same(tmp_path / "killed", tmp_path / "whole")
    metadata = [safe_open(tmp_path / name / "checkpoint.safetensors", "pt").metadata() for name in ("killed", "whole")]
    assert metadata[0] == metadata[1]
    assert int(metadata[0]["updates"]) < STEPS
    assert json.loads(metadata[0]["scaler"])["scale"] < 2.0**60


@pytest.mark.usefixtures("every_step")
def test_a_run_resumes_after_a_disk_that_filled_up_while_the_log_was_written(
    whole: Path, tiny: Tiny, start: Starter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write_half_a_line(log: Log, lines: list[dict[str, Any]]) -> None:
        with (tmp_path / "metrics.jsonl").open("a") as file:
            file.write(json.dumps(lines[0])[:20])
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        before_step(patch, 5, lambda run: patch.setattr(Log, "_write", write_half_a_line))
        with pytest.raises(OSError, match="No space left"):
            fit(start(tiny()), tiny(), tmp_path)
    resume(start(tiny()), tiny(), tmp_path)
    assert_same(tmp_path, whole)


def test_steps_after_the_last_checkpoint_are_taken_again(
    whole: Path, tiny: Tiny, start: Starter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def save(run: loop.Run) -> None:
        checkpoint.save(tmp_path / "checkpoint.safetensors", step=run.step, run="x", **run.parts())

    before_step(monkeypatch, 4, save)
    fit(start(tiny()), tiny(), tmp_path)  # its log is complete, plus half a line
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 13, "lo')
    resume(start(tiny()), tiny(), tmp_path)
    assert_same(tmp_path, whole)


def test_a_finished_run_resumes_to_itself(whole: Path, tiny: Tiny, start: Starter, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(whole, folder)
    resume(start(tiny()), tiny(), folder)
    assert_same(folder, whole)


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
def test_ctrl_c_ends_the_run_after_the_current_step_with_a_checkpoint(
    number: int, whole: Path, tiny: Tiny, start: Starter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    handler = signal.getsignal(signal.SIGINT)
    before_step(monkeypatch, number, interrupt)
    with pytest.raises(KeyboardInterrupt):
        fit(start(tiny()), tiny(), tmp_path)
    assert signal.getsignal(signal.SIGINT) is handler
    assert lines(tmp_path) == lines(whole)[: number + 1]
    resume(start(tiny()), tiny(), tmp_path)
    assert_same(tmp_path, whole)


def test_ctrl_c_before_the_first_step_leaves_a_checkpoint_too(
    whole: Path, tiny: Tiny, start: Starter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextmanager
    def interrupted() -> Iterator[list[int]]:
        yield [signal.SIGINT]

    with monkeypatch.context() as patch:
        patch.setattr(loop, "_interruptions", interrupted)
        with pytest.raises(KeyboardInterrupt):
            fit(start(tiny()), tiny(), tmp_path)
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
        fit(run, tiny(), tmp_path)
    assert run.step == 2
    assert not (tmp_path / "checkpoint.safetensors").exists()
    assert signal.getsignal(signal.SIGINT) is handler


def poison_images(run: loop.Run) -> None:
    """Put NaN into the next batch."""
    real = run.batches.batch

    def batch(*place: int) -> Batch:
        run.batches.batch = real
        clean = real(*place)
        return replace(clean, images=torch.full_like(clean.images, float("nan")))

    run.batches.batch = batch


@pytest.mark.usefixtures("every_step")
def test_a_loss_that_is_not_a_number_ends_the_run_with_the_last_checkpoint_intact(
    whole: Path, tiny: Tiny, start: Starter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before_step(monkeypatch, 5, poison_images)
    with pytest.raises(VtzooError, match=r"the loss is nan at step 6, at a learning rate of 0\.001") as raised:
        fit(start(tiny()), tiny(), tmp_path)
    assert "AdamW's, --learning-rate when fine-tuning, optimizer.learning_rate in a recipe" in str(raised.value.hint)
    assert lines(tmp_path) == lines(whole)[:5]
    resume(start(tiny()), tiny(), tmp_path)
    assert_same(tmp_path, whole)


def test_the_hint_for_a_loss_that_is_not_a_number_names_both_rates_of_a_muon_recipe(
    tiny: Tiny, start: Starter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before_step(monkeypatch, 2, poison_images)
    with pytest.raises(VtzooError, match="the loss is nan at step 3") as raised:
        fit(start(tiny(muon=True)), tiny(muon=True), tmp_path)
    assert "(Muon's, optimizer.learning_rate in the recipe; " in str(raised.value.hint)
    assert "AdamW beside Muon, optimizer.adamw_learning_rate in the recipe)" in str(raised.value.hint)


def test_a_rate_that_is_too_high_for_muon_ends_the_run_with_a_hint_to_lower_it(
    tiny: Tiny, start: Starter, tmp_path: Path
) -> None:
    recipe = tiny(muon=True, learning_rate=1e30, clip_norm=0)
    with pytest.raises(VtzooError, match="the loss is nan at step") as raised:
        fit(start(recipe), recipe, tmp_path)
    assert "Muon's, optimizer.learning_rate" in str(raised.value.hint)


def test_a_divergence_between_two_flushes_is_named_by_its_first_step(
    whole: Path, tiny: Tiny, start: Starter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before_step(monkeypatch, 5, poison_images)
    with pytest.raises(VtzooError, match="the loss is nan at step 6"):
        fit(start(tiny()), tiny(), tmp_path)
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
        fit(start(tiny()), tiny(), tmp_path)
    stored = load_file(tmp_path / "checkpoint.safetensors")
    assert all(tensor.isfinite().all() for tensor in stored.values())
    resume(start(tiny()), tiny(), tmp_path)
    assert_same(tmp_path, whole)


def test_a_baseline_starts_from_the_weights_of_its_twin_and_builds_no_head(
    tiny: Tiny, start: Starter, monkeypatch: pytest.MonkeyPatch
) -> None:
    twin = start(tiny())
    monkeypatch.setattr(localizer, "DenseRelativeLocalization", None)
    baseline = start(tiny(baseline=True))
    assert baseline.localizer is None
    assert isinstance(twin.localizer, DenseRelativeLocalization)
    weights, expected = baseline.model.state_dict(), twin.model.state_dict()
    assert weights.keys() == expected.keys()
    assert all(torch.equal(weights[name], expected[name]) for name in weights)


def test_twins_see_the_same_batches(tiny: Tiny, start: Starter) -> None:
    of_baseline, of_twin = (start(tiny(baseline=baseline)).batches.batch(7) for baseline in (True, False))
    assert torch.equal(of_baseline.images, of_twin.images)
    assert torch.equal(of_baseline.targets, of_twin.targets)


def test_a_model_with_a_head_is_left_in_training_mode(tiny: Tiny, start: Starter) -> None:
    assert all(module.training for module in start(tiny()).model.modules())


def parts(run: loop.Run, step: int = 0) -> list[tuple[Batch, torch.Tensor | None]]:
    """A batch of the run as one part, with points to localize if the run has a head."""
    return [(run.batches.batch(step), torch.rand(8, 16, 2, 2) if run.localizer else None)]


def disabled_scaler() -> GradScaler:
    return GradScaler("cpu", enabled=False)


@pytest.mark.parametrize("stage", [0, 1])
def test_a_step_descends_on_cross_entropy_plus_weight_times_localization(
    stage: int, tiny: Tiny, start: Starter
) -> None:
    run = start(tiny(stage=stage, drop_path_rate=0.0))
    ((batch, points),), parameters = (step_parts := parts(run)), [*run.network.parameters()]
    features, (grid,) = run.model.forward_intermediates(batch.images, indices=[stage], output_fmt="NCHW")
    assert grid.shape[-1] == (8, 4)[stage]
    cross_entropy = -(batch.targets * run.model.forward_head(features).log_softmax(1)).sum(1).mean()
    localization = run.localizer(grid, points=points)
    gradients = torch.autograd.grad(cross_entropy + 0.3 * localization, parameters)
    expected = [p.detach() - 0.1 * gradient for p, gradient in zip(parameters, gradients, strict=True)]
    losses = loop.train_step(
        run.network, torch.optim.SGD(parameters, lr=0.1), disabled_scaler(), step_parts,
        count=1, weight=0.3, clip_norm=0.0, precision=torch.float32,
    )  # fmt: skip
    torch.testing.assert_close(losses["cross_entropy"], cross_entropy.detach())
    torch.testing.assert_close(losses["localization"], localization.detach())
    torch.testing.assert_close(losses["loss"], (cross_entropy + 0.3 * localization).detach())
    for parameter, value in zip(parameters, expected, strict=True):
        torch.testing.assert_close(parameter.detach(), value)


def test_a_step_without_a_head_descends_on_the_cross_entropy_alone(tiny: Tiny, start: Starter) -> None:
    run = start(tiny(baseline=True, drop_path_rate=0.0))
    batch = run.batches.batch(0)
    with torch.no_grad():
        expected = torch.nn.functional.cross_entropy(run.model(batch.images), batch.targets)
    losses = loop.train_step(
        run.network, run.optimizer, disabled_scaler(), [(batch, None)],
        count=1, weight=0.0, clip_norm=0.0, precision=torch.float32,
    )  # fmt: skip
    torch.testing.assert_close(losses["loss"], expected)
    assert losses["localization"] == 0


def test_a_gradient_is_clipped_to_its_norm_over_model_and_head(tiny: Tiny, start: Starter) -> None:
    run = start(tiny(baseline=False))
    parameters = [*run.network.parameters()]
    before = [parameter.detach().clone() for parameter in parameters]
    loop.train_step(
        run.network, torch.optim.SGD(parameters, lr=1.0), disabled_scaler(), parts(run),
        count=1, weight=1.0, clip_norm=0.01, precision=torch.float32,
    )  # fmt: skip
    moved = sum(((new.detach() - old) ** 2).sum() for new, old in zip(parameters, before, strict=True)) ** 0.5
    assert moved.item() == pytest.approx(0.01, rel=1e-3)


def test_the_model_runs_in_the_recipes_precision(tiny: Tiny, start: Starter, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    for precision in PRECISIONS:
        recipe = tiny(precision=f'"{precision}"')
        run = start(recipe)
        run.model.head.fc.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
        assert loop._step(run, run.network, recipe, 0)[1]["loss"].dtype == torch.float32
    assert seen == [torch.float32, torch.bfloat16, torch.float16]


def test_every_step_gets_the_rate_the_weight_and_the_stage_of_its_recipe(
    tiny: Tiny, start: Starter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, real = [], loop.train_step

    def spy(network: ModelWithDrloc, optimizer: torch.optim.Optimizer, *rest: Any, **options: Any) -> dict[str, Any]:
        rates = {group["lr"] for group in optimizer.param_groups}
        seen.append((rates, options["weight"], network.stages, options["clip_norm"], options["precision"]))
        return real(network, optimizer, *rest, **options)

    monkeypatch.setattr(loop, "train_step", spy)
    fit(start(tiny(schedule_epochs=3)), tiny(schedule_epochs=3), tmp_path)
    weights = [0, 1 / 6, 1 / 3, 1 / 2, 5 / 12, 1 / 3, 1 / 4, 1 / 6, 1 / 12, 0, 0, 0]  # up in 3 steps, down in 6
    for step, ((rates, weight, *rest), expected) in enumerate(zip(seen, weights, strict=True), 1):
        rate = learning_rate_at(step / 3, peak=2e-3, warmup_epochs=1, cosine_epochs=4, final=1e-6)
        assert [*rates] == [pytest.approx(rate, rel=1e-12)]
        assert weight == pytest.approx(expected, abs=1e-12)
        assert rest == [[1], 5.0, torch.float32]
    assert [*seen[-1][0]] == [pytest.approx(1e-6)]


def test_the_average_follows_the_weights_and_is_none_at_a_decay_of_zero(tiny: Tiny, start: Starter) -> None:
    assert start(tiny(ema_decay=0)).average is None
    recipe = tiny()
    run = start(recipe)
    before = run.average.tensors["head.fc.weight"].clone()
    loop._step(run, run.network, recipe, 0)
    after = run.model.head.fc.weight.detach()
    torch.testing.assert_close(run.average.tensors["head.fc.weight"], before + (1 - 2 / 11) * (after - before))


def test_a_small_training_set_is_memorized(tiny: Tiny, start: Starter, tmp_path: Path) -> None:
    recipe = tiny(
        epochs=40, cosine_epochs=40, schedule_epochs=40, batch_size=16, crop_padding=0, flip="false", mix_probability=0,
        erasing=0, label_smoothing=0, drop_path_rate=0.0, learning_rate=5e-3,
    )  # fmt: skip
    reports: list[loop.Progress] = []
    fit(start(recipe, images=16), recipe, tmp_path, progress=reports.append)
    records = lines(tmp_path)
    assert records[0]["cross_entropy"] == pytest.approx(math.log(10), rel=0.1)  # an untrained model guesses
    assert records[-1]["cross_entropy"] < 0.5
    assert records[-1]["accuracy"] == 1
    assert [(report.step, report.steps) for report in reports] == [(20, 40), (40, 40)]
    last_records = records[20:]
    assert reports[1].loss == pytest.approx(sum(line["loss"] for line in last_records) / 20)
    assert reports[1].accuracy == pytest.approx(sum(line["accuracy"] for line in last_records) / 20)
    assert reports[1].images_per_second > 0
