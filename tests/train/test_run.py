import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file

from vtzoo import __version__, models
from vtzoo.data import named, named_reader
from vtzoo.data.transform import Preprocess
from vtzoo.errors import VtzooError
from vtzoo.evaluate.run import measure
from vtzoo.predict.load import load
from vtzoo.train import checkpoint, loop, run
from vtzoo.zoo import lookup, resources
from vtzoo.zoo.folder_files import write_json
from vtzoo.zoo.recipe import Recipe
from vtzoo.zoo.recipe_files import identity
from vtzoo.zoo.result import Certificate, Result

FILES = {
    "checkpoint.safetensors", "config.json", "curves.png", "localizer.safetensors", "metrics.jsonl",
    "model.safetensors", "onnx/model.onnx", "README.md", "recipe.toml", "result.json",
}  # fmt: skip

Write = Callable[..., Path]


@pytest.fixture(scope="module")
def trained(
    recipe_text: Callable[..., str], tiny_data: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Path, Result]]:
    """The folder of a finished run of the tiny recipe, and the result of `train`."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "tiny.toml").write_text(recipe_text(epochs=2))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(named.DATASETS, "cifar10", replace(named.named_set("cifar10"), train=24, test=20))
        yield folder / "run", run.train(folder / "tiny.toml", data=tiny_data, out=folder / "run", seed=3, device="cpu")


@pytest.fixture
def write(recipe_text: Callable[..., str], tmp_path: Path) -> Write:
    """Writes the edited tiny recipe, and returns its path."""

    def to_file(**edits: Any) -> Path:
        (tmp_path / "tiny.toml").write_text(recipe_text(**edits))
        return tmp_path / "tiny.toml"

    return to_file


@pytest.fixture
def unmeasured(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Replaces the export and the evaluation, which take seconds; lists the folders that would be measured."""
    loaded: list[Path] = []
    certificate = Certificate(images=1, max_logit_difference=0.0, top1_agreement=1.0)
    metrics = {"top1": 0.5, "top5": 1.0, "images": 20, "manifest": "m"}
    monkeypatch.setattr(run, "write_packaged_graph", lambda *_, **__: certificate)
    monkeypatch.setattr(run, "load", loaded.append)
    monkeypatch.setattr(run, "measure", lambda *_, **__: metrics)
    return loaded


def names(folder: Path) -> set[str]:
    """The files of a model folder, without TensorBoard's."""
    files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    return {name for name in files if not name.startswith("tensorboard/")}


def text(error: pytest.ExceptionInfo[VtzooError]) -> str:
    return f"{error.value.message} | {error.value.hint}"


def test_a_run_is_a_complete_model_folder(trained: tuple[Path, Result]) -> None:
    assert names(trained[0]) == FILES


def test_the_result_records_the_run_and_its_measurements(trained: tuple[Path, Result], tiny_data: Path) -> None:
    folder, result = trained
    assert json.loads((folder / "result.json").read_text()) == result.as_json()
    train, test = (named_reader.read(named.named_set("cifar10"), split, tiny_data) for split in ("train", "test"))
    expected = {
        "name": "swin_t-drloc-cifar10", "dataset": "cifar10", "seed": 3, "steps": 6, "batch": 8, "train_images": 24,
        "train_manifest": train.fingerprint, "train_skipped": 0, "processes": 1, "images": 20,
        "manifest": test.fingerprint, "recipe_sha256": identity(folder / "recipe.toml"),
    }  # fmt: skip
    assert {name: getattr(result, name) for name in expected} == expected
    assert result.versions["vtzoo"] == __version__
    assert result.versions["timm"] == timm.__version__
    assert None not in result.versions.values()
    assert 0 <= result.top1 <= result.top5 <= 1
    assert result.certificate.top1_agreement == 1
    assert result.weights == {
        name: hashlib.sha256((folder / name).read_bytes()).hexdigest()
        for name in ("model.safetensors", "onnx/model.onnx", "localizer.safetensors")
    }


def test_the_recipe_in_the_folder_is_the_one_that_was_run(trained: tuple[Path, Result]) -> None:
    folder, _ = trained
    assert (folder / "recipe.toml").read_bytes() == (folder.parent / "tiny.toml").read_bytes()


