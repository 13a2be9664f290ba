"""What the doctor finds, on this installation and on ones that are broken in some way."""

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
from vtzoo.base.files import cache_folder
from vtzoo.cli import DEFAULT_MODEL
from vtzoo.doctor import caches, examine, hardware, model, packages, runtime
from vtzoo.doctor.finding import Finding
from vtzoo.zoo import resources

EMBEDDED = resources.weights_folder() / DEFAULT_MODEL


def by_name(findings: list[Finding]) -> dict[str, Finding]:
    return {finding.name: finding for finding in findings}


@pytest.fixture
def asking(monkeypatch: pytest.MonkeyPatch) -> None:
    """The metadata of vtzoo, in which it needs other packages."""
    lines = ["numpy>=99", "no-such-package>=1.5", "pillow>=99; sys_platform == 'nowhere'", "timm<99; extra == 'train'"]
    lines += ["no-such-extra; extra == 'train'", "no-such-tool; extra == 'dev'"]
    monkeypatch.setattr(metadata, "requires", lambda name: lines)


@pytest.fixture
def broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of packages that is looked in first."""
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


# The whole


def test_a_sound_installation_has_no_error_and_its_torch_is_not_imported() -> None:
    script = (
        "import json, sys; from vtzoo.doctor import examine; "
        f"found = examine({DEFAULT_MODEL!r}); heavy = {{'torch', 'numpy', 'onnxruntime'}} & set(sys.modules); "
        "print(json.dumps([[vars(one) for one in found], sorted(heavy)]))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    findings, heavy = json.loads(done.stdout)
    assert heavy == []
    assert {finding["group"] for finding in findings if finding["state"] == "error"} == set()
    says = {finding["name"]: finding["says"] for finding in findings}
    assert says["torch"] == metadata.version("torch")
    assert says["CPUExecutionProvider"] == "loads, and computes"
    assert "answers a picture" in says["prediction"]
    assert says["files"] == f"3 of {DEFAULT_MODEL} are as they should be"


def test_a_check_that_fails_is_a_finding_and_the_others_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def explode() -> list[Finding]:
        raise RuntimeError("no such luck")

    monkeypatch.setattr(hardware, "examine", explode)
    monkeypatch.setattr(model, "examine", lambda name: [Finding(group="model", name=name, says="sound")])
    monkeypatch.setattr(packages, "examine", lambda *, everything: [])
    monkeypatch.setattr(runtime, "onnxruntime", list)
    findings = by_name(examine.examine("mine"))
    assert findings["this check"].says == "failed: RuntimeError: no such luck"
    assert findings["this check"].group == "machine"
    assert findings["mine"].says == "sound"


def test_everything_asks_torch_too(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    for module, name in ((hardware, "examine"), (caches, "examine"), (caches, "environment"), (runtime, "onnxruntime")):
        monkeypatch.setattr(module, name, list)
    monkeypatch.setattr(model, "examine", lambda name: [])
    monkeypatch.setattr(packages, "examine", lambda *, everything: asked.append(everything) or [])
    monkeypatch.setattr(runtime, "torch", lambda: asked.append("torch") or [])
    examine.examine("mine")
    assert asked == [False]
    examine.examine("mine", everything=True)
    assert set(asked[1:]) == {True, "torch"}


# Packages


@pytest.mark.usefixtures("asking")
def test_packages_are_measured_against_vtzoos_own_metadata() -> None:
    findings = by_name(packages.examine(everything=False))
    numpy = findings["numpy"]
    assert (numpy.state, numpy.says) == ("warning", f"{metadata.version('numpy')}; vtzoo asks for >=99")
    assert numpy.advice == 'pip install --upgrade "numpy>=99"'
    missing = findings["no-such-package"]
    assert (missing.state, missing.says) == ("warning", "not installed")
    assert missing.advice == 'pip install "no-such-package>=1.5"'
    extra = findings["no-such-extra"]
    assert (extra.state, extra.advice) == ("absent", 'pip install "vtzoo[train]"')
    assert findings["timm"].state == "ok"
    assert not {"pillow", "no-such-tool"} & set(findings)


def test_a_python_that_vtzoo_does_not_know_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages.platform, "python_version", lambda: "3.9.1")
    python = by_name(packages.examine(everything=False))["Python"]
    asked = metadata.metadata("vtzoo")["Requires-Python"]
    assert (python.state, python.says) == ("warning", f"3.9.1; vtzoo asks for {asked}")


def test_a_vtzoo_without_metadata_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    def requires(name: str) -> None:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "requires", requires)
    found = packages.examine(everything=False)[0]
    assert (found.name, found.state) == ("vtzoo", "warning")
    assert found.says.startswith("what it needs is not known")


def test_two_onnx_runtimes_are_a_finding_that_says_what_to_uninstall(monkeypatch: pytest.MonkeyPatch) -> None:
    versions = {"onnxruntime": "1.30.0", "onnxruntime-gpu": "1.31.1"}
    version = metadata.version
    monkeypatch.setattr(metadata, "version", lambda name: versions.get(name) or version(name))
    found = by_name(packages.examine(everything=False))["ONNX Runtime"]
    assert found.state == "warning"
    assert found.says.startswith("onnxruntime and onnxruntime-gpu are both installed")
    assert found.advice == "pip uninstall -y onnxruntime onnxruntime-gpu && pip install onnxruntime-gpu"


def test_another_onnx_runtime_serves_in_the_place_of_the_one_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        if name == "onnxruntime-directml":
            return "1.24.0"
        if name.startswith("onnxruntime"):
            raise metadata.PackageNotFoundError(name)
        return "100"

    monkeypatch.setattr(metadata, "version", version)
    monkeypatch.setattr(metadata, "requires", lambda name: ["onnxruntime-gpu>=1.23"])
    found = by_name(packages.examine(everything=False))["onnxruntime-directml"]
    assert (found.state, found.says) == ("ok", "1.24.0, in the place of onnxruntime-gpu")


def test_packages_that_raise_or_crash_at_their_import_are_named_and_the_others_are_tried(
    broken: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources = {"raising": "raise OSError('libfoo.so: not found')", "crashing": "import os; os.abort()", "sound": ""}
    for name, source in sources.items():
        (broken / f"{name}.py").write_text(source)
    monkeypatch.setattr(metadata, "requires", lambda name: [*sources, "gone"])
    monkeypatch.setattr(metadata, "version", lambda name: "1.0")
    findings = by_name(packages.examine(everything=False))
    assert findings["raising"].says == "1.0; cannot be imported: OSError: libfoo.so: not found"
    assert findings["raising"].advice == 'pip install --force-reinstall "raising"'
    assert findings["crashing"].says.startswith("1.0; cannot be imported: the process was ended by signal 6")
    assert findings["sound"].state == "ok"
    assert findings["gone"].says.startswith("1.0; cannot be imported: ModuleNotFoundError")


def test_an_extra_whose_files_are_gone_is_found_without_an_import(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata, "requires", lambda name: ["gone>=1; extra == 'train'"])
    monkeypatch.setattr(metadata, "version", lambda name: "1.0")
    found = by_name(packages.examine(everything=False))["gone"]
    assert (found.state, found.says) == ("warning", "1.0; its files are not there")


# What runs


def test_the_bundled_graph_is_valid_onnx() -> None:
    onnx.checker.check_model(onnx.load_model_from_string(runtime.GRAPH), full_check=True)


@pytest.mark.parametrize("source", ["raise ImportError('libonnx.so: no such file')", "import os; os.abort()"])
def test_an_onnx_runtime_that_cannot_be_imported_is_an_error_and_crashes_nothing(broken: Path, source: str) -> None:
    (broken / "onnxruntime.py").write_text(source)
    assert [finding.state for finding in runtime.onnxruntime()] == ["error"]
    files, prediction = model.examine(DEFAULT_MODEL)
    assert (files.state, prediction.state) == ("ok", "error")


def test_without_onnx_runtime_its_cpu_provider_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "is_there", lambda module: False)
    (found,) = runtime.onnxruntime()
    assert (found.state, found.says) == ("error", "ONNX Runtime is not installed")


def test_cuda_that_does_not_load_is_a_warning_only_where_there_is_a_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    outcome = subprocess_runner.Outcome(
        told=[[runtime.CUDA, "libcublas.so.13: missing"], [runtime.CPU, None]], moments=[0, 0]
    )
    monkeypatch.setattr(runtime.subprocess_runner, "run", lambda function: outcome)
    for driver, state in ((True, "warning"), (False, "absent")):
        monkeypatch.setattr(machine, "has_driver", lambda driver=driver: driver)
        cuda, cpu = runtime.onnxruntime()
        assert (cuda.state, cpu.state) == (state, "ok")
        assert cuda.says == "listed, and does not load: libcublas.so.13: missing"
        assert ("onnxruntime-gpu[cuda,cudnn]" in (cuda.advice or "")) == driver


def fake_onnxruntime(file: Path, session: type) -> SimpleNamespace:
    return SimpleNamespace(__file__=str(file / "__init__.py"), InferenceSession=session)


class Silent:
    """A session that falls back to the CPU without a word."""

    def __init__(self, graph: bytes, **settings: object) -> None: ...

    def get_providers(self) -> list[str]:
        return [runtime.CPU]


def test_a_provider_that_falls_back_silently_is_told_by_what_its_library_lacks(tmp_path: Path) -> None:
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
    assert why == "it computes that max(0, x) of -1 and 2 is [1.0, -2.0]"


def test_cuda_without_a_driver_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "has_driver", lambda: False)
    assert runtime._why_not(None, runtime.CUDA) == f"there is no NVIDIA driver ({machine.DRIVER})"


@pytest.mark.parametrize(
    ("driver", "told", "state", "says"),
    [
        (True, {"cuda": "13.0", "devices": ["Abacus"]}, "ok", "13.0 computes, on Abacus"),
        (True, {"cuda": None, "devices": []}, "warning", "is not seen; torch is made without CUDA"),
        (True, {"cuda": "13.0", "devices": []}, "warning", "is not seen; torch is made for CUDA 13.0"),
        (False, {"cuda": "13.0", "devices": []}, "absent", f"there is no NVIDIA driver ({machine.DRIVER})"),
    ],
)
def test_torchs_cuda_is_judged_by_what_it_is_made_for_and_by_the_driver(
    monkeypatch: pytest.MonkeyPatch, driver: bool, told: dict, state: str, says: str
) -> None:
    monkeypatch.setattr(machine, "has_driver", lambda: driver)
    monkeypatch.setattr(
        runtime.subprocess_runner, "run", lambda function: subprocess_runner.Outcome(told=[told], moments=[0])
    )
    (found,) = runtime.torch()
    assert (found.state, found.says) == (state, says)


def test_a_torch_that_breaks_is_a_warning(broken: Path) -> None:
    (broken / "torch.py").write_text("raise OSError('libtorch.so: not found')")
    (found,) = runtime.torch()
    assert (found.state, found.says) == ("warning", "fails: OSError: libtorch.so: not found")


# The model


def test_a_damaged_model_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    shutil.copytree(EMBEDDED, folder)
    graph = bytearray((folder / "onnx" / "model.onnx").read_bytes())
    graph[-1] ^= 1
    (folder / "onnx" / "model.onnx").write_bytes(graph)
    files, prediction = model.examine(str(folder))
    assert (files.state, files.says) == ("error", "damaged: onnx/model.onnx")
    assert prediction.state == "error"
    assert "model.onnx" in prediction.says


def test_a_model_that_is_not_there_is_an_error() -> None:
    (found,) = model.examine("no-such-model")
    assert (found.name, found.state) == ("files", "error")
    assert "no-such-model" in found.says


# The machine


def test_fewer_cores_than_threads_are_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "CGROUP", tmp_path)
    monkeypatch.setattr(machine, "cores", lambda: 4)
    monkeypatch.setattr(hardware.os, "cpu_count", lambda: 8)
    assert by_name(hardware.examine())["cores"].says == "4 of 8"
    (tmp_path / "cpu.max").write_text("250000 100000")
    cores = by_name(hardware.examine())["cores"]
    assert (cores.state, cores.says) == ("warning", "4 of 8, of which the container may use 2.5")
    assert (cores.advice or "").startswith("set OMP_NUM_THREADS=2")


def test_little_memory_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "memory", lambda: (8_000_000_000, 4_000_000_000))
    monkeypatch.setattr(machine, "memory_limit", lambda: None)
    assert by_name(hardware.examine())["memory"].state == "ok"
    monkeypatch.setattr(machine, "memory_limit", lambda: 500_000_000)
    memory = by_name(hardware.examine())["memory"]
    assert memory.says == "8.0 GB, 4.0 GB available; the container may use 0.5 GB"
    assert memory.state == "warning"
    monkeypatch.setattr(machine, "memory", lambda: None)
    assert by_name(hardware.examine())["memory"].says == "not told by this system"


def test_gpus_are_named_and_their_absence_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    for names, driver, state, says in (
        (["Abacus", "Abacus"], True, "ok", "Abacus, Abacus"),
        ([], True, "absent", "none that nvidia-smi tells of"),
        ([], False, "absent", f"no NVIDIA driver ({machine.DRIVER})"),
    ):
        monkeypatch.setattr(machine, "gpus", lambda names=names: names)
        monkeypatch.setattr(machine, "has_driver", lambda driver=driver: driver)
        found = by_name(hardware.examine())["GPU"]
        assert (found.state, found.says) == (state, says)


# Caches and the environment


@pytest.mark.parametrize("given", [{"VTZOO_CACHE": "/a"}, {"XDG_CACHE_HOME": "/b"}, {}])
def test_decoded_images_are_where_training_keeps_them(monkeypatch: pytest.MonkeyPatch, given: dict[str, str]) -> None:
    for variable in ("VTZOO_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(variable, raising=False)
    for variable, value in given.items():
        monkeypatch.setenv(variable, value)
    assert caches.images_folder() == cache_folder()


def test_the_models_are_where_huggingface_hub_keeps_them_even_if_it_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    assert caches.hub_folder() == Path(constants.HF_HUB_CACHE)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    monkeypatch.setenv("HF_HOME", "/a/home")
    assert caches.hub_folder() == Path("/a/home/hub")


def test_a_cache_tells_its_size_and_the_free_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "images").write_bytes(bytes(2_300_000))
    monkeypatch.setenv("VTZOO_CACHE", str(tmp_path))
    monkeypatch.setattr(caches.shutil, "disk_usage", lambda folder: SimpleNamespace(free=7_000_000_000))
    found = by_name(caches.examine())["decoded images"]
    assert (found.state, found.says) == ("ok", f"{tmp_path}: 2.3 MB, 7.0 GB free")


def test_a_cache_that_takes_long_to_count_is_counted_in_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "images").write_bytes(bytes(2_000_000))
    monkeypatch.setenv("VTZOO_CACHE", str(tmp_path))
    monkeypatch.setattr(caches, "PATIENCE", -1)
    assert ": more than 0.0 GB, " in by_name(caches.examine())["decoded images"].says


def test_a_full_disk_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VTZOO_CACHE", str(tmp_path / "not" / "there"))
    monkeypatch.setattr(caches.shutil, "disk_usage", lambda folder: SimpleNamespace(free=10_000_000))
    found = by_name(caches.examine())["decoded images"]
    assert (found.state, found.says) == ("warning", f"{tmp_path}/not/there: not there yet, 0.0 GB free")
    assert "VTZOO_CACHE" in (found.advice or "")


def test_a_cache_that_cannot_be_written_to_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("VTZOO_CACHE", str(tmp_path / "file" / "cache"))
    found = by_name(caches.examine())["decoded images"]
    assert found.state == "warning"
    assert found.says.startswith(f"{tmp_path}/file/cache cannot be written to: ")


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("https://me:secret@hub.example:8443/path?key=secret", "https://hub.example:8443/path"),
        ("http://localhost", "http://localhost"),
        ("me:secret@hub.example", "set, to no address"),
        ("https://hub.example:secret", "set, to no address"),
    ],
)
def test_an_endpoint_is_shown_without_its_secrets(monkeypatch: pytest.MonkeyPatch, given: str, says: str) -> None:
    monkeypatch.setenv("HF_ENDPOINT", given)
    assert by_name(caches.environment())["HF_ENDPOINT"].says == says


def test_a_token_is_set_or_not_and_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    assert by_name(caches.environment())["HF_TOKEN"].says == "not set"
    monkeypatch.setattr("huggingface_hub.get_token", lambda: "hf_secret")
    assert by_name(caches.environment())["HF_TOKEN"].says == "not set; logged in with hf auth login"
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    assert by_name(caches.environment())["HF_TOKEN"].says == "set"
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert by_name(caches.environment())["HF_TOKEN"].says == "set"


@pytest.mark.parametrize(("given", "says"), [("1", "1: nothing"), ("on", "on: nothing"), ("0", "not set"), ("", "not")])
def test_offline_is_read_as_huggingface_hub_reads_it(monkeypatch: pytest.MonkeyPatch, given: str, says: str) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", given)
    assert by_name(caches.environment())["HF_HUB_OFFLINE"].says.startswith(says)
