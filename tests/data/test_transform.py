"""Reading images of many formats, and the evaluation transform against timm's."""

import contextlib
import io
import json
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image
from timm.data import create_transform, resolve_data_config
from timm.models._hub import load_model_config_from_path

from vtzoo.data.transform import PIXEL_CAP, Preprocess, prepare, read_image
from vtzoo.errors import VtzooError

PHOTOS = Path(__file__).parents[1] / "photos"
RED, BLUE, WHITE = (255, 0, 0), (0, 0, 255), (255, 255, 255)


def noise(width: int, height: int) -> Image.Image:
    pixels = np.random.default_rng(width * 1009 + height).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def encode(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def colour(image: Image.Image) -> tuple[int, ...]:
    assert image.mode == "RGB"
    return image.getpixel((0, 0))  # type: ignore[return-value]


def png(width: int, height: int, depth: int, colour_type: int, pixels: bytes) -> bytes:
    """A PNG file built by hand, for contents that Pillow cannot write."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)
    signature = b"\x89PNG\r\n\x1a\n"
    return signature + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(pixels)) + chunk(b"IEND", b"")


# The transform

SIZES = [(32, 32), (33, 32), (31, 47), (1, 1), (5, 3), (200, 64), (64, 201), (99, 98), (37, 37)]  # width, height
MEAN = [0.4815, 0.4578, 0.4082]


def timm_pixels(image: Image.Image, config: dict[str, Any]) -> np.ndarray:
    """The pixels of timm's own evaluation transform, before it normalizes them."""
    transform: Any = create_transform(**resolve_data_config(pretrained_cfg=config), is_training=False, normalize=False)
    return transform(image).numpy()


def assert_equals_timm(image: Image.Image, **config: Any) -> None:
    np.testing.assert_array_equal(prepare(image, Preprocess.from_config(config)), timm_pixels(image, config))


@pytest.mark.parametrize("crop", [1.0, 0.95, 0.9, 0.875, 1.3])
@pytest.mark.parametrize("mode", ["center", "squash", "border"])
@pytest.mark.parametrize("size", [(32, 32), (33, 33), (64, 48), (31, 50)])
def test_the_transform_equals_timms_to_the_pixel(size: tuple[int, int], mode: str, crop: float) -> None:
    for width, height in SIZES:
        assert_equals_timm(noise(width, height), input_size=[3, *size], crop_pct=crop, crop_mode=mode, mean=MEAN)


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear", "nearest", "lanczos", "hamming", "box"])
def test_the_transform_equals_timms_with_every_interpolation(interpolation: str) -> None:
    for width, height in SIZES:
        assert_equals_timm(noise(width, height), input_size=[3, 33, 33], interpolation=interpolation)


@settings(max_examples=80, deadline=None)
@given(
    st.tuples(st.integers(1, 150), st.integers(1, 150)),
    st.tuples(st.integers(2, 70), st.integers(2, 70)),
    st.floats(0.3, 2),
    st.sampled_from(["bicubic", "bilinear", "nearest"]),
    st.sampled_from(["center", "squash", "border"]),
)
def test_the_transform_equals_timms_at_any_size(
    image: tuple[int, int], size: tuple[int, int], crop: float, interpolation: str, mode: str
) -> None:
    config = {"input_size": [3, *size], "interpolation": interpolation, "crop_pct": crop, "crop_mode": mode}
    assume(mode != "border" or max(image) / min(image) < min(size) / crop / 2)  # timm fails if a side would be 0 pixels
    assert_equals_timm(noise(*image), **config)


@pytest.mark.parametrize("mode", ["center", "squash", "border"])
@pytest.mark.parametrize("size", [(224, 224), (384, 128)])
def test_the_transform_equals_timms_on_photographs(size: tuple[int, int], mode: str) -> None:
    for file in PHOTOS.glob("*.jpg"):
        assert_equals_timm(read_image(file), input_size=[3, *size], crop_pct=0.9, crop_mode=mode)


@pytest.mark.parametrize(
    "config", [{"num_classes": 10}, {"crop_pct": None, "crop_mode": None, "interpolation": None, "mean": None}]
)
def test_missing_config_values_are_timms_defaults(config: dict[str, Any]) -> None:
    assert_equals_timm(noise(300, 250), **config)


def test_the_size_is_input_size_and_not_test_input_size_as_in_timm() -> None:
    assert_equals_timm(noise(99, 98), input_size=[3, 32, 32], test_input_size=[3, 48, 48], test_crop_pct=1.0)


def test_an_image_of_the_right_size_keeps_its_pixels() -> None:
    image = noise(32, 32)
    pixels = prepare(image, Preprocess(size=32, interpolation="bicubic", crop=1.0))
    assert pixels.dtype == np.uint8
    np.testing.assert_array_equal(pixels.transpose(1, 2, 0), np.asarray(image))


@pytest.mark.parametrize("mode", ["center", "border"])
def test_a_strip_too_narrow_to_be_resized_is_refused(mode: str) -> None:
    with pytest.raises(VtzooError, match="200000 x 1 pixels, is too narrow"):
        prepare(Image.new("RGB", (200_000, 1)), Preprocess(size=32, interpolation="bicubic", crop=1.0, mode=mode))


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("size", 0, "image size must be a whole number of pixels, not 0"),
        ("size", "32", "image size must be .* not '32'"),
        ("width", 7.5, "image size must be .* not 7.5"),
        ("interpolation", "bicubik", "unknown interpolation 'bicubik'"),
        ("interpolation", "random", "unknown interpolation 'random'"),
        ("crop", 0, "crop must be a fraction above 0 and at most 32, not 0"),
        ("crop", 33, "at most 32, not 33"),
        ("crop", 1e-320, "not 1e-320"),
        ("crop", float("nan"), "not nan"),
        ("mode", "centre", "unknown crop mode 'centre'"),
        ("fill", (0, 0, 256), r"colour must be three whole numbers from 0 to 255, not \(0, 0, 256\)"),
        ("fill", (0, 0), r"not \(0, 0\)"),
    ],
)
def test_an_invalid_preprocess_is_refused(field: str, value: Any, message: str) -> None:
    with pytest.raises(VtzooError, match=message):
        Preprocess(**{"size": 32, "interpolation": "bicubic", "crop": 1.0, field: value})


