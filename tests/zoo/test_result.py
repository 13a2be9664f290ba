"""Reading and writing results, also those of earlier versions: their kind, their keys and the errors in them."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from vtzoo.errors import VtzooError
from vtzoo.zoo import resources
from vtzoo.zoo.result import Certificate, Result, TeacherResult

OLD = Path(__file__).parent / "results"  # written by earlier versions
EMBEDDED = sorted(resources.weights_folder().glob("*/result.json"))


def changed(folder: Path, name: str = "tuned.json", **values: Any) -> Path:
    """Writes a copy of an old file with other values, and returns its path; `...` leaves a key out."""
    content = json.loads((OLD / name).read_text()) | values
    path = folder / "result.json"
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not ...}))
    return path


@pytest.mark.parametrize(
    "path", [*EMBEDDED, *sorted(OLD.glob("*.json"))], ids=lambda path: f"{path.parent.name}-{path.stem}"
)
def test_every_result_is_written_again_byte_for_byte(path: Path, tmp_path: Path) -> None:
    result = Result.read(path)
    assert result.missing == ()
    result.write(tmp_path / "result.json")
    assert (tmp_path / "result.json").read_bytes() == path.read_bytes()


@pytest.mark.parametrize(
    ("name", "fine_tuned", "multi_label", "metrics"),
    [
        ("earliest", False, False, ("top1", "top5")),
        ("tuned", True, False, ("top1", "top5")),
        ("tuned_head", True, False, ("top1", "top5")),
        ("tuned_multi_label", True, True, ("map",)),
    ],
)
def test_an_old_result_has_its_kind(name: str, fine_tuned: bool, multi_label: bool, metrics: tuple[str, ...]) -> None:
    result = Result.read(OLD / f"{name}.json")
    assert (result.fine_tuned, result.multi_label, result.metrics) == (fine_tuned, multi_label, metrics)


def test_a_result_reads_its_certificate_and_its_teacher(tmp_path: Path) -> None:
    result = Result.read(resources.weights_folder() / resources.DEFAULT_MODEL / "result.json")
    assert isinstance(result.certificate, Certificate)
    assert (result.certificate.images, result.certificate.manifest) == (256, None)
    assert isinstance(result.teacher, TeacherResult)
    assert result.teacher.name == "small_cnn-baseline-cifar100"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"top_1": 0.5}, "unknown key '{path}: top_1'"),
        ({"steps": "many"}, "{path}: steps must be a whole number, not 'many'"),
        ({"top1": True}, "{path}: top1 must be a number, not True"),
        ({"weights": ["model.safetensors"]}, "{path}: weights must be a table, not ['model.safetensors']"),
        ({"certificate": {"images": 3}}, "{path}: certificate: max_logit_difference is missing"),
        ({"teacher": {"name": "a", "weights": 3}}, "{path}: teacher: weights must be a string, not 3"),
    ],
)
def test_an_unknown_missing_or_mistyped_key_is_named_with_its_file(
    values: dict[str, Any], message: str, tmp_path: Path
) -> None:
    path = changed(tmp_path, **values)
    with pytest.raises(VtzooError) as raised:
        Result.read(path)
    assert raised.value.message == message.format(path=path)


def test_an_unknown_key_is_answered_by_the_nearest_key(tmp_path: Path) -> None:
    path = changed(tmp_path, best_steps=3)
    with pytest.raises(VtzooError) as raised:
        Result.read(path)
    assert raised.value.hint
    assert f"did you mean {path}: best_step" in raised.value.hint


def test_a_null_is_an_absent_key(tmp_path: Path) -> None:
    assert Result.read(changed(tmp_path, teacher=None)) == Result.read(OLD / "tuned.json")


def test_an_unfinished_result_names_the_keys_that_it_lacks(tmp_path: Path) -> None:
    assert Result.read(changed(tmp_path, top1=..., manifest=..., train_seconds=...)).missing == (
        "top1", "manifest", "train_seconds",
    )  # fmt: skip
    assert Result.read(changed(tmp_path, "tuned_multi_label.json", map=...)).missing == ("top1", "top5")


def test_the_order_of_keys_does_not_depend_on_the_order_of_measuring() -> None:
    whole = Result.read(OLD / "tuned.json")
    reordered = replace(Result(split="test"), **dict(reversed(vars(whole).items())))
    assert list(reordered.as_json()) == list(json.loads((OLD / "tuned.json").read_text()))
