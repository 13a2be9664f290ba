"""Files of predictions and features that grow batch by batch, and that an interrupted run continues.

`open` begins a file or continues it at a size, `add` takes batches, `sync` makes them durable and returns the size, and
`finish` completes the file. A killed run may leave content after the last synced size: `open` cuts it off.
"""

import io
import os
from abc import ABC, abstractmethod
from glob import escape
from pathlib import Path
from typing import Any

import numpy as np

from vtzoo.base import files
from vtzoo.errors import VtzooError
from vtzoo.predict.bulk import Batch
from vtzoo.predict.formats import as_dict, text_format
from vtzoo.predict.sources import load_arrow

PART = 8192  # images in a numbered Parquet file, at least; the last file has the rest
HEADER = 128  # bytes of a .npy file before its array


class Output(ABC):
    """A file, or numbered files, that batches are written to."""

    path: Path  # as given
    in_parts: bool  # whether each `sync` writes a part, and should follow PART images

    @abstractmethod
    def exists(self) -> bool:
        """Whether the output exists already."""

    @abstractmethod
    def open(self, size: int | None) -> None:
        """Begin the output, or continue it at a size that `sync` returned."""

    @abstractmethod
    def add(self, batch: Batch) -> None:
        """Add the next images."""

    @abstractmethod
    def sync(self) -> int:
        """Write everything to the disk, and return the size."""

    @abstractmethod
    def finish(self) -> None:
        """Complete and close the output."""

    @abstractmethod
    def close(self) -> None:
        """Close the output without completing it."""


class GrowingFile(Output):
    """One file that grows. Its size is in bytes."""

    in_parts = False

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: Any = None

    def exists(self) -> bool:
        """Whether the file exists."""
        return os.path.lexists(self.path)

    def open(self, size: int | None) -> None:
        """Begin the file, or cut it to `size` bytes; a shorter file is a VtzooError."""
        self._file = self.path.open("wb" if size is None else "r+b")
        if size is not None:
            if self._file.seek(0, os.SEEK_END) < size:
                raise VtzooError(f"{self.path} is shorter than when it was written", "start anew without --resume")
            self._file.truncate(size)
            self._file.seek(size)

    def write(self, content: bytes) -> None:
        """Append content, visible to other processes at once."""
        self._file.write(content)
        self._file.flush()

    def sync(self) -> int:
        """Write everything to the disk, and return the size in bytes."""
        os.fsync(self._file.fileno())
        return self._file.tell()

    def close(self) -> None:
        """Close the file if it is open."""
        if self._file is not None:
            self._file.close()


class TextFile(GrowingFile):
    """Predictions in a text format."""

    def __init__(self, path: Path, name: str, classes: int) -> None:
        super().__init__(path)
        self._name, self._classes = name, classes

    def open(self, size: int | None) -> None:
        """Begin the file with the format's beginning, or continue it."""
        super().open(size)
        self._format = text_format(self._name, self._classes, begun=size is not None)
        if size is None:
            self._append(self._format.begin)

    def add(self, batch: Batch) -> None:
        """Append the predictions."""
        self._append(self._format.text(batch.images))

    def finish(self) -> None:
        """Append the format's end, and close the file."""
        self._append(self._format.end)
        self.close()

    def _append(self, text: str) -> None:
        self.write(text.encode("utf-8", "backslashreplace"))  # a file name may be invalid text


