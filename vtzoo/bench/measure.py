"""Measures a model on each available runtime and precision: speed, cold start, memory, file size and agreement."""

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
from vtzoo.base.subprocess_runner import Outcome
from vtzoo.bench import plan, worker
from vtzoo.bench.plan import Settings, Unavailable, Variant

PACKAGES = ("vtzoo", "onnxruntime", "onnxruntime-gpu", "torch", "timm", "openvino", "numpy")


@dataclass(frozen=True, kw_only=True)
class Row:
    """The medians of a variant over all rounds, or the error that prevented them."""

    runtime: str
    precision: str
    device: str | None = None  # the device that it really ran on
    latency_ms: float | None = None  # one prepared image
    latency_p95_ms: float | None = None  # the 95th percentile
    images_per_second: float | None = None  # prepared images, in batches
    cold_start_s: float | None = None  # from the start of a new process to the logits of one image
    memory_mb: float | None = None  # the peak of that process until then
    file_mb: float | None = None  # of the files that the process reads
    agreement: float | None = None  # fraction of the images with the reference's top-1 class
    error: str | None = None


@dataclass(frozen=True, kw_only=True)
class Report:
    """The rows, with the model, hardware, versions and settings that they hold for."""

    model: dict[str, Any]
    hardware: dict[str, Any]
    versions: dict[str, str]
    settings: dict[str, Any]
    reference: str | None  # the variant that the agreement compares with
    images: int  # number of images that the agreement compares
    rows: list[Row]
    absent: list[Unavailable] = field(default_factory=list)


def measure(settings: Settings, progress: Callable[[str], None] = lambda step: None) -> Report:
    """The report on a model. A new process makes each measurement; a crash in it becomes the row's error.

    Variants take turns, so that a short load on the machine slows all of them. `progress` gets each step's name.
    """
    model = plan.find_model(settings.model)
    with tempfile.TemporaryDirectory(prefix="vtzoo-bench-") as folder:
        variants, unavailable = plan.find_variants(model, settings, Path(folder))
        images = plan.write_images(model, Path(folder))
        reference = plan.choose_reference(model, settings, Path(folder))
        errors = {variant: plan.export(model, variant, progress) for variant in dict.fromkeys((*variants, reference))}
        expected = _classify(reference, errors[reference], images, settings, progress)
        outcomes = _measure_rounds({variant: errors[variant] for variant in variants}, images, settings, progress)
        rows = [_row(variant, rounds, expected, settings.batch) for variant, rounds in outcomes.items()]
        count = len(np.load(images, mmap_mode="r"))
    stated = {key: value for key, value in asdict(settings).items() if key != "model"}
    return Report(
        model=model.facts, hardware=_hardware(), versions=_versions(), settings=stated, images=count,
        reference=f"{reference.runtime} {reference.precision}" if expected else None, rows=rows, absent=unavailable,
    )  # fmt: skip


def _classify(
    reference: Variant, error: str | None, images: Path, settings: Settings, progress: Callable[[str], None]
) -> list[int] | None:
    """The reference's class of each image; None if the reference does not run."""
    if error:
        return None
    progress(f"classifying the images with {reference.runtime} {reference.precision}")
    messages = subprocess_runner.run(worker.classify, _task(reference, images, settings)).messages
    return messages[0] if messages else None


def _measure_rounds(
    errors: dict[Variant, str | None], images: Path, settings: Settings, progress: Callable[[str], None]
) -> dict[Variant, list[Outcome]]:
    """Each variant's outcome of each round; a variant that fails takes no part in later rounds."""
    outcomes = {
        variant: [Outcome(messages=[], seconds=[], error=error)] if error else [] for variant, error in errors.items()
    }
    for number in range(settings.rounds):
        for variant, rounds in outcomes.items():
            if not any(outcome.error for outcome in rounds):
                progress(f"round {number + 1} of {settings.rounds}: {variant.runtime} {variant.precision}")
                rounds.append(subprocess_runner.run(worker.measure, _task(variant, images, settings)))
    return outcomes


def _task(variant: Variant, images: Path, settings: Settings) -> dict[str, Any]:
    """The argument of a worker's function."""
    seconds = settings.seconds / settings.rounds
    return {
        "runtime": variant.runtime, "precision": variant.precision, "model": variant.source, "device": settings.device,
        "images": str(images), "batch": settings.batch, "seconds": seconds,
    }  # fmt: skip


def _row(variant: Variant, rounds: list[Outcome], expected: list[int] | None, batch: int) -> Row:
    """The row of a variant, from the messages of its processes."""
    error = next((outcome.error for outcome in rounds if outcome.error), None)
    if error:
        return Row(runtime=variant.runtime, precision=variant.precision, error=error)
    starts, timings = zip(*(outcome.messages for outcome in rounds), strict=True)
    latencies = [1e3 * seconds for timing in timings for seconds in timing["one"]]
    return Row(
        runtime=variant.runtime,
        precision=variant.precision,
        device=starts[0]["device"],
        latency_ms=statistics.median(latencies),
        latency_p95_ms=float(np.percentile(latencies, 95)),
        images_per_second=batch / statistics.median(seconds for timing in timings for seconds in timing["batch"]),
        cold_start_s=statistics.median(outcome.seconds[0] for outcome in rounds),
        memory_mb=statistics.median(start["memory"] for start in starts) / 1e6,
        file_mb=sum(Path(file).stat().st_size for file in variant.files) / 1e6,
        agreement=float(np.mean(np.equal(timings[0]["classes"], expected))) if expected else None,
    )


def _hardware() -> dict[str, Any]:
    sizes = machine.memory()
    return {
        "processor": machine.processor(),
        "cores": machine.cores(),  # usable by this process
        "machine_cores": os.cpu_count(),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS"),
        "memory_gb": round(sizes[0] / 1e9, 1) if sizes else None,
        "gpus": machine.gpus(),
    }


def _versions() -> dict[str, str]:
    """The versions of Python and of the installed PACKAGES."""
    found = {"Python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
