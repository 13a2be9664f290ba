"""The public names of the package, which are imported at their first use."""

import subprocess
import sys
from importlib import metadata

import pytest

import vtzoo
from vtzoo.errors import VtzooError
from vtzoo.predict.load import load


def test_importing_the_package_imports_nothing_heavy() -> None:
    script = (
        "import sys, vtzoo; print([name for name in ('numpy', 'PIL', 'onnxruntime', 'torch') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_the_public_names_are_listed_and_there() -> None:
    assert {"load", "VtzooError", "__version__"} <= set(dir(vtzoo))
    assert vtzoo.load is load
    assert vtzoo.VtzooError is VtzooError


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'vtzoo' has no attribute 'laod'"):
        _ = vtzoo.laod  # type: ignore[attr-defined]


def test_the_version_is_the_installed_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata, "version", lambda name: f"{name} 1.2.3")
    assert vtzoo.__version__ == "vtzoo 1.2.3"


def test_a_checkout_that_is_not_installed_has_no_version(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", version)
    assert vtzoo.__version__ == "0+unknown"
