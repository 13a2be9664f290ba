"""The installed wheel: it contains recipes, cards and weights, and predicts."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from vtzoo.cli import DEFAULT_MODEL
from vtzoo.zoo import lookup

ROOT = Path(__file__).resolve().parents[1]
ANOTHER = "another-drloc-cifar100"
TWIN = lookup.twin_of(DEFAULT_MODEL)
RECORD = {"recipe.toml", "result.json"}  # the files of a twin


def run(*command: str | Path, **settings: Any) -> str:
    """The stdout of a Python command, whose exit code must be 0."""
    command = (sys.executable, *command)
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300, **settings)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of a checkout with one more model and the twin's record, built with the installed packages, offline."""
    folder, checkout = tmp_path_factory.mktemp("dist"), tmp_path_factory.mktemp("checkout")
    for name in ("vtzoo", "recipes", "model_cards"):
        shutil.copytree(ROOT / name, checkout / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, checkout)
    weights = checkout / "vtzoo" / "weights"
    shutil.copytree(weights / DEFAULT_MODEL, weights / ANOTHER)
    (weights / TWIN).mkdir(exist_ok=True)
    for name in RECORD:
        shutil.copy(weights / DEFAULT_MODEL / name, weights / TWIN)
    run("-m", "build", "--wheel", "--no-isolation", "--outdir", folder, checkout)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with only the content of the wheel, as pip installs it."""
    folder = tmp_path_factory.mktemp("site")
    run("-m", "pip", "install", "-q", "--no-deps", "--no-index", "--no-compile", "--target", folder, wheel)
    return folder


def vtzoo(installed: Path, *arguments: str | Path) -> str:
    """The stdout of the installed command, in a folder outside the checkout."""
    environment = os.environ | {"PYTHONPATH": str(installed)}
    return run("-m", "vtzoo", *arguments, cwd=installed.parent, env=environment)


def test_the_wheel_holds_the_package_and_what_ships_with_it_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    model = f"weights/{DEFAULT_MODEL}"
    for name, place in {"_recipes": "recipes", "_model_cards": "model_cards", model: f"vtzoo/{model}"}.items():
        outside = ROOT / place
        inside = f"vtzoo/{name}"
        files = {f"{inside}/{file.relative_to(outside).as_posix()}" for file in outside.rglob("*") if file.is_file()}
        assert files, inside
        assert {name for name in names if name.startswith(inside + "/")} == files
    assert {Path(name).name for name in names if name.startswith(f"vtzoo/weights/{TWIN}/")} == RECORD
    assert {name.split("/")[0].split("-")[0] for name in names} == {"vtzoo"}  # the package and its .dist-info


def test_the_wheel_ships_the_weights_of_the_default_model_alone_and_stays_under_75_megabytes(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {Path(name).parts[2] for name in names if name.endswith((".safetensors", ".onnx"))} == {DEFAULT_MODEL}
    assert {Path(name).parts[2] for name in names if name.startswith("vtzoo/weights/")} == {
        DEFAULT_MODEL, TWIN,
    }  # fmt: skip
    assert wheel.stat().st_size < 75e6


def test_the_installed_wheel_is_what_runs(installed: Path) -> None:
    statement = (
        "import vtzoo; from vtzoo.zoo.resources import *; print(vtzoo.__file__, recipes_folder(), cards_folder())"
    )
    printed = run("-c", statement, cwd=installed.parent, env=os.environ | {"PYTHONPATH": str(installed)}).split()
    inside = installed.resolve() / "vtzoo"
    assert [Path(path) for path in printed] == [inside / "__init__.py", inside / "_recipes", inside / "_model_cards"]


def test_the_installed_wheel_lists_every_recipe(installed: Path) -> None:
    names = {row["name"] for row in json.loads(vtzoo(installed, "list", "--recipes", "--json"))}
    assert names == {path.stem for path in (ROOT / "recipes").rglob("*-*.toml")}


def test_the_installed_wheel_predicts_a_photograph(installed: Path) -> None:
    assert DEFAULT_MODEL in [row["name"] for row in json.loads(vtzoo(installed, "list", "--json"))]
    (answer,) = json.loads(vtzoo(installed, "predict", ROOT / "tests" / "photos" / "rocket.jpg", "--json"))
    assert answer["error"] is None
    assert len(answer["predictions"]) == 5
