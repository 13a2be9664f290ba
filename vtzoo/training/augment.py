"""Batches augmented as tensors, on whatever device they are on, every draw made per image.

Randomness is a matrix with one row of uniform numbers an image, keyed by (seed, epoch, image): the same image gets
the same draws in the same epoch, whatever batch, worker or rank it falls to.
"""

import math

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

DRAWS = 16  # uniform numbers an image: columns are assigned below, the rest is room for further operations
TOP, LEFT, FLIP, ERASE, ERASE_AREA, ERASE_ASPECT, ERASE_TOP, ERASE_LEFT = range(8)

_INCREMENT = 0x9E3779B97F4A7C15  # 2**64 divided by the golden ratio: SplitMix64's step (Steele et al. 2014)
_MIX = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB))


def draws(seed: int, epoch: int, images: Int[Tensor, " b"]) -> Float[Tensor, "b d"]:
    """DRAWS uniform numbers in [0, 1) for each image index, the same wherever they are computed.

    A counter-based generator: SplitMix64 of (seed, epoch, image, column), in int64 arithmetic that wraps.
    """
    state = torch.full_like(images, _signed(seed * _INCREMENT))
    for part in (torch.full_like(images, epoch), images):
        state = _splitmix(state ^ _splitmix(part + 1))
    columns = torch.arange(1, DRAWS + 1, device=images.device) * _signed(_INCREMENT)
    bits = _splitmix(state[:, None] + columns)
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


def erase(
    images: Float[Tensor, "b c h w"], uniform: Float[Tensor, "b d"], probability: float
) -> Float[Tensor, "b c h w"]:
    """Images with, at the given probability, a random rectangle set to 0, the mean of normalized pixels.

    The rectangle covers 2% to a third of the image, at an aspect of 0.3 to 3.3 (Zhong et al. 2020), less what it takes
    to round its sides down to whole pixels.
    """
    h, w = images.shape[-2:]
    area = (0.02 + uniform[:, ERASE_AREA] * (1 / 3 - 0.02)) * h * w
    aspect = torch.exp((2 * uniform[:, ERASE_ASPECT] - 1) * math.log(1 / 0.3))
    high = (area * aspect).sqrt().clamp(1, h)
    wide = (area / aspect).sqrt().clamp(1, w)
    rows, columns = _between(uniform[:, ERASE_TOP], high, h), _between(uniform[:, ERASE_LEFT], wide, w)
    inside = rows[:, :, None] & columns[:, None, :]
    chosen = uniform[:, ERASE] < probability
    return images.masked_fill((inside & chosen[:, None, None])[:, None], 0.0)


def _between(uniform: Float[Tensor, " b"], length: Float[Tensor, " b"], size: int) -> Tensor:
    """Which of `size` positions fall in an interval of each length, placed uniformly; (b, size) booleans."""
    start = (uniform * (size - length + 1)).floor()
    position = torch.arange(size, device=uniform.device)
    return (position >= start[:, None]) & (position < (start + length.floor())[:, None])


def mix(
    images: Float[Tensor, "b c h w"],
    targets: Float[Tensor, "b k"],
    *,
    mixup: float,
    cutmix: float,
    probability: float,
    generator: torch.Generator,
) -> tuple[Float[Tensor, "b c h w"], Float[Tensor, "b k"]]:
    """Each image mixed with a random partner, and its target mixed as much, at the given probability.

    Mixup blends the two (Zhang et al. 2018), cutmix pastes a rectangle of the partner (Yun et al. 2019); where both
    alphas are above 0 either is as likely. `generator` is on the CPU; the share of the partner is drawn per image.
    """
    b, _, h, w = images.shape
    device = images.device
    partner = torch.randperm(b, generator=generator).to(device)
    uniform = torch.rand(b, 4, generator=generator).to(device)
    pasted = uniform[:, 0] < (cutmix > 0) / ((mixup > 0) + (cutmix > 0))
    pasting, blending = _beta(b, cutmix or 1.0, generator).to(device), _beta(b, mixup or 1.0, generator).to(device)
    share = torch.where(pasted, pasting, blending)
    share = torch.where(uniform[:, 1] < probability, share, 0.0)
    side = share.sqrt()
    rectangle = _between(uniform[:, 2], side * h, h)[:, :, None] & _between(uniform[:, 3], side * w, w)[:, None, :]
    covered = rectangle.float().mean((1, 2))  # the whole pixels that were pasted, not the share that was asked for
    share = torch.where(pasted, covered, share)
    amount = torch.where(pasted[:, None, None], rectangle.float(), share[:, None, None])[:, None]
    mixed = images + amount * (images[partner] - images)
    return mixed, targets + share[:, None] * (targets[partner] - targets)


def _beta(n: int, alpha: float, generator: torch.Generator) -> Float[Tensor, " n"]:
    """Draw n times from Beta(alpha, alpha), as a ratio of Gamma draws; torch's own Beta takes no generator."""
    gamma = torch._standard_gamma(torch.full((2, n), alpha, dtype=torch.float64), generator=generator)
    return (gamma[0] / gamma.sum(0)).float()


def normalize(
    images: UInt8[Tensor, "b c h w"], mean: tuple[float, ...], std: tuple[float, ...]
) -> Float[Tensor, "b c h w"]:
    """Pixels 0..255 as floats, less the mean, over the standard deviation; both in 0..1."""
    scale = 255.0 * images.new_tensor(std, dtype=torch.float32).view(1, -1, 1, 1)
    shift = images.new_tensor(mean, dtype=torch.float32).view(1, -1, 1, 1) * 255.0
    return (images - shift) / scale


def smooth(labels: Int[Tensor, " b"], classes: int, smoothing: float) -> Float[Tensor, "b k"]:
    """One-hot targets with `smoothing` of the mass spread evenly over all classes."""
    return torch.nn.functional.one_hot(labels, classes).float() * (1 - smoothing) + smoothing / classes
