"""Files that answers and features are written into as they come, and that an interrupted run goes on with.

An output is opened at a size, takes batches, says how large it is when all it was given is on the disk, and is finished
at the end. What lies behind that size, because a run was killed, is cut off when it is opened there again.
"""

import io
import os
from glob import escape
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from vtzoo.base import files
from vtzoo.errors import VtzooError
from vtzoo.predict.bulk import Batch
from vtzoo.predict.formats import as_dict, writer
from vtzoo.predict.sources import load_arrow

PART = 8192  # images in a numbered Parquet file, at least; the last one has what is left
HEADER = 128  # bytes of a .npy file before its numbers


class Output(Protocol):
    """Something that batches are written into."""

    path: Path  # as given
    waits: bool  # whether `keep` should be called after every PART images alone

    def exists(self) -> bool:
        """Whether something is there already."""
        ...

    def open(self, size: int | None) -> None:
        """Begin anew, or go on at a size that `keep` gave."""
        ...

    def add(self, batch: Batch) -> None:
        """Take the next images."""
        ...

    def keep(self) -> int:
        """Have everything on the disk, and say how large it is."""
        ...

    def finish(self) -> None:
        """Complete and close it."""
        ...

    def close(self) -> None:
        """Leave it as it is."""
        ...


class File(Output):
    """One file that grows."""

    waits = False

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: Any = None

    def exists(self) -> bool:
        """Whether the file is there."""
        return os.path.lexists(self.path)

    def open(self, size: int | None) -> None:
        """Begin the file, or cut it to `size` bytes; a shorter one is a VtzooError."""
        self._file = self.path.open("wb" if size is None else "r+b")
        if size is not None:
            if self._file.seek(0, os.SEEK_END) < size:
                raise VtzooError(f"{self.path} is shorter than when it was written", "start anew without --resume")
            self._file.truncate(size)
            self._file.seek(size)

    def write(self, content: bytes) -> None:
        """Append it, for everybody to see."""
        self._file.write(content)
        self._file.flush()

    def keep(self) -> int:
        """The size in bytes of what is on the disk."""
        os.fsync(self._file.fileno())
        return self._file.tell()

    def close(self) -> None:
        """Close the file, where it is open."""
        if self._file is not None:
            self._file.close()


class TextFile(File):
    """Answers in one of the text formats."""

    def __init__(self, path: Path, form: str, classes: int) -> None:
        super().__init__(path)
        self._form, self._classes = form, classes

    def open(self, size: int | None) -> None:
        """Begin the file with what stands before the first answer, or go on."""
        super().open(size)
        self._text = writer(self._form, self._classes, begun=size is not None)
        if size is None:
            self._append(self._text.begin)

    def add(self, batch: Batch) -> None:
        """Write the answers."""
        self._append(self._text.text(batch.answers))

    def finish(self) -> None:
        """Write what stands after the last answer."""
        self._append(self._text.end)
        self.close()

    def _append(self, written: str) -> None:
        self.write(written.encode("utf-8", "backslashreplace"))  # a file's name need not be valid text


class NpyFile(File):
    """Features as a float32 array (n, width), a row an image in order; NaN for one that could not be read.

    The header always counts the rows before it was last kept, so that the file can be loaded at any time.
    """

    def __init__(self, path: Path, width: int) -> None:
        super().__init__(path)
        self._width = width

    def open(self, size: int | None) -> None:
        """Begin the file with a header of no rows, or go on."""
        super().open(size)
        if size is None:
            self.write(self._header(0))

    def add(self, batch: Batch) -> None:
        """Write the rows."""
        rows = np.full((len(batch.answers), self._width), np.nan, "<f4")
        rows[[answer.error is None for answer in batch.answers]] = batch.features.reshape(-1, self._width)
        self.write(rows.tobytes())

    def keep(self) -> int:
        """Have the header count the rows, and the size in bytes."""
        end = self._file.tell()
        self._file.seek(0)
        self.write(self._header((end - HEADER) // (4 * self._width)))
        self._file.seek(end)
        return super().keep()

    def finish(self) -> None:
        """Have the header count the rows."""
        self.keep()
        self.close()

    def _header(self, rows: int) -> bytes:
        """What stands before an array of so many rows; always of the same length, as numpy leaves room to grow."""
        header = io.BytesIO()
        facts = {"descr": "<f4", "fortran_order": False, "shape": (rows, self._width)}
        np.lib.format.write_array_header_1_0(header, facts)
        return header.getvalue()


class Parts(Output):
    """Numbered Parquet files, NAME-00000.parquet and so on, each of them there as a whole or not at all."""

    waits = True

    def __init__(self, path: Path) -> None:
        self.path, self._part = path, 0
        self._tables: list[Any] = []

    def exists(self) -> bool:
        """Whether one of the parts, or an unnumbered file, is there."""
        return self.path.exists() or any(self.path.parent.glob(f"{escape(self.path.stem)}-[0-9]*{self.path.suffix}"))

    def open(self, size: int | None) -> None:
        """Go on after `size` parts; no file is written before its rows are complete."""
        if not self.path.parent.is_dir():
            raise VtzooError(f"there is no folder {str(self.path.parent)!r} to write {self.path.name} into")
        self._part = size or 0

    def add(self, batch: Batch) -> None:
        """Keep the rows in memory until there are enough."""
        self._tables.append(self.table(batch))

    def keep(self) -> int:
        """Write a part of the rows that wait; the number of parts."""
        if self._tables:
            arrow, content = load_arrow(), io.BytesIO()
            arrow.parquet.write_table(arrow.concat_tables(self._tables), content)
            files.write(self.path.with_name(f"{self.path.stem}-{self._part:05}{self.path.suffix}"), content.getvalue())
            self._part, self._tables = self._part + 1, []
        return self._part

    def finish(self) -> None:
        """Write the last part."""
        self.keep()

    def close(self) -> None:
        """Drop the rows that wait."""
        self._tables = []

    def table(self, batch: Batch) -> Any:
        """The rows of a batch, a pyarrow.Table."""
        raise NotImplementedError


class AnswerParts(Parts):
    """Answers as rows of {image, predictions: [{label, probability}], error}."""

    def table(self, batch: Batch) -> Any:
        """A row an image, no predictions where it could not be read."""
        import pyarrow

        prediction = pyarrow.struct([("label", pyarrow.string()), ("probability", pyarrow.float32())])
        kinds = [("image", pyarrow.string()), ("predictions", pyarrow.list_(prediction)), ("error", pyarrow.string())]
        rows = [as_dict(answer) | {"image": _valid(answer.image)} for answer in batch.answers]
        rows = [row | {"error": row["error"] and _valid(row["error"])} for row in rows]
        return pyarrow.Table.from_pylist(rows, pyarrow.schema(kinds))


class FeatureParts(Parts):
    """Features as rows of {image, features}: float32, null for an image that could not be read."""

    def __init__(self, path: Path, width: int) -> None:
        super().__init__(path)
        self._width = width

    def table(self, batch: Batch) -> Any:
        """A row an image."""
        import pyarrow

        rows = iter(batch.features)
        values = [None if answer.error is not None else next(rows) for answer in batch.answers]
        features = pyarrow.array(values, pyarrow.list_(pyarrow.float32(), self._width))
        images = pyarrow.array([_valid(answer.image) for answer in batch.answers], pyarrow.string())
        return pyarrow.table({"image": images, "features": features})


def _valid(name: str) -> str:
    """Text with what is not valid in it, as a file's name may have it, escaped."""
    return name.encode("utf-8", "backslashreplace").decode()
