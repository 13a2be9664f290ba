"""A zoo of visual transformers for small datasets: `vtzoo.load(name)` gives a classifier.

Importing the package imports nothing heavy: each public name brings in what it needs when it is first used.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vtzoo.errors import VtzooError as VtzooError
    from vtzoo.predict.load import load as load

    __version__: str

__all__ = ["VtzooError", "__version__", "load"]


def __getattr__(name: str) -> Any:
    if name == "load":
        from vtzoo.predict.load import load

        return load
    if name == "VtzooError":
        from vtzoo.errors import VtzooError

        return VtzooError
    if name == "__version__":
        return _version()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("vtzoo")
    except PackageNotFoundError:  # imported from a checkout that nobody installed
        return "0+unknown"
