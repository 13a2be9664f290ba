"""Output files that an interrupted run continues: no image is repeated, and none is lost.

While a run is in progress, a resume file NAME.resume lies beside its first output. It has the settings of the run, and
the number of images that the outputs hold on the disk. It is written after them, and a resumed run cuts off anything
that they hold beyond it. All batches are those of an uninterrupted run, so the files are equal to its files, byte for
byte.
"""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from vtzoo.base import files
from vtzoo.errors import VtzooError
from vtzoo.predict.bulk import Batch
from vtzoo.predict.outputs import PART, Output
from vtzoo.predict.sources import Source

SECONDS = 1.0  # between two writes of the resume file
ANEW = "start anew without --resume, after removing this file, or with another one"


@dataclass(frozen=True, kw_only=True)
class Position:
    """How far a run is."""

    images: int = 0
    failed: int = 0  # of these images, the unreadable ones
    last: str | None = None  # the name of the last of these images
    sizes: list[int | None] = field(default_factory=list)  # of each output, as `sync` returned it


class ResumableOutputs:
    """The outputs of a run, and the position that they hold on the disk."""

    def __init__(self, outputs: list[Output], identity: dict[str, Any], *, resume: bool) -> None:
        """Refuse outputs that exist; with `resume`, continue them if their run has the same `identity`."""
        self.outputs, self._identity = outputs, identity
        self._file = outputs[0].path.with_name(f"{outputs[0].path.name}.resume") if outputs else None
        self.position = Position(sizes=[None] * len(outputs))
        if self._file is None:
            return
        existing = [output.path for output in outputs if output.exists()]
        if self._file.exists():
            self.position = self._read_position(self._file, resume)
        elif existing and resume:
            raise VtzooError(f"{existing[0]} is not from an interrupted run: there is no {self._file}", ANEW)
        elif existing:
            raise VtzooError(f"{existing[0]} exists already, and is not overwritten", "name another file, or remove it")

    def _read_position(self, file: Path, resume: bool) -> Position:
        """The position in the resume file, if it is that of the same run."""
        name = self.outputs[0].path
        if not resume:
            raise VtzooError(f"{name} is from an interrupted run", f"continue it with --resume, or remove {file}")
        try:
            stored = json.loads(file.read_bytes())
            before, position = dict(stored["run"]), Position(**stored["place"])
            if type(position.images) is not int or not isinstance(position.sizes, list):
                raise ValueError("the number of images is missing")
        except (ValueError, KeyError, TypeError) as error:
            raise VtzooError(f"{file} is not a resume file", ANEW) from error
        for key, value in self._identity.items():
            if before.get(key) != value:
                message = f"{name} was begun with {key} {before.get(key)!r}, not {value!r}"
                raise VtzooError(message, f"repeat the same command, or {ANEW}")
        return position

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Open the files; at the end, complete them and remove the resume file. An error leaves it in place."""
        try:
            self._open()
            yield
            with self._write_errors():
                for output in self.outputs:
                    output.finish()
                if self._file is not None:
                    self._remove_resume_file()
        finally:
            for output in self.outputs:
                with suppress(OSError):  # from flushing a buffer to a full disk
                    output.close()

    def _open(self) -> None:
        """Open the files; after an error, remove the new ones."""
        begun = []
        self._synced = self.position.images, time.monotonic()
        if self._file is None:
            return
        try:
            self._write_resume_file()
            for output, size in zip(self.outputs, self.position.sizes, strict=True):
                output.open(size)
                begun += [output.path] if size is None else []
        except (OSError, VtzooError) as error:
            for path in begun:
                path.unlink(missing_ok=True)
            if not self.position.images:
                self._remove_resume_file()
            if isinstance(error, VtzooError):
                raise
            raise VtzooError(f"cannot write {self.names}: {error.strerror}") from error

    @contextmanager
    def _write_errors(self) -> Iterator[None]:
        """Turn an OSError into a VtzooError."""
        try:
            yield
        except OSError as error:
            hint = "make room, then repeat the command with --resume"
            raise VtzooError(f"cannot continue writing {self.names}: {error.strerror}", hint) from error

    @property
    def names(self) -> str:
        """The paths of the outputs, as given."""
        return " and ".join(str(output.path) for output in self.outputs)

    def _remove_resume_file(self) -> None:
        assert self._file is not None
        self._file.unlink(missing_ok=True)
        files.remove_partials(self._file)

    def skip(self, sources: Iterator[Source]) -> Iterator[Source]:
        """The images after the position; a VtzooError if the images before it have changed."""
        last = None
        for number, source in zip(range(self.position.images), sources, strict=False):
            last = number + 1, source.name
        if self.position.images and last != (self.position.images, self.position.last):
            message = f"image {self.position.images:,} is no longer {self.position.last!r}: the images have changed"
            raise VtzooError(message, ANEW)
        return sources

    def add(self, batch: Batch) -> None:
        """Write a batch, and the resume file if it is due."""
        images, failed = self.position.images + len(batch.images), self.position.failed + len(batch.failed)
        self.position = replace(self.position, images=images, failed=failed, last=batch.images[-1].image)
        with self._write_errors():
            for output in self.outputs:
                output.add(batch)
            if self._due():
                self.position = replace(self.position, sizes=[output.sync() for output in self.outputs])
                self._write_resume_file()
                self._synced = images, time.monotonic()

    def _due(self) -> bool:
        """Whether to write the resume file: after PART images for numbered files, else after SECONDS."""
        images, seconds = self._synced
        if any(output.in_parts for output in self.outputs):
            return self.position.images - images >= PART
        return bool(self.outputs) and time.monotonic() - seconds >= SECONDS

    def _write_resume_file(self) -> None:
        assert self._file is not None
        content = {"run": self._identity, "place": asdict(self.position)}
        files.write(self._file, json.dumps(content, indent=2).encode())
