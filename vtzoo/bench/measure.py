"""A model on every runtime and precision at hand: speed, cold start, memory, file size, and whether it still agrees."""

import os
import platform
import statistics
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from vtzoo.base import machine, subprocess_runner
from vtzoo.bench import plan, worker
from vtzoo.bench.plan import PRECISIONS, RUNTIMES, Absent, Kind
from vtzoo.errors import VtzooError
from vtzoo.predict.load import DEVICES

__all__ = ["PRECISIONS", "RUNTIMES", "Report", "Row", "Settings", "measure"]

PACKAGES = ("vtzoo", "onnxruntime", "onnxruntime-gpu", "torch", "timm", "openvino", "numpy")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What is measured, and for how long."""

    model: str
    runtimes: tuple[str, ...] = RUNTIMES
    precisions: tuple[str, ...] = PRECISIONS
    device: str = "auto"  # one of vtzoo.predict's DEVICES
    batch: int = 32  # images, for the throughput
    seconds: float = 3.0  # a row, for the latency; and as long for the throughput
    rounds: int = 3  # that this time is divided into: a row's process is started once in each

    def __post_init__(self) -> None:
        known = {"runtime": (self.runtimes, RUNTIMES), "precision": (self.precisions, PRECISIONS)}
        for kind, (names, there) in (known | {"device": ((self.device,), DEVICES)}).items():
            for name in names:
                if name not in there:
                    raise VtzooError(f"unknown {kind} {name!r}", f"known: {', '.join(there)}")
        for name, value in (("batch", self.batch), ("number of rounds", self.rounds)):
            if value < 1:
                raise VtzooError(f"the {name} must be at least 1, not {value}")
        if not 0 < self.seconds < float("inf"):
            raise VtzooError(f"the seconds to measure for must be a number above 0, not {self.seconds}")


@dataclass(frozen=True, kw_only=True)
class Row:
    """The medians of a runtime at a precision over all rounds, or why there are none."""

    runtime: str
    precision: str
    device: str | None = None  # that it really ran on
    latency_ms: float | None = None  # one image, which is prepared
    latency_p95_ms: float | None = None  # the 95th percentile
    images_per_second: float | None = None  # in batches, of prepared images
    cold_start_s: float | None = None  # a fresh process, from its start to the answer to one image
    memory_mb: float | None = None  # the peak of that process until then
    file_mb: float | None = None  # what the model is read from
    agreement: float | None = None  # fraction of the images with the reference's first class
    error: str | None = None


@dataclass(frozen=True, kw_only=True)
class Report:
    """A table that can be quoted: what was measured, on what, by what."""

    model: dict[str, Any]
    hardware: dict[str, Any]
    versions: dict[str, str]
    settings: dict[str, Any]
    reference: str | None  # what the agreement is with
    images: int  # that the agreement is measured on
    rows: list[Row]
    absent: list[Absent] = field(default_factory=list)


def measure(settings: Settings, progress: Callable[[str], None] = lambda doing: None) -> Report:
    """The table of a model. Each measurement is made in a process of its own, and a crash there is a row.

    Rows take turns, so that what else the machine does for a moment falls on all of them. `progress` is told what is
    being done.
    """
    subject = plan.subject(settings.model)
    with tempfile.TemporaryDirectory(prefix="vtzoo-bench-") as folder:
        kinds, absent = plan.kinds(subject, settings, Path(folder))
        images = plan.write_images(subject, Path(folder))
        reference = plan.reference(subject, settings, Path(folder))
        files = {kind: plan.provide(subject, kind, progress) for kind in dict.fromkeys((*kinds, reference))}
        expected = _expected(reference, files[reference], images, settings, progress)
        taken = _rounds({kind: files[kind] for kind in kinds}, images, settings, progress)
        rows = [_row(kind, outcomes, expected, settings.batch) for kind, outcomes in taken.items()]
        count = len(np.load(images, mmap_mode="r"))
    return Report(
        model=subject.facts, hardware=_hardware(), versions=_versions(), settings=_said(settings), images=count,
        reference=f"{reference.runtime} {reference.precision}" if expected else None, rows=rows, absent=absent,
    )  # fmt: skip


def _expected(
    kind: Kind, problem: str | None, images: Path, settings: Settings, progress: Callable[[str], None]
) -> list[int] | None:
    """The reference's class of each image; None where even the reference cannot run."""
    if problem:
        return None
    progress(f"asking {kind.runtime} {kind.precision} for its classes")
    told = subprocess_runner.run(worker.classify, _task(kind, images, settings)).told
    return told[0] if told else None


def _rounds(
    problems: dict[Kind, str | None], images: Path, settings: Settings, progress: Callable[[str], None]
) -> dict[Kind, list[subprocess_runner.Outcome]]:
    """What each kind's process told in each round; a kind that failed once takes no part in the next."""
    taken = {
        kind: [subprocess_runner.Outcome(told=[], moments=[], error=why)] if why else []
        for kind, why in problems.items()
    }
    for turn in range(settings.rounds):
        for kind, outcomes in taken.items():
            if not any(outcome.error for outcome in outcomes):
                progress(f"round {turn + 1} of {settings.rounds}: {kind.runtime} {kind.precision}")
                outcomes.append(subprocess_runner.run(worker.measure, _task(kind, images, settings)))
    return taken


def _task(kind: Kind, images: Path, settings: Settings) -> dict[str, Any]:
    """What a worker is told to do."""
    seconds = settings.seconds / settings.rounds
    return {
        "runtime": kind.runtime, "precision": kind.precision, "model": kind.source, "device": settings.device,
        "images": str(images), "batch": settings.batch, "seconds": seconds,
    }  # fmt: skip


def _row(kind: Kind, outcomes: list[subprocess_runner.Outcome], expected: list[int] | None, batch: int) -> Row:
    """The row out of what a kind's processes told."""
    failed = next((outcome.error for outcome in outcomes if outcome.error), None)
    if failed:
        return Row(runtime=kind.runtime, precision=kind.precision, error=failed)
    first, last = zip(*(outcome.told for outcome in outcomes), strict=True)
    latencies = [1e3 * seconds for told in last for seconds in told["one"]]
    classes = last[0]["classes"]
    return Row(
        runtime=kind.runtime,
        precision=kind.precision,
        device=first[0]["device"],
        latency_ms=statistics.median(latencies),
        latency_p95_ms=float(np.percentile(latencies, 95)),
        images_per_second=batch / statistics.median(seconds for told in last for seconds in told["batch"]),
        cold_start_s=statistics.median(outcome.moments[0] for outcome in outcomes),
        memory_mb=statistics.median(told["memory"] for told in first) / 1e6,
        file_mb=sum(Path(file).stat().st_size for file in kind.files) / 1e6,
        agreement=float(np.mean(np.equal(classes, expected))) if expected else None,
    )


def _hardware() -> dict[str, Any]:
    sizes = machine.memory()
    return {
        "processor": machine.processor(),
        "cores": machine.cores(),  # that this process may use
        "machine_cores": os.cpu_count(),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS"),
        "memory_gb": round(sizes[0] / 1e9, 1) if sizes else None,
        "gpus": machine.gpus(),
    }


def _versions() -> dict[str, str]:
    """The versions of all that takes part, as far as it is installed."""
    found = {"Python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _said(settings: Settings) -> dict[str, Any]:
    """The settings, but for the model, which the report tells more of."""
    return {key: value for key, value in asdict(settings).items() if key != "model"}
