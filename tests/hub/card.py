"""The Hub's checks of a model card's front matter that a card could fail by accident."""

import re
from typing import Any

import yaml  # a dependency of huggingface_hub

FRONT_MATTER = r"\A\s*---[\r\n]+(.*?)[\r\n]+---\s*?(?:\r?\n|\Z)"
LICENSES = {
    "apache-2.0", "mit", "openrail", "bsd-2-clause", "bsd-3-clause", "cc0-1.0", "cc-by-4.0", "cc-by-sa-4.0",
    "cc-by-nc-4.0", "cc-by-nc-sa-4.0", "gpl-3.0", "lgpl-3.0", "mpl-2.0", "unlicense", "unknown", "other",
}  # fmt: skip


def problems(content: str) -> tuple[list[str], list[str]]:
    """The errors and the warnings about a README.md."""
    match = re.search(FRONT_MATTER, content, re.DOTALL)
    if match is None:
        return [], ["empty or missing yaml metadata in repo card"]
    try:
        metadata = yaml.safe_load(match[1])
    except yaml.YAMLError as error:
        return [f"YAML syntax error: {error}"], []
    if not isinstance(metadata, dict):
        return ["the metadata must be a mapping"], []
    broken = [key for key, value in metadata.items() if key in RULES and not RULES[key][1](value)]
    return [f'"{key}" {RULES[key][0]}' for key in broken], []


def text(value: Any) -> bool:
    return isinstance(value, str) and value != ""


def texts(value: Any) -> bool:
    return isinstance(value, list) and all(text(one) for one in value)


def licenses(value: Any) -> bool:
    return all(one in LICENSES for one in (value if isinstance(value, list) else [value]))


def model_index(value: Any) -> bool:
    """Whether every result names its model, task, data set and metrics."""
    try:
        return isinstance(value, list) and all(
            result(model["name"], one) for model in value for one in model["results"]
        )
    except (KeyError, TypeError):
        return False


def result(model: str, value: dict[str, Any]) -> bool:
    names = [model, value["task"]["type"], value["dataset"]["type"], value["dataset"]["name"]]
    names += [metric["type"] for metric in value["metrics"]]
    return texts(names) and all(isinstance(metric["value"], int | float | str) for metric in value["metrics"])


RULES = {
    "license": (f"must be one of {sorted(LICENSES)}", licenses),
    "license_name": ("must be a string", text),
    "library_name": ("must be a string", text),
    "pipeline_tag": ("must be a string", text),
    "tags": ("must be a list of strings", texts),
    "datasets": ("must be a string or a list of strings", lambda value: text(value) or texts(value)),
    "metrics": ("must be a string or a list of strings", lambda value: text(value) or texts(value)),
    "base_model": ("must be a string or a list of strings", lambda value: text(value) or texts(value)),
    "language": ("must be a string or a list of strings", lambda value: text(value) or texts(value)),
    "model-index": ("must name the model, the task, the data set and the metrics of each result", model_index),
}