def test_published_weights_are_the_average_in_fp16(trained: tuple[Path, Result]) -> None:
    folder, _ = trained
    weights, stored = load_file(folder / "model.safetensors"), load_file(folder / "checkpoint.safetensors")
    assert weights.keys() == {name.removeprefix("average.") for name in stored if name.startswith("average.")}
    for name, tensor in weights.items():
        average = stored[f"average.{name}"]
        assert tensor.dtype == (torch.float16 if average.is_floating_point() else average.dtype)
        assert torch.equal(tensor, average.to(tensor.dtype))
    with safe_open(folder / "model.safetensors", framework="pt") as file:
        assert file.metadata() == {"format": "pt"}


def test_the_localizer_is_beside_the_model_and_not_in_it(trained: tuple[Path, Result]) -> None:
    folder, _ = trained
    model, head = load_file(folder / "model.safetensors"), load_file(folder / "localizer.safetensors")
    assert head["head.0.weight"].shape == (512, 2 * 32)
    assert not [name for name in model if "localiz" in name]
    classifier = models.create(json.loads((folder / "config.json").read_text()))
    assert model.keys() == classifier.state_dict().keys()


def test_both_backends_load_the_folder_and_agree(trained: tuple[Path, Result], tiny_data: Path) -> None:
    folder, result = trained
    test = named_reader.read(named.named_set("cifar10"), "test", tiny_data)
    onnx, torch_ = (load(folder, backend=backend, device="cpu") for backend in ("onnx", "torch"))
    assert onnx.labels == torch_.labels == named.labels("cifar10")
    pixels = test.pixels(Preprocess.square(16))
    assert np.abs(onnx(pixels) - torch_(pixels)).max() < 1e-3
    assert np.array_equal(onnx(pixels).argmax(1), torch_(pixels).argmax(1))
    assert np.abs(onnx.embed(pixels) - torch_.embed(pixels)).max() < 1e-3
    for classifier in (onnx, torch_):
        measured = measure(classifier, test)
        assert (measured["top1"], measured["top5"]) == (result.top1, result.top5)


def test_plain_timm_builds_the_model_and_loads_its_weights(trained: tuple[Path, Result]) -> None:
    folder, _ = trained
    config = json.loads((folder / "config.json").read_text())
    assert "num_classes" not in config["model_args"]
    assert "drop_path_rate" not in config["model_args"]
    model = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    assert model.num_features == config["num_features"] == 32
    settings = timm.data.resolve_data_config(model=model)
    assert settings["input_size"] == (3, 16, 16)
    assert tuple(settings["mean"]) == named.named_set("cifar10").mean
    assert model.pretrained_cfg["label_names"] == list(named.labels("cifar10") or ())
    pixels = np.random.default_rng(0).integers(0, 256, (4, 3, 16, 16), dtype=np.uint8)
    mean, std = (torch.tensor(settings[name]).view(3, 1, 1) for name in ("mean", "std"))
    with torch.inference_mode():
        probabilities = model((torch.from_numpy(pixels) / 255 - mean) / std).softmax(1).numpy()
    assert np.abs(probabilities - load(folder, device="cpu")(pixels)).max() < 1e-3


def test_a_run_writes_the_card_and_the_curves(trained: tuple[Path, Result]) -> None:
    folder, result = trained
    card = (folder / "README.md").read_text()
    assert "# swin_t-drloc-cifar10" in card
    assert f"{result.top1:.2%}" in card
    with Image.open(folder / "curves.png") as picture:
        assert picture.size == (3 * 440, 330)


def test_a_finished_run_resumes_to_the_same_weights(
    trained: tuple[Path, Result], tiny_data: Path, tmp_path: Path, unmeasured: list[Path]
) -> None:
    folder, result = trained
    out = tmp_path / "run"
    out.mkdir()
    for name in ("checkpoint.safetensors", "metrics.jsonl"):
        (out / name).write_bytes((folder / name).read_bytes())
    again = run.train(folder / "recipe.toml", data=tiny_data, out=out, seed=3, device="cpu", resume=True)
    assert again.weights["model.safetensors"] == result.weights["model.safetensors"]
    assert again.train_seconds == result.train_seconds
    assert again.steps == 6


