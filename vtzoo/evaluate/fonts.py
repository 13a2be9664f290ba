"""Fonts of pictures: names in any script that the font supports, and escapes for other characters."""

from functools import cache
from pathlib import Path

from PIL import ImageFont


def drawable(text: str) -> str:
    r"""The text with an escape such as \u6a4b for every character without a glyph in the font, or that breaks a line.

    The font is DejaVu Sans, which comes with matplotlib: Latin, Greek, Cyrillic, Armenian, Georgian, Hebrew and Arabic,
    but not Chinese, Japanese, Korean, the scripts of India, Thai or most emoji. Hebrew and Arabic run from right to
    left, with joined letters, only if Pillow or matplotlib has libraqm, as in their latest wheels.
    """
    return "".join(
        char if char.isprintable() and ord(char) in _glyphs() else char.encode("unicode_escape").decode("ascii")
        for char in text
    )


def shortened(text: str, longest: int) -> str:
    """The drawable text in at most `longest` characters: a longer text is cut and ends in an ellipsis."""
    shown = drawable(text)
    return shown if len(shown) <= longest else f"{shown[: longest - 1]}…"


def fitted(text: str, font: ImageFont.FreeTypeFont, width: float, *, end: bool = False) -> str:
    """The drawable text in at most `width` pixels: a longer text is cut at its end, or with `end` at its beginning."""
    shown = drawable(text)
    if font.getlength(shown) <= width:
        return shown
    while shown and font.getlength(f"{shown}…") > width:
        shown = shown[1:] if end else shown[:-1]
    return f"…{shown}" if end else f"{shown}…"


@cache
def font(size: int) -> ImageFont.FreeTypeFont:
    """The font at `size` pixels per em."""
    return ImageFont.truetype(str(font_file()), size)


def font_file() -> Path:
    """The path of the font, which comes with matplotlib."""
    import matplotlib

    return Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"


@cache
def _glyphs() -> frozenset[int]:
    """The code points of the characters in the font."""
    from matplotlib.ft2font import FT2Font

    return frozenset(FT2Font(str(font_file())).get_charmap())
