"""Checks the installed packages against the requirements in vtzoo's own metadata."""

import importlib.util
import platform
import sys
from collections.abc import Iterator
from importlib import metadata
from typing import Any

from vtzoo.base import subprocess_runner
from vtzoo.doctor.finding import Finding

GROUP = "packages"
MODULES = {  # of packages whose module has another name
    "onnxruntime-gpu": "onnxruntime", "pillow": "PIL", "scikit-learn": "sklearn"
}  # fmt: skip
# Useful, but not required by vtzoo: timm needs torchvision, and `vtzoo bench` measures OpenVINO.
OPTIONAL = {"torchvision": 'timm installs it: pip install "vtzoo[train]"', "openvino": "pip install openvino"}
# All of them install the same folder, and the last one overwrites the others.
ONNX_RUNTIMES = ("onnxruntime", "onnxruntime-gpu", "onnxruntime-directml", "onnxruntime-openvino")


def check_packages(*, everything: bool) -> list[Finding]:
    """Findings on Python and on each package: its version, whether that is new enough, whether it can be imported.

    A new process imports the packages that predicting needs; with `everything`, all installed ones.
    """
    try:
        needed = list(_requirements())
    except (metadata.PackageNotFoundError, ImportError) as error:
        advice = "install vtzoo and its requirements: pip install vtzoo, or pip install . in a checkout"
        says = f"its requirements are unknown: {subprocess_runner.one_line(error)}"
        return [Finding(group=GROUP, name="vtzoo", says=says, state="warning", advice=advice), *_system()]
    rows: list[tuple[str, bool, Any]] = [*needed, *((name, False, None) for name in OPTIONAL)]
    tried = [module_of(name) for name, base, _ in rows if (base or everything) and _version(name)]
    broken = _broken(tried)
    return [*_system(), *_conflict(), *(_check_package(*row, broken) for row in rows)]


def module_of(package: str) -> str:
    """The name of a package's module."""
    return MODULES.get(package, package.replace("-", "_"))


def _requirements() -> Iterator[tuple[str, bool, Any]]:
    """Each package that vtzoo needs on this machine, whether predicting needs it, and its allowed versions."""
    from packaging.requirements import Requirement

    for line in metadata.requires("vtzoo") or []:
        requirement = Requirement(line)
        for extra in ("", "train"):
            if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
                yield requirement.name, extra == "", requirement.specifier
                break


def _system() -> Iterator[Finding]:
    """Findings on vtzoo, Python and the platform."""
    version = _version("vtzoo")
    if version:
        yield Finding(group=GROUP, name="vtzoo", says=version)
        yield _check_python()
    yield Finding(group=GROUP, name="platform", says=f"{platform.platform()}, {sys.executable}")


def _check_python() -> Finding:
    from packaging.specifiers import SpecifierSet

    required = metadata.metadata("vtzoo")["Requires-Python"] or ""
    version = platform.python_version()
    if SpecifierSet(required).contains(version, prereleases=True):
        return Finding(group=GROUP, name="Python", says=version)
    says, advice = f"{version}; vtzoo needs {required}", f"make an environment with Python {required}"
    return Finding(group=GROUP, name="Python", says=says, state="warning", advice=advice)


def _conflict() -> Iterator[Finding]:
    """A finding if several ONNX Runtimes have overwritten each other."""
    installed = [name for name in ONNX_RUNTIMES if _version(name)]
    if len(installed) > 1:
        kept = "onnxruntime-gpu" if "onnxruntime-gpu" in installed else installed[0]
        advice = f"pip uninstall -y {' '.join(installed)} && pip install {kept}"
        says = f"{' and '.join(installed)} are both installed, and overwrite each other's files"
        yield Finding(group=GROUP, name="ONNX Runtime", says=says, state="warning", advice=advice)


def _check_package(name: str, base: bool, specifier: Any, broken: dict[str, str]) -> Finding:
    """The finding on one package; `broken` has the modules that cannot be imported, and why."""
    version, module = _version(name), module_of(name)
    requirement = f'"{name}{specifier or ""}"'
    advice = f"pip install {requirement}" if base else OPTIONAL.get(name, 'pip install "vtzoo[train]"')
    if version is None:
        other = next((one for one in ONNX_RUNTIMES if module == "onnxruntime" and _version(one)), None)
        if other:
            return Finding(group=GROUP, name=other, says=f"{_version(other)}, instead of {name}")
        says = "not installed" if base else "not installed (optional)"
        return Finding(group=GROUP, name=name, says=says, state="warning" if base else "absent", advice=advice)
    reinstall = f"pip install --force-reinstall {requirement}"
    if module in broken:
        says = f"{version}; cannot be imported: {broken[module]}"
        return Finding(group=GROUP, name=name, says=says, state="warning", advice=reinstall)
    if not is_installed(module):
        says = f"{version}; its files are missing"
        return Finding(group=GROUP, name=name, says=says, state="warning", advice=reinstall)
    if specifier is not None and not specifier.contains(version, prereleases=True):
        advice = f"pip install --upgrade {requirement}"
        says = f"{version}; vtzoo needs {specifier}"
        return Finding(group=GROUP, name=name, says=says, state="warning", advice=advice)
    return Finding(group=GROUP, name=name, says=version)


def _version(name: str) -> str | None:
    """The installed version; None if there is none, or if its metadata is damaged."""
    try:
        return metadata.version(name)
    except Exception:  # PackageNotFoundError; half-removed metadata raises others
        return None


def is_installed(module: str) -> bool:
    """Whether the module can be found; it is not imported."""
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def _broken(modules: list[str]) -> dict[str, str]:
    """The modules that cannot be imported, and why."""
    outcome = subprocess_runner.run(try_imports, modules)
    broken = {module: why for module, why in outcome.messages if why}
    tried = len(outcome.messages)
    if outcome.error and tried < len(modules):  # the import of the next module crashed
        return broken | {modules[tried]: outcome.error} | _broken(modules[tried + 1 :])
    return broken


def try_imports(modules: list[str], send: subprocess_runner.Send) -> None:
    """Import each module, and send its name and the error, or None. Runs in a new process."""
    for module in modules:
        try:
            importlib.import_module(module)
        except BaseException as error:
            send([module, subprocess_runner.one_line(error)])
        else:
            send([module, None])
