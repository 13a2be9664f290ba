"""RandAugment and colour jitter of uint8 batches, every operation, magnitude and sign drawn per image.

What is done to which image is decided on the CPU, and the images of each operation are changed together. Where images
are on another device, `uniform` may stay on the CPU all the same: then no step waits for that device.
"""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import permutations

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from vtzoo.train.augment import color_ops, geometric_ops
from vtzoo.train.threads import on_one_thread

DRAWS_PER_OPERATION = 4  # uniform numbers an image: the operation, whether it is carried out, its magnitude, its sign
JITTER_DRAWS = 4  # uniform numbers an image: three factors and their order

Change = Callable[[Tensor, Tensor], Tensor]  # of images, by an amount for each


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
    """Images changed by `operations` random ones of AMOUNTS, each carried out at the given probability.

    Cubuk et al. 2020 in timm's variant "inc1": drawn with replacement, magnitudes are normal and cut off at 0 and 10,
    and every effect grows with them. `uniform` has DRAWS_PER_OPERATION columns an operation, or more. `fill` is the
    colour of what comes in from outside the image.
    """
    drawn = uniform[:, : operations * DRAWS_PER_OPERATION].cpu().double()
    which, carried, normal, sign = drawn.unflatten(1, (operations, DRAWS_PER_OPERATION)).unbind(2)
    which = (which * len(AMOUNTS)).long()
    normal = torch.special.ndtri(normal + 2**-25)  # the middle of the 2**-24 that a draw stands for: never 0 or 1
    magnitudes = (magnitude + magnitude_std * normal).clamp(0, 10)
    signs = torch.where(sign < 0.5, -1.0, 1.0)
    amounts = torch.stack([amount(magnitudes, signs) for amount in AMOUNTS.values()], 2).gather(2, which[..., None])
    which = torch.where(carried < probability, which, len(AMOUNTS))
    changes = [*COLOURS.values(), *(partial(change, fill=fill) for change in SHAPES.values())]
    for layer in range(operations):
        images = _changed(images, which[:, layer], amounts[:, layer, 0], changes)
    return images


@on_one_thread
def color_jitter(
    images: UInt8[Tensor, "b 3 h w"], uniform: Float[Tensor, "b d"], strength: float
) -> UInt8[Tensor, "b 3 h w"]:
    """Images of another brightness, contrast and saturation, changed in a random order.

    Factors are uniform between 1 - strength, at least 0, and 1 + strength: torchvision's ColorJitter without hue.
    `uniform` has JITTER_DRAWS columns or more.
    """
    drawn = uniform[:, :JITTER_DRAWS].cpu()
    least = max(0.0, 1 - strength)
    factors = least + drawn[:, :3] * (1 + strength - least)
    orders = torch.tensor(list(permutations(range(3))))
    order = orders[(drawn[:, 3] * len(orders)).long()]
    for which in order.unbind(1):
        images = _changed(images, which, factors.gather(1, which[:, None])[:, 0], JITTERS)
    return images


def _changed(
    images: UInt8[Tensor, "b 3 h w"],
    which: Int[Tensor, " b"],
    amounts: Float[Tensor, " b"],
    changes: Sequence[Change],
) -> UInt8[Tensor, "b 3 h w"]:
    """Each image by the change with its number in `which`, or as it is where there is none; `amounts` are theirs.

    The images are sorted by their change, cut into groups, put together again and sorted back: whole images are copied
    much faster than they are scattered.
    """
    order = which.argsort(stable=True)
    sizes = which.bincount(minlength=len(changes) + 1).tolist()
    rows = (order, order.argsort(), amounts[order])
    there, back, amounts = (tensor.to(images.device, non_blocking=True) for tensor in rows)
    groups = zip(images.index_select(0, there).split(sizes), amounts.split(sizes), (*changes, None), strict=True)
    changed = [change(group, by) if change and len(group) else group for group, by, change in groups]
    return torch.cat(changed).index_select(0, back)


def _signed(most: float) -> Callable[[Tensor, Tensor], Tensor]:
    """An amount of either sign, `most` at a magnitude of 10."""
    return lambda magnitude, sign: sign * (magnitude / 10 * most)


def _enhancement(magnitude: Tensor, sign: Tensor) -> Tensor:
    """A factor from 0.1 to 1.9, 1 at a magnitude of 0."""
    return (1 + sign * (magnitude / 10 * 0.9)).clamp(min=0.1)


def _bits(magnitude: Tensor, _: Tensor) -> Tensor:
    """How many bits are kept, from 4 down to 1: timm goes on to 0, at which Pillow 13 fails."""
    return (4 - (magnitude / 10 * 4).floor()).clamp(min=1)


def _threshold(magnitude: Tensor, _: Tensor) -> Tensor:
    """The level from which on levels are inverted, from 256 down to 0."""
    return 256 - (magnitude / 10 * 256).floor()


def _addend(magnitude: Tensor, _: Tensor) -> Tensor:
    """What is added to dark levels, from 0 to 110."""
    return (magnitude / 10 * 110).floor()


def _none(magnitude: Tensor, _: Tensor) -> Tensor:
    """Nothing that the operation would heed."""
    return magnitude


JITTERS = (color_ops.brightness, color_ops.contrast, color_ops.color)
COLOURS: dict[str, Change] = {
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
SHAPES: dict[str, Callable[..., Tensor]] = {  # which also take the colour of the fill
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
