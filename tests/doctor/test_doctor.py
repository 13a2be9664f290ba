"""The doctor's findings on this installation and on broken installations."""

import json
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import onnx
import pytest

from vtzoo.base import machine, subprocess_runner
from vtzoo.cli import DEFAULT_MODEL
from vtzoo.doctor import caches, diagnosis, hardware, model, packages, runtime
from vtzoo.doctor.finding import Finding
from vtzoo.zoo import resources

EMBEDDED = resources.weights_folder() / DEFAULT_MODEL


def by_name(findings: list[Finding]) -> dict[str, Finding]:
    return {finding.name: finding for finding in findings}


@pytest.fixture
def requirements(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replaces vtzoo's requirements: an unmet version, missing packages, a package of another platform, and extras."""
    lines = ["numpy>=99", "no-such-package>=1.5", "pillow>=99; sys_platform == 'nowhere'", "timm<99; extra == 'train'"]
    lines += ["no-such-extra; extra == 'train'", "no-such-tool; extra == 'dev'"]
    monkeypatch.setattr(metadata, "requires", lambda name: lines)


@pytest.fixture
def broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The first folder on sys.path, for broken packages."""
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


# The whole diagnosis


def test_a_sound_installation_has_no_error_and_its_torch_is_not_imported() -> None:
    script = (
        "import json, sys; from vtzoo.doctor.diagnosis import diagnose; "
        f"found = diagnose({DEFAULT_MODEL!r}); heavy = {{'torch', 'numpy', 'onnxruntime'}} & set(sys.modules); "
        "print(json.dumps([[vars(one) for one in found], sorted(heavy)]))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    findings, heavy = json.loads(done.stdout)
    assert heavy == []
    assert {finding["group"] for finding in findings if finding["state"] == "error"} == set()
    says = {finding["name"]: finding["says"] for finding in findings}
    assert says["torch"] == metadata.version("torch")
    assert says["CPUExecutionProvider"] == "loads and computes"
    assert " predicts " in says["prediction"]
    assert says["files"] == f"the 3 files of {DEFAULT_MODEL} are intact"


def test_a_check_that_fails_is_a_finding_and_the_others_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def explode() -> list[Finding]:
        raise RuntimeError("no such luck")

    monkeypatch.setattr(hardware, "check_hardware", explode)
    monkeypatch.setattr(model, "check_model", lambda name: [Finding(group="model", name=name, says="sound")])
    monkeypatch.setattr(packages, "check_packages", lambda *, everything: [])
    monkeypatch.setattr(runtime, "check_onnxruntime", list)
    findings = by_name(diagnosis.diagnose("mine"))
    assert findings["this check"].says == "failed: RuntimeError: no such luck"
    assert findings["this check"].group == "machine"
    assert findings["mine"].says == "sound"


def test_everything_checks_torch_too(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    for module, name in (
        (hardware, "check_hardware"),
        (caches, "check_caches"),
        (caches, "check_environment"),
        (runtime, "check_onnxruntime"),
    ):
        monkeypatch.setattr(module, name, list)
    monkeypatch.setattr(model, "check_model", lambda name: [])
    monkeypatch.setattr(packages, "check_packages", lambda *, everything: calls.append(everything) or [])
    monkeypatch.setattr(runtime, "check_torch", lambda: calls.append("torch") or [])
    diagnosis.diagnose("mine")
    assert calls == [False]
    diagnosis.diagnose("mine", everything=True)
    assert set(calls[1:]) == {True, "torch"}


# Packages


@pytest.mark.usefixtures("requirements")
def test_packages_are_measured_against_vtzoos_own_metadata() -> None:
    findings = by_name(packages.check_packages(everything=False))
    numpy = findings["numpy"]
    assert (numpy.state, numpy.says) == ("warning", f"{metadata.version('numpy')}; vtzoo needs >=99")
    assert numpy.advice == 'pip install --upgrade "numpy>=99"'
    missing = findings["no-such-package"]
    assert (missing.state, missing.says) == ("warning", "not installed")
    assert missing.advice == 'pip install "no-such-package>=1.5"'
    extra = findings["no-such-extra"]
    assert (extra.state, extra.advice) == ("absent", 'pip install "vtzoo[train]"')
    assert findings["timm"].state == "ok"
    assert not {"pillow", "no-such-tool"} & set(findings)


def test_an_unsupported_python_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages.platform, "python_version", lambda: "3.9.1")
    python = by_name(packages.check_packages(everything=False))["Python"]
    required = metadata.metadata("vtzoo")["Requires-Python"]
    assert (python.state, python.says) == ("warning", f"3.9.1; vtzoo needs {required}")


def test_a_vtzoo_without_metadata_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    def requires(name: str) -> None:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "requires", requires)
    finding = packages.check_packages(everything=False)[0]
    assert (finding.name, finding.state) == ("vtzoo", "warning")
    assert finding.says.startswith("its requirements are unknown")


def test_two_onnx_runtimes_are_a_finding_with_the_command_that_repairs_them(monkeypatch: pytest.MonkeyPatch) -> None:
    versions = {"onnxruntime": "1.30.0", "onnxruntime-gpu": "1.31.1"}
    version = metadata.version
    monkeypatch.setattr(metadata, "version", lambda name: versions.get(name) or version(name))
    finding = by_name(packages.check_packages(everything=False))["ONNX Runtime"]
    assert finding.state == "warning"
    assert finding.says.startswith("onnxruntime and onnxruntime-gpu are both installed")
    assert finding.advice == "pip uninstall -y onnxruntime onnxruntime-gpu && pip install onnxruntime-gpu"


def test_another_onnx_runtime_replaces_the_required_package(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        if name == "onnxruntime-directml":
            return "1.24.0"
        if name.startswith("onnxruntime"):
            raise metadata.PackageNotFoundError(name)
        return "100"

    monkeypatch.setattr(metadata, "version", version)
    monkeypatch.setattr(metadata, "requires", lambda name: ["onnxruntime-gpu>=1.23"])
    finding = by_name(packages.check_packages(everything=False))["onnxruntime-directml"]
    assert (finding.state, finding.says) == ("ok", "1.24.0, instead of onnxruntime-gpu")


def test_packages_that_raise_or_crash_at_their_import_are_named_and_the_others_are_tried(
    broken: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources = {"raising": "raise OSError('libfoo.so: not found')", "crashing": "import os; os.abort()", "sound": ""}
    for name, source in sources.items():
        (broken / f"{name}.py").write_text(source)
    monkeypatch.setattr(metadata, "requires", lambda name: [*sources, "gone"])
    monkeypatch.setattr(metadata, "version", lambda name: "1.0")
    findings = by_name(packages.check_packages(everything=False))
    assert findings["raising"].says == "1.0; cannot be imported: OSError: libfoo.so: not found"
    assert findings["raising"].advice == 'pip install --force-reinstall "raising"'
    assert findings["crashing"].says.startswith("1.0; cannot be imported: the process was ended by signal 6")
    assert findings["sound"].state == "ok"
    assert findings["gone"].says.startswith("1.0; cannot be imported: ModuleNotFoundError")


def test_missing_files_of_a_package_of_an_extra_are_found_without_an_import(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata, "requires", lambda name: ["gone>=1; extra == 'train'"])
    monkeypatch.setattr(metadata, "version", lambda name: "1.0")
    finding = by_name(packages.check_packages(everything=False))["gone"]
    assert (finding.state, finding.says) == ("warning", "1.0; its files are missing")


# ONNX Runtime and torch


def test_the_bundled_graph_is_valid_onnx() -> None:
    onnx.checker.check_model(onnx.load_model_from_string(runtime.GRAPH), full_check=True)


@pytest.mark.parametrize("source", ["raise ImportError('libonnx.so: no such file')", "import os; os.abort()"])
def test_an_onnx_runtime_that_cannot_be_imported_is_an_error_and_crashes_nothing(broken: Path, source: str) -> None:
    (broken / "onnxruntime.py").write_text(source)
    assert [finding.state for finding in runtime.check_onnxruntime()] == ["error"]
    files, prediction = model.check_model(DEFAULT_MODEL)
    assert (files.state, prediction.state) == ("ok", "error")


def test_without_onnx_runtime_its_cpu_provider_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "is_installed", lambda module: False)
    (finding,) = runtime.check_onnxruntime()
    assert (finding.state, finding.says) == ("error", "ONNX Runtime is not installed")


def test_cuda_that_does_not_load_is_a_warning_only_with_a_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    outcome = subprocess_runner.Outcome(
        messages=[[runtime.CUDA, "libcublas.so.13: missing"], [runtime.CPU, None]], seconds=[0, 0]
    )
    monkeypatch.setattr(runtime.subprocess_runner, "run", lambda function: outcome)
    for driver, state in ((True, "warning"), (False, "absent")):
        monkeypatch.setattr(machine, "has_driver", lambda driver=driver: driver)
        cuda, cpu = runtime.check_onnxruntime()
        assert (cuda.state, cpu.state) == (state, "ok")
        assert cuda.says == "listed, but does not load: libcublas.so.13: missing"
        assert ("onnxruntime-gpu[cuda,cudnn]" in (cuda.advice or "")) == driver


def fake_onnxruntime(file: Path, session: type) -> SimpleNamespace:
    return SimpleNamespace(__file__=str(file / "__init__.py"), InferenceSession=session)


class Silent:
    """A session that silently falls back to the CPU."""

    def __init__(self, graph: bytes, **settings: object) -> None: ...

    def get_providers(self) -> list[str]:
        return [runtime.CPU]


def test_a_silent_fallback_is_reported_with_the_loading_error_of_the_providers_library(tmp_path: Path) -> None:
    fake = fake_onnxruntime(tmp_path, Silent)
    assert runtime._why_not(fake, "FancyExecutionProvider") == "its session runs on the CPU"
    (tmp_path / "capi").mkdir()
    form = "onnxruntime_providers_fancy.dll" if sys.platform == "win32" else "libonnxruntime_providers_fancy.so"
    (tmp_path / "capi" / form).write_bytes(b"")
    assert form in str(runtime._why_not(fake, "FancyExecutionProvider"))


def test_a_provider_that_computes_wrongly_does_not_pass() -> None:
    class Wrong(Silent):
        def run(self, names: None, inputs: dict) -> list:
            return [-inputs["x"]]

    why = runtime._why_not(fake_onnxruntime(Path(), Wrong), runtime.CPU)
    assert why == "it computes [1.0, -2.0] for max(0, x) of -1 and 2"


def test_cuda_without_a_driver_fails_for_that_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "has_driver", lambda: False)
    assert runtime._why_not(None, runtime.CUDA) == f"there is no NVIDIA driver ({machine.DRIVER})"


@pytest.mark.parametrize(
    ("driver", "message", "state", "says"),
    [
        (True, {"cuda": "13.0", "devices": ["Abacus"]}, "ok", "13.0 computes on Abacus"),
        (True, {"cuda": None, "devices": []}, "warning", "torch finds no GPU, and is built without CUDA"),
        (True, {"cuda": "13.0", "devices": []}, "warning", "torch finds no GPU, and is built for CUDA 13.0"),
        (False, {"cuda": "13.0", "devices": []}, "absent", f"there is no NVIDIA driver ({machine.DRIVER})"),
    ],
)
def test_the_state_of_torchs_cuda_depends_on_its_build_its_gpus_and_the_driver(
    monkeypatch: pytest.MonkeyPatch, driver: bool, message: dict, state: str, says: str
) -> None:
    monkeypatch.setattr(machine, "has_driver", lambda: driver)
    monkeypatch.setattr(
        runtime.subprocess_runner, "run", lambda function: subprocess_runner.Outcome(messages=[message], seconds=[0])
    )
    (finding,) = runtime.check_torch()
    assert (finding.state, finding.says) == (state, says)


def test_a_torch_that_breaks_is_a_warning(broken: Path) -> None:
    (broken / "torch.py").write_text("raise OSError('libtorch.so: not found')")
    (finding,) = runtime.check_torch()
    assert (finding.state, finding.says) == ("warning", "fails: OSError: libtorch.so: not found")


# The model


def test_a_damaged_model_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    shutil.copytree(EMBEDDED, folder)
    graph = bytearray((folder / "onnx" / "model.onnx").read_bytes())
    graph[-1] ^= 1
    (folder / "onnx" / "model.onnx").write_bytes(graph)
    files, prediction = model.check_model(str(folder))
    assert (files.state, files.says) == ("error", "damaged: onnx/model.onnx")
    assert prediction.state == "error"
    assert "model.onnx" in prediction.says


def test_a_model_that_is_not_there_is_an_error() -> None:
    (finding,) = model.check_model("no-such-model")
    assert (finding.name, finding.state) == ("files", "error")
    assert "no-such-model" in finding.says


# The machine


def test_fewer_cores_than_threads_are_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "CGROUP", tmp_path)
    monkeypatch.setattr(machine, "cores", lambda: 4)
    monkeypatch.setattr(hardware.os, "cpu_count", lambda: 8)
    assert by_name(hardware.check_hardware())["cores"].says == "4 of 8"
    (tmp_path / "cpu.max").write_text("250000 100000")
    cores = by_name(hardware.check_hardware())["cores"]
    assert (cores.state, cores.says) == ("warning", "4 of 8, of which the container may use 2.5")
    assert (cores.advice or "").startswith("set OMP_NUM_THREADS=2")


def test_little_memory_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "memory", lambda: (8_000_000_000, 4_000_000_000))
    monkeypatch.setattr(machine, "memory_limit", lambda: None)
    assert by_name(hardware.check_hardware())["memory"].state == "ok"
    monkeypatch.setattr(machine, "memory_limit", lambda: 500_000_000)
    memory = by_name(hardware.check_hardware())["memory"]
    assert memory.says == "8.0 GB, 4.0 GB available; the container may use 0.5 GB"
    assert memory.state == "warning"
    monkeypatch.setattr(machine, "memory", lambda: None)
    assert by_name(hardware.check_hardware())["memory"].says == "this system does not say"


def test_gpus_are_named_and_their_absence_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    for names, driver, state, says in (
        (["Abacus", "Abacus"], True, "ok", "Abacus, Abacus"),
        ([], True, "absent", "nvidia-smi lists none"),
        ([], False, "absent", f"no NVIDIA driver ({machine.DRIVER})"),
    ):
        monkeypatch.setattr(machine, "gpus", lambda names=names: names)
        monkeypatch.setattr(machine, "has_driver", lambda driver=driver: driver)
        finding = by_name(hardware.check_hardware())["GPU"]
        assert (finding.state, finding.says) == (state, says)


# Caches and the environment


def test_the_model_cache_is_huggingface_hubs_even_if_the_package_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    assert caches.hub_folder() == Path(constants.HF_HUB_CACHE)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    monkeypatch.setenv("HF_HOME", "/a/home")
    assert caches.hub_folder() == Path("/a/home/hub")


def test_a_finding_on_a_cache_has_its_size_and_the_free_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "images").write_bytes(bytes(2_300_000))
    monkeypatch.setenv("VTZOO_CACHE", str(tmp_path))
    monkeypatch.setattr(caches.shutil, "disk_usage", lambda folder: SimpleNamespace(free=7_000_000_000))
    finding = by_name(caches.check_caches())["decoded images"]
    assert (finding.state, finding.says) == ("ok", f"{tmp_path}: 2.3 MB, 7.0 GB free")


def test_a_cache_that_takes_long_to_count_is_counted_in_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "images").write_bytes(bytes(2_000_000))
    monkeypatch.setenv("VTZOO_CACHE", str(tmp_path))
    monkeypatch.setattr(caches, "PATIENCE", -1)
    assert ": more than 0.0 GB, " in by_name(caches.check_caches())["decoded images"].says


def test_a_full_disk_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VTZOO_CACHE", str(tmp_path / "not" / "there"))
    monkeypatch.setattr(caches.shutil, "disk_usage", lambda folder: SimpleNamespace(free=10_000_000))
    finding = by_name(caches.check_caches())["decoded images"]
    assert (finding.state, finding.says) == ("warning", f"{tmp_path}/not/there: not there yet, 0.0 GB free")
    assert "VTZOO_CACHE" in (finding.advice or "")


def test_a_cache_that_cannot_be_written_to_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("VTZOO_CACHE", str(tmp_path / "file" / "cache"))
    finding = by_name(caches.check_caches())["decoded images"]
    assert finding.state == "warning"
    assert finding.says.startswith(f"{tmp_path}/file/cache cannot be written to: ")


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("https://me:secret@hub.example:8443/path?key=secret", "https://hub.example:8443/path"),
        ("http://localhost", "http://localhost"),
        ("me:secret@hub.example", "set, but not to an address"),
        ("https://hub.example:secret", "set, but not to an address"),
    ],
)
def test_an_endpoint_is_shown_without_its_secrets(monkeypatch: pytest.MonkeyPatch, given: str, says: str) -> None:
    monkeypatch.setenv("HF_ENDPOINT", given)
    assert by_name(caches.check_environment())["HF_ENDPOINT"].says == says


def test_a_token_is_set_or_not_and_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    assert by_name(caches.check_environment())["HF_TOKEN"].says == "not set"
    monkeypatch.setattr("huggingface_hub.get_token", lambda: "hf_secret")
    assert by_name(caches.check_environment())["HF_TOKEN"].says == "not set; logged in with hf auth login"
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    assert by_name(caches.check_environment())["HF_TOKEN"].says == "set"
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert by_name(caches.check_environment())["HF_TOKEN"].says == "set"


@pytest.mark.parametrize(("given", "says"), [("1", "1: nothing"), ("on", "on: nothing"), ("0", "not set"), ("", "not")])
def test_offline_is_read_as_huggingface_hub_reads_it(monkeypatch: pytest.MonkeyPatch, given: str, says: str) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", given)
    assert by_name(caches.check_environment())["HF_HUB_OFFLINE"].says.startswith(says)
