"""Decoded images where training takes them from: on its device, or in the host's memory on their way to it."""

import numpy as np
import torch
from jaxtyping import Int, UInt8
from torch import Tensor

from vtzoo.train.pipeline import memory_budget


class Pixels:
    """The uint8 pixels of a set of images, of one size or of many, and batches of them on a device.

    `values` is (n, 3, height, width), or flat where sizes differ: image after image, each (3, height, width), as
    `extents` (n, 2) says. They may be anywhere, mapped from a file too: what is not on the device moves there batch by
    batch.
    """

    def __init__(self, values: UInt8[Tensor, "*shape"], extents: Int[Tensor, "n 2"], device: torch.device) -> None:
        self.values, self.extents, self.device = values, extents, device
        self._ends = (3 * extents.prod(1)).cumsum(0).tolist()

    @classmethod
    def of(cls, images: UInt8[np.ndarray, "n 3 h w"], device: torch.device) -> "Pixels":
        """Images of one size, copied to the device."""
        extents = torch.tensor(images.shape[2:]).expand(len(images), 2)
        return cls(torch.from_numpy(images).to(device), extents, device)

    @classmethod
    def fitting(
        cls, values: UInt8[Tensor, "*shape"], extents: Int[Tensor, "n 2"], device: torch.device, copy: bool
    ) -> "Pixels":
        """Images on the device where they fit, else left where they are; `copy` those from a file even on the CPU."""
        fits = values.nbytes <= memory_budget.on_device(device)
        return cls(values.to(device, copy=copy) if fits else values, extents, device)

    def __len__(self) -> int:
        return len(self.extents)

    def take(self, chosen: Int[Tensor, " b"]) -> tuple[UInt8[Tensor, "b 3 h w"], Int[Tensor, "b 2"]]:
        """The images with the numbers `chosen`, on the device, and the height and width of each.

        Images of many sizes lie in the upper left corners of the smallest canvas that holds them all. `chosen` is on
        the CPU.
        """
        if self.values.dim() == 4:
            taken = self.values.index_select(0, to_device(chosen, self.values.device))
        else:
            taken = self._canvas(chosen)
        return to_device(taken, self.device), to_device(self.extents[chosen], self.device)

    def _canvas(self, chosen: Int[Tensor, " b"]) -> UInt8[Tensor, "b 3 h w"]:
        extents = self.extents[chosen]
        canvas = self.values.new_zeros((len(chosen), 3, *extents.amax(0).tolist()))
        # An image at a time: indices for a gather would be eight times the size of the pixels.
        for place, (number, (height, width)) in enumerate(zip(chosen.tolist(), extents.tolist(), strict=True)):
            end = self._ends[number]
            image = self.values[end - 3 * height * width : end]
            canvas[place, :, :height, :width] = image.view(3, height, width)
        return canvas


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor on the device; to a GPU it moves while the host goes on."""
    if tensor.device == device or device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)
