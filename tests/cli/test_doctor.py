"""`vtzoo doctor`."""

import json
from collections.abc import Callable

import pytest
from typer.testing import Result

from vtzoo.cli import DEFAULT_MODEL
from vtzoo.doctor.finding import Finding

Command = Callable[..., Result]
FINDINGS = [
    Finding(group="packages", name="vtzoo", says="1.0"),
    Finding(group="packages", name="one", says="not installed", state="absent", advice="pip install them"),
    Finding(group="packages", name="two", says="not installed", state="absent", advice="pip install them"),
    Finding(group="machine", name="cores", says="few", state="warning", advice="get more"),
]
BROKEN = Finding(group="model", name="prediction", says="no", state="error")


@pytest.fixture
def finds(monkeypatch: pytest.MonkeyPatch) -> Callable[[list[Finding]], list]:
    """Replaces the doctor with one that returns the given findings; returns the list of its calls."""

    def put(findings: list[Finding]) -> list:
        asked = []
        monkeypatch.setattr(
            "vtzoo.doctor.diagnosis.diagnose", lambda *args, **named: asked.append((args, named)) or findings
        )
        return asked

    return put


def test_doctor_prints_a_line_a_finding_by_group_and_the_same_advice_once(vt: Command, finds: Callable) -> None:
    asked = finds(FINDINGS)
    result = vt("doctor")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == (
        "packages\n"
        "  ok    vtzoo  1.0\n"
        "  -     one    not installed\n"
        "  -     two    not installed\n"
        "        -> pip install them\n"
        "machine\n"
        "  !     cores  few\n"
        "        -> get more\n"
    )
    assert asked == [((DEFAULT_MODEL,), {"everything": False})]


def test_doctor_exits_with_1_where_predicting_fails(vt: Command, finds: Callable) -> None:
    finds([*FINDINGS, BROKEN])
    result = vt("doctor")
    assert result.exit_code == 1
    assert result.stdout.endswith("model\n  ERROR prediction  no\n")


def test_doctor_json_is_one_object_with_every_finding(vt: Command, finds: Callable) -> None:
    asked = finds([*FINDINGS, BROKEN])
    result = vt("doctor", "--json", "--all")
    told = json.loads(result.stdout)
    assert (result.exit_code, told["works"]) == (1, False)
    assert [finding["name"] for finding in told["findings"]] == ["vtzoo", "one", "two", "cores", "prediction"]
    assert told["findings"][3] == vars(FINDINGS[3])
    assert asked[0][1] == {"everything": True}


def test_doctor_shows_no_secret(vt: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setenv("HF_ENDPOINT", "https://me:secret@hub.example")
    result = vt("doctor", "--json")
    assert result.exit_code == 0
    assert "https://hub.example" in result.stdout
    assert "secret" not in result.output
