"""Dense relative localization (drloc): a self-supervised loss that teaches a visual transformer where its tokens are.

The loss draws random pairs of cells of a token grid, and a small MLP predicts from the two embeddings alone how many
rows and columns lie between them. The embeddings must therefore keep their positions. Every pair of tokens has a label
at no cost, which regularizes the attention of a transformer that is trained on few images.

    localize = DenseRelativeLocalization(channels=768)
    loss = cross_entropy(logits, labels) + weight_at(epoch, ...) * localize(grid)

Source: Liu et al., "Efficient Training of Visual Transformers with Small Datasets", NeurIPS 2021 (arXiv 2106.03746).
Below, u is the signed offset of a pair along an axis, in rows or columns, and a is the head's prediction of it. Every
loss is a mean over images, pairs and the two axes.
"""

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn
from torch.nn import functional

from vtzoo.errors import VtzooError, unknown

SMALLEST_SIDE = 4  # cells; on a 2x2 grid every distance is 0 or 1, too little to learn from

Offsets = Float[Tensor, "b m 2"]
Scores = Float[Tensor, "b m 2 n"]  # n = 1 in a regression, 2 * side - 1 in a distribution over offsets


def l1(answers: Scores, offsets: Offsets) -> Float[Tensor, ""]:
    """|a - |u||: the loss of the paper, on distances without a sign."""
    return (answers[..., 0] - offsets.abs()).abs().mean()


def signed(answers: Scores, offsets: Offsets) -> Float[Tensor, ""]:
    """|a - u|: the paper's L*, on offsets with a sign."""
    return (answers[..., 0] - offsets).abs().mean()


