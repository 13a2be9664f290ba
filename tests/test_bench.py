"""`vtzoo.bench`: the measured variants, their order in rounds, their medians, and processes that fail."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from safetensors.torch import save_file

from vtzoo.base import machine, subprocess_runner
from vtzoo.bench import measure, plan, table, worker
from vtzoo.bench.measure import Report, Row
from vtzoo.bench.plan import Settings
from vtzoo.errors import VtzooError
from vtzoo.export.images import sample_images
from vtzoo.models import create

SIZE, LABELS = 8, ["red", "green", "blue"]


@pytest.fixture(scope="module")
def colours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bare .onnx file of a model whose logits are an image's mean red, green and blue."""
    nodes = [
        helper.make_node("Cast", ["images"], ["numbers"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["numbers", "sides"], ["features"], keepdims=0),
        helper.make_node("Identity", ["features"], ["logits"]),
    ]
    inputs = [helper.make_tensor_value_info("images", TensorProto.UINT8, ["batch", 3, SIZE, SIZE])]
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 3]) for name in ("logits", "features")]
    sides = numpy_helper.from_array(np.array([2, 3]), "sides")
    graph = helper.make_graph(nodes, "colours", inputs, outputs, [sides])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    preprocess = {"size": SIZE, "interpolation": "bicubic", "crop": 1.0}
    facts = {"vtzoo.labels": LABELS, "vtzoo.preprocess": preprocess}
    helper.set_model_props(model, {name: json.dumps(value) for name, value in facts.items()})
    file = tmp_path_factory.mktemp("models") / "colours.onnx"
    onnx.save(model, file)
    return file


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder of a small Swin with random weights, and without a graph."""
    folder = tmp_path_factory.mktemp("models") / "small"
    folder.mkdir()
    preprocess = {"input_size": [3, 32, 32], "crop_pct": 1.0, "mean": [0.5, 0.4, 0.3], "std": [0.2, 0.25, 0.3]}
    arguments = {"img_size": 32, "patch_size": 2, "window_size": 4, "embed_dim": 16, "depths": [1, 1]}
    config = {
        "architecture": "swin_tiny_patch4_window7_224", "num_classes": 10,
        "model_args": arguments | {"num_heads": [1, 2]}, "label_names": [f"class {index}" for index in range(10)],
        "pretrained_cfg": preprocess,
    }  # fmt: skip
    torch.manual_seed(0)
    model = create(config)
    for parameter in model.parameters():  # with initial weights all images would have the same class
        torch.nn.init.normal_(parameter, std=0.2)
    save_file(model.state_dict(), folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def settings(model: Path, **changes: Any) -> Settings:
    given: dict[str, Any] = {"device": "cpu", "batch": 4, "seconds": 0.05, "rounds": 1}
    return Settings(model=str(model), **given | changes)


# Whole measurements


def test_a_bare_file_is_measured_in_processes_of_its_own(colours: Path) -> None:
    steps: list[str] = []
    report = measure.measure(settings(colours, runtimes=("onnx",), precisions=("fp32", "int8"), rounds=2), steps.append)
    (row,) = report.rows
    assert (row.runtime, row.precision, row.device, row.error) == ("onnx", "fp32", "cpu", None)
    assert 0 < row.latency_ms <= row.latency_p95_ms
    assert row.images_per_second > 0
    assert row.cold_start_s > row.latency_ms / 1e3  # Python's start takes longer than a run of this graph
    assert 20 < row.memory_mb < 1000
    assert row.file_mb == colours.stat().st_size / 1e6
    assert row.agreement == 1
    assert report.model == {"name": str(colours), "image_size": SIZE, "classes": 3}
    assert report.reference == "onnx fp32"
    assert [(absent.precision, absent.reason) for absent in report.absent] == [("int8", f"{colours} is fp32")]
    assert steps[-2:] == ["round 1 of 2: onnx fp32", "round 2 of 2: onnx fp32"]


def test_a_model_folder_is_exported_and_agrees_with_torch(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "write_images", lambda model, folder: _saved(folder, noise(16, 32)))
    report = measure.measure(settings(small, runtimes=("onnx",), precisions=("fp32",)))
    (row,) = report.rows
    assert (row.error, row.agreement, report.reference) == (None, 1, "torch fp32")
    assert report.images == 16
    assert report.model["architecture"] == "swin_tiny_patch4_window7_224"
    assert {"torch", "vtzoo", "Python"} <= report.versions.keys()
    assert report.hardware["cores"] == machine.cores()
    assert not (small / "onnx").exists()


def test_a_crashed_process_is_a_row_with_an_error(
    colours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "openvino.py").write_text("import os; os.abort()")
    monkeypatch.syspath_prepend(tmp_path)
    report = measure.measure(settings(colours, runtimes=("openvino", "onnx"), precisions=("fp32",), rounds=2))
    crashed, sound = report.rows
    assert crashed.error is not None
    assert crashed.error.startswith("the process was ended by signal 6")
    assert (crashed.latency_ms, sound.error) == (None, None)


# Medians


def outcome(
    start: float, one: list[float], batch: list[float], memory: float, classes: list[int]
) -> subprocess_runner.Outcome:
    messages = [{"device": "cpu", "memory": memory}, {"one": one, "batch": batch, "classes": classes}]
    return subprocess_runner.Outcome(messages=messages, seconds=[start, 9])


def test_rows_take_turns_and_their_medians_are_over_all_rounds(colours: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    variants = [
        plan.Variant(
            runtime="onnx", precision=name, source=str(colours), files=(str(colours), str(colours)), exported=False
        )
        for name in ("fp32", "int8", "fp16")
    ]
    taken = {
        "fp32": [
            outcome(1, [0.001, 0.002], [0.1], 1e6, [0, 1, 2, 0]),
            outcome(3, [0.003], [0.2, 0.4], 5e6, [0, 1, 2, 0]),
            outcome(2, [0.004, 0.005], [0.8, 0.9], 2e6, [0, 1, 2, 0]),
        ],
        "int8": [outcome(1, [0.001], [0.1], 1e6, [0, 1, 2, 1])] * 3,
        "fp16": [subprocess_runner.Outcome(messages=[], seconds=[], error="no half floats")] * 3,
    }
    order: list[str] = []

    def run(function: Any, task: dict[str, Any]) -> subprocess_runner.Outcome:
        if function is worker.classify:
            return subprocess_runner.Outcome(messages=[[0, 1, 2, 0]], seconds=[0])
        order.append(task["precision"])
        assert task["seconds"] == 2
        return taken[task["precision"]][order.count(task["precision"]) - 1]

    monkeypatch.setattr(plan, "find_variants", lambda *given: (variants, []))
    monkeypatch.setattr(plan, "write_images", lambda model, folder: _saved(folder, noise(4, SIZE)))
    monkeypatch.setattr(plan, "find_model", lambda name: plan.BenchModel(
        name=name, entry=None, precision="fp32", shape=(3, SIZE, SIZE), facts={"name": name}
    ))  # fmt: skip
    monkeypatch.setattr(subprocess_runner, "run", run)
    fp32, int8, fp16 = measure.measure(settings(colours, rounds=3, seconds=6, batch=4)).rows
    assert order == ["fp32", "int8", "fp16", "fp32", "int8", "fp32", "int8"]  # the failed fp16 runs once
    assert fp32.latency_ms == pytest.approx(3)
    assert fp32.latency_p95_ms == pytest.approx(4.8)  # interpolated at 0.8 between the fourth and the fifth of five
    assert fp32.images_per_second == pytest.approx(4 / 0.4)
    assert (fp32.cold_start_s, fp32.memory_mb) == (2, 2)
    assert fp32.file_mb == 2 * colours.stat().st_size / 1e6
    assert (fp32.agreement, int8.agreement) == (1, 0.75)
    assert fp16 == Row(runtime="onnx", precision="fp16", error="no half floats")


def noise(count: int, size: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 3, size, size), dtype=np.uint8)


def _saved(folder: Path, images: np.ndarray) -> Path:
    np.save(folder / "images.npy", images)
    return folder / "images.npy"


def test_a_failed_export_is_an_error_with_the_reason(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        subprocess_runner,
        "run",
        lambda *given, **named: subprocess_runner.Outcome(messages=[], seconds=[], error="no room"),
    )
    variant = plan.Variant(
        runtime="onnx", precision="int8", source=str(tmp_path / "int8.onnx"), files=(), exported=True
    )
    assert plan.export(plan.find_model(str(small)), variant, lambda steps: None) == "cannot be exported: no room"


# Variants


def variants_of(model: Path, folder: Path, **changes: Any) -> tuple[list[tuple[str, str, bool]], dict[str, str]]:
    """The variants to measure, as (runtime, precision, exported), and the reason why each other variant is absent."""
    variants, absent = plan.find_variants(plan.find_model(str(model)), settings(model, **changes), folder)
    names = [(variant.runtime, variant.precision, variant.exported) for variant in variants]
    return names, {f"{missing.runtime} {missing.precision}": missing.reason for missing in absent}


def only(*modules: str) -> Callable[[str], bool]:
    return lambda module: module in modules


def test_with_everything_installed_every_runtime_and_precision_is_a_row(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "is_installed", lambda module: True)
    monkeypatch.setattr(machine, "has_driver", lambda: True)
    variants, absent = variants_of(small, tmp_path, device="auto")
    assert absent == {}
    assert variants == [
        ("onnx", "fp32", True), ("onnx", "fp16", True), ("onnx", "int8", True),
        ("torch", "fp32", False), ("torch", "bf16", False), ("torch", "fp16", False),
        ("openvino", "fp32", True), ("openvino", "bf16", True), ("openvino", "int8", True),
    ]  # fmt: skip


def test_without_torch_the_graph_that_comes_with_the_model_is_measured(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "is_installed", only("onnxruntime", "openvino"))
    with pytest.raises(VtzooError, match="exporting it needs torch, timm, onnx, onnxscript"):
        variants_of(small, tmp_path, runtimes=("onnx",))
    (tmp_path / "onnx").mkdir()
    for file in ("config.json", "model.safetensors"):
        (tmp_path / file).write_bytes((small / file).read_bytes())
    (tmp_path / "onnx" / "model.onnx").touch()
    variants, absent = variants_of(tmp_path, tmp_path)
    assert variants == [("onnx", "fp32", False)]
    assert absent["torch None"] == "torch and timm: not installed"
    assert absent["onnx int8"] == "exporting it needs torch, timm, onnx, onnxscript"
    assert absent["openvino fp32"] == "exporting it needs torch, timm, onnx, onnxscript"
    assert plan.choose_reference(plan.find_model(str(tmp_path)), settings(tmp_path), tmp_path).runtime == "onnx"


def test_a_bare_file_is_measured_as_it_is_and_never_on_torch(
    colours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "is_installed", lambda module: True)
    variants, absent = variants_of(colours, tmp_path)
    assert variants == [("onnx", "fp32", False), ("openvino", "fp32", False), ("openvino", "bf16", False)]
    assert absent["torch None"] == f"{colours} has no model.safetensors"


def test_on_the_cpu_torch_is_not_measured_in_fp16_nor_openvino_on_cuda(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "is_installed", lambda module: True)
    assert variants_of(small, tmp_path)[1] == {"torch fp16": "torch's fp16 is measured on CUDA only"}
    monkeypatch.setattr(machine, "has_driver", lambda: False)
    absent = variants_of(small, tmp_path, device="cuda")[1]
    assert absent == {"torch fp16": "torch's fp16 is measured on CUDA only", "openvino None": "OpenVINO has no CUDA"}


def test_without_onnx_runtime_and_torch_there_is_no_reference(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "is_installed", only())
    with pytest.raises(VtzooError, match="runs neither on torch nor on ONNX Runtime here"):
        plan.choose_reference(plan.find_model(str(small)), settings(small), tmp_path)


@pytest.mark.parametrize(
    ("changes", "message", "hint"),
    [
        ({"runtimes": ("tflite",)}, "unknown runtime 'tflite'", "known: onnx, torch, openvino"),
        ({"precisions": ("fp8",)}, "unknown precision 'fp8'", "known: fp32, fp16, int8, bf16"),
        ({"device": "tpu"}, "unknown device 'tpu'", "known: auto, cpu, cuda"),
        ({"batch": 0}, "the batch must be at least 1, not 0", None),
        ({"rounds": 0}, "the number of rounds must be at least 1, not 0", None),
        ({"seconds": 0.0}, "the seconds to measure for must be a number above 0, not 0.0", None),
        ({"seconds": float("nan")}, "the seconds to measure for must be a number above 0, not nan", None),
    ],
)
def test_settings_that_make_no_sense_are_refused(changes: dict[str, Any], message: str, hint: str | None) -> None:
    with pytest.raises(VtzooError) as error:
        Settings(model="mine", **changes)
    assert (error.value.message, error.value.hint) == (message, hint)


def test_runtimes_without_any_of_the_precisions_are_refused(small: Path, tmp_path: Path) -> None:
    with pytest.raises(VtzooError, match="there is no onnx in bf16") as error:
        variants_of(small, tmp_path, runtimes=("onnx",), precisions=("bf16",))
    assert "torch: fp32, bf16, fp16" in str(error.value.hint)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(VtzooError, match=r"gone\.onnx"):
        measure.measure(settings(tmp_path / "gone.onnx"))


# The measuring processes


def task(model: Path, runtime: str, precision: str, **changes: Any) -> dict[str, Any]:
    given = {"runtime": runtime, "precision": precision, "model": str(model), "device": "cpu"}
    return {**given, "batch": 4, "seconds": 0.02, **changes}


@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-5), ("bf16", 0.1)])
def test_torch_computes_in_the_precision_that_the_row_names(small: Path, precision: str, tolerance: float) -> None:
    images = noise(2, 32)
    answer, device = worker.OPEN["torch"](task(small, "torch", precision))
    exact, _ = worker.OPEN["torch"](task(small, "torch", "fp32"))
    difference = np.abs(answer(images) - exact(images)).max() / np.abs(exact(images)).max()
    assert device == "cpu"
    assert difference < tolerance
    assert (difference > 1e-5) == (precision == "bf16")


def test_openvino_gives_the_same_logits(colours: Path) -> None:
    pytest.importorskip("openvino")
    images = noise(5, SIZE)
    answer, _ = worker.OPEN["openvino"](task(colours, "openvino", "fp32"))
    np.testing.assert_allclose(answer(images), images.mean((2, 3)), rtol=1e-5)


def test_classes_are_those_of_every_image_in_order(colours: Path, tmp_path: Path) -> None:
    classes = np.array([2, 0, 1, 1, 0, 2, 2])
    images = np.zeros((len(classes), 3, SIZE, SIZE), np.uint8)
    images[np.arange(len(classes)), classes] = 255
    np.save(tmp_path / "images.npy", images)
    sent: list[Any] = []
    worker.measure(task(colours, "onnx", "fp32", images=str(tmp_path / "images.npy")), sent.append)
    worker.classify(task(colours, "onnx", "fp32", images=str(tmp_path / "images.npy")), sent.append)
    assert sent[1]["classes"] == sent[2] == classes.tolist()


def test_logits_that_are_not_finite_fail() -> None:
    with pytest.raises(VtzooError, match="not finite"):
        worker._classes(lambda images: np.full((len(images), 3), np.nan), np.zeros((5, 3, 8, 8), np.uint8), 4)


def test_every_call_but_the_first_is_timed_until_the_time_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(worker.time, "perf_counter", lambda: clock[0])

    def answer(images: np.ndarray) -> np.ndarray:
        clock[0] += 2.0
        return images

    assert worker.timed(answer, np.zeros(1), seconds=9) == [2.0] * 5
    assert worker.timed(answer, np.zeros(1), seconds=0.1) == [2.0] * worker.MINIMUM_CALLS


def test_peak_memory_is_the_processs_own_and_grows_with_its_arrays() -> None:
    script = (
        "import numpy as np; from vtzoo.bench import worker; before = worker.peak_memory(); "
        "held = np.ones(20_000_000); print(before, worker.peak_memory())"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    before, after = map(int, done.stdout.split())
    assert 10e6 < before < 160e6  # the test process, with torch, holds several times as much
    assert 150e6 < after - before < 170e6  # bytes of 20 million float64


def test_agreement_is_measured_on_the_images_that_verify_exports(small: Path, tmp_path: Path) -> None:
    worker.write_sample({"size": 32, "out": str(tmp_path / "images.npy")}, lambda sent: None)
    np.testing.assert_array_equal(np.load(tmp_path / "images.npy"), sample_images(32))


def test_without_the_packages_for_exporting_the_images_are_noise(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "is_installed", only())
    images = np.load(plan.write_images(plan.find_model(str(small)), tmp_path))
    assert (images.shape[1:], images.dtype) == ((3, 32, 32), np.uint8)
    assert images.std() > 10


# The table


def report(*rows: Row, **changes: Any) -> Report:
    hardware = {"processor": "Abacus 9", "cores": 2, "machine_cores": 4, "OMP_NUM_THREADS": None, "gpus": ["Beads"]}
    given = {
        "model": {"name": "mine", "image_size": 32, "classes": 1000}, "hardware": hardware,
        "versions": {"torch": "2.9"},
        "settings": {"rounds": 3, "seconds": 3.0, "batch": 32}, "reference": "torch fp32", "images": 7,
    }  # fmt: skip
    return Report(rows=list(rows), **given | changes)


def test_the_table_is_markdown() -> None:
    good = Row(
        runtime="onnx", precision="fp32", device="cpu", latency_ms=1.234, latency_p95_ms=2, images_per_second=1234.4,
        cold_start_s=0.5, memory_mb=300, file_mb=110.44, agreement=0.985,
    )  # fmt: skip
    bad = Row(runtime="torch", precision="bf16", error="no such thing")
    absent = [plan.Unavailable(runtime="openvino", precision=None, reason="not here", advice="pip install openvino")]
    lines = table.render(report(good, bad, absent=absent)).splitlines()
    assert lines[:3] == ["mine, 32 px, 1,000 classes", "Abacus 9, 2 of 4 cores, Beads", "torch 2.9"]
    assert "| onnx | fp32 | cpu | 1.23 | 2.00 | 1,234 | 0.50 | 300 | 110.4 | 98.5% |" in lines
    assert any(line.startswith("| torch | bf16 | failed: no such thing |") for line in lines)
    assert lines[-1] == "not measured: openvino: not here: pip install openvino"
    assert {line.count("|") for line in lines if line.startswith("|")} == {11}


def test_a_table_without_a_reference_says_so() -> None:
    assert "agreement: not measured" in table.render(report(reference=None))
