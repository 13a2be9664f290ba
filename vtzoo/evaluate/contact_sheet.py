"""mistakes.png and uncertain.png: contact sheets of images with their labels and predictions."""

from collections.abc import Sequence
from io import BytesIO

from PIL import Image, ImageDraw

from vtzoo.data.encoded_images import EncodedImages
from vtzoo.evaluate.fonts import fitted, font

COLUMNS, MOST = 6, 30  # images in a row, and in all
TILE = 144  # pixels a side
GAP = 10  # pixels
TEXT = 12  # pixels an em
LINE = 16  # pixels, the height of a line of text
WHITE, BLACK, GREY = "white", "black", "#777777"
EXACTLY = 2  # times enlarged: from here on a small image's pixels stay squares


def contact_sheet(encoded: EncodedImages, numbers: Sequence[int], captions: Sequence[Sequence[str]]) -> bytes:
    """A PNG of the first MOST images of `numbers`, each above its caption, a text per line, and the end of its name."""
    shown = list(zip(numbers, captions, strict=True))[:MOST]
    lines = max((len(caption) for _, caption in shown), default=0) + 1
    across, down = min(COLUMNS, len(shown)), -(-len(shown) // COLUMNS)
    width, height = TILE + GAP, TILE + GAP + lines * LINE
    sheet = Image.new("RGB", (max(across, 1) * width + GAP, down * height + GAP), WHITE)
    draw, letters = ImageDraw.Draw(sheet), font(TEXT)
    for place, (number, caption) in enumerate(shown):
        left, top = GAP + place % COLUMNS * width, GAP + place // COLUMNS * height
        picture = thumbnail(encoded[number])
        sheet.paste(picture, (left + (TILE - picture.width) // 2, top + (TILE - picture.height) // 2))
        written = [(fitted(line, letters, TILE), BLACK) for line in caption]
        written.append((fitted(encoded.name(number), letters, TILE, end=True), GREY))
        for line, (text, colour) in enumerate(written):
            draw.text((left, top + TILE + 2 + line * LINE), text, colour, letters)
    drawn = BytesIO()
    sheet.save(drawn, "PNG")
    return drawn.getvalue()


def thumbnail(image: Image.Image) -> Image.Image:
    """The image resized in proportion, with a longer side of TILE pixels."""
    scale = TILE / max(image.size)
    size = tuple(max(1, round(side * scale)) for side in image.size)
    method = Image.Resampling.NEAREST if scale >= EXACTLY else Image.Resampling.LANCZOS
    return image.resize((size[0], size[1]), method)
