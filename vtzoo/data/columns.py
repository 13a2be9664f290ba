"""The columns of a table, recognised by their names."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vtzoo.errors import VtzooError, unknown

if TYPE_CHECKING:
    import pyarrow

IMAGE_NAMES = ("image", "img", "path", "file", "filename", "file_name")
LABEL_NAMES = ("label", "labels", "class", "classes", "category")
SPLIT = "split"
MASK = "mask"  # names the classes that annotators looked for


@dataclass(frozen=True, kw_only=True)
class Columns:
    """The names of a table's columns, by their content."""

    image: str
    label: str | None  # None: each class has its own column
    split: str | None
    mask: str | None
    others: tuple[str, ...]

    @property
    def needed(self) -> list[str]:
        """The columns that are read."""
        named = [name for name in (self.image, self.label, self.split, self.mask) if name is not None]
        return named + list(self.others if self.label is None else ())


def recognise(names: Sequence[str], where: object, *, image: str | None, label: str | None) -> Columns:
    """The columns of a table by their names; `image` and `label` override the usual names. Errors are VtzooErrors."""
    for given, option in ((image, "--image-column"), (label, "--label-column")):
        if given is not None and given not in names:
            raise unknown(f"column of {where},", given, names, f"{option} NAME")
    image = image or first_of(names, IMAGE_NAMES)
    if image is None:
        message = f"no column of images in {where}, which has {', '.join(names)}"
        raise VtzooError(message, "call it `path` or `image`, or name it: --image-column NAME")
    label = label or first_of(names, LABEL_NAMES)
    split, mask = first_of(names, (SPLIT,)), first_of(names, (MASK,))
    others = tuple(name for name in names if name not in (image, label, split, mask))
    if label is None and not others:
        message = f"no column of labels in {where}, which has {', '.join(names)}"
        raise VtzooError(message, "call it `label`, or name it: --label-column NAME")
    return Columns(image=image, label=label, split=split, mask=mask, others=others)


def image_column(schema: "pyarrow.Schema") -> str | None:
    """The only column of encoded images in a Parquet file, or the first of several with a usual name; else None."""
    encoded = [field.name for field in schema if is_encoded(field.type)]
    return encoded[0] if len(encoded) == 1 else first_of(encoded, IMAGE_NAMES)


def is_encoded(kind: Any) -> bool:
    """Whether a pyarrow type can hold encoded images: bytes, or a struct of {bytes, path}."""
    from pyarrow import types

    if types.is_struct(kind):
        return any(field.name == "bytes" and is_encoded(field.type) for field in kind)
    return types.is_binary(kind) or types.is_large_binary(kind)


def first_of(names: Sequence[str], wanted: tuple[str, ...]) -> str | None:
    """The first of the wanted names that is among `names`, ignoring case."""
    by_lower = {name.strip().lower(): name for name in names}
    return next((by_lower[name] for name in wanted if name in by_lower), None)
