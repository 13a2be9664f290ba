"""RandAugment and color jitter of uint8 batches, with operations, magnitudes and signs drawn per image.

The CPU assigns images to operations, and all images of an operation change together. For images on another device,
`uniform` may stay on the CPU: then no step waits for the device.
"""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import permutations

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from vtzoo.train.augment import color_ops, geometric_ops
from vtzoo.train.threads import on_one_thread

DRAWS_PER_OPERATION = 4  # uniform numbers per image: the operation, whether it applies, its magnitude, its sign
JITTER_DRAWS = 4  # uniform numbers per image: three factors and their order

Operation = Callable[[Tensor, Tensor], Tensor]  # of images (b, 3, h, w), and an amount for each (b,)


@on_one_thread
def rand_augment(
    images: UInt8[Tensor, "b 3 h w"],
    uniform: Float[Tensor, "b d"],
    *,
    operations: int,
    magnitude: float,
    magnitude_std: float,
    probability: float,
    fill: tuple[int, int, int],
) -> UInt8[Tensor, "b 3 h w"]:
    """Images after `operations` random operations of AMOUNTS, each applied at the given probability.

    Cubuk et al. 2020 in timm's variant "inc1": operations are drawn with replacement, magnitudes are normal, clamped to
    0 and 10, and every effect grows with its magnitude. `uniform` has at least DRAWS_PER_OPERATION columns for each
    operation. `fill` is the color of pixels from outside the image.
    """
    drawn = uniform[:, : operations * DRAWS_PER_OPERATION].cpu().double()
    which, applied, normal, sign = drawn.unflatten(1, (operations, DRAWS_PER_OPERATION)).unbind(2)
    which = (which * len(AMOUNTS)).long()
    normal = torch.special.ndtri(normal + 2**-25)  # the middle of a draw's interval of 2**-24: never 0 or 1
    magnitudes = (magnitude + magnitude_std * normal).clamp(0, 10)
    signs = torch.where(sign < 0.5, -1.0, 1.0)
    amounts = torch.stack([amount(magnitudes, signs) for amount in AMOUNTS.values()], 2).gather(2, which[..., None])
    which = torch.where(applied < probability, which, len(AMOUNTS))
    every = [*COLOR_OPS.values(), *(partial(operation, fill=fill) for operation in GEOMETRIC_OPS.values())]
    for layer in range(operations):
        images = _apply(images, which[:, layer], amounts[:, layer, 0], every)
    return images


@on_one_thread
def color_jitter(
    images: UInt8[Tensor, "b 3 h w"], uniform: Float[Tensor, "b d"], strength: float
) -> UInt8[Tensor, "b 3 h w"]:
    """Images with random brightness, contrast and saturation, applied in a random order.

    Factors are uniform from max(0, 1 - strength) to 1 + strength: torchvision's ColorJitter without hue. `uniform` has
    at least JITTER_DRAWS columns.
    """
    drawn = uniform[:, :JITTER_DRAWS].cpu()
    least = max(0.0, 1 - strength)
    factors = least + drawn[:, :3] * (1 + strength - least)
    orders = torch.tensor(list(permutations(range(3))))
    order = orders[(drawn[:, 3] * len(orders)).long()]
    for which in order.unbind(1):
        images = _apply(images, which, factors.gather(1, which[:, None])[:, 0], JITTERS)
    return images


def _apply(
    images: UInt8[Tensor, "b 3 h w"],
    which: Int[Tensor, " b"],
    amounts: Float[Tensor, " b"],
    operations: Sequence[Operation],
) -> UInt8[Tensor, "b 3 h w"]:
    """Each image after the operation with its number in `which`; the number after the last leaves an image as it is.

    The images are sorted by operation, split into groups, concatenated and sorted back: copies of whole images are much
    faster than scattered writes.
    """
    order = which.argsort(stable=True)
    sizes = which.bincount(minlength=len(operations) + 1).tolist()
    rows = (order, order.argsort(), amounts[order])
    forward, back, amounts = (tensor.to(images.device, non_blocking=True) for tensor in rows)
    groups = zip(images.index_select(0, forward).split(sizes), amounts.split(sizes), (*operations, None), strict=True)
    changed = [operation(group, by) if operation and len(group) else group for group, by, operation in groups]
    return torch.cat(changed).index_select(0, back)


def _signed(most: float) -> Callable[[Tensor, Tensor], Tensor]:
    """An amount of either sign, `most` at a magnitude of 10."""
    return lambda magnitude, sign: sign * (magnitude / 10 * most)


def _enhancement(magnitude: Tensor, sign: Tensor) -> Tensor:
    """A factor from 0.1 to 1.9, 1 at a magnitude of 0."""
    return (1 + sign * (magnitude / 10 * 0.9)).clamp(min=0.1)


def _bits(magnitude: Tensor, _: Tensor) -> Tensor:
    """The number of bits to keep, from 4 down to 1; timm goes down to 0, where Pillow 13 fails."""
    return (4 - (magnitude / 10 * 4).floor()).clamp(min=1)


def _threshold(magnitude: Tensor, _: Tensor) -> Tensor:
    """The lowest inverted level, from 256 down to 0."""
    return 256 - (magnitude / 10 * 256).floor()


def _addend(magnitude: Tensor, _: Tensor) -> Tensor:
    """The amount added to dark levels, from 0 to 110."""
    return (magnitude / 10 * 110).floor()


def _none(magnitude: Tensor, _: Tensor) -> Tensor:
    """A placeholder: the operation has no amount."""
    return magnitude


JITTERS = (color_ops.brightness, color_ops.contrast, color_ops.color)
COLOR_OPS: dict[str, Operation] = {
    "AutoContrast": color_ops.auto_contrast,
    "Equalize": color_ops.equalize,
    "Invert": color_ops.invert,
    "PosterizeIncreasing": color_ops.posterize,
    "SolarizeIncreasing": color_ops.solarize,
    "SolarizeAdd": color_ops.solarize_add,
    "ColorIncreasing": color_ops.color,
    "ContrastIncreasing": color_ops.contrast,
    "BrightnessIncreasing": color_ops.brightness,
    "SharpnessIncreasing": color_ops.sharpness,
}
GEOMETRIC_OPS: dict[str, Callable[..., Tensor]] = {  # these also take the fill color
    "Rotate": geometric_ops.rotate,
    "ShearX": geometric_ops.shear_x,
    "ShearY": geometric_ops.shear_y,
    "TranslateXRel": geometric_ops.translate_x,
    "TranslateYRel": geometric_ops.translate_y,
}
AMOUNTS = {
    "AutoContrast": _none,
    "Equalize": _none,
    "Invert": _none,
    "PosterizeIncreasing": _bits,
    "SolarizeIncreasing": _threshold,
    "SolarizeAdd": _addend,
    "ColorIncreasing": _enhancement,
    "ContrastIncreasing": _enhancement,
    "BrightnessIncreasing": _enhancement,
    "SharpnessIncreasing": _enhancement,
    "Rotate": _signed(30.0),  # degrees
    "ShearX": _signed(0.3),  # pixels a pixel
    "ShearY": _signed(0.3),
    "TranslateXRel": _signed(0.45),  # of the side
    "TranslateYRel": _signed(0.45),
}
