"""What is installed, against what vtzoo's own metadata asks for."""

import importlib.util
import platform
import sys
from collections.abc import Iterator
from importlib import metadata
from typing import Any

from vtzoo.base import subprocess_runner
from vtzoo.doctor.finding import Finding

GROUP = "packages"
MODULES = {  # of the packages whose module has another name
    "onnxruntime-gpu": "onnxruntime", "pillow": "PIL", "scikit-learn": "sklearn"
}  # fmt: skip
# No requirement, and yet of use: timm needs the first one, and `vtzoo bench` takes the second.
OPTIONAL = {"torchvision": 'it comes with timm: pip install "vtzoo[train]"', "openvino": "pip install openvino"}
# They install one and the same folder, and whatever is installed last wins.
ONNX_RUNTIMES = ("onnxruntime", "onnxruntime-gpu", "onnxruntime-directml", "onnxruntime-openvino")


def examine(*, everything: bool) -> list[Finding]:
    """Findings on Python and on each package: its version, whether that suffices, whether it can be imported.

    What predicting needs is imported in a fresh process; with `everything`, so is all else that is installed.
    """
    try:
        needed = list(_requirements())
    except (metadata.PackageNotFoundError, ImportError) as error:
        advice = "install vtzoo and what it needs: pip install vtzoo, or pip install . in a checkout"
        says = f"what it needs is not known: {subprocess_runner.reason(error)}"
        return [Finding(group=GROUP, name="vtzoo", says=says, state="warning", advice=advice), *_system()]
    rows = [(name, base, specifier) for name, base, specifier in needed]
    rows += [(name, False, None) for name in OPTIONAL]
    tried = [module_of(name) for name, base, _ in rows if (base or everything) and _version(name)]
    broken = _broken(tried)
    return [*_system(), *_doubled(), *(_judge(*row, broken) for row in rows)]


def module_of(package: str) -> str:
    """The name to import a package by."""
    return MODULES.get(package, package.replace("-", "_"))


def _requirements() -> Iterator[tuple[str, bool, Any]]:
    """Each package that vtzoo needs on this machine, whether predicting does, and the versions that suffice."""
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
        yield _judge_python()
    yield Finding(group=GROUP, name="platform", says=f"{platform.platform()}, {sys.executable}")


def _judge_python() -> Finding:
    from packaging.specifiers import SpecifierSet

    asked = metadata.metadata("vtzoo")["Requires-Python"] or ""
    version = platform.python_version()
    if SpecifierSet(asked).contains(version, prereleases=True):
        return Finding(group=GROUP, name="Python", says=version)
    says, advice = f"{version}; vtzoo asks for {asked}", f"make an environment with a Python {asked}"
    return Finding(group=GROUP, name="Python", says=says, state="warning", advice=advice)


def _doubled() -> Iterator[Finding]:
    """A finding where several ONNX Runtimes have overwritten each other."""
    there = [name for name in ONNX_RUNTIMES if _version(name)]
    if len(there) > 1:
        kept = "onnxruntime-gpu" if "onnxruntime-gpu" in there else there[0]
        advice = f"pip uninstall -y {' '.join(there)} && pip install {kept}"
        says = f"{' and '.join(there)} are both installed, and overwrite each other's files"
        yield Finding(group=GROUP, name="ONNX Runtime", says=says, state="warning", advice=advice)


def _judge(name: str, base: bool, specifier: Any, broken: dict[str, str]) -> Finding:
    """The finding on one package; one of the `broken` ones cannot be imported."""
    version, module = _version(name), module_of(name)
    asked = f'"{name}{specifier or ""}"'
    advice = f"pip install {asked}" if base else OPTIONAL.get(name, 'pip install "vtzoo[train]"')
    if version is None:
        other = next((one for one in ONNX_RUNTIMES if module == "onnxruntime" and _version(one)), None)
        if other:
            return Finding(group=GROUP, name=other, says=f"{_version(other)}, in the place of {name}")
        says = "not installed" if base else "not installed (optional)"
        return Finding(group=GROUP, name=name, says=says, state="warning" if base else "absent", advice=advice)
    again = f"pip install --force-reinstall {asked}"
    if module in broken:
        says = f"{version}; cannot be imported: {broken[module]}"
        return Finding(group=GROUP, name=name, says=says, state="warning", advice=again)
    if not is_there(module):
        says = f"{version}; its files are not there"
        return Finding(group=GROUP, name=name, says=says, state="warning", advice=again)
    if specifier is not None and not specifier.contains(version, prereleases=True):
        advice = f"pip install --upgrade {asked}"
        says = f"{version}; vtzoo asks for {specifier}"
        return Finding(group=GROUP, name=name, says=says, state="warning", advice=advice)
    return Finding(group=GROUP, name=name, says=version)


def _version(name: str) -> str | None:
    """The installed version; None where there is none, or none that is whole."""
    try:
        return metadata.version(name)
    except Exception:  # PackageNotFoundError, or whatever half-removed metadata leads to
        return None


def is_there(module: str) -> bool:
    """Whether there is something to import; nothing is."""
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def _broken(modules: list[str]) -> dict[str, str]:
    """Those of the modules that cannot be imported, and why."""
    outcome = subprocess_runner.run(try_imports, modules)
    broken = {module: why for module, why in outcome.told if why}
    if outcome.error and len(outcome.told) < len(modules):  # it crashed at the first that it tells nothing of
        guilty = modules[len(outcome.told)]
        return broken | {guilty: outcome.error} | _broken(modules[len(outcome.told) + 1 :])
    return broken


def try_imports(modules: list[str], tell: subprocess_runner.Tell) -> None:
    """Import each of the modules, and tell its name and what is wrong, None for nothing. Runs in a fresh process."""
    for module in modules:
        try:
            importlib.import_module(module)
        except BaseException as error:
            tell([module, subprocess_runner.reason(error)])
        else:
            tell([module, None])
