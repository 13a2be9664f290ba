"""A run that writes into files, and that goes on where it was killed: with no line repeated, and none lost.

While it goes on, a note lies beside its first file, NAME.resume: what the run is, and how many images are on the disk.
It is written after them, and what the files hold beyond it is cut off when the run goes on. The files are then equal,
byte for byte, to those of a run that nobody interrupted: the images are always in the same batches.
"""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from glob import escape
from pathlib import Path
from typing import Any

from vtzoo.base import files
from vtzoo.errors import VtzooError
from vtzoo.predict.bulk import Batch
from vtzoo.predict.outputs import PART, Output
from vtzoo.predict.sources import Source

SECONDS = 1.0  # between two notes
ANEW = "start anew: without --resume, and with another file or after removing this one"


@dataclass(frozen=True, kw_only=True)
class Place:
    """How far a run is."""

    images: int = 0
    failed: int = 0
    last: str | None = None  # the name of the last of these images
    sizes: list[int | None] = field(default_factory=list)  # what each output's `keep` gave


class Recording:
    """The outputs of a run, and the place up to which they are on the disk."""

    def __init__(self, outputs: list[Output], identity: dict[str, Any], *, resume: bool) -> None:
        """Refuse what is there already; or, with `resume`, what is there of another run than `identity` says."""
        self.outputs, self._identity = outputs, identity
        self._note = outputs[0].path.with_name(f"{outputs[0].path.name}.resume") if outputs else None
        self.place = Place(sizes=[None] * len(outputs))
        if self._note is None:
            return
        found = [output.path for output in outputs if output.exists()]
        if self._note.exists():
            self._take_up(self._note, resume)
        elif found and resume:
            raise VtzooError(f"{found[0]} is no interrupted run: there is no {self._note}", ANEW)
        elif found:
            raise VtzooError(f"{found[0]} exists already, and is not overwritten", "name another file, or remove it")

    def _take_up(self, note: Path, resume: bool) -> None:
        if not resume:
            name = self.outputs[0].path
            raise VtzooError(f"{name} is that of an interrupted run", f"go on with it: --resume; or remove {note}")
        try:
            stored = json.loads(note.read_bytes())
            before, place = dict(stored["run"]), Place(**stored["place"])
            if type(place.images) is not int or not isinstance(place.sizes, list):
                raise ValueError("it does not count images")
        except (ValueError, KeyError, TypeError) as error:
            raise VtzooError(f"{note} is not the note of a run", ANEW) from error
        for key, value in self._identity.items():
            if before.get(key) != value:
                told = f"{key} {before.get(key)!r}, and now {value!r}"
                raise VtzooError(f"{self.outputs[0].path} was begun with {told}", f"repeat the same command, or {ANEW}")
        self.place = place

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Have the files open; at the end they are complete, and the note is gone. Where that fails, it stays."""
        try:
            self._open()
            yield
            with self._sentences():
                for output in self.outputs:
                    output.finish()
                if self._note is not None:
                    self._forget()
        finally:
            for output in self.outputs:
                with suppress(OSError):  # of what is left in its buffer
                    output.close()

    def _open(self) -> None:
        """Open the files; where one of them cannot be, none that is new is left behind."""
        began = []
        self._kept = self.place.images, time.monotonic()
        if self._note is None:
            return
        try:
            self._write_note()
            for output, size in zip(self.outputs, self.place.sizes, strict=True):
                output.open(size)
                began += [output.path] if size is None else []
        except (OSError, VtzooError) as error:
            for path in began:
                path.unlink(missing_ok=True)
            if not self.place.images:
                self._forget()
            if isinstance(error, VtzooError):
                raise
            raise VtzooError(f"cannot write {self.names}: {error.strerror}") from error

    @contextmanager
    def _sentences(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            hint = "make room, and go on with the same command and --resume"
            raise VtzooError(f"cannot write {self.names} any further: {error.strerror}", hint) from error

    @property
    def names(self) -> str:
        """The files, as they were named."""
        return " and ".join(str(output.path) for output in self.outputs)

    def _forget(self) -> None:
        """Remove the note, and what a kill left of a note or of a part that was being written."""
        assert self._note is not None
        self._note.unlink(missing_ok=True)
        for stem in (self._note.name, *(f"{output.path.stem}-" for output in self.outputs if output.waits)):
            for partial in self._note.parent.glob(f".{escape(stem)}*.partial"):
                partial.unlink()

    def skip(self, sources: Iterator[Source]) -> Iterator[Source]:
        """The images that are still to be answered; a VtzooError where those before are others than they were."""
        last = None
        for number, source in zip(range(self.place.images), sources, strict=False):
            last = number + 1, source.name
        if self.place.images and last != (self.place.images, self.place.last):
            raise VtzooError(
                f"image {self.place.images:,} was {self.place.last!r}, and is not any more: the images have changed",
                ANEW,
            )
        return sources

    def add(self, batch: Batch) -> None:
        """Write a batch, and now and then the note."""
        images, failed = self.place.images + len(batch.answers), self.place.failed + len(batch.failed)
        self.place = replace(self.place, images=images, failed=failed, last=batch.answers[-1].image)
        with self._sentences():
            for output in self.outputs:
                output.add(batch)
            if self._due():
                sizes = [output.keep() for output in self.outputs]
                self.place = replace(self.place, sizes=sizes)
                self._write_note()
                self._kept = images, time.monotonic()

    def _due(self) -> bool:
        """Whether it is time for a note; where an output is written in parts, only with a whole part."""
        images, seconds = self._kept
        if any(output.waits for output in self.outputs):
            return self.place.images - images >= PART
        return bool(self.outputs) and time.monotonic() - seconds >= SECONDS

    def _write_note(self) -> None:
        assert self._note is not None
        content = {"run": self._identity, "place": asdict(self.place)}
        files.write(self._note, json.dumps(content, indent=2).encode())
