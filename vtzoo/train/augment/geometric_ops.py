"""Geometric operations on uint8 batches, with an amount per image and Pillow's results.

Each takes images (b, 3, h, w), an amount for each image, (b,), and a fill color, and returns new images. Pixels are
interpolated by cubic convolution with a = -1 and truncated to levels, not rounded, as in `Image.transform` and
`Image.rotate` with `Resampling.BICUBIC`; a pixel whose centre comes from outside the image gets the fill color.
Positions have 64 bits and levels 32, so a level differs from Pillow's by at most 1, and rarely.
"""

import math

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from vtzoo.train.pipeline.resized_crop import levels_at_once

Images = UInt8[Tensor, "b 3 h w"]
PerImage = Float[Tensor, " b"]
Fill = tuple[int, int, int]  # red, green and blue, 0..255


def shear_x(pixels: Images, slope: PerImage, fill: Fill) -> Images:
    """Rows shifted left, each by the slope times the distance of its centre from the top edge."""
    centre = torch.arange(pixels.shape[2], device=pixels.device) + 0.5
    return _shift_rows(pixels, slope[:, None].double() * centre, fill)


def shear_y(pixels: Images, slope: PerImage, fill: Fill) -> Images:
    """Columns shifted up, each by the slope times the distance of its centre from the left edge."""
    return shear_x(pixels.mT, slope, fill).mT


def translate_x(pixels: Images, share: PerImage, fill: Fill) -> Images:
    """Images shifted left by a share of their width."""
    _, _, h, w = pixels.shape
    return _shift_rows(pixels, (share[:, None].double() * w).expand(-1, h), fill)


def translate_y(pixels: Images, share: PerImage, fill: Fill) -> Images:
    """Images shifted up by a share of their height."""
    return translate_x(pixels.mT, share, fill).mT


def _shift_rows(pixels: Images, shift: Float[Tensor, "b h"], fill: Fill) -> Images:
    """Rows shifted left by their own numbers of pixels: a four-tap filter, then a shift by whole pixels."""
    b, c, h, w = pixels.shape
    whole = shift.floor()
    part = (shift - whole).float()[:, None, :, None]
    bordered = torch.nn.functional.pad(pixels.float(), (2, 2, 0, 0), mode="replicate")
    filtered = _levels(_cubic([bordered[..., first : first + w + 1] for first in range(4)], part))
    column = torch.arange(w, device=pixels.device)
    place = (column + whole[..., None].long() + 1).clamp_(0, w)
    slid = filtered.gather(3, place[:, None].expand(b, c, h, w))
    nearest = column + (shift + 0.5).floor()[..., None]
    return _filled(slid, (nearest >= 0) & (nearest < w), fill)


def rotate(pixels: Images, degrees: PerImage, fill: Fill) -> Images:
    """Images rotated about their centres, counter-clockwise."""
    most = max(1, levels_at_once(pixels.device) // (16 * pixels[0].numel()))
    rotated = [_rotated(*part, fill) for part in zip(pixels.split(most), degrees.split(most), strict=True)]
    return torch.cat(rotated)


def _rotated(pixels: Images, degrees: PerImage, fill: Fill) -> Images:
    """The result of `rotate` for a few images: 16 neighbours of every pixel are in memory at once."""
    b, c, h, w = pixels.shape
    angle = -degrees.double()[:, None, None] * math.pi / 180
    rows = torch.arange(h, device=pixels.device)[:, None] + 0.5 - h / 2
    columns = torch.arange(w, device=pixels.device) + 0.5 - w / 2
    x = angle.cos() * columns + angle.sin() * rows + w / 2
    y = angle.cos() * rows - angle.sin() * columns + h / 2
    inside = (x >= 0) & (x < w) & (y >= 0) & (y < h)
    (across, right), (down, below) = _neighbours(x - 0.5, w), _neighbours(y - 0.5, h)
    place = (down[:, :, None] * w + across[:, None]).view(b, 1, -1)
    near = pixels.flatten(2).float().gather(2, place.expand(-1, c, -1)).view(b, c, 4, 4, h, w)
    lines = _cubic(near.unbind(3), right[:, None, None])
    return _filled(_levels(_cubic(lines.unbind(2), below[:, None])), inside, fill)


def _neighbours(place: Float[Tensor, "b h w"], size: int) -> tuple[Int[Tensor, "b 4 h w"], Float[Tensor, "b h w"]]:
    """The two pixels on either side of each position along an axis, clamped to the edges, and its fraction."""
    whole = place.floor()
    step = torch.arange(-1, 3, device=place.device)[:, None, None]
    return (whole.long()[:, None] + step).clamp_(0, size - 1), (place - whole).float()


def _cubic(taps: list[Tensor] | tuple[Tensor, ...], part: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """Keys's cubic convolution with a = -1 of four neighbours, at a fraction of the way from the second to the third.

    It is a polynomial of differences, as in Pillow, not a weighted sum: a uniform area keeps its level exactly.
    """
    first, second, third, fourth = taps
    before, after = first - second, third - fourth
    bend = (before + after).mul_(-part).add_(before, alpha=2).add_(after)
    return bend.mul_(part).add_(third - first).mul_(part).add_(second)


def _levels(value: Float[Tensor, "..."]) -> UInt8[Tensor, "..."]:
    """Values truncated to levels, through int16: torch's conversion from float to uint8 is not vectorized."""
    return value.clamp_(0, 255).short().byte()


def _filled(pixels: Images, inside: Bool[Tensor, "b h w"], fill: Fill) -> Images:
    """Images with the fill color outside."""
    color = torch.tensor(fill, dtype=torch.uint8).to(pixels.device, non_blocking=True)
    return torch.where(inside[:, None], pixels, color[:, None, None])