CONFIG = {"input_size": [3, 64, 64], "interpolation": "bilinear", "crop_pct": 0.9, "crop_mode": "center"}


def test_a_preprocess_has_the_values_of_its_config() -> None:
    preprocess = Preprocess.from_config(CONFIG)
    assert preprocess.as_dict() == {"size": 64, "interpolation": "bilinear", "crop": 0.9}


def test_a_preprocess_survives_a_round_trip_through_json() -> None:
    preprocess = Preprocess.from_config(CONFIG | {"input_size": [3, 64, 48], "crop_mode": "border", "mean": MEAN})
    loaded = json.loads(json.dumps(preprocess.as_dict()))
    assert loaded == {
        "size": 64, "width": 48, "interpolation": "bilinear", "crop": 0.9, "mode": "border", "fill": [123, 117, 104]
    }  # fmt: skip
    assert Preprocess(**loaded) == preprocess


@pytest.mark.parametrize("change", [{"input_size": [1, 64, 64]}, {"in_chans": 1}])
def test_a_config_for_images_other_than_rgb_is_refused(change: dict[str, Any]) -> None:
    config = {"pretrained_cfg": CONFIG | change, "model_args": change}
    with pytest.raises(VtzooError, match="the model takes images of 1 channels"):
        Preprocess.from_config(config)


