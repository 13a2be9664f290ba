"""Operations on the geometry of uint8 batches, each image by an amount of its own, as Pillow does them image by image.

Each takes images (b, 3, h, w), what varies between them, (b,), and the colour of what comes in from outside, and
returns new images. Pixels are interpolated by cubic convolution with a = -1 and cut down to levels, not rounded, as
`Image.transform` and `Image.rotate` do with `Resampling.BICUBIC`; one is filled if its centre comes from outside.
Places are counted in 64 bits and levels in 32, so that a level differs from Pillow's by 1 at most, and rarely.
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
    """Rows moved to the left, each by the slope times the distance of its centre from the top edge."""
    centre = torch.arange(pixels.shape[2], device=pixels.device) + 0.5
    return _slide(pixels, slope[:, None].double() * centre, fill)


def shear_y(pixels: Images, slope: PerImage, fill: Fill) -> Images:
    """Columns moved up, each by the slope times the distance of its centre from the left edge."""
    return shear_x(pixels.mT, slope, fill).mT


def translate_x(pixels: Images, share: PerImage, fill: Fill) -> Images:
    """Images moved to the left by a share of their width."""
    _, _, h, w = pixels.shape
    return _slide(pixels, (share[:, None].double() * w).expand(-1, h), fill)


def translate_y(pixels: Images, share: PerImage, fill: Fill) -> Images:
    """Images moved up by a share of their height."""
    return translate_x(pixels.mT, share, fill).mT


def _slide(pixels: Images, shift: Float[Tensor, "b h"], fill: Fill) -> Images:
    """Each row moved to the left by its own number of pixels: a filter of four taps, then a step by whole pixels."""
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
    """Images turned about their centres, counter-clockwise."""
    most = max(1, levels_at_once(pixels.device) // (16 * pixels[0].numel()))
    turned = [_turned(*part, fill) for part in zip(pixels.split(most), degrees.split(most), strict=True)]
    return torch.cat(turned)


def _turned(pixels: Images, degrees: PerImage, fill: Fill) -> Images:
    """What `rotate` returns, of as many images as 16 neighbours of every pixel may be gathered at once."""
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
    """The two pixels to either side of each place along an axis, the edge's past it, and the part of a pixel to go."""
    whole = place.floor()
    step = torch.arange(-1, 3, device=place.device)[:, None, None]
    return (whole.long()[:, None] + step).clamp_(0, size - 1), (place - whole).float()


def _cubic(taps: list[Tensor] | tuple[Tensor, ...], part: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """Keys's cubic convolution with a = -1 of four neighbours, at a part of the way from the second to the third.

    A polynomial of differences as in Pillow, and not a weighted sum: a plain area keeps its level to the last bit.
    """
    first, second, third, fourth = taps
    before, after = first - second, third - fourth
    bend = (before + after).mul_(-part).add_(before, alpha=2).add_(after)
    return bend.mul_(part).add_(third - first).mul_(part).add_(second)


def _levels(value: Float[Tensor, "..."]) -> UInt8[Tensor, "..."]:
    """Values cut down to levels; by way of int16, as torch turns floats into bytes one by one."""
    return value.clamp_(0, 255).short().byte()


def _filled(pixels: Images, inside: Bool[Tensor, "b h w"], fill: Fill) -> Images:
    """Images with another colour outside."""
    colour = torch.tensor(fill, dtype=torch.uint8).to(pixels.device, non_blocking=True)
    return torch.where(inside[:, None], pixels, colour[:, None, None])
