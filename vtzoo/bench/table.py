"""A report as text: what was measured on what, a Markdown table, and what is not at hand."""

from collections.abc import Iterator

from vtzoo.bench.measure import Report, Row

HEADER = (
    "runtime", "precision", "device", "latency, ms", "95%, ms", "images/s", "cold start, s", "memory, MB", "file, MB",
    "agreement",
)  # fmt: skip


def render(report: Report) -> str:
    """The report, to be read and to be quoted."""
    return "\n".join([*_head(report), "", *_table(report), "", *_notes(report)])


def _head(report: Report) -> Iterator[str]:
    model, hardware, settings = report.model, report.hardware, report.settings
    yield f"{model['name']}, {model['image_size']} px, {model['classes']:,} classes"
    cores, there = hardware["cores"], hardware["machine_cores"]
    told = [hardware["processor"], f"{cores} cores" if cores == there else f"{cores} of {there} cores"]
    if hardware["OMP_NUM_THREADS"]:
        told.append(f"OMP_NUM_THREADS={hardware['OMP_NUM_THREADS']}")
    yield ", ".join([*told, *hardware["gpus"]])
    yield ", ".join(f"{name} {version}" for name, version in report.versions.items())
    yield (
        f"medians; {settings['seconds']:g} s a measurement, rounds: {settings['rounds']}; latency of one image, "
        f"images/s in batches of {settings['batch']}, of prepared images"
    )


def _table(report: Report) -> Iterator[str]:
    yield f"| {' | '.join(HEADER)} |"
    yield f"| {' | '.join('---' for _ in HEADER)} |"
    for row in report.rows:
        yield f"| {' | '.join(_cells(row))} |"


def _cells(row: Row) -> list[str]:
    """A row's cells; one that failed says why, in the first of those that it has nothing for."""
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
        "cold start: a fresh process, from its start to the answer to one prepared image; memory: its peak until then; "
        f"agreement: same first class as {report.reference} on {report.images} images"
        if report.reference
        else "agreement: nothing to agree with could be run"
    )
    for absent in report.absent:
        name = f"{absent.runtime} {absent.precision or ''}".strip()
        yield f"not at hand: {name}: {absent.reason}" + (f": {absent.advice}" if absent.advice else "")
