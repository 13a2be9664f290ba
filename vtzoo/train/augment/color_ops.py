"""Color operations on uint8 batches, with an amount per image and Pillow's results.

Each takes images (b, 3, h, w) and an amount for each image, (b,), and returns new images. All results equal Pillow's,
level for level: each computation uses Pillow's type, integers or floats of 32 or 64 bits.
"""

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

Images = UInt8[Tensor, "b 3 h w"]
PerImage = Float[Tensor, " b"]


def auto_contrast(pixels: Images, _: PerImage) -> Images:
    """Each channel stretched so that its lowest level becomes 0 and its highest 255."""
    flat = pixels.flatten(2)
    low, high = flat.amin(2, keepdim=True).double(), flat.amax(2, keepdim=True).double()
    scale = torch.full_like(high, 255) / (high - low)  # a division, as in Pillow: a reciprocal rounds to other levels
    level = torch.arange(256, device=pixels.device)
    table = torch.where(high > low, (level * scale - low * scale).clamp(0, 255), level)
    return _look_up(table.byte(), pixels)


def equalize(pixels: Images, _: PerImage) -> Images:
    """Each channel's histogram equalized."""
    flat = pixels.flatten(2).long()
    count = flat.new_zeros(*flat.shape[:2], 256).scatter_add_(2, flat, torch.ones_like(flat))
    highest = count.gather(2, flat.amax(2, keepdim=True))
    step = (flat.shape[2] - highest).div(255, rounding_mode="floor")
    below = count.cumsum(2) - count
    spread = (step.div(2, rounding_mode="floor") + below).div(step.clamp(min=1), rounding_mode="floor").clamp_(max=255)
    table = torch.where(step > 0, spread, torch.arange(256, device=pixels.device))
    return _look_up(table.byte(), pixels)


def _look_up(table: UInt8[Tensor, "b 3 256"], pixels: Images) -> Images:
    """The levels mapped by each channel's table."""
    return table.gather(2, pixels.flatten(2).long()).view_as(pixels)


def invert(pixels: Images, _: PerImage) -> Images:
    """The negative."""
    return ~pixels


def posterize(pixels: Images, bits: PerImage) -> Images:
    """Levels reduced to their highest bits, 1 to 8."""
    return pixels & _per_pixel(256 - 2 ** (8 - bits)).byte()


def solarize(pixels: Images, threshold: PerImage) -> Images:
    """Levels at or above a threshold, 0 to 256, inverted."""
    return torch.where(pixels < _per_pixel(threshold).short(), pixels, ~pixels)


def solarize_add(pixels: Images, amount: PerImage) -> Images:
    """Levels below 128 plus an amount, 0 to 128, up to 255."""
    amount = _per_pixel(amount).byte()
    return torch.where(pixels < 128, torch.minimum(pixels, 255 - amount) + amount, pixels)


def brightness(pixels: Images, factor: PerImage) -> Images:
    """Images blended with black."""
    return _blend(torch.zeros((), device=pixels.device), pixels, factor)


def contrast(pixels: Images, factor: PerImage) -> Images:
    """Images blended with their mean luminance, rounded to a level."""
    luminance = _luminance(pixels)
    mean = luminance.sum((1, 2, 3), dtype=torch.float64) / luminance[0].numel()
    return _blend(_per_pixel((mean + 0.5).floor().float()), pixels, factor)


def color(pixels: Images, factor: PerImage) -> Images:
    """Images blended with their luminance."""
    return _blend(_luminance(pixels), pixels, factor)


def sharpness(pixels: Images, factor: PerImage) -> Images:
    """Images blended with a smoothed copy: a 3x3 mean with weight 5 at the centre, without the border."""
    whole = pixels.short()
    rows = whole[:, :, :-2] + whole[:, :, 1:-1] + whole[:, :, 2:]
    total = rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:] + 4 * whole[:, :, 1:-1, 1:-1]
    smooth = pixels.float()
    smooth[:, :, 1:-1, 1:-1] = (total.float() / 13 + 0.5).floor_()
    return _blend(smooth, pixels, factor)


def _luminance(pixels: Images) -> Float[Tensor, "b 1 h w"]:
    """Pillow's conversion to "L": ITU-R 601-2 in units of 2**-16, exact in a float's 24 bits."""
    red, green, blue = pixels.float().split(1, 1)
    return (red * 19595 + green * 38470 + blue * 7471 + 32768).div_(65536).floor_()


def _blend(plain: Float[Tensor, "..."], pixels: Images, factor: PerImage) -> Images:
    """`plain` at factor 0, the images at 1, extrapolated above 1; truncated to levels, not rounded, as in Pillow."""
    blended = (pixels.float() - plain).mul_(_per_pixel(factor.float())).add_(plain)
    return blended.clamp_(0, 255).short().byte()  # by int16: torch does not vectorize the conversion of float to uint8


def _per_pixel(amount: PerImage) -> Float[Tensor, "b 1 1 1"]:
    """A number per image, shaped to broadcast over its pixels."""
    return amount[:, None, None, None]
