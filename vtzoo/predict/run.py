"""A run of `vtzoo predict`: the request, and the batches that answer it."""

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from vtzoo.base import files
from vtzoo.base.progress import counted
from vtzoo.errors import VtzooError, unknown
from vtzoo.hub import fetch
from vtzoo.predict import sources
from vtzoo.predict.bulk import Batch, predict
from vtzoo.predict.classifier import Classifier
from vtzoo.predict.formats import FORMATS, text_format
from vtzoo.predict.load import load
from vtzoo.predict.outputs import FeatureParts, NpyFile, Output, PredictionParts, TextFile
from vtzoo.predict.resume import ResumableOutputs
from vtzoo.zoo.model_folder import ModelFolder

WEIGHTS = ("onnx/model.onnx", "model.safetensors")


@dataclass(frozen=True, kw_only=True)
class PredictRequest:
    """The images, the model, and where the predictions go."""

    images: tuple[str, ...]  # as `sources.image_sources` takes them
    model: str
    revision: str | None = None
    backend: str = "auto"
    device: str = "auto"
    top_k: int = 5  # classes an image
    batch_size: int = 32
    format: str | None = None  # one of FORMATS; by default the suffix of `out`, else a table
    out: Path | None = None  # the file of predictions; stdout by default
    embeddings: Path | None = None  # the file of features, .npy or .parquet; alone, it replaces the predictions
    null: bool = False  # whether paths on stdin end with NUL

    def __post_init__(self) -> None:
        if self.written_format not in FORMATS:
            raise unknown("format", self.written_format, FORMATS)
        if self.written_format == "parquet" and self.out is None:
            raise VtzooError("Parquet cannot be written to stdout", "name a file: --out predictions.parquet")
        if self.embeddings and self.embeddings.suffix not in (".npy", ".parquet"):
            raise VtzooError(f"features cannot be written as {str(self.embeddings)!r}", "name it .npy or .parquet")
        if self.out and self.out == self.embeddings:
            raise VtzooError(f"predictions and features cannot both be {str(self.out)!r}")
        for path in (self.out, self.embeddings):
            if path and path.is_dir():
                raise VtzooError(f"{str(path)!r} is a folder, not a file", "name a file")
        if self.written_format == "parquet" or (self.embeddings and self.embeddings.suffix == ".parquet"):
            sources.load_arrow()

    @property
    def written_format(self) -> str:
        """The format of the predictions."""
        suffix = self.out.suffix.removeprefix(".") if self.out else ""
        return self.format or (suffix if suffix in FORMATS else "table")

    @property
    def prints(self) -> bool:
        """Whether the predictions go to stdout."""
        return self.out is None and (self.embeddings is None or self.format is not None)


class PredictRun:
    """A request whose model is loaded, and whose outputs are free or continued."""

    def __init__(self, request: PredictRequest, *, resume: bool = False) -> None:
        """Load the model; with `resume`, continue the interrupted run of the same request."""
        if resume and request.prints:
            raise VtzooError("--resume needs files, and these predictions go to stdout", "name a file: --out FILE")
        self.request, model = request, _find_model(request)
        self.classifier = load(model, backend=request.backend, device=request.device)
        self.classes = min(request.top_k, len(self.classifier.labels))
        identity = {} if request.prints and not request.embeddings else _identity(request, model)
        self.outputs = ResumableOutputs(list(self._outputs()), identity, resume=resume)

    def _outputs(self) -> Iterator[Output]:
        request = self.request
        if request.out is not None and request.written_format == "parquet":
            yield PredictionParts(request.out)
        elif request.out is not None:
            yield TextFile(request.out, request.written_format, self.classes)
        if request.embeddings is not None:
            kind = NpyFile if request.embeddings.suffix == ".npy" else FeatureParts
            yield kind(request.embeddings, _feature_width(self.classifier))

    def batches(self, stdin: BinaryIO | None, echo: Callable[[str], None]) -> Iterator[Batch]:
        """The batches, each after it is in the outputs, and after `echo` has printed it if the request prints.

        A bar counts the images, unless the predictions themselves appear on a terminal.
        """
        batches = self._batches(stdin, echo)
        if self.request.prints and sys.stdout.isatty():
            return batches
        return counted(
            batches, "predicting", lambda: sources.count(self.request.images), lambda batch: len(batch.images),
            done=self.outputs.position.images,
        )  # fmt: skip

    def _batches(self, stdin: BinaryIO | None, echo: Callable[[str], None]) -> Iterator[Batch]:
        request = self.request
        printed = text_format(request.written_format, self.classes) if request.prints else None
        begin = printed.begin if printed else ""  # printed with the first batch, because the sources may fail before
        with self.outputs.writing():
            images = self.outputs.skip(sources.image_sources(request.images, stdin, null=request.null))
            for batch in predict(self.classifier, images, request.top_k, request.batch_size):
                self.outputs.add(batch)
                if printed:
                    echo(begin + printed.text(batch.images))
                    begin = ""
                yield batch
        if printed:
            echo(begin + printed.end)


def _find_model(request: PredictRequest) -> Path | ModelFolder:
    """The .onnx file, or the model folder, which may be downloaded first."""
    if Path(request.model).suffix == ".onnx":
        return Path(request.model)
    return fetch.model_folder(request.model, revision=request.revision, use=request.backend)


def _identity(request: PredictRequest, model: Path | ModelFolder) -> dict[str, object]:
    """The settings that a resumed run must repeat, under the names that messages use."""
    return {
        "images": list(request.images), "model": request.model, "weights": _hashes(model), "backend": request.backend,
        "device": request.device, "top-k": request.top_k, "batch size": request.batch_size,
        "format": request.written_format, "answers": request.out and str(request.out),
        "embeddings": request.embeddings and str(request.embeddings),
    }  # fmt: skip


def _hashes(model: Path | ModelFolder) -> list[str]:
    """The sha256 of the .onnx file, or of each file of weights in the model folder."""
    if isinstance(model, Path):
        return [files.sha256(model)]
    present = [name for name in WEIGHTS if (model.folder / name).exists()]
    return [model.sha256(name) or files.sha256(model.folder / name) for name in present]


def _feature_width(classifier: Classifier) -> int:
    """The number of features of an image, found with a black one."""
    return classifier.run(np.zeros((1, *classifier.preprocess.shape), np.uint8))[1].shape[1]
