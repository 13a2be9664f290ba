"""Random boxes cut out of a batch of images and resized to one size, as PIL does it image by image."""

import math

import torch
from jaxtyping import Bool, Float, Int, Int16, Integer, UInt8
from torch import Tensor

from vtzoo.train.threads import on_one_thread

_TRIES = 10  # boxes that are drawn for an image, before the central one is taken
BOX_DRAWS = 2 * _TRIES + 2  # uniform numbers an image: an area and an aspect a try, then the place
_PRECISION = 2.0**15  # weights are multiples of one in this


@on_one_thread
def random_boxes(
    uniform: Float[Tensor, "b d"], extents: Int[Tensor, "b 2"], scale: tuple[float, float], ratio: tuple[float, float]
) -> Int[Tensor, "b 4"]:
    """A random box in each image: top, left, height and width in pixels; `extents` are the images' (height, width).

    The box's area is uniform in `scale` times the image's, the logarithm of its width over its height uniform between
    those of `ratio`; the first of ten that fits is taken, and placed uniformly, or else the largest central box
    within `ratio` (Szegedy et al. 2015, as torchvision and timm have it). `uniform` has BOX_DRAWS columns or more.
    """
    height, width = extents[:, :1], extents[:, 1:]
    drawn = uniform[:, :BOX_DRAWS].double()  # in which no box is rounded another way than in Python
    area = (scale[0] + drawn[:, :_TRIES] * (scale[1] - scale[0])) * (height * width)
    low, high = math.log(ratio[0]), math.log(ratio[1])
    aspect = torch.exp(low + drawn[:, _TRIES : 2 * _TRIES] * (high - low))
    wide, tall = (area * aspect).sqrt().round().long(), (area / aspect).sqrt().round().long()
    fits = (wide >= 1) & (wide <= width) & (tall >= 1) & (tall <= height)
    first = fits.byte().argmax(1, keepdim=True)
    found = fits.any(1, keepdim=True)
    most_wide = torch.minimum(width, (height * ratio[1]).round().long())
    most_tall = torch.minimum(height, (width / ratio[0]).round().long())
    tall = torch.where(found, tall.gather(1, first), most_tall)
    wide = torch.where(found, wide.gather(1, first), most_wide)
    spare = torch.cat([height - tall, width - wide], 1)
    place = torch.where(found, (drawn[:, 2 * _TRIES :] * (spare + 1)).long(), spare // 2)
    return torch.cat([place, tall, wide], 1)


@on_one_thread
def resized_crop(
    pixels: UInt8[Tensor, "b 3 h w"],
    boxes: Int[Tensor, "b 4"],
    size: int,
    mirrored: Bool[Tensor, " b"],
    interpolation: str = "bicubic",
) -> UInt8[Tensor, "b 3 {size} {size}"]:
    """What is in the box (top, left, height, width) of each image, resized to a square, left to right where `mirrored`.

    The result of PIL's `image.crop(box).resize((size, size), interpolation)` but for single levels: antialiased, and
    blind to what is outside of the box. Columns are resampled before rows, and rounded in between; Pillow does so too,
    but from version 13 on takes the rows of a much taller than wide box first.
    """
    b, c, h, w = pixels.shape
    top, left, tall, wide = boxes.float().unbind(1)
    across = _taps(left, wide, w, size, mirrored, interpolation)
    down = _taps(top, tall, h, size, torch.zeros_like(mirrored), interpolation)
    resized = pixels.new_empty(b, c, size, size)
    most = max(1, levels_at_once(pixels.device) // (c * h * w))
    for part in (slice(first, first + most) for first in range(0, b, most)):
        columns = _sums(pixels[part].flatten(1, 2).mT, *(which[part] for which in across))
        rows = columns.mT.contiguous().view(-1, h, size)
        rows = _sums(rows, *(which[part].repeat_interleave(c, 0) for which in down))
        resized[part] = rows.view(-1, c, size, size)
    return resized


def levels_at_once(device: torch.device) -> int:
    """How many levels are turned into floats at a time: what a CPU's caches hold, or 256 MiB to keep a GPU busy."""
    return 2**20 if device.type == "cpu" else 2**26


def _taps(
    start: Float[Tensor, " b"],
    length: Float[Tensor, " b"],
    most: int,
    size: int,
    mirrored: Bool[Tensor, " b"],
    interpolation: str,
) -> tuple[Int[Tensor, "b {size} taps"], Float[Tensor, "b {size} taps"]]:
    """Which lines of an interval, and how much of each, make each of `size` resampled ones; `most` is the longest.

    Distances are counted in resampled lines where the interval shrinks, else in its own. Twice the centre of a line is
    a whole number, and so is every step before the one division: distances are exact to the last bit.
    """
    support, kernel = KERNELS[interpolation]
    start, length = start[:, None, None], length[:, None, None]
    centre = 2 * torch.arange(size, device=length.device, dtype=torch.float32)[:, None] + 1
    centre = torch.where(mirrored[:, None, None], 2 * size - centre, centre) * length
    unit = 2 * length.clamp(min=size)
    first = ((centre - size - support * unit) / (2 * size)).floor() + 1
    line = first + torch.arange(math.ceil(2 * support * max(most / size, 1)), device=length.device)
    weights = kernel((((2 * line + 1) * size - centre) / unit).abs_())
    inside = torch.minimum(line.clamp(min=0), length - 1)
    weights *= inside == line
    weights /= weights.sum(2, keepdim=True)
    return (start + inside).long(), weights.mul_(_PRECISION).round_().div_(_PRECISION)


def _sums(
    lines: Integer[Tensor, "b n m"], which: Int[Tensor, "b size taps"], weights: Float[Tensor, "b size taps"]
) -> Int16[Tensor, "b size m"]:
    """Weighted sums of some of each image's lines, rounded to levels.

    Weights are multiples of 2**-15, so that a sum of products with levels fits the 24 bits of a float: it is exact in
    whatever order it is made, and an image has the same result in any batch and on any device.
    """
    b, n, m = lines.shape
    place = which + n * torch.arange(b, device=lines.device)[:, None, None]
    sums = torch.nn.functional.embedding_bag(
        place.flatten(0, 1),
        lines.to(torch.float32, memory_format=torch.contiguous_format).view(-1, m),
        per_sample_weights=weights.flatten(0, 1),
        mode="sum",
    )
    return sums.add_(0.5).clamp_(0, 255).short().view(b, -1, m)


def _bicubic(distance: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """Keys's cubic convolution with a = -0.5, as Pillow resizes, in powers of what distances lack to 1 and to 2."""
    far, near = (2 - distance).clamp_(min=0), (1 - distance).clamp_(min=0)
    return far.square().mul_(far.sub_(1)).mul_(0.5).add_(near.square().mul_(near.mul_(-2).add_(1)))


def _bilinear(distance: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """A triangle."""
    return (1 - distance).clamp_(min=0)


KERNELS = {"bicubic": (2, _bicubic), "bilinear": (1, _bilinear)}  # support, in lines to either side
