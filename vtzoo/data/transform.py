"""Image -> array, with PIL and numpy: THE evaluation transform, the only one.

`read_image` reads an upright RGB image, or raises an error that names the source. `prepare` resizes and crops it to the
pixels that a model takes. Normalization is part of the model.
"""

import math
import os
import threading
import warnings
from dataclasses import MISSING, dataclass, fields
from io import BytesIO
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from PIL import Image, ImageOps

from vtzoo.errors import VtzooError, unknown

PIXEL_CAP = 178_956_970  # pixels; Pillow refuses larger images as decompression bombs
SUFFIXES = (".avif", ".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
RESAMPLING = {method.name.lower(): method for method in Image.Resampling}  # "bicubic", "bilinear", "nearest"...
MODES = ("center", "squash", "border")
BLACK = (0, 0, 0)
TIMM_DEFAULTS = {  # of values that a config.json lacks
    "input_size": [3, 224, 224], "interpolation": "bicubic", "crop_pct": 0.875, "crop_mode": "center",
    "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225],
}  # fmt: skip

ImageSource: TypeAlias = str | os.PathLike[str] | bytes | bytearray | memoryview | Image.Image | np.ndarray

_opening = threading.Lock()  # warning filters are shared by the whole process


@dataclass(frozen=True, kw_only=True)
class Preprocess:
    """The resizing and cropping of an image to the pixels that a model takes."""

    size: int  # pixels, the height; also the width, unless `width` is given
    interpolation: str  # a key of RESAMPLING
    crop: float  # the fraction of the resized image's side that is kept; above 1, a border is added
    width: int | None = None  # pixels
    mode: str = "center"  # in proportion and cropped; "squash": out of proportion; "border": in proportion and padded
    fill: tuple[int, ...] = BLACK  # the border's colour: R, G and B, 0 to 255

    def __post_init__(self) -> None:
        object.__setattr__(self, "fill", tuple(self.fill))  # JSON has a list
        for side in self.shape[1:]:
            if type(side) is not int or side < 1:
                raise VtzooError(f"the image size must be a whole number of pixels, not {side!r}")
        if self.interpolation not in RESAMPLING:
            raise unknown("interpolation", str(self.interpolation), RESAMPLING)
        if self.mode not in MODES:
            raise unknown("crop mode", str(self.mode), MODES)
        # The resized image has at least one pixel a side, and fewer than the cap.
        low, high = max(self.shape[1:]) / PIXEL_CAP, min(self.shape[1:])
        if not isinstance(self.crop, int | float) or not low < self.crop <= high:
            raise VtzooError(f"the crop must be a fraction above 0 and at most {high}, not {self.crop!r}")
        if len(self.fill) != 3 or any(type(value) is not int or not 0 <= value <= 255 for value in self.fill):
            raise VtzooError(f"the border's colour must be three whole numbers from 0 to 255, not {self.fill!r}")

    @property
    def shape(self) -> tuple[int, int, int]:
        """The output's channels, height and width in pixels."""
        return 3, self.size, self.size if self.width is None else self.width

    @classmethod
    def square(cls, size: int) -> "Preprocess":
        """The shorter side resized to `size` pixels, bicubic, and the centre cropped; unchanged if of that size."""
        return cls(size=size, interpolation="bicubic", crop=1.0)

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Preprocess":
        """The evaluation transform of timm for a config.json, or for its `pretrained_cfg` alone.

        The size is `input_size`, as in timm's own snippets, not the larger `test_input_size` of some models. A config
        that describes no transform of RGB images is a VtzooError.
        """
        try:
            known = complete(config)
            channels, height, width = known["input_size"]
            if channels != 3:
                raise VtzooError(f"the model takes images of {channels!r} channels", "vtzoo gives RGB images, of 3")
            fill = tuple(round(255 * value) for value in known["mean"]) if known["crop_mode"] == "border" else BLACK
            return cls(
                size=height, width=None if width == height else width, interpolation=known["interpolation"],
                crop=known["crop_pct"], mode=known["crop_mode"], fill=fill,
            )  # fmt: skip
        except (OverflowError, TypeError, ValueError) as error:
            raise VtzooError(f"the model's config.json does not say how to prepare an image: {error}") from error

    def as_dict(self) -> dict[str, Any]:
        """The JSON object that an ONNX file carries as `vtzoo.preprocess`; fields at their defaults are left out."""
        values = [(field, getattr(self, field.name)) for field in fields(self)]
        return {field.name: value for field, value in values if field.default is MISSING or value != field.default}


def complete(config: dict[str, Any]) -> dict[str, Any]:
    """The `pretrained_cfg` of a config.json as timm reads it: with timm's defaults, and the file's other keys applied.

    timm's first files had no `pretrained_cfg` table: the whole file is the table, with `labels` for `label_names`. A
    config.json that timm could not read is a VtzooError.
    """
    try:
        known, arguments = dict(config.get("pretrained_cfg") or config), config.get("model_args") or {}
        known |= {key: value for key, value in TIMM_DEFAULTS.items() if not known.get(key)}
        known["label_names"] = known.get("label_names", known.get("labels"))
        known |= {key: config[key] for key in ("num_classes", "label_names", "label_descriptions") if key in config}
        known["num_classes"] = arguments.get("num_classes", known.get("num_classes"))
        for key in ("mean", "std"):  # one value for all channels, or one per channel
            if len(known[key]) not in (1, 3) or not all(math.isfinite(value) for value in known[key]):
                raise ValueError(f"its {key} is {known[key]!r}")
        return known | _input(known, arguments)
    except (AttributeError, TypeError, ValueError) as error:
        raise VtzooError(f"the model's config.json cannot be read as timm's: {error}") from error


def _input(known: dict[str, Any], arguments: dict[str, Any]) -> dict[str, Any]:
    """`input_size` and `fixed_input_size` of a model that is built with these arguments."""
    channels, height, width = known["input_size"]
    flexible = arguments.get("dynamic_img_size") or arguments.get("use_naflex")
    fixed = known.get("fixed_input_size") and not flexible and arguments.get("strict_img_size") is not False
    if fixed and (size := arguments.get("img_size")):
        height, width = (size, size) if isinstance(size, int) else size
    return {"input_size": [arguments.get("in_chans") or channels, height, width], "fixed_input_size": bool(fixed)}


def prepare(image: Image.Image, preprocess: Preprocess) -> np.ndarray:
    """The RGB image resized and cropped for the model, uint8 (3, height, width).

    Equal to timm's evaluation transform on PIL images, pixel for pixel. An image whose resized size would exceed the
    pixel cap, or would have no pixels, is a VtzooError.
    """
    size = width, height = resized(image.width, image.height, preprocess)
    if not 0 < width * height <= PIXEL_CAP:
        raise VtzooError(f"the image, {image.width} x {image.height} pixels, is too narrow to be resized")
    if image.size != size:
        image = image.resize(size, RESAMPLING[preprocess.interpolation])
    _, rows, columns = preprocess.shape
    cut = Image.new("RGB", (columns, rows), preprocess.fill)
    cut.paste(image, (offset(columns, width), offset(rows, height)))
    return np.ascontiguousarray(np.asarray(cut, dtype=np.uint8).transpose(2, 0, 1))


def resized(width: int, height: int, preprocess: Preprocess) -> tuple[int, int]:
    """The image's width and height after resizing, before cropping, rounded as timm does in each case."""
    rows, columns = (math.floor(side / preprocess.crop) for side in preprocess.shape[1:])
    if preprocess.mode == "squash":
        return columns, rows
    if preprocess.mode == "center" and rows == columns:  # the shorter side is exact, the longer side rounded down
        return int(rows * width / min(width, height)), int(rows * height / min(width, height))
    ratios = width / columns, height / rows
    ratio = max(ratios) if preprocess.mode == "border" else min(ratios)
    return round(width / ratio), round(height / ratio)


def offset(room: int, length: int) -> int:
    """The first pixel of a centred image, negative if it is cropped; a half is rounded down, or to even if cropped."""
    return (room - length) // 2 if length < room else -round((length - room) / 2)


def read_image(source: ImageSource) -> Image.Image:
    """The image as upright 8-bit RGB, from a path, bytes, a PIL image or a uint8 array (height, width, 3).

    The first frame of an animation, EXIF orientation applied, transparency composited on white, 16 bits scaled to 8.
    An unreadable source is a VtzooError that names it.
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
    except Exception as error:  # Pillow's decoders raise errors of any type on hostile bytes
        raise VtzooError(f"cannot read {name}: {_reason(error)}") from error


def _name(source: Any) -> str:
    if isinstance(source, str | os.PathLike):
        return repr(os.fsdecode(source))
    if isinstance(source, Image.Image):
        return repr(getattr(source, "filename", "") or "the image")
    if isinstance(source, bytes | bytearray | memoryview):
        return f"the image of {len(source)} bytes"
    hint = "give a path, bytes, a PIL image or a uint8 array"
    raise VtzooError(f"an image cannot be read from {type(source).__name__}", hint)


def _reason(error: Exception) -> str:
    message = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return (message.strip().splitlines() or [type(error).__name__])[0]


def _open(source: Any, name: str) -> Image.Image:
    """The image with only its header decoded; the file is closed again."""
    content = _content(source, name)
    if not content:
        raise VtzooError(f"{name} is empty: zero bytes")
    try:
        with _opening, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns from half of the cap on
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
    if image.width * image.height > PIXEL_CAP:  # also checked here: a caller may have lifted Pillow's cap
        raise _bomb(name)


def _bomb(name: str) -> VtzooError:
    return VtzooError(f"{name} has more than {PIXEL_CAP:,} pixels: refused as a decompression bomb")


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # the pixels are useful even with broken EXIF data
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
        hint = "an image is uint8 (height, width, 3), RGB"
        raise VtzooError(f"an array of {array.dtype} {array.shape} is not an image", hint)
    return Image.fromarray(np.ascontiguousarray(array))
