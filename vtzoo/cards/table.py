"""The README's table of the embedded models, and the replacement of a table in a text."""

from pathlib import Path

from vtzoo.cards.images import titled
from vtzoo.zoo import lookup
from vtzoo.zoo.result import Result


def models_table() -> str:
    """The Markdown table of the embedded models, with accuracy and cost of the training."""
    head = "| model | data set | top-1 | without drloc | top-5 | test images | steps x batch | trained in, on |"
    rows = [_row(entry.result) for entry in lookup.embedded_models()]
    return "\n".join([head, "| --- " * (head.count("|") - 1) + "|", *rows]) + "\n"


def _row(result: Result) -> str:
    """The line of a model."""
    images, minutes = titled(result.dataset or "", result.manifest or ""), (result.train_seconds or 0) / 60
    return (
        f"| {result.name} | {images} | {result.top1:.2%} | {_without(result.name or '')} | {result.top5:.2%} "
        f"| {result.images:,} | {result.steps:,} x {result.batch} | {minutes:.0f} min, {result.hardware} |"
    )


def _without(name: str) -> str:
    """The accuracy of a model's baseline; empty if it is not measured, and for a baseline itself."""
    baseline = lookup.measured_model(lookup.twin_of(name)) if "-drloc-" in name else None
    return f"{baseline.result.top1:.2%}" if baseline else ""


def stale_table(readme: Path) -> dict[str, str]:
    """The README with a current table of models, by path; empty if the table is current or missing."""
    text = readme.read_text(encoding="utf-8") if readme.exists() else ""
    wanted = put(text, "models", models_table())
    return {str(readme): wanted} if text != wanted else {}


def put(text: str, mark: str, table: str) -> str:
    """The text with `table` between its marking comments; unchanged without these comments."""
    before, begin, rest = text.partition(f"<!-- {mark} -->\n")
    _, end, after = rest.partition(f"<!-- /{mark} -->")
    return f"{before}{begin}{table}{end}{after}" if end else text
