"""Fine-tuning in the training loop: freezing, layer decay and early stopping."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from vtzoo.data.labelled_images import LabelledImages
from vtzoo.data.read import read_images
from vtzoo.finetune import run as tuning
from vtzoo.finetune.defaults import Overrides, complete
from vtzoo.finetune.run import finetune
from vtzoo.finetune.session import Session, prepare
from vtzoo.train import loop
from vtzoo.train.criterion import SINGLE_LABEL
from vtzoo.train.early_stopping import EarlyStopping

QUICK = Overrides(epochs=12)

pytestmark = pytest.mark.usefixtures("unfinished")


@pytest.fixture(scope="module")
def labelled(people: Path) -> LabelledImages:
    """Thirty training images, six validation images and twelve test images of three classes."""
    return read_images(people)


@pytest.fixture
def unfinished(monkeypatch: pytest.MonkeyPatch) -> None:
    """Skips the export and the card, which take seconds; `finetune` returns the result of the training."""
    monkeypatch.setattr(tuning, "finish", lambda *_, result, **__: result)


def session_of(source: Path | str, labelled: LabelledImages, *, muon: bool = False, **overrides: Any) -> Session:
    session = prepare(source, labelled, overrides=replace(QUICK, **overrides), device="cpu")
    if not muon:
        return session
    optimizer = replace(
        session.recipe.optimizer, name="muon", momentum=0.95, iterations=5, learning_rate=1e-2, adamw_learning_rate=1e-3
    )
    recipe, text = complete(replace(session.recipe, optimizer=optimizer))
    return replace(session, recipe=recipe, text=text)


@pytest.mark.parametrize("muon", [False, True])
def test_the_heads_train_alone_first_and_then_all_layers_train(
    muon: bool, tiny_source: Path, labelled: LabelledImages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved, real = [], loop._step

    def step(run: loop.Run, *rest: Any) -> Any:
        before = {name: tensor.detach().clone() for name, tensor in run.network.named_parameters()}
        result = real(run, *rest)
        moved.append({name for name, tensor in run.network.named_parameters() if not torch.equal(tensor, before[name])})
        return result

    monkeypatch.setattr(loop, "_step", step)
    session = session_of(tiny_source, labelled, muon=muon)
    finetune(session, tmp_path / "run")
    heads = {f"heads.0.{name}" for name, _ in session.network.heads[0].named_parameters()} | {
        "model.head.fc.weight", "model.head.fc.bias",
    }  # fmt: skip
    assert all(names == heads for names in moved[:6])
    assert moved[10] == {name for name, _ in session.network.named_parameters()}  # the last learning rates are almost 0


def test_the_learning_rate_of_a_layer_falls_with_its_distance_from_the_head(
    tiny_source: Path, labelled: LabelledImages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rates: list[dict[str, float]] = []
    real = loop.train_step

    def spy(joint: Any, optimizer: torch.optim.Optimizer, *rest: Any, **how: Any) -> Any:
        named = {id(parameter): name for name, parameter in joint.named_parameters()}
        rates.append({named[id(p)]: group["lr"] for group in optimizer.param_groups for p in group["params"]})
        return real(joint, optimizer, *rest, **how)

    monkeypatch.setattr(loop, "train_step", spy)
    finetune(session_of(tiny_source, labelled), tmp_path / "run")
    assert rates[0]["model.head.fc.weight"] == rates[0]["heads.0.head.0.weight"] == 1e-3
    rate = rates[10]
    depth = {"head.fc": 0, "norm": 1, "layers.1.blocks.0.norm1": 1, "layers.0.blocks.0.norm1": 2, "patch_embed.proj": 3}
    for layer, below in depth.items():
        assert rate[f"model.{layer}.weight"] == pytest.approx(0.8**below * rate["heads.0.head.0.weight"])


def test_the_weights_of_the_best_evaluation_are_published_and_ten_without_improvement_end_a_run(
    tiny_source: Path, labelled: LabelledImages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, scores, real = [], iter([0.2, 0.5, *[0.4] * 40]), EarlyStopping.evaluate

    def evaluate(self: EarlyStopping, model: Any, tensors: dict[str, torch.Tensor], step: int) -> None:
        seen.append({name: tensor.clone() for name, tensor in tensors.items()})
        real(self, model, tensors, step)

    monkeypatch.setattr(EarlyStopping, "evaluate", evaluate)
    monkeypatch.setattr(Session, "criterion", replace(SINGLE_LABEL, score=lambda *_: next(scores)))
    session = session_of(tiny_source, labelled, epochs=30)
    result = finetune(session, tmp_path / "run")
    assert len(seen) == 12
    assert (result.best_step, result.steps) == (2 * 3, 12 * 3)
    assert all(torch.equal(seen[1][name], tensor) for name, tensor in session.network.model.state_dict().items())
    assert not torch.equal(seen[1]["head.fc.weight"], seen[-1]["head.fc.weight"])


def test_a_run_that_stopped_early_resumes_to_the_same_weights_without_another_step(
    tiny_source: Path, labelled: LabelledImages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    constant = replace(SINGLE_LABEL, score=lambda *_: 0.5, loss=lambda x, y: SINGLE_LABEL.loss(x, y) * 0 + 1)
    monkeypatch.setattr(Session, "criterion", constant)
    sessions = [session_of(tiny_source, labelled, epochs=30) for _ in range(2)]
    result = finetune(sessions[0], tmp_path / "run")
    assert result.steps == 11 * 3
    monkeypatch.setattr(loop, "train_step", None)
    assert finetune(sessions[1], tmp_path / "run", resume=True) == result
    first, resumed = (session.network.model.state_dict() for session in sessions)
    assert all(torch.equal(first[name], tensor) for name, tensor in resumed.items())


@pytest.mark.parametrize(
    ("step", "muon"),  # around the end of the heads' six steps, and later
    [(5, False), (6, False), (7, False), (20, False), (6, True)],
)
def test_a_run_interrupted_before_a_step_resumes_to_the_same_weights(
    step: int, muon: bool, tiny_source: Path, labelled: LabelledImages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException): ...

    def killed(run: loop.Run, *rest: Any) -> Any:
        if run.step == step:
            raise Killed
        return real(run, *rest)

    real, sessions = loop._step, [session_of(tiny_source, labelled, muon=muon) for _ in range(3)]
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", -1)
    finetune(sessions[0], tmp_path / "whole")
    monkeypatch.setattr(loop, "_step", killed)
    with pytest.raises(Killed):
        finetune(sessions[1], tmp_path / "run")
    monkeypatch.setattr(loop, "_step", real)
    finetune(sessions[2], tmp_path / "run", resume=True)
    whole, resumed = (load_file(tmp_path / name / "checkpoint.safetensors") for name in ("whole", "run"))
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(whole[name], tensor) for name, tensor in resumed.items())
