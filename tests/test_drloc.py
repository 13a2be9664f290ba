import pytest
import torch

from vtzoo.drloc import DenseRelativeLocalization, check_grid, distances, draw_pairs, pick, weight_at
from vtzoo.errors import VtzooError


def parameters(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize(("channels", "count"), [(768, 1_050_626), (384, 657_410)])
def test_the_head_has_the_released_number_of_parameters(channels: int, count: int) -> None:
    assert parameters(DenseRelativeLocalization(channels)) == count


def test_pick_takes_the_token_at_row_and_column_of_a_grid_that_is_not_square() -> None:
    grid = torch.randn(2, 5, 4, 7)
    cells = torch.tensor([[[3, 6], [0, 2]], [[1, 0], [2, 5]]])
    picked = pick(grid, cells)
    for image in range(2):
        for pair in range(2):
            row, column = cells[image, pair]
            assert torch.equal(picked[image, pair], grid[image, :, row, column])


def test_distances_are_rows_and_columns_apart_in_cells() -> None:
    cells = torch.tensor([[[[0, 6], [3, 1]], [[2, 2], [2, 2]]]])
    grid = torch.zeros(1, 1, 4, 7)
    assert distances(cells, grid).tolist() == [[[3.0, 5.0], [0.0, 0.0]]]
    assert torch.allclose(distances(cells, grid, normalize=True)[0, 0], torch.tensor([3 / 4, 5 / 7]))


def test_drawn_cells_cover_a_grid_that_is_not_square_evenly() -> None:
    cells = draw_pairs(torch.zeros(40, 1, 4, 6), 250, torch.Generator().manual_seed(0))
    assert cells.shape == (40, 250, 2, 2)
    rows, columns = cells[..., 0].flatten(), cells[..., 1].flatten()
    counts = torch.bincount(rows * 6 + columns, minlength=24).double()
    expected = counts.sum() / 24
    chi_square = ((counts - expected) ** 2 / expected).sum()
    assert chi_square < 49.7  # the 0.1% quantile of 23 degrees of freedom


def test_the_best_constant_answer_errs_as_much_as_counting_says() -> None:
    """On a 7x7 grid the best constant is off by 1.35 cells: what the authors' log shows before anything is learned."""
    cells = draw_pairs(torch.zeros(1000, 1, 7, 7), 64, torch.Generator().manual_seed(1))
    apart = distances(cells, torch.zeros(1000, 1, 7, 7))
    assert (apart - apart.median()).abs().mean().item() == pytest.approx(1.35, abs=0.02)


def test_the_loss_is_the_mean_over_batch_pairs_and_axes_computed_by_hand() -> None:
    localize = DenseRelativeLocalization(3, pairs=8)
    grid = torch.randn(2, 3, 4, 5)
    loss = localize(grid, torch.Generator().manual_seed(3))
    cells = draw_pairs(grid, 8, torch.Generator().manual_seed(3))
    total = 0.0
    for image in range(2):
        for (row, column), (other_row, other_column) in cells[image].tolist():
            pair = torch.cat([grid[image, :, row, column], grid[image, :, other_row, other_column]])
            predicted = localize.head(pair)
            total += abs(predicted[0].item() - abs(row - other_row))
            total += abs(predicted[1].item() - abs(column - other_column))
    assert loss.item() == pytest.approx(total / (2 * 8 * 2), rel=1e-5)


def test_on_a_square_grid_cells_equal_normalized_targets_times_the_side() -> None:
    grid = torch.zeros(3, 2, 7, 7)
    cells = draw_pairs(grid, 16, torch.Generator().manual_seed(0))
    assert torch.allclose(distances(cells, grid), 7 * distances(cells, grid, normalize=True))


def test_gradients_of_the_grid_and_the_head_are_the_numerical_ones() -> None:
    torch.manual_seed(0)
    localize = DenseRelativeLocalization(2, pairs=3, hidden=4).double()
    localize.head[-1].bias.data += 20.0  # away from the kink of the absolute value
    grid = torch.randn(1, 2, 4, 4, dtype=torch.float64, requires_grad=True)

    def predicted(grid: torch.Tensor) -> torch.Tensor:
        cells = draw_pairs(grid, 3, torch.Generator().manual_seed(5))
        first, second = cells.unbind(dim=2)
        return localize.head(torch.cat([pick(grid, first), pick(grid, second)], dim=-1))

    assert torch.autograd.gradcheck(predicted, (grid,))
    localize(grid, torch.Generator().manual_seed(5)).backward()
    assert grid.grad is not None
    assert grid.grad.abs().sum() > 0
    assert all(parameter.grad is not None for parameter in localize.parameters())


def test_the_same_generator_state_draws_the_same_pairs() -> None:
    localize, grid = DenseRelativeLocalization(3), torch.randn(2, 3, 4, 4)
    first = localize(grid, torch.Generator().manual_seed(9))
    assert torch.equal(first, localize(grid, torch.Generator().manual_seed(9)))
    assert not torch.equal(first, localize(grid, torch.Generator().manual_seed(10)))


def test_the_head_learns_distances_from_embeddings_that_hold_the_position() -> None:
    torch.manual_seed(0)
    rows, columns = torch.meshgrid(torch.arange(4.0), torch.arange(6.0), indexing="ij")
    grid = torch.stack([rows, columns]).expand(8, 2, 4, 6)
    localize, generator = DenseRelativeLocalization(2), torch.Generator().manual_seed(0)
    optimizer = torch.optim.AdamW(localize.parameters(), lr=2e-3)
    for _ in range(300):
        loss = localize(grid, generator)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert loss.item() < 0.25


def test_everything_runs_on_the_device_of_the_grid() -> None:
    """The meta device computes nothing: an index made on the CPU on the way would be an error."""
    localize = DenseRelativeLocalization(6).to("meta")
    assert localize(torch.empty(2, 6, 4, 4, device="meta")).device.type == "meta"


def test_the_loss_is_float32_under_autocast() -> None:
    localize = DenseRelativeLocalization(6)
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
    """The released schedule: 0.5, 20 and 300 epochs; 0.357 is left at epoch 100."""
    assert weight_at(epoch, 0.5, warmup_epochs=20.0, schedule_epochs=300.0) == pytest.approx(weight)


def test_without_a_warmup_the_weight_starts_at_its_peak() -> None:
    assert weight_at(0.0, 0.5, warmup_epochs=0.0, schedule_epochs=10.0) == 0.5
