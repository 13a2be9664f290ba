"""Steps and runs with batches in parts, against those with whole batches."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from vtzoo.errors import VtzooError
from vtzoo.train import loop, muon
from vtzoo.zoo.recipe import Recipe


def trained(recipe: Recipe, start: Callable[..., loop.Run], accumulate: int, folder: Path) -> dict[str, torch.Tensor]:
    """The tensors in the last checkpoint of a run with each batch of eight in `accumulate` parts."""
    run = start(recipe)
    run.accumulate = accumulate
    folder.mkdir()
    loop.fit(run, recipe, seed=0, identity="x", folder=folder)
    return load_file(folder / "checkpoint.safetensors")


@pytest.mark.parametrize("parts", [2, 4])
def test_a_step_in_parts_is_the_step_of_the_whole_batch(
    parts: int, tiny: Callable[..., Recipe], start: Callable[..., loop.Run]
) -> None:
    """Sums in another order change the gradients by less than 1e-6 of their norm. Pairs, mixtures and crops are drawn
    per image.
    """
    recipe, gradients, losses = tiny(drop_path_rate=0.0), [], []
    for accumulate in (1, parts):
        run = start(recipe)
        run.accumulate = accumulate
        optimizer = torch.optim.SGD(run.network.parameters(), lr=0.0)
        optimizer.zero_grad = lambda: None  # type: ignore[method-assign]
        step_losses = loop.train_step(
            run.network, optimizer, run.scaler, loop._parts(run, 16, 0), count=accumulate, weight=0.5, clip_norm=0.0,
            precision=torch.float32,
        )  # fmt: skip
        gradients.append(torch.cat([parameter.grad.flatten() for parameter in run.network.parameters()]))
        losses.append(step_losses)
    assert (gradients[0] - gradients[1]).norm() < 1e-6 * gradients[0].norm()
    for name, value in losses[0].items():
        torch.testing.assert_close(losses[1][name], value, rtol=1e-6, atol=0)


@pytest.mark.parametrize(("with_muon", "tolerance"), [(False, 1e-4), (True, 2e-3)])
def test_a_run_in_parts_ends_with_the_weights_of_a_whole_one(
    with_muon: bool, tolerance: float, tiny: Callable[..., Recipe], start: Callable[..., loop.Run], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """The tolerance is relative to each tensor's norm: Muon amplifies the directions that differ only by rounding."""
    monkeypatch.setattr(muon, "precision", lambda device: torch.float32)  # as in ranks.py
    monkeypatch.setattr(muon, "_by_gram", muon._by_product)
    recipe = tiny(muon=with_muon, drop_path_rate=0.0)
    whole, parts = (trained(recipe, start, accumulate, tmp_path / str(accumulate)) for accumulate in (1, 4))
    for name in whole:
        if name.startswith(("model.", "average.", "localizer.")):
            assert (parts[name] - whole[name]).norm() <= tolerance * whole[name].norm(), name


def test_parts_that_do_not_divide_a_batch_are_refused_before_the_training(
    tiny: Callable[..., Recipe], start: Callable[..., loop.Run]
) -> None:
    run = start(tiny())
    with pytest.raises(VtzooError, match="8 images"):
        loop.set_up(tiny(), run.network, run.batches, accumulate=3)
