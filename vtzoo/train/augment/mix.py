"""Batches augmented as tensors, on whatever device they are on, every draw made per image.

Randomness is a matrix with one row of uniform numbers an image, keyed by (seed, epoch, image): the same image gets
the same draws in the same epoch, whatever batch, worker or rank it falls to.
"""

import math
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from vtzoo.train.threads import on_one_thread

GEOMETRY, MIX, COLOR, LOCALIZE = range(4)  # streams: uniform numbers for one purpose each
DRAWS = 16  # uniform numbers an image in GEOMETRY: columns are assigned below, the rest is room for further operations
TOP, LEFT, FLIP, ERASE, ERASE_AREA, ERASE_ASPECT, ERASE_TOP, ERASE_LEFT, ERASE_NOISE = range(9)

_STREAM = 2**32  # columns from one stream to the next
_INCREMENT = 0x9E3779B97F4A7C15  # 2**64 divided by the golden ratio: SplitMix64's step (Steele et al. 2014)
_NORMAL = 2**22  # places in the table of normal numbers
_MIX = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB))


@on_one_thread
def draws(
    seed: int, epoch: int, images: Int[Tensor, " b"], stream: int = GEOMETRY, columns: int = DRAWS
) -> Float[Tensor, "b {columns}"]:
    """Uniform numbers in [0, 1) for each image index, the same wherever they are computed.

    A counter-based generator: SplitMix64 of (seed, epoch, image, column), in int64 arithmetic that wraps. A stream is
    a stretch of columns far from the others.
    """
    state = torch.full_like(images, _signed(seed * _INCREMENT))
    for part in (torch.full_like(images, epoch), images):
        state = _splitmix(state ^ _splitmix(part + 1))
    first = stream * _STREAM + 1
    column = torch.arange(first, first + columns, device=images.device) * _signed(_INCREMENT)
    bits = _splitmix(state[:, None] + column)
    return _shift(bits, 40).float() / 2**24


def _splitmix(state: Int[Tensor, "..."]) -> Int[Tensor, "..."]:
    """SplitMix64's output for each state: the increment, then two multiply-and-shift rounds."""
    state = state + _signed(_INCREMENT)
    for shift, factor in _MIX:
        state = (state ^ _shift(state, shift)) * _signed(factor)
    return state ^ _shift(state, 31)


def _shift(bits: Int[Tensor, "..."], by: int) -> Int[Tensor, "..."]:
    """A logical right shift: torch's own repeats the sign bit."""
    return (bits >> by) & ((1 << (64 - by)) - 1)


def _signed(value: int) -> int:
    """The int64 with the same 64 bits."""
    value &= 0xFFFFFFFFFFFFFFFF
    return value - (1 << 64) if value >= 1 << 63 else value


@on_one_thread
def crop_and_flip(
    images: UInt8[Tensor, "b c h w"], uniform: Float[Tensor, "b d"], padding: int, flip: bool
) -> UInt8[Tensor, "b c h w"]:
    """A random crop of the original size out of each image with a reflected border, mirrored half of the time."""
    b, c, h, w = images.shape
    device = images.device
    rows = torch.arange(h, device=device) + (uniform[:, TOP] * (2 * padding + 1)).long()[:, None] - padding
    columns = torch.arange(w, device=device) + (uniform[:, LEFT] * (2 * padding + 1)).long()[:, None] - padding
    if flip:
        columns = torch.where(uniform[:, FLIP, None] < 0.5, columns.flip(1), columns)
    place = _reflect(rows, h)[:, :, None] * w + _reflect(columns, w)[:, None, :]
    return images.flatten(2).gather(2, place.view(b, 1, h * w).expand(b, c, h * w)).view(b, c, h, w)


def _reflect(index: Int[Tensor, "b n"], size: int) -> Int[Tensor, "b n"]:
    """Indices past either edge, folded back as a mirror on the edge pixel does."""
    index = index.abs()
    return torch.where(index >= size, 2 * (size - 1) - index, index)


@on_one_thread
def erase(
    images: Float[Tensor, "b c h w"], uniform: Float[Tensor, "b d"], probability: float, noise: float | None = None
) -> Float[Tensor, "b c h w"]:
    """Images with, at the given probability, a random rectangle set to 0, the mean of normalized pixels, or to noise.

    The rectangle covers 2% to a third of the image, at an aspect of 0.3 to 3.3 (Zhong et al. 2020), less what it takes
    to round its sides down to whole pixels. `noise` is the standard deviation of a normal number for every pixel and
    channel.
    """
    h, w = images.shape[-2:]
    area = (0.02 + uniform[:, ERASE_AREA] * (1 / 3 - 0.02)) * h * w
    aspect = torch.exp((2 * uniform[:, ERASE_ASPECT] - 1) * math.log(1 / 0.3))
    high = (area * aspect).sqrt().clamp(1, h)
    wide = (area / aspect).sqrt().clamp(1, w)
    rows, columns = _between(uniform[:, ERASE_TOP], high, h), _between(uniform[:, ERASE_LEFT], wide, w)
    chosen = uniform[:, ERASE] < probability
    erased = ((rows & chosen[:, None]).float()[:, :, None] * columns.float()[:, None, :])[:, None]
    if noise is None:
        return images * (1 - erased)
    normal = _normal(uniform[:, ERASE_NOISE], images[0].numel()).view_as(images)
    return images.lerp(noise * normal, erased)


def _normal(uniform: Float[Tensor, " b"], count: int) -> Float[Tensor, "b {count}"]:
    """A run of normal numbers for each image, at a random place of one long table.

    Two images have the same run once in four million pairs. To hash every pixel of every image instead takes some
    twenty passes over the batch in int64, most of them for pixels that are not erased.
    """
    table = _normal_table(count, uniform.device)
    runs = table.as_strided((_NORMAL, count), (1, 1))  # overlapping: the run at every place of the table
    return runs.index_select(0, (uniform * _NORMAL).long())


