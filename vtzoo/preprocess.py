"""Image -> array, with PIL and numpy: THE evaluation transform, the only one.

`read_image` makes an upright RGB image out of whatever it is given, or says by name why it cannot; `prepare` resizes
and crops it to the pixels that a model takes. Normalization is the model's own business.
"""

import math
import os
import threading
import warnings
from dataclasses import asdict, dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from PIL import Image, ImageOps

from .errors import VtzooError, unknown

PIXEL_CAP = 178_956_970  # pixels; where Pillow refuses an image as a decompression bomb
SUFFIXES = (".avif", ".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
RESAMPLING = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}

ImageSource: TypeAlias = str | os.PathLike[str] | bytes | bytearray | memoryview | Image.Image | np.ndarray

_opening = threading.Lock()  # warning filters belong to the whole process


@dataclass(frozen=True, kw_only=True)
class Preprocess:
    """How an image becomes the square that a model takes."""

    size: int  # pixels, the side of the square
    interpolation: str  # "bicubic" or "bilinear"
    crop: float  # what the square keeps of the resized image's shorter side, as a fraction

    def __post_init__(self) -> None:
        if type(self.size) is not int or self.size < 1:
            raise VtzooError(f"the image size must be a whole number of pixels, not {self.size!r}")
        if self.interpolation not in RESAMPLING:
            raise unknown("interpolation", str(self.interpolation), RESAMPLING)
        if not isinstance(self.crop, int | float) or not 0 < self.crop <= 1:
            raise VtzooError(f"the crop must be a fraction above 0 and at most 1, not {self.crop!r}")

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Preprocess":
        """What a config.json's `pretrained_cfg` asks for; anything but a centre crop of a square is a VtzooError."""
        try:
            channels, height, width = config["input_size"]
            interpolation, crop = config["interpolation"], config["crop_pct"]
        except (KeyError, TypeError, ValueError) as error:
            raise VtzooError(f"the model's config.json does not say how to prepare an image: {error}") from error
        if channels != 3 or height != width or config.get("crop_mode", "center") != "center":
            raise VtzooError("the model's config.json asks for something else than the central square of RGB images")
        return cls(size=height, interpolation=interpolation, crop=crop)

    def as_dict(self) -> dict[str, Any]:
        """The JSON object that an ONNX file carries as `vtzoo.preprocess`."""
        return asdict(self)


def prepare(image: Image.Image, preprocess: Preprocess) -> np.ndarray:
    """The centre of the resized RGB image, uint8 (3, size, size).

    Equal to timm's evaluation transform on PIL images with crop mode "center", pixel for pixel: the shorter side
    becomes floor(size / crop), the longer one is cut to whole pixels, and halves are rounded to even. As crop is at
    most 1, a small image is enlarged and never padded. A strip so narrow that it would be resized to more than the
    pixel cap is a VtzooError.
    """
    short = math.floor(preprocess.size / preprocess.crop)
    width, height = (int(short * side / min(image.size)) for side in image.size)
    if width * height > PIXEL_CAP:
        raise VtzooError(f"the image, {image.width} x {image.height} pixels, is too narrow to be resized")
    if image.size != (width, height):
        image = image.resize((width, height), RESAMPLING[preprocess.interpolation])
    left, top = round((width - preprocess.size) / 2), round((height - preprocess.size) / 2)
    square = image.crop((left, top, left + preprocess.size, top + preprocess.size))
    return np.ascontiguousarray(np.asarray(square, dtype=np.uint8).transpose(2, 0, 1))


def read_image(source: ImageSource) -> Image.Image:
    """The image as upright 8-bit RGB, from a path, bytes, a PIL image or a uint8 array (height, width, 3).

    The first frame of an animation, EXIF orientation applied, transparency composited on white, 16 bits scaled to 8.
    Whatever cannot be read is a VtzooError that names the source.
    """
    if isinstance(source, np.ndarray):
        return _from_array(source)
    name = _name(source)
    try:
        image = source if isinstance(source, Image.Image) else _open(source, name)
        _refuse_size(image, name)
        image.load()
        return _to_rgb(_upright(image), name)
    except VtzooError:
        raise
    except Exception as error:  # Pillow's decoders answer hostile bytes with errors of any type
        raise VtzooError(f"cannot read {name}: {_reason(error)}") from error


def _name(source: Any) -> str:
    if isinstance(source, str | os.PathLike):
        return repr(os.fsdecode(source))
    if isinstance(source, Image.Image):
        return repr(getattr(source, "filename", "") or "the image")
    if isinstance(source, bytes | bytearray | memoryview):
        return f"the image of {len(source)} bytes"
    raise VtzooError(
        f"an image cannot be read from {type(source).__name__}", "give a path, bytes, a PIL image or a uint8 array"
    )


def _reason(error: Exception) -> str:
    message = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return (message.strip().splitlines() or [type(error).__name__])[0]


def _open(source: Any, name: str) -> Image.Image:
    """The image with its header read alone; the file is closed again."""
    content = _content(source, name)
    if not content:
        raise VtzooError(f"{name} is empty: zero bytes")
    try:
        with _opening, warnings.catch_warnings():
            # Pillow warns from half of the cap on; below the cap an image is simply read.
            warnings.simplefilter("ignore")
            return Image.open(BytesIO(content))
    except Image.UnidentifiedImageError as error:
        raise VtzooError(f"{name} is not an image, or of a kind that cannot be read") from error
    except Image.DecompressionBombError as error:
        raise _bomb(name) from error


def _content(source: Any, name: str) -> bytes:
    if not isinstance(source, str | os.PathLike):
        return bytes(source)
    path = Path(os.fsdecode(source))
    if path.is_dir():
        raise VtzooError(f"{name} is a folder, not an image", f"images in it end in {', '.join(SUFFIXES)}")
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise VtzooError(f"there is no file {name}") from error


def _refuse_size(image: Image.Image, name: str) -> None:
    if not image.width or not image.height:
        raise VtzooError(f"{name} has no pixels")
    if image.width * image.height > PIXEL_CAP:  # counted here too: a caller may have lifted Pillow's cap
        raise _bomb(name)


def _bomb(name: str) -> VtzooError:
    return VtzooError(f"{name} has more than {PIXEL_CAP:,} pixels: refused as a decompression bomb")


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # pixels are worth showing even where the EXIF beside them is garbage
        return image


def _to_rgb(image: Image.Image, name: str) -> Image.Image:
    if image.mode.startswith("I"):
        image = _eight_bits(image, name)
    if image.mode == "F":
        raise VtzooError(f"{name} holds floating-point pixels, of unknown range", "save it with 8 bits")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image if image.mode == "RGB" else image.convert("RGB")


def _eight_bits(image: Image.Image, name: str) -> Image.Image:
    """16-bit grey scaled to 8 bits; Pillow's own conversion would clip everything above 255 to white."""
    pixels = np.asarray(image).astype(np.int64)
    if pixels.min() < 0 or pixels.max() > 65535:
        raise VtzooError(f"{name} holds pixels of more than 16 bits, of unknown range", "save it with 8 bits")
    return Image.fromarray(((pixels + 128) // 257).astype(np.uint8))


def _from_array(array: np.ndarray) -> Image.Image:
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3 or not array.size:
        raise VtzooError(
            f"an array of {array.dtype} {array.shape} is not an image", "an image is uint8 (height, width, 3), RGB"
        )
    return Image.fromarray(np.ascontiguousarray(array))
