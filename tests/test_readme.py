"""The README does what it says: its commands parse, its Python runs, its table is rendered, and CI runs its tests."""

import json
import os
import re
import runpy
import shlex
from pathlib import Path

import pytest
import typer

from vtzoo import cards
from vtzoo.cli import DEFAULT_MODEL, app
from vtzoo.publish.commit import prepare

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
BASH = [line for language, block in BLOCKS if language == "bash" for line in block.splitlines()]
PYTHON = [block for language, block in BLOCKS if language == "python"]


def test_ci_calls_the_readmes_command_for_the_tests() -> None:
    (command,) = [line for line in BASH if "pytest" in line]
    assert command in (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()
    assert os.access(ROOT / ".ci" / "run", os.X_OK)


def test_the_two_commands_come_first_and_need_nothing_but_a_python() -> None:
    predict, test = BASH[:2]
    assert predict.startswith("python3 -m venv .venv && .venv/bin/pip install -q . && .venv/bin/vtzoo predict ")
    assert (ROOT / predict.split()[-1]).is_file()
    assert all(word.startswith((".venv/", "-", "install", ".[dev]", "&&")) for word in shlex.split(test))


@pytest.mark.parametrize("line", [line for line in BASH if line.startswith("vtzoo ")])
def test_a_command_of_the_readme_parses(line: str) -> None:
    name, *arguments = shlex.split(line, comments=True)[1:]
    if ">" in arguments:
        arguments = arguments[: arguments.index(">")]
    typer.main.get_command(app).commands[name].make_context(name, arguments)  # type: ignore[attr-defined]


@pytest.mark.parametrize("block", PYTHON)
def test_the_python_of_the_readme_runs(block: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tests").symlink_to(ROOT / "tests")
    (tmp_path / "model.onnx").write_bytes(prepare(DEFAULT_MODEL, "zoo").files["onnx/model.onnx"])
    monkeypatch.chdir(tmp_path)
    exec(compile(block, "README.md", "exec"), {})


def test_the_readme_has_a_current_table_of_the_models_and_no_placeholder() -> None:
    assert cards.models_table() in TEXT
    assert cards.stale_table(ROOT / "README.md") == {}
    assert " HERE\n" not in TEXT


@pytest.mark.parametrize(
    "name",
    ["startup", "training", "paired", "paired-muon", "paired-taught", "tuning", "bulk", "hub", "outliers", "finetune"],
)
def test_a_table_of_measurements_is_rendered_from_the_saved_ones(name: str) -> None:
    bench = ROOT / "tests" / "bench"
    figures = json.loads((bench / f"{name}.json").read_text(encoding="utf-8"))
    script, _, _ = name.partition("-")
    table = runpy.run_path(str(bench / f"{script}.py"))["render"](figures)
    assert f"<!-- {name} -->\n{table}<!-- /{name} -->" in TEXT


def test_every_file_that_the_readme_links_to_exists() -> None:
    links = [link for link in re.findall(r"\]\(([^)]+)\)", TEXT) if not link.startswith("https://")]
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_a_stale_table_is_rendered_anew_and_the_rest_is_left_alone(tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text("# A\n<!-- models -->\nold\n<!-- /models -->\nb\n", encoding="utf-8")
    (text,) = cards.stale_table(readme).values()
    assert text == f"# A\n<!-- models -->\n{cards.models_table()}<!-- /models -->\nb\n"
    readme.write_text("# no table\n", encoding="utf-8")
    assert cards.stale_table(readme) == cards.stale_table(tmp_path / "nowhere.md") == {}