@lru_cache(maxsize=8)
def _normal_table(count: int, device: torch.device) -> Float[Tensor, " n"]:
    """As many normal numbers as hold a run of `count` at each of _NORMAL places, the same in every process."""
    return torch.randn(_NORMAL + count - 1, generator=torch.Generator().manual_seed(0)).to(device)


def _between(uniform: Float[Tensor, " b"], length: Float[Tensor, " b"], size: int) -> Tensor:
    """Which of `size` positions fall in an interval of each length, placed uniformly; (b, size) booleans."""
    start = (uniform * (size - length + 1)).floor()
    position = torch.arange(size, device=uniform.device)
    return (position >= start[:, None]) & (position < (start + length.floor())[:, None])


@on_one_thread
def mix(
    images: Float[Tensor, "b c h w"],
    targets: Float[Tensor, "b k"],
    uniform: Float[Tensor, "b 5"],
    *,
    mixup: float,
    cutmix: float,
    probability: float,
) -> tuple[Float[Tensor, "b c h w"], Float[Tensor, "b k"]]:
    """Each image mixed with its neighbour, and its target mixed as much, at the given probability.

    Mixup blends the two (Zhang et al. 2018), cutmix pastes a rectangle of the partner (Yun et al. 2019); where both
    alphas are above 0 either is as likely. Images 2i and 2i + 1 are a couple, in which each draws its own share of the
    other; a last image without a partner stays as it is. So a batch in a random order, cut into slices of even
    length, mixes as it does whole: on several ranks as on one.
    """
    b, _, h, w = images.shape
    partner = (torch.arange(b, device=images.device) ^ 1).clamp(max=b - 1)
    pasted = uniform[:, 0] < (cutmix > 0) / ((mixup > 0) + (cutmix > 0))
    pasting, blending = (beta_quantile(uniform[:, 2], alpha or 1.0) for alpha in (cutmix, mixup))
    share = torch.where(pasted, pasting, blending)
    share = torch.where(uniform[:, 1] < probability, share, 0.0)
    side, blended = share.sqrt(), ~pasted[:, None]
    rows = (_between(uniform[:, 3], side * h, h) | blended).float()
    columns = (_between(uniform[:, 4], side * w, w) | blended).float()
    covered = rows.sum(1) * columns.sum(1) / (h * w)  # the whole pixels that were pasted, not the share asked for
    share = torch.where(pasted, covered, share)
    rows *= torch.where(pasted, 1.0, share)[:, None]
    amount = (rows[:, :, None] * columns[:, None, :])[:, None]
    return _towards(images, partner, amount), _towards(targets, partner, share[:, None])


def _towards(rows: Float[Tensor, "b ..."], partner: Int[Tensor, " b"], amount: Tensor) -> Float[Tensor, "b ..."]:
    """Each row on its way to its partner's. Not `lerp`, whose rounding may depend on where in a batch a row is."""
    return rows.index_select(0, partner).sub_(rows).mul_(amount).add_(rows)


def beta_quantile(uniform: Float[Tensor, " b"], alpha: float) -> Float[Tensor, " b"]:
    """The values below which Beta(alpha, alpha) falls with each probability, to 1e-3 for alpha from 0.1 to 10."""
    chance, value = _beta_table(alpha, uniform.device)
    folded = torch.minimum(uniform, 1 - uniform)  # the distribution is symmetric about a half
    after = torch.searchsorted(chance, folded, right=True).clamp(max=len(chance) - 1)
    low, step = chance[after - 1], chance[after] - chance[after - 1]
    below_half = value[after - 1] + (folded - low) / step * (value[after] - value[after - 1])
    return torch.where(uniform < 0.5, below_half, 1 - below_half)


@lru_cache(maxsize=8)
def _beta_table(alpha: float, device: torch.device) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
    """Rising probabilities from 0 to a half, and the quantiles of Beta(alpha, alpha) at them.

    Steps are even in (2x)**alpha where alpha is below 1, which cancels the pole of the density at 0, and else in x:
    a step is nowhere wider than 0.0007 in x.
    """
    power = min(alpha, 1.0)
    step = np.linspace(0, 1, 8193)
    value = step ** (1 / power) / 2
    density = step ** (alpha / power - 1) * (1 - value) ** (alpha - 1)
    chance = np.append(0, np.cumsum(density[1:] + density[:-1]))
    chance = (chance / (2 * chance[-1])).astype(np.float32)
    rises = np.append(np.diff(chance) > 0, True)
    return torch.from_numpy(chance[rises]).to(device), torch.from_numpy(value[rises].astype(np.float32)).to(device)


@on_one_thread
def normalize(
    images: UInt8[Tensor, "b c h w"], mean: tuple[float, ...], std: tuple[float, ...]
) -> Float[Tensor, "b c h w"]:
    """Pixels 0..255 as floats, less the mean, over the standard deviation; both in 0..1."""
    shift, scale = (_channels(which, images.device) for which in (mean, std))
    return images.float().sub_(shift).div_(scale)


@lru_cache(maxsize=8)
def _channels(shares: tuple[float, ...], device: torch.device) -> Float[Tensor, "c 1 1"]:
    """A number for each channel, in levels; kept, as a copy to a device waits for it."""
    return torch.tensor(shares, device=device)[:, None, None] * 255


def smooth(labels: Int[Tensor, " b"], classes: int, smoothing: float) -> Float[Tensor, "b k"]:
    """One-hot targets with `smoothing` of the mass spread evenly over all classes."""
    return torch.nn.functional.one_hot(labels, classes).float() * (1 - smoothing) + smoothing / classes
