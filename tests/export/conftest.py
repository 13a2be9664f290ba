"""Traces equal models once, except in the tests of the exporter itself."""

import pytest

from vtzoo.export import onnx_files, tracing


@pytest.fixture(autouse=True, scope="session")
def _traced_once(traced_once: None) -> None:
    """The tiny models of these tests are a handful."""


@pytest.fixture
def traced_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """The exporter runs each time."""
    monkeypatch.setattr(onnx_files, "trace", tracing.trace)