class NpyFile(GrowingFile):
    """Features as a float32 array (n, width), one row an image in order; a row of NaN for an unreadable image.

    The header always has the number of rows at the last `sync`, so that numpy can load the file at any time.
    """

    def __init__(self, path: Path, width: int) -> None:
        super().__init__(path)
        self._width = width

    def open(self, size: int | None) -> None:
        """Begin the file with a header of 0 rows, or continue it."""
        super().open(size)
        if size is None:
            self.write(self._header(0))

    def add(self, batch: Batch) -> None:
        """Append the rows."""
        rows = np.full((len(batch.images), self._width), np.nan, "<f4")
        rows[[image.error is None for image in batch.images]] = batch.features.reshape(-1, self._width)
        self.write(rows.tobytes())

    def sync(self) -> int:
        """Write the number of rows into the header, everything to the disk, and return the size in bytes."""
        end = self._file.tell()
        self._file.seek(0)
        self.write(self._header((end - HEADER) // (4 * self._width)))
        self._file.seek(end)
        return super().sync()

    def finish(self) -> None:
        """Write the number of rows into the header, and close the file."""
        self.sync()
        self.close()

    def _header(self, rows: int) -> bytes:
        """The header of an array of that many rows, always HEADER bytes: numpy pads it."""
        header = io.BytesIO()
        facts = {"descr": "<f4", "fortran_order": False, "shape": (rows, self._width)}
        np.lib.format.write_array_header_1_0(header, facts)
        return header.getvalue()


class ParquetParts(Output):
    """Numbered Parquet files, NAME-00000.parquet and so on, each written atomically. The size is their number."""

    in_parts = True

    def __init__(self, path: Path) -> None:
        self.path, self._part = path, 0
        self._tables: list[Any] = []

    def exists(self) -> bool:
        """Whether a part, or a file with the plain name, exists."""
        return self.path.exists() or any(self.path.parent.glob(f"{escape(self.path.stem)}-[0-9]*{self.path.suffix}"))

    def open(self, size: int | None) -> None:
        """Continue after `size` parts."""
        if not self.path.parent.is_dir():
            raise VtzooError(f"there is no folder {str(self.path.parent)!r} to write {self.path.name} into")
        self._part = size or 0

    def add(self, batch: Batch) -> None:
        """Collect the rows in memory."""
        self._tables.append(self.table(batch))

    def sync(self) -> int:
        """Write the collected rows as a part, and return the number of parts."""
        if self._tables:
            arrow, content = load_arrow(), io.BytesIO()
            arrow.parquet.write_table(arrow.concat_tables(self._tables), content)
            path = self.path.with_name(f"{self.path.stem}-{self._part:05}{self.path.suffix}")
            files.remove_partials(path)
            files.write(path, content.getvalue())
            self._part, self._tables = self._part + 1, []
        return self._part

    def finish(self) -> None:
        """Write the last part."""
        self.sync()

    def close(self) -> None:
        """Drop the collected rows."""
        self._tables = []

    @abstractmethod
    def table(self, batch: Batch) -> Any:
        """The rows of a batch, a pyarrow.Table."""


class PredictionParts(ParquetParts):
    """Predictions as rows of {image, predictions: [{label, probability}], error}."""

    def table(self, batch: Batch) -> Any:
        """One row an image; an unreadable image has no predictions."""
        import pyarrow

        prediction = pyarrow.struct([("label", pyarrow.string()), ("probability", pyarrow.float32())])
        kinds = [("image", pyarrow.string()), ("predictions", pyarrow.list_(prediction)), ("error", pyarrow.string())]
        rows = [as_dict(image) | {"image": _valid(image.image)} for image in batch.images]
        rows = [row | {"error": row["error"] and _valid(row["error"])} for row in rows]
        return pyarrow.Table.from_pylist(rows, pyarrow.schema(kinds))


class FeatureParts(ParquetParts):
    """Features as rows of {image, features}: float32, null for an unreadable image."""

    def __init__(self, path: Path, width: int) -> None:
        super().__init__(path)
        self._width = width

    def table(self, batch: Batch) -> Any:
        """One row an image."""
        import pyarrow

        rows = iter(batch.features)
        values = [None if image.error is not None else next(rows) for image in batch.images]
        features = pyarrow.array(values, pyarrow.list_(pyarrow.float32(), self._width))
        images = pyarrow.array([_valid(image.image) for image in batch.images], pyarrow.string())
        return pyarrow.table({"image": images, "features": features})


def _valid(text: str) -> str:
    """The text with invalid characters, which a file name may have, escaped."""
    return text.encode("utf-8", "backslashreplace").decode()
