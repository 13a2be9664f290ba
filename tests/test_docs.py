"""The README and the manual in docs/: commands parse, Python runs, links resolve, tables are rendered, sizes hold."""

import argparse
import json
import os
import re
import runpy
import shlex
import tomllib
from pathlib import Path
from typing import Any

import figures
import pytest
import typer

from vtzoo import cards
from vtzoo.cli import DEFAULT_MODEL, app
from vtzoo.publish.commit import prepare

ROOT = Path(__file__).resolve().parents[1]
README, CONTENTS, BENCH = ROOT / "README.md", ROOT / "docs" / "README.md", ROOT / "tests" / "bench"
MOST = 8_000  # bytes of the README
TEXTS = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
    for path in (README, *sorted((ROOT / "docs").glob("*.md")))
}
LINKED = TEXTS | {"CONTRIBUTING.md": (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")}
MEASURED = sorted(path.stem for path in BENCH.glob("*.json"))
ZOO: Any = typer.main.get_command(app)


def blocks(text: str, language: str) -> list[str]:
    """The contents of a page's fenced blocks in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def bash(text: str) -> list[str]:
    """The lines of a page's bash blocks."""
    return [line for block in blocks(text, "bash") for line in block.splitlines()]


def commands(line: str) -> list[list[str]]:
    """The arguments of each vtzoo command in a line of bash: alone, in a pipe, in a virtual environment, or by -m."""
    parts: list[list[str]] = [[]]
    for word in shlex.split(line, comments=True):
        if word in ("|", "&&", ";"):
            parts.append([])
        else:
            parts[-1].append(word)
    calls = []
    for words in parts:
        called = [index for index, word in enumerate(words) if Path(word).name == "vtzoo"]
        if called:
            end = words.index(">") if ">" in words else len(words)
            calls.append(words[called[0] + 1 : end])
    return calls


def anchors(text: str) -> set[str]:
    """The URL fragments of a page's headings on GitHub."""
    prose = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", prose, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def resolves(page: str, link: str) -> bool:
    """Whether a link of a page leads to a file here and, if it names a heading, to a heading of that file."""
    path, _, anchor = link.partition("#")
    target = (ROOT / page).parent / path if path else ROOT / page
    return target.exists() and (not anchor or anchor in anchors(target.read_text(encoding="utf-8")))


# The README


def test_ci_calls_the_readmes_command_for_the_tests() -> None:
    (command,) = [line for line in bash(TEXTS["README.md"]) if "pytest" in line]
    assert command in (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()
    assert os.access(ROOT / ".ci" / "run", os.X_OK)


def test_the_two_commands_come_first_and_need_nothing_but_a_python() -> None:
    predict, test = bash(TEXTS["README.md"])[:2]
    assert predict.startswith("python3 -m venv .venv && .venv/bin/pip install -q . && .venv/bin/vtzoo predict ")
    assert (ROOT / predict.split()[-1]).is_file()
    assert all(word.startswith((".venv/", "-", "install", ".[dev]", "&&")) for word in shlex.split(test))


def test_the_readme_is_short() -> None:
    assert len(README.read_bytes()) <= MOST


def test_the_source_distribution_has_every_file_that_the_readme_links_to() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    included = project["tool"]["hatch"]["build"]["targets"]["sdist"]["include"]
    links = re.findall(r"\]\((?!https://)([^)#]+)", TEXTS["README.md"])
    assert links
    assert {link.partition("/")[0] for link in links} <= set(included)


# Every page


def test_the_architecture_draws_the_import_order_and_describes_every_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    (contract,) = project["tool"]["importlinter"]["contracts"]
    page = TEXTS["docs/architecture.md"]
    drawing = re.findall(r"^```\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)[0]
    drawn = [set(row.split()) for row in re.split(r"-{9,}", drawing)]
    assert [{"__main__"}, *drawn] == [set(re.findall(r"\w+", layer)) for layer in contract["layers"]]
    table, _, _ = page.partition("| package |")[2].partition("\n\n")
    described = set(re.findall(r"^\| `(\w+)(?:\.py|/)` \|", table, re.MULTILINE))
    assert described == {"weights"}.union(*drawn)


def test_the_table_of_contents_has_one_line_for_every_page() -> None:
    listed = re.findall(r"^- \[[^\]]+\]\((\w+\.md)\): .+$", TEXTS["docs/README.md"], re.MULTILINE)
    assert sorted(listed) == sorted(path.name for path in CONTENTS.parent.iterdir() if path != CONTENTS)


@pytest.mark.parametrize(
    ("page", "line"), [(page, line) for page, text in TEXTS.items() for line in bash(text) if commands(line)]
)
def test_a_command_of_a_page_parses(page: str, line: str) -> None:
    for name, *arguments in commands(line):
        command = ZOO.commands[name]
        if hasattr(command, "commands"):
            name, *arguments = arguments
            command = command.commands[name]
        command.make_context(name, arguments)


def test_the_manual_shows_every_command() -> None:
    shown = {call[0] for text in TEXTS.values() for line in bash(text) for call in commands(line)}
    assert shown == ZOO.commands.keys()


@pytest.mark.parametrize("page", TEXTS)
def test_every_command_in_a_sentence_exists(page: str) -> None:
    assert set(re.findall(r"`vtzoo ([a-z]\w*)", TEXTS[page])) <= ZOO.commands.keys()


@pytest.mark.parametrize(
    ("page", "block"), [(page, block) for page, text in TEXTS.items() for block in blocks(text, "python")]
)
def test_the_python_of_a_page_runs(page: str, block: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tests").symlink_to(ROOT / "tests")
    (tmp_path / "model.onnx").write_bytes(prepare(DEFAULT_MODEL, "zoo").files["onnx/model.onnx"])
    monkeypatch.chdir(tmp_path)
    exec(compile(block, page, "exec"), {})


@pytest.mark.parametrize("page", LINKED)
def test_every_link_of_a_page_resolves(page: str) -> None:
    links = re.findall(r"\]\((?!https://)([^)]+)\)", LINKED[page])
    assert [link for link in links if not resolves(page, link)] == []


@pytest.mark.parametrize("page", LINKED)
def test_every_file_of_this_tree_that_a_page_names_exists(page: str) -> None:
    named = re.findall(r"[ `]((?:vtzoo|tests|recipes)/[\w/.-]*\w)", LINKED[page])
    assert [path for path in named if not (ROOT / path).exists()] == []


def test_a_link_to_a_missing_file_or_heading_does_not_resolve() -> None:
    assert resolves("docs/train.md", "../README.md#models")
    assert not resolves("docs/train.md", "../README.md#no-such-heading")
    assert not resolves("docs/train.md", "nowhere.md")


@pytest.mark.parametrize("page", TEXTS)
def test_a_page_has_no_placeholder(page: str) -> None:
    assert re.findall(r"HERE$|\bTODO\b|\bTBD\b", TEXTS[page], re.MULTILINE) == []


# Tables


def test_the_readme_has_a_current_table_of_the_models() -> None:
    assert cards.models_table() in TEXTS["README.md"]
    assert cards.stale_table(README) == {}


@pytest.mark.parametrize("name", MEASURED)
def test_a_table_of_measurements_is_rendered_from_the_saved_ones(name: str) -> None:
    measured = json.loads((BENCH / f"{name}.json").read_text(encoding="utf-8"))
    script, _, _ = name.partition("-")
    table = runpy.run_path(str(BENCH / f"{script}.py"))["render"](measured)
    assert f"<!-- {name} -->\n{table}<!-- /{name} -->" in figures.TABLES.read_text(encoding="utf-8")


def test_every_table_is_on_one_page() -> None:
    begun = [name for text in TEXTS.values() for name in re.findall(r"^<!-- ([\w-]+) -->$", text, re.MULTILINE)]
    assert sorted(begun) == sorted(["models", *MEASURED])


def test_a_saved_measurement_replaces_its_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "tables.md"
    page.write_text("a\n<!-- speed -->\nold\n<!-- /speed -->\nb\n", encoding="utf-8")
    monkeypatch.setattr(figures, "TABLES", page)
    options = argparse.Namespace(json=False, save=True)
    figures.tell(str(tmp_path / "speed.py"), {"seconds": 7}, lambda measured: f"{measured['seconds']} s\n", options)
    assert page.read_text(encoding="utf-8") == "a\n<!-- speed -->\n7 s\n<!-- /speed -->\nb\n"
    assert json.loads((tmp_path / "speed.json").read_text(encoding="utf-8")) == {"seconds": 7}


def test_a_stale_table_is_replaced_and_the_rest_of_the_page_is_not(tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text("# A\n<!-- models -->\nold\n<!-- /models -->\nb\n", encoding="utf-8")
    (text,) = cards.stale_table(readme).values()
    assert text == f"# A\n<!-- models -->\n{cards.models_table()}<!-- /models -->\nb\n"
    readme.write_text("# no table\n", encoding="utf-8")
    assert cards.stale_table(readme) == cards.stale_table(tmp_path / "nowhere.md") == {}
