"""Random crops of a batch, the same ones out of stored pixels as out of images that are decoded anew in every epoch."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from PIL import Image
from torch import Tensor

from vtzoo.train.augment import mix
from vtzoo.train.pipeline.pixels import Pixels
from vtzoo.train.pipeline.resized_crop import BOX_DRAWS, random_boxes, resized_crop
from vtzoo.train.pipeline.storage import Square, Whole
from vtzoo.zoo.recipe import Augmentation, RandomResizedCrop


@dataclass(frozen=True, kw_only=True)
class Crops:
    """What becomes of an image's place, size and direction."""

    size: int  # pixels, the side of the square
    padding: int  # pixels of reflected border around a square image, before it is shifted
    box: RandomResizedCrop | None  # instead
    flip: bool  # left to right, half of the images

    @classmethod
    def of(cls, augmentation: Augmentation, *, size: int, flip: bool) -> "Crops":
        """What a recipe's augmentation asks for, at the model's image size; `flip` says whether the data allow one."""
        how = augmentation
        return cls(size=size, padding=how.crop_padding, box=how.random_resized_crop, flip=how.flip and flip)

    @property
    def form(self) -> Square | Whole:
        """How images are stored for these crops: squares, or larger than the model's by what a crop leaves out."""
        return Whole(side=self.size * 8 // 7) if self.box else Square(side=self.size)  # 256 for 224 px

    def uniform(self, seed: int, epoch: int, images: Int[Tensor, " b"]) -> Float[Tensor, "b d"]:
        """The numbers that decide on each image's crop, and on what is erased of it."""
        return mix.draws(seed, epoch, images, columns=mix.DRAWS + (BOX_DRAWS if self.box else 0))

    def of_pixels(
        self, pixels: Pixels, chosen: Int[Tensor, " b"], uniform: Float[Tensor, "b d"]
    ) -> UInt8[Tensor, "b 3 h w"]:
        """The crops of the stored images with the numbers `chosen`, which are on the CPU."""
        images, extents = pixels.take(chosen)
        if self.box is None:
            return mix.crop_and_flip(images, uniform, self.padding, self.flip)
        boxes = random_boxes(uniform[:, mix.DRAWS :], extents, self.box.scale, self.box.ratio)
        return resized_crop(images, boxes, self.size, self._mirrored(uniform))

    def of_image(self, image: Image.Image, uniform: Float[Tensor, "1 d"]) -> UInt8[np.ndarray, "3 h w"]:
        """The crop of one image, but for a shift and a flip, which `finish` makes.

        Boxes are drawn in the image as it would be stored, and cut out of it as it is: to rounding, the same region.
        """
        form = self.form
        if isinstance(form, Square) or self.box is None:
            return form.pixels(image)
        top, left, tall, wide = form.region(image.height, image.width)
        height, width = form.extent(image.height, image.width)
        extents = torch.tensor([[height, width]])
        (box,) = random_boxes(uniform[:, mix.DRAWS :], extents, self.box.scale, self.box.ratio).tolist()
        rows, columns = np.array([box[0], box[0] + box[2]]) / height, np.array([box[1], box[1] + box[3]]) / width
        upper, lower = np.round(top + rows * tall).astype(int).tolist()
        first, last = np.round(left + columns * wide).astype(int).tolist()
        square = image.crop((first, upper, last, lower)).resize((self.size, self.size), Image.Resampling.BICUBIC)
        return np.asarray(square).transpose(2, 0, 1)

    def finish(self, images: UInt8[Tensor, "b 3 h w"], uniform: Float[Tensor, "b d"]) -> UInt8[Tensor, "b 3 h w"]:
        """What is left to do on the crops of single images."""
        if self.box is None:
            return mix.crop_and_flip(images, uniform, self.padding, self.flip)
        return torch.where(self._mirrored(uniform)[:, None, None, None], images.flip(3), images)

    def _mirrored(self, uniform: Float[Tensor, "b d"]) -> Bool[Tensor, " b"]:
        return uniform[:, mix.FLIP] < (0.5 if self.flip else 0.0)
