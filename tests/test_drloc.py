import math
from itertools import product

import pytest
import torch

from vtzoo.drloc import (
    DISTRIBUTIONS,
    LOSSES,
    DenseRelativeLocalization,
    between_cells,
    cells,
    check_grid,
    draw_points,
    interpolate,
    take,
    weight_at,
)
from vtzoo.errors import VtzooError
from vtzoo.zoo import recipe

CPU = torch.device("cpu")
EVERY = [*LOSSES]


def head_for(channels: int, loss: str, side: int = 5, **settings: int) -> DenseRelativeLocalization:
    return DenseRelativeLocalization(channels, loss=loss, side=side, **settings)


def tokens_of(grid: torch.Tensor) -> torch.Tensor:
    return grid.flatten(2).transpose(1, 2)


def parameters(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize(("channels", "count"), [(768, 1_050_626), (384, 657_410)])
def test_the_head_has_the_released_number_of_parameters(channels: int, count: int) -> None:
    assert parameters(DenseRelativeLocalization(channels)) == count


def test_take_picks_the_token_at_row_and_column_of_a_grid_that_is_not_square() -> None:
    grid = torch.randn(2, 5, 4, 7)
    places = torch.tensor([[[3, 6], [0, 2], [1, 1]], [[1, 0], [2, 5], [3, 3]]]).float()
    picked = take(tokens_of(grid), places, 7)
    for image, pair in product(range(2), range(3)):
        row, column = places[image, pair].int()
        assert torch.equal(picked[image, pair], grid[image, :, row, column])


def test_interpolation_is_that_of_torchs_grid_sample() -> None:
    grid, places = torch.randn(2, 5, 4, 7), torch.rand(2, 9, 2) * torch.tensor([3.0, 6.0])
    ours = interpolate(tokens_of(grid), places, 7)
    across = 2 * places / torch.tensor([3.0, 6.0]) - 1  # in which -1 and 1 are the centres of the outermost cells
    theirs = torch.nn.functional.grid_sample(grid, across.flip(-1)[:, None], align_corners=True)
    assert torch.allclose(ours, theirs[:, :, 0].transpose(1, 2), atol=1e-5)


def test_interpolation_at_a_cell_is_the_token_there() -> None:
    grid, places = torch.randn(1, 3, 4, 6), torch.tensor([[[0.0, 5.0], [3.0, 0.0], [2.0, 4.0]]])
    assert torch.equal(interpolate(tokens_of(grid), places, 6), take(tokens_of(grid), places, 6))


def test_drawn_cells_cover_a_grid_that_is_not_square_evenly() -> None:
    places = cells(draw_points(40, 250, torch.Generator().manual_seed(0), CPU), torch.zeros(40, 1, 4, 6))
    assert places.shape == (40, 250, 2, 2)
    rows, columns = places.long()[..., 0].flatten(), places.long()[..., 1].flatten()
    counts = torch.bincount(rows * 6 + columns, minlength=24).double()
    expected = counts.sum() / 24
    chi_square = ((counts - expected) ** 2 / expected).sum()
    assert chi_square < 49.7  # the 0.1% quantile of 23 degrees of freedom


@pytest.mark.parametrize("side", [4, 5, 7, 8, 14, 17, 56, 100])
def test_the_last_point_before_one_falls_into_the_last_cell(side: int) -> None:
    points = torch.full((1, 1, 2, 2), 1 - 2**-24)
    assert cells(points, torch.zeros(1, 1, side, side)).unique().tolist() == [side - 1]
    assert between_cells(points, torch.zeros(1, 1, side, side)).max() <= side - 1


def test_the_error_of_the_best_constant_is_that_of_the_authors_log() -> None:
    """On a 7x7 grid its mean error is 1.35 cells, about the error in the authors' log before any learning."""
    places = cells(draw_points(1000, 64, torch.Generator().manual_seed(1), CPU), torch.zeros(1000, 1, 7, 7))
    apart = (places[:, :, 0] - places[:, :, 1]).abs()
    assert (apart - apart.median()).abs().mean().item() == pytest.approx(1.35, abs=0.02)


def by_hand(loss: str, answer: list[float], offset: int) -> float:
    """The loss of one axis of one pair on a grid of 5 cells per side, by the paper's equations in plain Python."""
    if loss == "l1":
        return abs(answer[0] - abs(offset))
    if loss == "signed":
        return abs(answer[0] - offset)
    total = sum(math.exp(value) for value in answer)
    likely = {value - 4: math.exp(score) / total for value, score in enumerate(answer)}
    if loss == "cross_entropy":
        return -math.log(likely[offset])
    mean = sum(value * p for value, p in likely.items())
    variance = sum((value - mean) ** 2 * p for value, p in likely.items())
    return (offset - mean) ** 2 / variance + 0.001 * math.log(variance)


@pytest.mark.parametrize("pairs", [8, 40])  # fewer and more than the 20 cells: both ways to project
@pytest.mark.parametrize("loss", ["l1", "signed", "cross_entropy", "variance_aware"])
def test_the_loss_is_the_mean_over_batch_pairs_and_axes_computed_by_hand(loss: str, pairs: int) -> None:
    localize, grid = head_for(3, loss, pairs=pairs), torch.randn(2, 3, 4, 5)
    points = draw_points(2, pairs, torch.Generator().manual_seed(3), CPU)
    total = 0.0
    for image in range(2):
        for first, second in cells(points, grid)[image].int().tolist():
            pair = torch.cat([grid[image, :, first[0], first[1]], grid[image, :, second[0], second[1]]])
            rows, columns = localize.head(pair).view(2, -1).tolist()
            total += by_hand(loss, rows, first[0] - second[0]) + by_hand(loss, columns, first[1] - second[1])
    assert localize(grid, points=points).item() == pytest.approx(total / (2 * pairs * 2), rel=1e-4)
    drawn = localize(grid, torch.Generator().manual_seed(3)).item()
    assert drawn == pytest.approx(total / (2 * pairs * 2), rel=1e-4)


def test_off_grid_is_the_mean_error_of_real_distances_by_hand() -> None:
    localize, grid = head_for(3, "off_grid", pairs=8), torch.randn(1, 3, 4, 5)
    points = torch.rand(1, 8, 2, 2)
    total = 0.0
    for first, second in points[0].tolist():
        ends = [torch.tensor([[[point[0] * 3, point[1] * 4]]]) for point in (first, second)]
        pair = torch.cat([interpolate(tokens_of(grid), end, 5) for end in ends], dim=-1)
        rows, columns = localize.head(pair).flatten().tolist()
        total += abs(rows - 3 * abs(first[0] - second[0])) + abs(columns - 4 * abs(first[1] - second[1]))
    assert localize(grid, points=points).item() == pytest.approx(total / 16, rel=1e-4)


@pytest.mark.parametrize("loss", ["l1", "signed", "off_grid"])
def test_normalized_targets_are_cells_over_each_axis_own_side(loss: str) -> None:
    plain, normal = head_for(2, loss, pairs=6), head_for(2, loss, pairs=6, normalize=True)
    for localize in (plain, normal):  # the output is 0, so the loss is the mean of the targets
        torch.nn.init.zeros_(localize.head[-1].weight)
        torch.nn.init.zeros_(localize.head[-1].bias)
    points = torch.rand(3, 6, 2, 2)
    points[..., 1] = 0.3  # all points share a column
    grid = torch.zeros(3, 2, 7, 4)
    assert plain(grid, points=points).item() == pytest.approx(7 * normal(grid, points=points).item())


@pytest.mark.parametrize("pairs", [3, 30])
@pytest.mark.parametrize("loss", EVERY)
def test_gradients_of_the_grid_and_the_head_are_the_numerical_ones(loss: str, pairs: int) -> None:
    torch.manual_seed(0)
    localize = head_for(2, loss, side=4, pairs=pairs, hidden=4).double()
    places = torch.randint(4, (1, pairs, 2, 2)).double()
    grid = torch.randn(1, 2, 4, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda grid: localize.predict(grid, places), (grid,))
    localize(grid, torch.Generator().manual_seed(5)).backward()
    assert grid.grad is not None
    assert grid.grad.abs().sum() > 0
    assert all(parameter.grad is not None for parameter in localize.parameters())


@pytest.mark.parametrize("loss", EVERY)
def test_projecting_each_cell_once_gives_the_loss_of_concatenated_pairs(loss: str) -> None:
    localize, grid, points = head_for(6, loss), torch.randn(2, 6, 5, 5), torch.rand(2, 40, 2, 2)
    once = localize(grid, points=points)  # more pairs than the 25 cells
    parts = [localize(grid, points=some) for some in points.split(20, dim=1)]  # fewer pairs than the 25 cells
    assert once.item() == pytest.approx(sum(part.item() for part in parts) / 2, rel=1e-5)


def test_the_same_generator_state_draws_the_same_pairs() -> None:
    localize, grid = DenseRelativeLocalization(3), torch.randn(2, 3, 4, 4)
    first = localize(grid, torch.Generator().manual_seed(9))
    assert torch.equal(first, localize(grid, torch.Generator().manual_seed(9)))
    assert not torch.equal(first, localize(grid, torch.Generator().manual_seed(10)))


@pytest.mark.parametrize(
    ("loss", "bound"), [("l1", 0.25), ("signed", 0.25), ("cross_entropy", 0.35), ("off_grid", 0.25)]
)
def test_the_head_learns_from_embeddings_that_hold_the_position(loss: str, bound: float) -> None:
    torch.manual_seed(0)
    rows, columns = torch.meshgrid(torch.arange(4.0), torch.arange(6.0), indexing="ij")
    grid = torch.stack([rows, columns]).expand(8, 2, 4, 6)
    localize, generator = head_for(2, loss, side=6, hidden=128), torch.Generator().manual_seed(0)
    optimizer = torch.optim.AdamW(localize.parameters(), lr=4e-3)
    for _ in range(300):
        value = localize(grid, generator)
        value.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert value.item() < bound


def test_the_mean_of_the_variance_aware_softmax_learns_the_offset() -> None:
    torch.manual_seed(0)
    rows, columns = torch.meshgrid(torch.arange(4.0), torch.arange(4.0), indexing="ij")
    grid = torch.stack([rows, columns]).expand(8, 2, 4, 4)
    localize = head_for(2, "variance_aware", side=4, hidden=128)
    optimizer = torch.optim.AdamW(localize.parameters(), lr=3e-3)
    for _ in range(300):
        localize(grid).backward()
        optimizer.step()
        optimizer.zero_grad()
    places = torch.randint(4, (8, 64, 2, 2)).float()
    mean = (localize.predict(grid, places).softmax(-1) * torch.arange(-3, 4)).sum(-1)
    assert (mean - (places[:, :, 0] - places[:, :, 1])).abs().mean().item() < 0.3


def test_a_distribution_needs_the_side_and_an_unknown_loss_brings_the_nearest() -> None:
    for loss in DISTRIBUTIONS:
        with pytest.raises(VtzooError, match=f"{loss} needs the grid's side"):
            DenseRelativeLocalization(6, loss=loss)
    with pytest.raises(VtzooError, match="unknown loss 'l2'"):
        DenseRelativeLocalization(6, loss="l2")


def test_a_recipe_can_name_every_loss_and_no_other() -> None:
    assert set(recipe.LOSSES) == {*LOSSES, "every_stage"}


@pytest.mark.parametrize("loss", EVERY)
def test_everything_runs_on_the_device_of_the_grid(loss: str) -> None:
    """On the meta device, an index tensor made on the CPU would be an error."""
    localize = head_for(6, loss).to("meta")
    assert localize(torch.empty(2, 6, 4, 4, device="meta")).device.type == "meta"


@pytest.mark.parametrize("loss", EVERY)
def test_the_loss_is_float32_under_autocast(loss: str) -> None:
    localize = head_for(6, loss)
    with torch.autocast("cpu", torch.bfloat16):
        assert localize(torch.randn(2, 6, 4, 4)).dtype == torch.float32


@pytest.mark.parametrize("shape", [(2, 2), (3, 8), (8, 3), (1, 1)])
def test_a_grid_below_four_by_four_is_refused(shape: tuple[int, int]) -> None:
    with pytest.raises(VtzooError, match=f"a {shape[0]}x{shape[1]} grid is too small to localize in") as raised:
        check_grid(torch.zeros(1, 3, *shape))
    assert "earlier stage" in str(raised.value.hint)


@pytest.mark.parametrize(
    ("epoch", "weight"), [(0.0, 0.0), (10.0, 0.25), (20.0, 0.5), (100.0, 0.5 * 200 / 280), (300.0, 0.0), (400.0, 0.0)]
)
def test_the_weight_rises_over_the_warmup_and_falls_to_zero_at_the_schedules_end(epoch: float, weight: float) -> None:
    """The released schedule: weight 0.5, warm-up of 20 epochs, 300 epochs; the weight at epoch 100 is 0.357."""
    assert weight_at(epoch, 0.5, warmup_epochs=20.0, schedule_epochs=300.0) == pytest.approx(weight)


def test_without_a_warmup_the_weight_starts_at_its_peak() -> None:
    assert weight_at(0.0, 0.5, warmup_epochs=0.0, schedule_epochs=10.0) == 0.5
