"""Which column of a table says what."""

from collections.abc import Sequence
from dataclasses import dataclass

from vtzoo.errors import VtzooError, unknown

IMAGE_NAMES = ("image", "img", "path", "file", "filename", "file_name")
LABEL_NAMES = ("label", "labels", "class", "classes", "category")
SPLIT = "split"
MASK = "mask"  # names the classes that were looked for


@dataclass(frozen=True, kw_only=True)
class Columns:
    """The names of a table's columns, by what they say."""

    image: str
    label: str | None  # None: each class has a column
    split: str | None
    mask: str | None
    others: tuple[str, ...]

    @property
    def needed(self) -> list[str]:
        """Those that are read."""
        named = [name for name in (self.image, self.label, self.split, self.mask) if name is not None]
        return named + list(self.others if self.label is None else ())


def recognise(names: Sequence[str], where: object, *, image: str | None, label: str | None) -> Columns:
    """The columns of a table out of their names; those of images and labels may be given."""
    for given, option in ((image, "--image-column"), (label, "--label-column")):
        if given is not None and given not in names:
            raise unknown(f"column of {where},", given, names, f"{option} NAME")
    image = image or _first(names, IMAGE_NAMES)
    if image is None:
        told = f"no column of images in {where}, which has {', '.join(names)}"
        raise VtzooError(told, "call it `path` or `image`, or name it: --image-column NAME")
    label = label or _first(names, LABEL_NAMES)
    split, mask = _first(names, (SPLIT,)), _first(names, (MASK,))
    others = tuple(name for name in names if name not in (image, label, split, mask))
    if label is None and not others:
        told = f"no column of labels in {where}, which has {', '.join(names)}"
        raise VtzooError(told, "call it `label`, or name it: --label-column NAME")
    return Columns(image=image, label=label, split=split, mask=mask, others=others)


def _first(names: Sequence[str], wanted: tuple[str, ...]) -> str | None:
    """The first of the wanted names that there is, in whatever case."""
    by_lower = {name.strip().lower(): name for name in names}
    return next((by_lower[name] for name in wanted if name in by_lower), None)
