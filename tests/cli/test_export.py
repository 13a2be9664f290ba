"""`vtzoo export`."""

import json
from collections.abc import Callable
from pathlib import Path
from unittest.mock import Mock

import pytest
from typer.testing import Result

from vtzoo.cli import DEFAULT_MODEL

Command = Callable[..., Result]
GOOD = {
    "precision": "fp32", "images": 32, "source": "the test split of it", "max_logit_difference": 1e-6,
    "top1_agreement": 1.0,
}  # fmt: skip


@pytest.fixture
def exported(monkeypatch: pytest.MonkeyPatch) -> Mock:
    """Replaces the function that `vtzoo export` calls with one that returns a certificate at once."""
    from vtzoo.export.certificate import Certificate

    function = Mock(return_value=Certificate(**GOOD))
    monkeypatch.setattr("vtzoo.export.onnx_files.export_model", function)
    return function


def test_the_options_are_passed_on(vt: Command, exported: Mock) -> None:
    vt("export", "--onnx", "a.onnx")
    plain = {"revision": None, "precision": "fp32", "opset": None, "images": 128, "data": None}
    exported.assert_called_with(DEFAULT_MODEL, Path("a.onnx"), **plain)
    given = ["--precision", "int8", "--opset", "18", "--verify", "7", "--data", "data", "--revision", "v1"]
    vt("export", "-m", "org/mine", "--onnx", "a.onnx", *given)
    asked = {"revision": "v1", "precision": "int8", "opset": 18, "images": 7, "data": Path("data")}
    exported.assert_called_with("org/mine", Path("a.onnx"), **asked)


def test_the_certificate_is_printed(vt: Command, exported: Mock) -> None:
    sentence = (
        "a.onnx: fp32, verified on 32 images (the test split of it), top-1 agreement 100.00%, "
        "logits differ by at most 1.0e-06"
    )
    assert vt("export", "--onnx", "a.onnx").stdout == f"{sentence}\n"
    exported.return_value = type(exported.return_value)(**GOOD, torch_top1=0.5, onnx_top1=0.4375)
    assert vt("export", "--onnx", "a.onnx").stdout == f"{sentence}, top-1 43.75% (torch 50.00%)\n"


def test_the_certificate_is_one_json_object(vt: Command, exported: Mock) -> None:
    stated = json.loads(vt("export", "--onnx", "a.onnx", "--json").stdout)
    assert stated == GOOD | {"manifest": None, "torch_top1": None, "onnx_top1": None}


@pytest.mark.parametrize("wrong", [["--precision", "fp8"], ["--verify", "0"], ["--opset", "new"], []])
def test_what_does_not_parse_is_exit_code_2(wrong: list[str], vt: Command, exported: Mock) -> None:
    assert vt("export", *(["--onnx", "a.onnx"] if wrong else []), *wrong).exit_code == 2
    exported.assert_not_called()