@pytest.mark.parametrize(
    "change",
    [
        {"input_size": 64},
        {"input_size": [3, 64]},
        {"pretrained_cfg": [1]},
        {"pretrained_cfg": "x"},
        {"model_args": [1]},
        {"mean": 0.5},
        {"mean": [0.5, 0.5]},
        {"mean": [1e400] * 3},
        {"std": "abc"},
    ],
)
def test_a_config_of_another_layout_than_timms_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(VtzooError, match=r"config\.json cannot be read as timm's: "):
        Preprocess.from_config(CONFIG | change)


@pytest.mark.parametrize("change", [{"interpolation": ["bicubic"]}, {"crop_mode": "border", "mean": [1e307] * 3}])
def test_a_config_whose_values_make_no_transform_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(VtzooError, match="does not say how to prepare an image: "):
        Preprocess.from_config(CONFIG | change)


@pytest.mark.parametrize(
    ("arguments", "fixed", "sides"),
    [
        ({"img_size": 32}, True, (32, 32)),
        ({"img_size": [32, 48]}, True, (32, 48)),
        ({"img_size": 32}, False, (64, 64)),
        ({"img_size": 32, "dynamic_img_size": True}, True, (64, 64)),
        ({"img_size": 32, "strict_img_size": False}, True, (64, 64)),
        ({"img_size": 32, "use_naflex": True}, True, (64, 64)),
        ({}, True, (64, 64)),
    ],
)
def test_img_size_among_the_model_args_applies_whenever_timm_applies_it(
    arguments: dict[str, Any], fixed: bool, sides: tuple[int, int], tmp_path: Path
) -> None:
    pretrained = CONFIG | {"fixed_input_size": fixed}
    config = {"architecture": "vit_tiny_patch16_224", "model_args": arguments, "pretrained_cfg": pretrained}
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    timm_config = load_model_config_from_path(tmp_path)[0]
    assert Preprocess.from_config(config).shape == tuple(timm_config["input_size"]) == (3, *sides)


def test_a_config_in_timms_first_format_needs_no_pretrained_cfg_table() -> None:
    assert Preprocess.from_config({"architecture": "resnet18", **CONFIG}) == Preprocess.from_config(CONFIG)


# Readable images


def test_path_bytes_image_and_array_give_the_same_pixels(tmp_path: Path) -> None:
    image = noise(9, 7)
    file = tmp_path / "photo.png"
    file.write_bytes(encode(image, "PNG"))
    sources = [file, str(file), file.read_bytes(), memoryview(file.read_bytes()), image, np.asarray(image)]
    for source in sources:
        np.testing.assert_array_equal(np.asarray(read_image(source)), np.asarray(image))


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_the_first_frame_of_an_animation_is_read(kind: str) -> None:
    frames = [Image.new("RGB", (8, 8), shade) for shade in (RED, BLUE)]
    content = encode(frames[0], kind, save_all=True, append_images=frames[1:], duration=100)
    assert Image.open(io.BytesIO(content)).n_frames == 2  # type: ignore[attr-defined]
    np.testing.assert_allclose(colour(read_image(content)), RED, atol=3)


def test_cmyk_is_read_in_its_colours() -> None:
    cyan = Image.new("CMYK", (8, 8), (255, 0, 0, 0))
    np.testing.assert_allclose(colour(read_image(encode(cyan, "JPEG", quality=95))), (0, 255, 255), atol=3)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bit_grey_is_scaled_not_clipped(kind: str) -> None:
    values = np.array([[0, 257, 256 * 128, 65535]], np.uint16)
    pixels = np.asarray(read_image(encode(Image.fromarray(values), kind)))
    assert pixels[0, :, 0].tolist() == [0, 1, 128, 255]
    assert (pixels == pixels[..., :1]).all()


def test_big_endian_16_bit_grey_is_scaled() -> None:
    image = Image.frombytes("I;16B", (2, 1), struct.pack(">HH", 65535, 257 * 100))
    assert np.asarray(read_image(image))[0, :, 0].tolist() == [255, 100]