def cross_entropy(answers: Scores, offsets: Offsets) -> Float[Tensor, ""]:
    """-log p(u): the paper's L^ce, a softmax over the offsets -(k-1)..k-1 of a grid with k cells a side."""
    classes = answers.shape[-1]
    return functional.cross_entropy(answers.flatten(0, 2), (offsets + classes // 2).round().long().flatten())


def variance_aware(answers: Scores, offsets: Offsets) -> Float[Tensor, ""]:
    """(u - mean)^2 / var + 0.001 log var, with the mean and variance of the same softmax: the paper's L^reg.

    Source: the cycle-back regression of Dwibedi et al. 2019 (arXiv 1904.07846). 1e-8 is added to the variance, as
    released.
    """
    classes = answers.shape[-1]
    values = torch.arange(classes, device=answers.device) - classes // 2
    likely = answers.softmax(dim=-1)
    mean = (likely * values).sum(dim=-1)
    variance = (likely * (values - mean.unsqueeze(-1)).square()).sum(dim=-1) + 1e-8
    return ((offsets - mean).square() / variance + 0.001 * variance.log()).mean()


# off_grid is ours: l1 between points anywhere on the grid, with interpolated embeddings.
LOSSES = {
    "l1": l1, "signed": signed, "cross_entropy": cross_entropy, "variance_aware": variance_aware, "off_grid": l1,
}  # fmt: skip
DISTRIBUTIONS = ("cross_entropy", "variance_aware")


class DenseRelativeLocalization(nn.Module):
    """The mean absolute error, in cells, of the predicted distances between random pairs of grid cells.

    `channels` is the width of an embedding, `pairs` the number of pairs per image. The targets are |row difference| and
    |column difference|, **in cells**, as in the authors' released code, which made the published numbers. The paper
    divides each target by the side k of the grid: `normalize=True` divides each axis by its own side. A weight of 0.5
    in cells then equals 0.5 * k on normalized targets.

    `loss` is one of LOSSES. The losses over a distribution of offsets need `side`, the cells along the grid's longer
    side, and their targets are always in cells.

    The head is 2 * channels -> 512 -> 512 -> 2, as released (the paper has a single hidden layer). It trains jointly
    with the model, and prediction does not need it.
    """

    def __init__(
        self, channels: int, *, pairs: int = 64, hidden: int = 512, normalize: bool = False, loss: str = "l1",
        side: int | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        if loss not in LOSSES:
            raise unknown("loss", loss, LOSSES)
        if loss in DISTRIBUTIONS and side is None:
            raise VtzooError(f"{loss} needs the grid's side, in cells", "DenseRelativeLocalization(..., side=7)")
        self.pairs, self.loss, self.normalize = pairs, loss, normalize and loss not in DISTRIBUTIONS
        answers = 2 * (2 * side - 1) if side is not None and loss in DISTRIBUTIONS else 2
        self.head = nn.Sequential(
            nn.Linear(2 * channels, hidden), nn.ReLU(inplace=True),
            nn.Linear(hidden, hidden), nn.ReLU(inplace=True),
            nn.Linear(hidden, answers),
        )  # fmt: skip

    def forward(
        self, grid: Float[Tensor, "b c h w"], generator: Generator | None = None, *,
        points: Float[Tensor, "b m 2 2"] | None = None,
    ) -> Float[Tensor, ""]:  # fmt: skip
        """The loss of the head on fresh random pairs of every image, on the grid's device.

        `generator`, on the same device, makes the draw repeatable. `points`, uniform numbers in [0, 1) such as those of
        `draw_points`, replace the draw.
        """
        check_grid(grid)
        if points is None:
            points = draw_points(len(grid), self.pairs, generator, grid.device)
        places = between_cells(points, grid) if self.loss == "off_grid" else cells(points, grid)
        offsets = places[:, :, 0] - places[:, :, 1]
        if self.normalize:
            (height, width), (rows, columns) = grid.shape[-2:], offsets.unbind(-1)
            offsets = torch.stack([rows / height, columns / width], dim=-1)
        return LOSSES[self.loss](self.predict(grid, places), offsets)

    def predict(self, grid: Float[Tensor, "b c h w"], places: Float[Tensor, "b m 2 2"]) -> Scores:
        """The head's predictions for each pair, for rows and for columns, in float32 or a wider type.

        The first layer is linear in each half of a pair. With fewer cells than pairs, each cell passes through the
        layer once as a first and once as a second half, and the pairs pick from the results.
        """
        pick = interpolate if self.loss == "off_grid" else take
        first, second = places.unbind(dim=2)
        tokens, width = grid.flatten(2).transpose(1, 2), grid.shape[-1]
        layer: nn.Linear = self.head[0]  # type: ignore[assignment]
        if tokens.shape[1] <= places.shape[1]:
            left, right = layer.weight.chunk(2, dim=1)
            hidden = pick(functional.linear(tokens, left), first, width)
            hidden = hidden + pick(functional.linear(tokens, right, layer.bias), second, width)
        else:
            hidden = layer(torch.cat([pick(tokens, first, width), pick(tokens, second, width)], dim=-1))
        answers = self.head[1:](hidden).unflatten(-1, (2, -1))
        return answers.to(torch.promote_types(answers.dtype, torch.float32))


def draw_points(images: int, pairs: int, generator: Generator | None, device: torch.device) -> Tensor:
    """Uniform points in the unit square, (images, pairs, 2, 2).

    The last two axes are (first or second point of the pair, row or column).
    """
    return torch.rand(images, pairs, 2, 2, generator=generator, device=device)


def cells(points: Float[Tensor, "b m 2 2"], grid: Float[Tensor, "b c h w"]) -> Float[Tensor, "b m 2 2"]:
    """The (row, column) of the cells that contain points of the unit square: uniform draws with replacement."""
    height, width = grid.shape[-2:]
    return torch.stack([points[..., 0] * height, points[..., 1] * width], dim=-1).floor()


def between_cells(points: Float[Tensor, "b m 2 2"], grid: Float[Tensor, "b c h w"]) -> Float[Tensor, "b m 2 2"]:
    """Points of the unit square as (row, column) between the centres of the outermost cells, fractions allowed."""
    height, width = grid.shape[-2:]
    return torch.stack([points[..., 0] * (height - 1), points[..., 1] * (width - 1)], dim=-1)


def take(tokens: Float[Tensor, "b n c"], places: Float[Tensor, "b m 2"], width: int) -> Float[Tensor, "b m c"]:
    """The tokens at (row, column) cells of a grid, `width` cells wide."""
    b, n, c = tokens.shape
    place = (places[..., 0] * width + places[..., 1]).long() + n * torch.arange(b, device=tokens.device)[:, None]
    # Row indices into one long table: on the CPU four to ten times as fast as `gather`, forward and backward.
    return tokens.flatten(0, 1).index_select(0, place.flatten()).view(b, -1, c)


def interpolate(tokens: Float[Tensor, "b n c"], places: Float[Tensor, "b m 2"], width: int) -> Float[Tensor, "b m c"]:
    """The tokens at (row, column) points between cells, bilinear in the four cells around; the grid is `width` wide."""
    n = tokens.shape[1]
    number = torch.arange(n, device=tokens.device)
    row, column = number // width, number % width
    near = (1 - (places[..., :1] - row).abs()).clamp(min=0) * (1 - (places[..., 1:] - column).abs()).clamp(min=0)
    return near.to(tokens.dtype) @ tokens


def weight_at(epoch: float, weight: float, warmup_epochs: float, schedule_epochs: float) -> float:
    """The loss weight at an epoch, fractions allowed: a linear rise from 0 to `weight`, then a linear fall to 0.

    The weight peaks at `warmup_epochs` and reaches 0 at `schedule_epochs`, as released.
    """
    if epoch < warmup_epochs:
        return weight * epoch / warmup_epochs
    return weight * max(0.0, (schedule_epochs - epoch) / max(schedule_epochs - warmup_epochs, 1e-12))


def check_grid(grid: Float[Tensor, "b c h w"]) -> None:
    """Raise a VtzooError for a grid below 4x4 cells, too small to localize in."""
    h, w = grid.shape[-2:]
    if min(h, w) < SMALLEST_SIDE:
        raise VtzooError(
            f"a {h}x{w} grid is too small to localize in: the smallest is {SMALLEST_SIDE}x{SMALLEST_SIDE} cells",
            "name an earlier stage of the model in the recipe's [drloc] table",
        )
