"""A benchmark report as text: the setting, a Markdown table, and the variants that cannot be measured."""

from collections.abc import Iterator

from vtzoo.bench.measure import Report, Row

HEADER = (
    "runtime", "precision", "device", "latency, ms", "95%, ms", "images/s", "cold start, s", "memory, MB", "file, MB",
    "agreement",
)  # fmt: skip


def render(report: Report) -> str:
    """The report as text."""
    return "\n".join([*_head(report), "", *_table(report), "", *_notes(report)])


def _head(report: Report) -> Iterator[str]:
    model, hardware, settings = report.model, report.hardware, report.settings
    yield f"{model['name']}, {model['image_size']} px, {model['classes']:,} classes"
    cores, installed = hardware["cores"], hardware["machine_cores"]
    parts = [hardware["processor"], f"{cores} cores" if cores == installed else f"{cores} of {installed} cores"]
    if hardware["OMP_NUM_THREADS"]:
        parts.append(f"OMP_NUM_THREADS={hardware['OMP_NUM_THREADS']}")
    yield ", ".join([*parts, *hardware["gpus"]])
    yield ", ".join(f"{name} {version}" for name, version in report.versions.items())
    yield (
        f"medians; {settings['seconds']:g} s per measurement, rounds: {settings['rounds']}; "
        f"prepared images: latency of one, images/s in batches of {settings['batch']}"
    )


def _table(report: Report) -> Iterator[str]:
    yield f"| {' | '.join(HEADER)} |"
    yield f"| {' | '.join('---' for _ in HEADER)} |"
    for row in report.rows:
        yield f"| {' | '.join(_cells(row))} |"


def _cells(row: Row) -> list[str]:
    """The cells of a row; a failed row has its error in the third."""
    name = [row.runtime, row.precision]
    if row.error is not None:
        return [*name, f"failed: {row.error}", *([""] * (len(HEADER) - 3))]
    forms = {
        "latency_ms": ".2f", "latency_p95_ms": ".2f", "images_per_second": ",.0f", "cold_start_s": ".2f",
        "memory_mb": ",.0f", "file_mb": ",.1f", "agreement": ".1%",
    }  # fmt: skip
    values = [(getattr(row, key), form) for key, form in forms.items()]
    return [*name, str(row.device), *("" if value is None else format(value, form) for value, form in values)]


def _notes(report: Report) -> Iterator[str]:
    yield (
        "cold start: from the start of a new process to the logits of one prepared image; memory: its peak until then; "
        f"agreement: fraction of {report.images} images with the same top-1 class as {report.reference}"
        if report.reference
        else "agreement: not measured, because the reference failed"
    )
    for absent in report.absent:
        name = f"{absent.runtime} {absent.precision or ''}".strip()
        yield f"not measured: {name}: {absent.reason}" + (f": {absent.advice}" if absent.advice else "")
