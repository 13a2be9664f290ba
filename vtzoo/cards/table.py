"""The README's table of the embedded models, and how a table is put into a text."""

from pathlib import Path
from typing import Any

from vtzoo.cards import subject
from vtzoo.zoo import model_folder


def models_table() -> str:
    """The Markdown table of the embedded models: how good each is, and what it took to train it."""
    head = "| model | data set | top-1 | without drloc | top-5 | test images | steps x batch | trained in, on |"
    rows = [_row(entry.result) for entry in model_folder.entries()]
    return "\n".join([head, "| --- " * (head.count("|") - 1) + "|", *rows]) + "\n"


def _row(result: dict[str, Any]) -> str:
    """A model's line."""
    images, minutes = subject.titled(result["dataset"], result["manifest"]), result["train_seconds"] / 60
    return (
        "| {name} | {of} | {top1:.2%} | {without} | {top5:.2%} | {images:,} | {steps:,} x {batch} "
        "| {minutes:.0f} min, {hardware} |"
    ).format(**result, of=images, without=_without(result["name"]), minutes=minutes)


def _without(name: str) -> str:
    """The accuracy of a model's baseline, where that was measured; nothing of a model that is one itself."""
    baseline = model_folder.recorded(model_folder.twin_of(name)) if "-drloc-" in name else None
    return f"{baseline.result['top1']:.2%}" if baseline else ""


def stale_table(readme: Path) -> dict[str, str]:
    """The README with its table of models rendered anew, by path; nothing where it is current, or has no such table."""
    text = readme.read_text(encoding="utf-8") if readme.exists() else ""
    wanted = put(text, "models", models_table())
    return {str(readme): wanted} if text != wanted else {}


def put(text: str, mark: str, table: str) -> str:
    """The text with `table` between the comments that mark its place; as it is where there are none."""
    before, begin, rest = text.partition(f"<!-- {mark} -->\n")
    _, end, after = rest.partition(f"<!-- /{mark} -->")
    return f"{before}{begin}{table}{end}{after}" if end else text