def test_16_bit_grey_in_32_bit_pixels_is_scaled() -> None:
    image = Image.fromarray(np.array([[65535, 257 * 7]], np.int32))
    assert np.asarray(read_image(image))[0, :, 0].tolist() == [255, 7]


def test_16_bit_colour_is_scaled() -> None:
    content = png(1, 1, 16, 2, b"\0" + struct.pack(">HHH", 65535, 257 * 128, 0))
    assert colour(read_image(content)) == (255, 128, 0)


def test_a_palette_is_looked_up() -> None:
    image = Image.new("P", (4, 4), 1)
    image.putpalette([0, 0, 0, 10, 200, 30])
    assert colour(read_image(encode(image, "PNG"))) == (10, 200, 30)


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (Image.new("RGBA", (4, 4), (0, 0, 0, 0)), WHITE),
        (Image.new("RGBA", (4, 4), (255, 0, 0, 128)), (255, 127, 127)),
        (Image.new("LA", (4, 4), (0, 0)), WHITE),
        (Image.new("RGBA", (4, 4), (1, 2, 3, 255)), (1, 2, 3)),
    ],
)
def test_transparency_is_composited_on_white(image: Image.Image, expected: tuple[int, ...]) -> None:
    assert colour(read_image(encode(image, "PNG"))) == expected


@pytest.mark.parametrize("mode", ["P", "L", "RGB"])
def test_a_transparent_colour_is_composited_on_white(mode: str) -> None:
    black: Any = 0 if mode != "RGB" else (0, 0, 0)
    assert colour(read_image(encode(Image.new(mode, (4, 4), black), "PNG", transparency=black))) == WHITE


@pytest.mark.parametrize("mode", ["1", "L", "YCbCr", "HSV"])
def test_other_modes_become_rgb(mode: str) -> None:
    assert colour(read_image(Image.new("RGB", (2, 2), WHITE).convert(mode))) == WHITE


UPRIGHT = {  # EXIF 2.3, tag 0x0112: the operation that undoes each orientation
    1: lambda stored: stored,
    2: np.fliplr,
    3: lambda stored: np.rot90(stored, 2),
    4: np.flipud,
    5: lambda stored: stored.transpose(1, 0, 2),
    6: lambda stored: np.rot90(stored, -1),
    7: lambda stored: np.rot90(stored, 2).transpose(1, 0, 2),
    8: np.rot90,
}


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_exif_orientation_is_applied(orientation: int) -> None:
    image, exif = noise(5, 3), Image.Exif()
    exif[0x0112] = orientation
    content = encode(image, "PNG", exif=exif.tobytes())
    np.testing.assert_array_equal(np.asarray(read_image(content)), UPRIGHT[orientation](np.asarray(image)))


def test_an_image_with_broken_exif_keeps_its_pixels() -> None:
    image = noise(5, 3)
    content = encode(image, "PNG", exif=b"Exif\0\0II*\0\xff\xff\xff\xffgarbage")
    np.testing.assert_array_equal(np.asarray(read_image(content)), np.asarray(image))


def test_the_callers_image_is_left_as_it_was() -> None:
    image = Image.new("RGBA", (3, 2), (1, 2, 3, 4))
    read_image(image)
    assert (image.mode, image.getpixel((0, 0))) == ("RGBA", (1, 2, 3, 4))


def test_every_photograph_of_the_repository_is_read() -> None:
    assert {file.stem: read_image(file).size for file in PHOTOS.glob("*.jpg")} == {
        "astronaut": (480, 480),
        "chelsea": (451, 300),
        "coffee": (480, 320),
        "rocket": (480, 320),
    }


# Errors


def refusal(source: Any) -> str:
    with pytest.raises(VtzooError) as caught:
        read_image(source)
    return caught.value.message


def write(folder: Path, name: str, content: bytes) -> str:
    (folder / name).write_bytes(content)
    return str(folder / name)


