from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from vtzoo import models
from vtzoo.drloc import DISTRIBUTIONS
from vtzoo.errors import VtzooError
from vtzoo.train import loop
from vtzoo.zoo.recipe import LOSSES, Recipe

FOUR = {"depths": [1, 1, 1, 1], "num_heads": [1, 1, 2, 2], "image_size": 32}  # grids of 16, 8, 4 and 2 cells

Starter = Callable[..., loop.Run]
Tiny = Callable[..., Recipe]


@pytest.mark.parametrize(("stage", "channels"), [(0, 16), (1, 32), (2, 64), (-3, 32)])
def test_the_head_is_built_for_the_grid_of_its_stage(stage: int, channels: int, tiny: Tiny, start: Starter) -> None:
    assert start(tiny(stage=stage, **FOUR)).localizer.head[0].in_features == 2 * channels


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


def test_a_model_without_grids_has_nothing_to_localize_in(
    tiny: Tiny, start: Starter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(models, "build", lambda *_, **__: torch.nn.Linear(1, 1))
    with pytest.raises(VtzooError, match="no token grid to localize in"):
        start(tiny())


def with_loss(recipe: Recipe, loss: str | None, stage: int) -> Recipe:
    return replace(recipe, drloc=replace(recipe.drloc, loss=loss, stage=stage))


def test_the_every_stage_loss_has_a_head_for_each_grid_of_four_cells_a_side_or_more(tiny: Tiny, start: Starter) -> None:
    run = start(with_loss(tiny(**FOUR), "every_stage", 0))
    assert run.network.stages == [0, 1, 2]
    assert [head.head[0].in_features for head in run.localizer] == [2 * 16, 2 * 32, 2 * 64]
    assert start(with_loss(tiny(**FOUR), "every_stage", -3)).network.stages == [1, 2]


def test_the_every_stage_loss_is_the_sum_of_the_losses_of_its_stages(tiny: Tiny, start: Starter) -> None:
    run = start(with_loss(tiny(**FOUR, drop_path_rate=0.0), "every_stage", 0))
    images, points = run.batches.batch(0).images, torch.rand(8, 16, 2, 2)
    grids = models.grids(run.model, images)
    expected = sum(head(grid, points=points) for head, grid in zip(run.localizer, grids, strict=False))
    torch.testing.assert_close(run.network(images, points)[1], expected)


@pytest.mark.parametrize("loss", LOSSES)
def test_a_recipe_trains_with_every_loss(loss: str, tiny: Tiny, start: Starter) -> None:
    recipe = with_loss(tiny(**FOUR), loss, 1)
    run = start(recipe)
    for run.step in range(2):
        _, losses = loop._step(run, run.network, recipe, 0)
    assert losses["localization"].isfinite()
    outputs = {head.head[-1].out_features for head in run.network.heads}
    assert outputs == {2 * (2 * 8 - 1) if loss in DISTRIBUTIONS else 2}
