"""Text in pictures: characters that the font has, and escapes for all others."""

from functools import cache
from pathlib import Path

from PIL import ImageFont


def drawable(text: str) -> str:
    r"""The text with an escape such as \u6a4b for each character without a glyph, and for line breaks.

    The font is matplotlib's DejaVu Sans: Latin, Greek, Cyrillic, Armenian, Georgian, Hebrew and Arabic, but not
    Chinese, Japanese, Korean, the scripts of India, Thai or most emoji. Hebrew and Arabic are joined and run from right
    to left only with libraqm, which the latest wheels of Pillow and matplotlib have.
    """
    return "".join(char if char.isprintable() and ord(char) in _glyphs() else _escape(char) for char in text)


def shortened(text: str, longest: int) -> str:
    """The drawable text, cut with an ellipsis to `longest` characters."""
    shown = drawable(text)
    return shown if len(shown) <= longest else f"{shown[: longest - 1]}…"


def fitted(text: str, font: ImageFont.FreeTypeFont, width: float, *, end: bool = False) -> str:
    """The drawable text, cut with an ellipsis to `width` pixels; with `end`, its beginning is cut."""
    shown = drawable(text)
    if font.getlength(shown) <= width:
        return shown
    while shown and font.getlength(f"{shown}…") > width:
        shown = shown[1:] if end else shown[:-1]
    return f"…{shown}" if end else f"{shown}…"


@cache
def font(size: int) -> ImageFont.FreeTypeFont:
    """The font at `size` pixels an em."""
    return ImageFont.truetype(str(font_file()), size)


def font_file() -> Path:
    """The path of the font, in matplotlib's data."""
    import matplotlib

    return Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"


@cache
def _glyphs() -> frozenset[int]:
    """The code points of the font's characters."""
    from matplotlib.ft2font import FT2Font

    return frozenset(FT2Font(str(font_file())).get_charmap())


def _escape(char: str) -> str:
    return char.encode("unicode_escape").decode("ascii")
