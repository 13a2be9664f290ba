"""What `vtzoo predict` is asked to do, and the doing of it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from vtzoo.base import files
from vtzoo.errors import VtzooError, unknown
from vtzoo.hub import fetch
from vtzoo.predict.bulk import Batch, predict
from vtzoo.predict.classifier import Classifier
from vtzoo.predict.formats import FORMATS, writer
from vtzoo.predict.load import load
from vtzoo.predict.outputs import AnswerParts, FeatureParts, NpyFile, Output, TextFile
from vtzoo.predict.resume import Recording
from vtzoo.predict.sources import find, load_arrow
from vtzoo.zoo import model_folder

WEIGHTS = ("onnx/model.onnx", "model.safetensors")


@dataclass(frozen=True, kw_only=True)
class Job:
    """Images, the model that is to classify them, and where the answers go."""

    images: tuple[str, ...]  # as `sources.find` takes them
    model: str
    revision: str | None = None
    backend: str = "auto"
    device: str = "auto"
    top_k: int = 5  # classes an image
    batch_size: int = 32
    format: str | None = None  # one of FORMATS; if not given, as `out` is called, else a table
    out: Path | None = None  # the answers' file; stdout if not given
    embeddings: Path | None = None  # the features' file, .npy or .parquet; with it alone, answers go nowhere
    null: bool = False  # whether paths on stdin end with NUL

    def __post_init__(self) -> None:
        if self.form not in FORMATS:
            raise unknown("format", self.form, FORMATS)
        if self.form == "parquet" and self.out is None:
            raise VtzooError("Parquet goes into files, not to stdout", "name them: --out answers.parquet")
        if self.embeddings and self.embeddings.suffix not in (".npy", ".parquet"):
            raise VtzooError(f"features cannot be written as {str(self.embeddings)!r}", "call it .npy or .parquet")
        if self.out and self.out == self.embeddings:
            raise VtzooError(f"answers and features cannot both be {str(self.out)!r}")
        for path in (self.out, self.embeddings):
            if path and path.is_dir():
                raise VtzooError(f"{str(path)!r} is a folder, and what is written goes into a file", "name the file")
        if self.form == "parquet" or (self.embeddings and self.embeddings.suffix == ".parquet"):
            load_arrow()

    @property
    def form(self) -> str:
        """The format of the answers."""
        named = self.out.suffix.removeprefix(".") if self.out else ""
        return self.format or (named if named in FORMATS else "table")

    @property
    def prints(self) -> bool:
        """Whether the answers go to stdout."""
        return self.out is None and (self.embeddings is None or self.format is not None)


class Run:
    """A job that has begun: its model is loaded, and its files are known to be its own."""

    def __init__(self, job: Job, *, resume: bool = False) -> None:
        """Load the model; with `resume`, take up the interrupted run that the job's files are of."""
        if resume and job.prints:
            raise VtzooError("--resume goes on with files, and these answers go to stdout", "name a file: --out FILE")
        self.job, model = job, _locate(job)
        self.classifier = load(model, backend=job.backend, device=job.device)
        self.classes = min(job.top_k, len(self.classifier.labels))
        identity = {} if job.prints and not job.embeddings else _identity(job, model)
        self.recording = Recording(list(self._outputs()), identity, resume=resume)

    def _outputs(self) -> Iterator[Output]:
        if self.job.out is not None:
            plain = self.job.form != "parquet"
            yield TextFile(self.job.out, self.job.form, self.classes) if plain else AnswerParts(self.job.out)
        if self.job.embeddings is not None:
            kind = NpyFile if self.job.embeddings.suffix == ".npy" else FeatureParts
            yield kind(self.job.embeddings, _width(self.classifier))

    def batches(self, stdin: BinaryIO | None, echo: Callable[[str], None]) -> Iterator[Batch]:
        """The images, answered; each batch when it is in the files, and printed with `echo` if it is to be."""
        job = self.job
        printed = writer(job.form, self.classes) if job.prints else None
        begin = printed.begin if printed else ""  # printed with the first batch: till then the sources may fail
        with self.recording.writing():
            sources = self.recording.skip(find(job.images, stdin, null=job.null))
            for batch in predict(self.classifier, sources, job.top_k, job.batch_size):
                self.recording.add(batch)
                if printed:
                    echo(begin + printed.text(batch.answers))
                    begin = ""
                yield batch
        if printed:
            echo(begin + printed.end)


def _locate(job: Job) -> Path | model_folder.Entry:
    """Where the model is: an .onnx file, or a model folder, downloaded if need be."""
    if Path(job.model).suffix == ".onnx":
        return Path(job.model)
    return fetch.find(job.model, revision=job.revision, use=job.backend)


def _identity(job: Job, model: Path | model_folder.Entry) -> dict[str, object]:
    """What must be the same where a run goes on, in words that make sense in a message."""
    return {
        "images": list(job.images), "model": job.model, "weights": _hashes(model), "backend": job.backend,
        "device": job.device, "top-k": job.top_k, "batch size": job.batch_size, "format": job.form,
        "answers": job.out and str(job.out), "embeddings": job.embeddings and str(job.embeddings),
    }  # fmt: skip


def _hashes(model: Path | model_folder.Entry) -> list[str]:
    """The sha256 of what makes a model's answers: its .onnx file, or the files of weights in its folder."""
    if isinstance(model, Path):
        return [files.sha256(model)]
    present = [name for name in WEIGHTS if (model.folder / name).exists()]
    return [model.sha256(name) or files.sha256(model.folder / name) for name in present]


def _width(classifier: Classifier) -> int:
    """How many numbers the features of an image are: those of a black one."""
    return classifier.run(np.zeros((1, *classifier.preprocess.shape), np.uint8))[1].shape[1]
