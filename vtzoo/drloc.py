"""Dense relative localization (drloc): a self-supervised task that teaches a visual transformer where its tokens are.

Pick random pairs of cells of a token grid and let a small MLP predict, from the two embeddings alone, how many rows and
columns lie between them. To answer, an embedding must keep its position: a free spatial label for every pair of
tokens, which regularizes the attention of a transformer that sees few images.

    localize = DenseRelativeLocalization(channels=768)
    loss = cross_entropy(logits, labels) + weight_at(epoch, ...) * localize(grid)

Source: Liu et al., "Efficient Training of Visual Transformers with Small Datasets", NeurIPS 2021 (arXiv 2106.03746).
"""

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor, nn

from .errors import VtzooError

SMALLEST_SIDE = 4  # cells; on a 2x2 grid every distance is 0 or 1, and there is nothing to learn


class DenseRelativeLocalization(nn.Module):
    """The mean absolute error, in cells, of the predicted distances between random pairs of grid cells.

    `channels` is the embedding's width, `pairs` the number of pairs drawn per image. The targets are
    |row difference| and |column difference|, **in cells**: this is what the authors' released code computes, and
    what the published numbers come from. Their text divides each target by the side k of the grid: `normalize=True`
    does so, with each axis by its own side. A weight of 0.5 in cells then equals 0.5 * k on normalized targets.

    The head is 2 * channels -> 512 -> 512 -> 2, as released (the text has one hidden layer). It is trained together
    with the model and thrown away afterwards.
    """

    def __init__(self, channels: int, *, pairs: int = 64, hidden: int = 512, normalize: bool = False) -> None:
        super().__init__()
        self.pairs = pairs
        self.normalize = normalize
        self.head = nn.Sequential(
            nn.Linear(2 * channels, hidden),
            nn.ReLU(inplace=True),
            nn.Linear(hidden, hidden),
            nn.ReLU(inplace=True),
            nn.Linear(hidden, 2),
        )

    def forward(self, grid: Float[Tensor, "b c h w"], generator: Generator | None = None) -> Float[Tensor, ""]:
        """Draw fresh pairs for every image and score the head on them.

        `generator` makes the draw repeatable; it must live on the grid's device. Everything runs on that device.
        """
        check_grid(grid)
        cells = draw_pairs(grid, self.pairs, generator)
        return (self.predict(grid, cells) - distances(cells, grid, self.normalize)).abs().mean()

    def predict(self, grid: Float[Tensor, "b c h w"], cells: Int[Tensor, "b m 2 2"]) -> Float[Tensor, "b m 2"]:
        """The predicted (row, column) distance of each pair; always float32."""
        first, second = cells.unbind(dim=2)
        return self.head(torch.cat([pick(grid, first), pick(grid, second)], dim=-1)).float()


def draw_pairs(grid: Float[Tensor, "b c h w"], pairs: int, generator: Generator | None) -> Int[Tensor, "b m 2 2"]:
    """Draw pairs of (row, column) cells, uniformly and with replacement, on the grid's device.

    The last two axes are (first or second cell of the pair, row or column).
    """
    b, _, h, w = grid.shape
    place = torch.randint(h * w, (b, pairs, 2), generator=generator, device=grid.device)
    return torch.stack([place // w, place % w], dim=-1)


def pick(grid: Float[Tensor, "b c h w"], cells: Int[Tensor, "b m 2"]) -> Float[Tensor, "b m c"]:
    """Pick the tokens at (row, column) cells."""
    width = grid.shape[-1]
    place = cells[..., 0] * width + cells[..., 1]
    tokens = grid.flatten(2).transpose(1, 2)
    return tokens.gather(1, place.unsqueeze(-1).expand(-1, -1, tokens.shape[-1]))


def distances(
    cells: Int[Tensor, "b m 2 2"], grid: Float[Tensor, "b c h w"], normalize: bool = False
) -> Float[Tensor, "b m 2"]:
    """|row difference| and |column difference| of each pair, in cells; with `normalize`, in grid heights and widths."""
    apart = (cells[:, :, 0] - cells[:, :, 1]).abs().float()
    return apart / apart.new_tensor(grid.shape[-2:]) if normalize else apart


def weight_at(epoch: float, weight: float, warmup_epochs: float, schedule_epochs: float) -> float:
    """The loss weight at an epoch, fractions allowed: from 0 up to `weight` over the warm-up, then down to 0.

    Both slopes are linear; the weight peaks at `warmup_epochs` and reaches 0 at `schedule_epochs`, as released.
    """
    if epoch < warmup_epochs:
        return weight * epoch / warmup_epochs
    return weight * max(0.0, (schedule_epochs - epoch) / max(schedule_epochs - warmup_epochs, 1e-12))


def check_grid(grid: Float[Tensor, "b c h w"]) -> None:
    """Refuse a grid too small to localize in: a VtzooError below 4x4 cells."""
    h, w = grid.shape[-2:]
    if min(h, w) < SMALLEST_SIDE:
        raise VtzooError(
            f"a {h}x{w} grid is too small to localize in: the smallest is {SMALLEST_SIDE}x{SMALLEST_SIDE} cells",
            "name an earlier stage of the model in the recipe's [drloc] table",
        )
