"""`vtzoo bench`."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from typer.testing import Result

from vtzoo.bench.measure import Report, Row
from vtzoo.bench.plan import Settings, Unavailable
from vtzoo.cli import DEFAULT_MODEL

Command = Callable[..., Result]
GOOD = Row(runtime="onnx", precision="fp32", device="cpu", latency_ms=1.5)
HARDWARE = {"processor": "Abacus", "cores": 2, "machine_cores": 2, "OMP_NUM_THREADS": "1", "gpus": []}


@pytest.fixture
def measures(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[Settings]]:
    """Replaces the benchmark with one that returns the given rows; returns the list of its settings."""

    def put(*rows: Row) -> list[Settings]:
        called: list[Settings] = []

        def measure(settings: Settings, progress: Any) -> Report:
            called.append(settings)
            progress("measuring")
            return Report(
                model={"name": "mine", "image_size": 32, "classes": 3}, hardware=HARDWARE, versions={"vtzoo": "1"},
                settings={"rounds": 1, "seconds": 1, "batch": 8}, reference="onnx fp32", images=4, rows=list(rows),
                absent=[Unavailable(runtime="torch", precision=None, reason="not here")],
            )  # fmt: skip

        monkeypatch.setattr("vtzoo.bench.measure.measure", measure)
        return called

    return put


def test_bench_prints_the_table_on_stdout_and_no_progress_without_a_terminal(vt: Command, measures: Callable) -> None:
    called = measures(GOOD)
    result = vt("bench")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.startswith("mine, 32 px, 3 classes\nAbacus, 2 cores, OMP_NUM_THREADS=1\n")
    assert "| onnx | fp32 | cpu | 1.50 |" in result.stdout
    assert called == [Settings(model=DEFAULT_MODEL)]


def test_bench_hands_on_what_it_is_asked(vt: Command, measures: Callable) -> None:
    called = measures(GOOD)
    vt(
        "bench", "--model", "mine", "--runtimes", "torch, onnx,torch", "--precisions", "int8", "--device", "cpu",
        "--batch", 8, "--seconds", 0.5, "--rounds", 2,
    )  # fmt: skip
    wanted = {"runtimes": ("torch", "onnx"), "precisions": ("int8",), "device": "cpu", "batch": 8}
    assert called == [Settings(model="mine", **wanted, seconds=0.5, rounds=2)]


def test_bench_json_is_one_object(vt: Command, measures: Callable) -> None:
    measures(GOOD)
    told = json.loads(vt("bench", "--json").stdout)
    assert list(told)[:3] == ["model", "hardware", "versions"]
    assert told["rows"] == [vars(GOOD)]
    assert told["absent"] == [{"runtime": "torch", "precision": None, "reason": "not here", "advice": None}]


def test_bench_exits_with_1_where_a_row_failed(vt: Command, measures: Callable) -> None:
    measures(GOOD, Row(runtime="torch", precision="fp32", error="it crashed"))
    result = vt("bench")
    assert result.exit_code == 1
    assert "| torch | fp32 | failed: it crashed |" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--runtimes", "onnx,jax"], "Error: unknown runtime 'jax'\nHint: known: onnx, torch, openvino\n"),
        (["--precisions", "fp4"], "Error: unknown precision 'fp4'\nHint: known: fp32, fp16, int8, bf16\n"),
        (["--seconds", "0"], "Error: the seconds to measure for must be a number above 0, not 0.0\n"),
    ],
)
def test_bench_answers_what_it_does_not_know_with_what_it_knows(
    vt: Command, arguments: list[str], message: str
) -> None:
    result = vt("bench", *arguments)
    assert (result.exit_code, result.stdout, result.stderr) == (1, "", message)
