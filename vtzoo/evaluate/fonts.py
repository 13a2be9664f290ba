"""Letters in pictures: names in any script that the font has, and escapes for the rest."""

from functools import cache
from pathlib import Path

from PIL import ImageFont


def drawable(text: str) -> str:
    r"""The text with an escape, as \u6a4b, for every character that the font has no glyph for, or that breaks a line.

    The font is DejaVu Sans, which comes with matplotlib: Latin, Greek, Cyrillic, Armenian, Georgian, Hebrew and Arabic,
    but not Chinese, Japanese, Korean, the scripts of India, Thai or most emoji. Hebrew and Arabic run from right to
    left, and are joined, only where the library that draws has libraqm, as Pillow's and matplotlib's latest wheels do.
    """
    return "".join(char if char.isprintable() and ord(char) in _glyphs() else _escape(char) for char in text)


def shortened(text: str, longest: int) -> str:
    """The text as it is drawn in so many characters: cut with an ellipsis where it is longer."""
    shown = drawable(text)
    return shown if len(shown) <= longest else f"{shown[: longest - 1]}…"


def fitted(text: str, font: ImageFont.FreeTypeFont, width: float, *, end: bool = False) -> str:
    """The text as it is drawn in so many pixels: cut with an ellipsis where it is longer, or at its front to keep its
    `end`.
    """
    shown = drawable(text)
    if font.getlength(shown) <= width:
        return shown
    while shown and font.getlength(f"{shown}…") > width:
        shown = shown[1:] if end else shown[:-1]
    return f"…{shown}" if end else f"{shown}…"


@cache
def font(size: int) -> ImageFont.FreeTypeFont:
    """The font at so many pixels an em."""
    return ImageFont.truetype(str(font_file()), size)


def font_file() -> Path:
    """Where matplotlib keeps the font."""
    import matplotlib

    return Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"


@cache
def _glyphs() -> frozenset[int]:
    """The characters that the font has, by number."""
    from matplotlib.ft2font import FT2Font

    return frozenset(FT2Font(str(font_file())).get_charmap())


def _escape(char: str) -> str:
    return char.encode("unicode_escape").decode("ascii")