def test_a_baseline_has_no_localizer_and_no_average_at_a_decay_of_zero(
    write: Write, tiny_data: Path, tmp_path: Path, unmeasured: list[Path]
) -> None:
    out = tmp_path / "deep" / "run"
    result = run.train(write(baseline=True, epochs=1, ema_decay=0), data=tiny_data, out=out, device="cpu")
    assert names(out) == FILES - {"localizer.safetensors", "onnx/model.onnx"}
    assert result.weights.keys() == {"model.safetensors"}
    weights, stored = load_file(out / "model.safetensors"), load_file(out / "checkpoint.safetensors")
    assert all(torch.equal(tensor, stored[f"model.{name}"].half()) for name, tensor in weights.items())


def test_a_run_is_measured_by_its_own_folder_even_where_an_embedded_model_has_its_name(
    write: Write, tiny_data: Path, tmp_path: Path, unmeasured: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    embedded = tmp_path / "weights" / "tiny"
    embedded.mkdir(parents=True)
    (embedded / "config.json").write_text("{}")
    monkeypatch.setattr(resources, "weights_folder", lambda: tmp_path / "weights")
    monkeypatch.chdir(tmp_path)
    run.train(write(epochs=1), data=tiny_data, out=Path("tiny"), device="cpu")
    (loaded,) = unmeasured
    assert lookup.find_model(loaded).folder == tmp_path / "tiny"


def test_editing_the_recipe_while_it_runs_changes_nothing(
    write: Write, tiny_data: Path, tmp_path: Path, unmeasured: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, real = write(epochs=1), run.fit
    before, sha256 = path.read_bytes(), identity(path)

    def fit(*arguments: Any, **options: Any) -> float:
        path.write_text("edited")
        return real(*arguments, **options)

    monkeypatch.setattr(run, "fit", fit)
    result = run.train(path, data=tiny_data, out=tmp_path / "run", device="cpu")
    assert result.recipe_sha256 == sha256
    assert (tmp_path / "run" / "recipe.toml").read_bytes() == before


@pytest.fixture
def untrained(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes any start of the training an AssertionError."""

    def fit(*_: Any, **__: Any) -> float:
        raise AssertionError("it trains")

    monkeypatch.setattr(run, "fit", fit)


def write_checkpoint(path: Path, out: Path, data: Path, fresh: loop.Run) -> bytes:
    """Write the checkpoint of a run with seed 0 on the images of `data` into `out`, and return its bytes."""
    out.mkdir()
    manifest = named_reader.read(named.named_set("cifar10"), "train", data).fingerprint
    checkpoint.save(out / "checkpoint.safetensors", step=0, run=f"{identity(path)}/0/{manifest}", **fresh.parts())
    return (out / "checkpoint.safetensors").read_bytes()


@pytest.mark.usefixtures("untrained")
@pytest.mark.parametrize(
    ("edits", "options", "message"),
    [
        ({}, {}, "already holds a run | go on with it: --resume"),
        ({}, {"resume": True, "seed": 1}, "another recipe, seed, data set or teacher | train into another --out"),
        ({"learning_rate": 1e-4}, {"resume": True}, "belongs to another recipe, seed, data set or teacher"),
    ],
)
def test_a_folder_with_another_run_is_refused_and_left_alone(
    edits: dict[str, Any], options: dict[str, Any], message: str, write: Write, tiny_data: Path, tmp_path: Path,
    tiny: Callable[..., Recipe], start: Callable[..., loop.Run],
) -> None:  # fmt: skip
    out = tmp_path / "run"
    before = write_checkpoint(write(), out, tiny_data, start(tiny()))
    with pytest.raises(VtzooError) as raised:
        run.train(write(**edits), data=tiny_data, out=out, device="cpu", **options)
    assert message in text(raised)
    assert names(out) == {"checkpoint.safetensors"}
    assert (out / "checkpoint.safetensors").read_bytes() == before


@pytest.mark.usefixtures("untrained")
def test_a_run_goes_on_with_its_own_data_and_with_no_other(
    write: Write, tiny_data: Path, tmp_path: Path, tiny: Callable[..., Recipe], start: Callable[..., loop.Run]
) -> None:
    other, out = tmp_path / "other", tmp_path / "run"
    other.mkdir()
    for split in ("train", "test"):  # both splits hold the test images
        (other / f"{split}-0.parquet").write_bytes(next(tiny_data.glob("test-*")).read_bytes())
    write_checkpoint(write(), out, tiny_data, start(tiny()))
    with pytest.raises(VtzooError, match="belongs to another recipe, seed, data set or teacher"):
        run.train(write(), data=other, out=out, device="cpu", resume=True)
    with pytest.raises(AssertionError, match="it trains"):
        run.train(write(), data=tiny_data, out=out, device="cpu", resume=True)


@pytest.mark.usefixtures("untrained")
@pytest.mark.parametrize("resume", [False, True])
def test_a_model_without_a_checkpoint_is_never_trained_over(
    resume: bool, write: Write, tiny_data: Path, tmp_path: Path
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text("{}")
    with pytest.raises(VtzooError, match="already holds a model, and no checkpoint"):
        run.train(write(), data=tiny_data, out=tmp_path / "run", device="cpu", resume=resume)
    assert names(tmp_path / "run") == {"config.json"}


@pytest.mark.usefixtures("untrained")
def test_a_file_in_the_folders_place_is_refused(write: Write, tiny_data: Path, tmp_path: Path) -> None:
    path = write()
    with pytest.raises(VtzooError, match="is not a folder"):
        run.train(path, data=tiny_data, out=path, device="cpu")
    with pytest.raises(VtzooError, match="cannot make the folder"):
        run.train(path, data=tiny_data, out=path / "run", device="cpu")


@pytest.mark.usefixtures("untrained")
def test_a_missing_test_split_is_found_before_the_training(write: Write, tiny_data: Path, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (train,) = tiny_data.glob("train-*")
    (tmp_path / "data" / train.name).write_bytes(train.read_bytes())
    with pytest.raises(VtzooError, match=r"no test-\*.parquet"):
        run.train(write(), data=tmp_path / "data", out=tmp_path / "run", device="cpu")


@pytest.mark.usefixtures("untrained")
@pytest.mark.parametrize(
    ("edits", "message"),
    [
        ({"stage": 5}, "swin_t has 2 grids, so there is no stage 5 | drloc.stage goes from 0 to 1"),
        ({"depths": [1, 1, 1], "num_heads": [1, 2, 2], "stage": 2}, "a 2x2 grid is too small to localize in"),
    ],
)
def test_an_unusable_stage_is_refused_before_the_data_is_read(
    edits: dict[str, Any], message: str, write: Write, tmp_path: Path
) -> None:
    with pytest.raises(VtzooError) as raised:
        run.train(write(**edits), data=tmp_path / "nowhere", out=tmp_path / "run", device="cpu")
    assert message in text(raised)


def test_a_resumed_run_goes_on_at_its_checkpoint(
    write: Write, tiny_data: Path, tmp_path: Path, unmeasured: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException): ...

    def die(report: loop.Progress) -> None:
        raise Killed

    path, steps = write(epochs=7, cosine_epochs=7), []
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", -1)
    with pytest.raises(Killed):
        run.train(path, data=tiny_data, out=tmp_path / "run", device="cpu", progress=die)  # raises at step 20's report
    real = loop._step
    monkeypatch.setattr(loop, "_step", lambda state, *rest: [steps.append(state.step), real(state, *rest)][1])
    run.train(path, data=tiny_data, out=tmp_path / "run", device="cpu", resume=True)
    assert steps == [19, 20]


def test_weights_and_json_are_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run.write_weights({"a": torch.ones(3)}, tmp_path / "model.safetensors")
    write_json(tmp_path / "result.json", {"a": 1})
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def fail(path: Path, target: Path) -> None:
        raise OSError("full")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="full"):
        run.write_weights({"a": torch.zeros(3)}, tmp_path / "model.safetensors")
    with pytest.raises(OSError, match="full"):
        write_json(tmp_path / "result.json", {"a": 2})
    assert {name: (tmp_path / name).read_bytes() for name in before} == before


def test_integers_are_not_stored_in_half_precision(tmp_path: Path) -> None:
    run.write_weights({"count": torch.tensor(70_001), "a": torch.ones(2, 2).t()}, tmp_path / "model.safetensors")
    stored = load_file(tmp_path / "model.safetensors")
    assert stored["count"].item() == 70_001
    assert stored["a"].dtype == torch.float16


@pytest.mark.parametrize(("threads", "prefix"), [(1, "1 CPU core ("), (2, "2 CPU cores (")])
def test_hardware_names_the_cpu_threads(threads: int, prefix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    assert run.hardware(torch.device("cpu")).startswith(prefix)


def test_a_distribution_that_is_not_installed_has_no_version() -> None:
    assert run.installed("no-such-distribution") is None
    assert run.installed("timm") == timm.__version__
    assert run.installed("onnxruntime")  # installed as onnxruntime or as onnxruntime-gpu
