"""The light commands import neither torch nor any other slow package, nor the packages of the extra `train`."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from vtzoo.cli import DEFAULT_MODEL
from vtzoo.zoo import resources

ROCKET = Path(__file__).with_name("photos") / "rocket.jpg"
HEAVY = (
    "torch", "torchvision", "timm", "datasets", "transformers", "sklearn", "scipy", "matplotlib", "onnx", "onnxscript",
    "jaxtyping", "pandas", "pyarrow", "rich",
)  # fmt: skip

# Runs vtzoo's command line, or the given statement, in a process that cannot import any of the HEAVY modules.
BLOCKED = f"""
import importlib.abc, runpy, sys

class Wall(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {HEAVY!r}:
            raise ImportError(f"{{name}} was imported")

sys.meta_path.insert(0, Wall())
if sys.argv[1:2] == ["-c"]:
    exec(sys.argv[2])
else:
    sys.argv[0] = "vtzoo"
    runpy.run_module("vtzoo", run_name="__main__")
"""


def run(*arguments: str, told: str = "") -> str:
    """The command's stdout; its exit code must be 0, and its stderr must be empty or begin as given."""
    command = [sys.executable, "-W", "error", "-c", BLOCKED, *arguments]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[1])}
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120, env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith(told) if told else not done.stderr, done.stderr
    return done.stdout


def test_the_wall_stands() -> None:
    with pytest.raises(AssertionError, match="torch was imported"):
        run("-c", "import torch")


@pytest.mark.parametrize("arguments", [("--help",), ("predict", "--help"), ("train", "--help"), ("sweep", "--help")])
def test_help_needs_nothing_heavy(arguments: tuple[str, ...]) -> None:
    assert run(*arguments).startswith("Usage: vtzoo")


def test_importing_the_package_imports_nothing_but_the_standard_library() -> None:
    statement = "before = set(sys.modules); import vtzoo; print(*set(sys.modules) - before)"
    assert {name.partition(".")[0] for name in run("-c", statement).split()} - sys.stdlib_module_names == {"vtzoo"}


def test_help_imports_neither_numpy_nor_pillow_nor_onnx_runtime() -> None:
    loaded = run("-c", "import vtzoo.cli; print(*sorted(sys.modules))").split()
    assert not {"numpy", "PIL", "onnxruntime", "huggingface_hub", "rich"} & set(loaded)


def test_list_and_show_need_nothing_heavy_and_no_onnx_runtime() -> None:
    assert DEFAULT_MODEL in [row["name"] for row in json.loads(run("list", "--json"))]
    assert json.loads(run("show", DEFAULT_MODEL, "--json"))["name"] == DEFAULT_MODEL
    assert (
        "onnxruntime" not in run("-c", "from vtzoo.zoo import model_folder, recipe_files; print(*sys.modules)").split()
    )


def test_a_sweep_leaves_what_is_heavy_to_its_runs(tmp_path: Path) -> None:
    folder = tmp_path / "swin_t-drloc-cifar10-seed0"
    folder.mkdir()
    shutil.copy(resources.recipes_folder() / "swin_t-drloc-cifar10.toml", folder / "recipe.toml")
    result = {"seed": 0, "top1": 0.5, "images": 10_000, "steps": 7, "train_seconds": 60}
    (folder / "result.json").write_text(json.dumps(result))
    (folder / "README.md").touch()
    command = ("sweep", "swin_t-drloc-cifar10", "--seeds", "0", "--out", str(tmp_path))
    assert "|  50.00 |" in run(*command, told="swin_t-drloc-cifar10-seed0: top-1 50.00%")


def test_predict_needs_nothing_heavy() -> None:
    (answer,) = json.loads(run("predict", str(ROCKET), "--json"))
    assert len(answer["predictions"]) == 5
    assert answer["error"] is None


def test_load_in_python_needs_nothing_heavy() -> None:
    statement = f"import vtzoo; print(vtzoo.load({DEFAULT_MODEL!r})({str(ROCKET)!r}).shape)"
    assert run("-c", statement) == "(1, 100)\n"