def test_a_file_that_is_no_image_is_refused_by_name(tmp_path: Path) -> None:
    assert "notes.jpg' is not an image" in refusal(write(tmp_path, "notes.jpg", b"Dear diary, today"))


def test_an_empty_file_is_refused_by_name(tmp_path: Path) -> None:
    assert "none.jpg' is empty: zero bytes" in refusal(write(tmp_path, "none.jpg", b""))
    assert "is empty: zero bytes" in refusal(b"")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP"])
def test_a_truncated_image_is_refused_by_name(kind: str, tmp_path: Path) -> None:
    content = encode(noise(40, 40), kind)
    for length in (len(content) // 2, len(content) * 3 // 4):
        file = write(tmp_path, f"half.{kind}", content[:length])
        assert f"half.{kind}'" in refusal(file)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(["JPEG", "PNG", "GIF", "WEBP", "TIFF"]), st.integers(0, 10_000), st.integers(0, 255))
def test_a_damaged_image_is_read_or_refused_without_another_error(kind: str, position: int, byte: int) -> None:
    content = bytearray(encode(noise(16, 16), kind))
    content[position % len(content)] = byte
    with contextlib.suppress(VtzooError):
        assert read_image(bytes(content)).mode == "RGB"


def test_a_missing_file_is_refused_by_name(tmp_path: Path) -> None:
    assert refusal(str(tmp_path / "gone.jpg")) == f"there is no file '{tmp_path / 'gone.jpg'}'"


def test_a_folder_is_refused_by_name(tmp_path: Path) -> None:
    assert refusal(tmp_path) == f"'{tmp_path}' is a folder, not an image"


def test_a_name_that_no_file_can_have_is_refused() -> None:
    assert "cannot read 'a\\x00b.jpg'" in refusal("a\0b.jpg")
    assert "File name too long" in refusal("a" * 5000)


def test_a_decompression_bomb_is_refused_by_name(tmp_path: Path) -> None:
    bomb = write(tmp_path, "bomb.png", png(13_378, 13_378, 8, 2, b""))
    assert PIXEL_CAP < 13_378**2
    assert "bomb.png' has more than 178,956,970 pixels" in refusal(bomb)


def test_a_bomb_is_refused_even_if_pillows_cap_was_lifted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    assert "refused as a decompression bomb" in refusal(png(13_378, 13_378, 8, 2, b""))


def test_an_image_just_below_the_cap_is_not_a_bomb() -> None:
    width = 13_377
    assert width**2 <= PIXEL_CAP
    assert "bomb" not in refusal(png(width, width, 1, 0, b""))


def test_an_image_over_half_of_the_cap_is_read_without_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50)
    assert read_image(encode(noise(8, 8), "PNG")).size == (8, 8)


def test_pixels_of_more_than_16_bits_are_refused() -> None:
    assert "more than 16 bits" in refusal(encode(Image.fromarray(np.array([[65536]], np.int32)), "TIFF"))


def test_floating_point_pixels_are_refused() -> None:
    assert "floating-point pixels" in refusal(encode(Image.fromarray(np.ones((2, 2), np.float32)), "TIFF"))


def test_an_image_without_pixels_is_refused() -> None:
    assert refusal(Image.new("RGB", (0, 5))) == "'the image' has no pixels"


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((4, 4, 3), np.float32),
        np.zeros((4, 4), np.uint8),
        np.zeros((3, 4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
    ],
)
def test_an_array_that_is_no_image_is_refused_by_type_and_shape(array: np.ndarray) -> None:
    assert refusal(array) == f"an array of {array.dtype} {array.shape} is not an image"


@pytest.mark.parametrize("source", [None, 3, {"photo.jpg"}])
def test_a_source_of_an_unsupported_type_is_refused_by_type(source: Any) -> None:
    assert refusal(source) == f"an image cannot be read from {type(source).__name__}"
