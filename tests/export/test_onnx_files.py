"""Exported graphs against their torch models."""

import hashlib
import json
import logging
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from vtzoo.errors import VtzooError
from vtzoo.export.certificate import Certificate
from vtzoo.export.images import VerificationImages, sample_images
from vtzoo.export.onnx_files import export_model, write_onnx, write_packaged_graph
from vtzoo.models import create
from vtzoo.predict.load import load
from vtzoo.zoo import onnx_reader, safetensors_reader

WEIGHTS = ("onnx/model.onnx", "model.safetensors")
MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
SWIN = {"img_size": 32, "patch_size": 2, "window_size": 4, "embed_dim": 16, "depths": [2, 1], "num_heads": [1, 2]}
VIT = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2}


def describe(architecture: str, classes: int, **model_args: Any) -> dict[str, Any]:
    return {
        "architecture": architecture,
        "num_classes": classes,
        "model_args": model_args,
        "pretrained_cfg": {
            "input_size": [3, 32, 32],
            "interpolation": "bicubic",
            "crop_pct": 0.9,
            "mean": list(MEAN),
            "std": list(STD),
        },
        "label_names": [f"Fjällräv {index}" for index in range(classes)],
    }


def build(config: dict[str, Any]) -> nn.Module:
    torch.manual_seed(0)
    model = create(config)
    for parameter in model.parameters():  # initial biases are 0 and norms 1, which would hide a mix-up
        nn.init.normal_(parameter, std=0.1)
    return model.eval()


def save(model: nn.Module, config: dict[str, Any], folder: Path, dtype: torch.dtype = torch.float16) -> nn.Module:
    """Write a model folder, and return the model with the file's weights."""
    model.to(dtype).float()
    folder.mkdir()
    tensors = {name: tensor.to(dtype).contiguous() for name, tensor in model.state_dict().items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return model


def expected(model: nn.Module, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The output of timm, by its forward pass and textbook normalization."""
    mean, std = (np.reshape(values, (1, 3, 1, 1)) for values in (MEAN, STD))
    inputs = torch.from_numpy(((images / 255 - mean) / std).astype(np.float32))
    with torch.no_grad():
        return model(inputs).numpy(), model.forward_head(model.forward_features(inputs), pre_logits=True).numpy()


def given(pixels: np.ndarray) -> VerificationImages:
    return VerificationImages(pixels=pixels, source="the test")


def open_file(path: Path) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def open_folder(folder: Path, **arguments: Any) -> onnxruntime.InferenceSession:
    """A session over a packaged graph, as the zoo opens it."""
    weights = (folder / "model.safetensors").read_bytes()
    options = onnxruntime.SessionOptions()
    options.add_external_initializers_from_files_in_memory([onnx_reader.LOCATION], [weights], [len(weights)])
    content = (folder / "onnx" / "model.onnx").read_bytes()
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"], **arguments)


def assert_answers(session: onnxruntime.InferenceSession, model: nn.Module, *batches: int) -> None:
    for batch in batches:
        images = np.random.default_rng(batch).integers(0, 256, (batch, 3, 32, 32), dtype=np.uint8)
        answers = [np.asarray(output) for output in session.run(["logits", "features"], {"images": images})]
        for answer, truth in zip(answers, expected(model, images), strict=True):
            assert answer.dtype == np.float32
            np.testing.assert_allclose(answer, truth, atol=1e-4, rtol=0)


class Small(nn.Module):
    """A convolution and a classifier, for tests that do not depend on the model."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.head = nn.Sequential(nn.Conv2d(3, 8, 4, 4), nn.BatchNorm2d(8)), nn.Linear(8, 3)

    def forward_features(self, images: torch.Tensor) -> torch.Tensor:
        return self.stem(images)

    def forward_head(self, tokens: torch.Tensor, pre_logits: bool = False) -> torch.Tensor:
        features = tokens.mean((2, 3))
        return features if pre_logits else self.head(features)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.forward_head(self.forward_features(images))


@pytest.fixture(scope="module")
def swin_config() -> dict[str, Any]:
    return describe("swin_tiny_patch4_window7_224", 5, **SWIN)


@pytest.fixture(scope="module")
def vit_config() -> dict[str, Any]:
    return describe("vit_tiny_patch16_224", 3, **VIT)


@pytest.fixture(scope="module")
def swin(swin_config: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> tuple[nn.Module, Path]:
    """A tiny Swin and its packaged folder."""
    folder = tmp_path_factory.mktemp("runs") / "swin"
    model = save(build(swin_config), swin_config, folder)
    write_packaged_graph(model, swin_config, folder)
    return model, folder


@pytest.fixture(scope="module")
def vit(vit_config: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> tuple[nn.Module, Path]:
    """A tiny ViT and its folder, packaged with another ViT of the same shape."""
    folder = tmp_path_factory.mktemp("runs") / "vit"
    model = save(build(vit_config), vit_config, folder)
    write_packaged_graph(create(vit_config), vit_config, folder)
    return model, folder


@pytest.fixture(scope="module")
def vit_file(vit_config: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("exported") / "vit.onnx"
    write_onnx(build(vit_config), vit_config, out, source="here")
    return out


def test_an_exported_file_answers_like_torch_at_any_batch(vit_config: dict[str, Any], vit_file: Path) -> None:
    assert_answers(open_file(vit_file), build(vit_config), 1, 2, 5)


def test_an_exported_file_is_one_file_that_names_no_other(vit_file: Path) -> None:
    assert [path.name for path in vit_file.parent.iterdir()] == ["vit.onnx"]
    onnx_reader.refuse_external(vit_file.read_bytes(), "vit.onnx")


def test_a_graph_declares_images_logits_and_features(vit_file: Path) -> None:
    session = open_file(vit_file)
    values = (*session.get_inputs(), *session.get_outputs())
    given, *outputs = [(value.name, value.type, value.shape) for value in values]
    assert given == ("images", "tensor(uint8)", ["batch", 3, 32, 32])
    assert outputs == [("logits", "tensor(float)", ["batch", 3]), ("features", "tensor(float)", ["batch", 32])]


def test_a_bare_file_carries_what_it_takes_to_predict(vit_config: dict[str, Any], vit_file: Path) -> None:
    facts = open_file(vit_file).get_modelmeta().custom_metadata_map
    assert json.loads(facts["vtzoo.labels"]) == vit_config["label_names"]
    assert json.loads(facts["vtzoo.preprocess"]) == {"size": 32, "interpolation": "bicubic", "crop": 0.9}
    assert facts["vtzoo.source"] == "here"
    assert facts["vtzoo.precision"] == "fp32"
    certificate = Certificate(**json.loads(facts["vtzoo.certificate"]))
    assert (certificate.images, certificate.source) == (128, "crops of the bundled photographs")
    assert 0 <= certificate.max_logit_difference < 1e-4
    assert certificate.top1_agreement == 1
    assert (certificate.torch_top1, certificate.onnx_top1) == (None, None)


def test_a_graph_holds_no_local_path(swin: tuple[nn.Module, Path], vit_file: Path) -> None:
    for path in (swin[1] / "onnx" / "model.onnx", vit_file):
        content = path.read_bytes()
        assert b".py" not in content
        assert b"stack_trace" not in content


def test_the_certificate_is_measured_on_the_given_images(tmp_path: Path) -> None:
    images = np.random.default_rng(3).integers(0, 256, (17, 3, 32, 32), dtype=np.uint8)
    images.setflags(write=False)  # like those of a memory-mapped dataset
    model = Small().eval()
    certificate = write_onnx(model, describe("small", 3), tmp_path / "a.onnx", source="here", images=given(images))
    logits = np.asarray(open_file(tmp_path / "a.onnx").run(["logits"], {"images": images})[0])
    assert certificate.images == 17
    difference = np.abs(logits - expected(model, images)[0]).max()
    assert certificate.max_logit_difference == pytest.approx(difference, abs=1e-6)


def test_an_export_leaves_the_callers_model_as_it_was(tmp_path: Path) -> None:
    model = Small().train().half()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    write_onnx(model, describe("small", 3), tmp_path / "a.onnx", source="here")
    assert model.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_an_export_says_nothing_and_changes_no_filter_or_log_level(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], traced_anew: None
) -> None:
    names = ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")
    filters, levels = list(warnings.filters), [logging.getLogger(name).level for name in names]
    # With another operator set the exporter prints more.
    write_onnx(Small(), describe("small", 3), tmp_path / "a.onnx", source="here", opset=18)
    assert onnx.load(tmp_path / "a.onnx").opset_import[0].version == 18
    assert capfd.readouterr() == ("", "")
    assert warnings.filters == filters
    assert [logging.getLogger(name).level for name in names] == levels


def test_a_packaged_graph_answers_like_torch_at_any_batch(swin: tuple[nn.Module, Path]) -> None:
    model, folder = swin
    assert_answers(open_folder(folder), model, 1, 2, 5)
    assert_answers(open_folder(folder, disabled_optimizers=["ConstantFolding"]), model, 2)


def test_a_packaged_graph_stores_no_weight_twice(swin: tuple[nn.Module, Path]) -> None:
    model, folder = swin
    initializers = onnx.load(folder / "onnx" / "model.onnx", load_external_data=False).graph.initializer
    assert {tensor.name for tensor in initializers if tensor.external_data} == set(model.state_dict())
    assert all(len(tensor.raw_data) < 20_000 for tensor in initializers)


def test_a_packaged_graph_points_at_the_bytes_of_the_weights_file(swin: tuple[nn.Module, Path]) -> None:
    model, folder = swin
    content, state = (folder / "model.safetensors").read_bytes(), model.state_dict()
    for tensor in onnx.load(folder / "onnx" / "model.onnx", load_external_data=False).graph.initializer:
        if tensor.external_data:
            place = {entry.key: entry.value for entry in tensor.external_data}
            assert place.keys() == {"location", "offset", "length"}
            assert place["location"] == "../model.safetensors"
            values = np.frombuffer(content, np.float16, int(place["length"]) // 2, int(place["offset"]))
            np.testing.assert_array_equal(values.reshape(tensor.dims), state[tensor.name].numpy())


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[nn.Module, Path]:
    """A small model's folder with float32 weights and an int64 buffer."""
    folder = tmp_path_factory.mktemp("runs") / "small"
    model = save(Small().eval(), describe("small", 3), folder, torch.float32)
    save_file(model.state_dict(), folder / "model.safetensors")
    write_packaged_graph(model, describe("small", 3), folder)
    return model, folder


def test_float32_weights_with_integer_buffers_are_packaged_too(small: tuple[nn.Module, Path]) -> None:
    model, folder = small
    assert_answers(open_folder(folder), model, 2)


def test_a_packaged_graph_is_the_same_file_every_time(small: tuple[nn.Module, Path], traced_anew: None) -> None:
    model, folder = small
    before = (folder / "onnx" / "model.onnx").read_bytes()
    write_packaged_graph(model, describe("small", 3), folder)
    assert (folder / "onnx" / "model.onnx").read_bytes() == before


def test_a_package_is_made_of_the_files_weights_not_the_models(vit: tuple[nn.Module, Path]) -> None:
    model, folder = vit
    assert_answers(open_folder(folder), model, 1, 2)


def test_the_packaged_graph_of_three_blocks_takes_50_kilobytes_at_most(swin: tuple[nn.Module, Path]) -> None:
    """With the exporter's metadata it would be several times larger."""
    _, folder = swin
    assert (folder / "onnx" / "model.onnx").stat().st_size < 50_000


def test_a_model_folder_is_exported_as_one_file(vit: tuple[nn.Module, Path], tmp_path: Path) -> None:
    model, folder = vit
    export_model(folder, tmp_path / "whole.onnx")
    assert_answers(open_file(tmp_path / "whole.onnx"), model, 1, 3)
    onnx_reader.refuse_external((tmp_path / "whole.onnx").read_bytes(), "whole.onnx")
    source = open_file(tmp_path / "whole.onnx").get_modelmeta().custom_metadata_map["vtzoo.source"]
    assert source == f"vit sha256:{hashlib.sha256((folder / 'model.safetensors').read_bytes()).hexdigest()}"


def test_the_zoo_predicts_with_a_packaged_graph(swin: tuple[nn.Module, Path]) -> None:
    model, folder = swin
    weights = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in WEIGHTS}
    (folder / "result.json").write_text(json.dumps({"weights": weights}), encoding="utf-8")
    onnx_reader.refuse_foreign(
        (folder / WEIGHTS[0]).read_bytes(), safetensors_reader.read(folder / WEIGHTS[1]), "model.onnx"
    )
    images = sample_images(32, 3)
    probabilities = torch.from_numpy(expected(model, images)[0]).softmax(1).numpy()
    np.testing.assert_allclose(load(folder, device="cpu")(images), probabilities, atol=1e-5)


class Disagreeing(nn.Module):
    """A model whose output is 0 in the exporter and a constant in torch."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value

    def forward_features(self, images: torch.Tensor) -> torch.Tensor:
        return images.mean((2, 3)) * 0 + (0 if torch.compiler.is_exporting() else self.value)

    def forward_head(self, tokens: torch.Tensor, pre_logits: bool = False) -> torch.Tensor:
        return tokens


class Undecided(nn.Module):
    """A model that branches on the pixels, which no graph can."""

    def forward_features(self, images: torch.Tensor) -> torch.Tensor:
        return images if images.sum() > 0 else -images

    def forward_head(self, tokens: torch.Tensor, pre_logits: bool = False) -> torch.Tensor:
        return tokens.mean((2, 3))


@pytest.mark.parametrize("value", [1e-3, float("inf")])
def test_a_graph_that_disagrees_with_torch_is_not_written(value: float, tmp_path: Path) -> None:
    with pytest.raises(VtzooError, match="logits of the exported mine differ from torch's by"):
        write_onnx(Disagreeing(value), describe("mine", 3), tmp_path / "a.onnx", source="here")
    assert not list(tmp_path.iterdir())


def test_one_bad_image_in_any_batch_is_enough_to_refuse(tmp_path: Path) -> None:
    class Picky(Disagreeing):
        def forward_features(self, images: torch.Tensor) -> torch.Tensor:
            means = images.mean((2, 3))
            return means if torch.compiler.is_exporting() else torch.where(means > 1, self.value, means)

    images = np.zeros((40, 3, 32, 32), np.uint8)
    images[20] = 255
    with pytest.raises(VtzooError, match="differ from torch's by nan"):
        write_onnx(Picky(float("nan")), describe("mine", 3), tmp_path / "a.onnx", source="here", images=given(images))


def test_a_difference_within_the_tolerance_is_certified(tmp_path: Path) -> None:
    certificate = write_onnx(Disagreeing(5e-5), describe("mine", 3), tmp_path / "a.onnx", source="here")
    assert certificate.max_logit_difference == pytest.approx(5e-5, rel=1e-3)


def test_a_model_that_has_no_graph_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(VtzooError, match="mine cannot be exported to ONNX"):
        write_onnx(Undecided(), describe("mine", 3), tmp_path / "a.onnx", source="here")
    assert not list(tmp_path.iterdir())


def test_a_place_that_cannot_be_written_is_refused_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    places = {
        tmp_path: "it is a folder",
        tmp_path / "no" / "a.onnx": "no is not",
        tmp_path / "file" / "a.onnx": "file is not",
    }
    for out, reason in places.items():
        with pytest.raises(VtzooError, match=reason):
            write_onnx(nn.Identity(), describe("mine", 3), out, source="here")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_write_that_fails_midway_keeps_the_old_file_and_leaves_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.onnx").write_bytes(b"old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("vtzoo.base.files.os.fsync", full)
    with pytest.raises(VtzooError, match=r"cannot write .*a\.onnx: No space left on device"):
        write_onnx(Small(), describe("small", 3), tmp_path / "a.onnx", source="here")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("a.onnx", b"old")]


def test_weights_that_do_not_fit_the_model_are_refused(
    swin: tuple[nn.Module, Path], vit_config: dict[str, Any]
) -> None:
    before = {path: path.stat().st_mtime_ns for path in swin[1].rglob("*")}
    with pytest.raises(VtzooError, match=r"model\.safetensors does not fit"):
        write_packaged_graph(build(vit_config), vit_config, swin[1])
    assert {path: path.stat().st_mtime_ns for path in swin[1].rglob("*")} == before


def test_damaged_or_missing_weights_are_refused_before_the_work(tmp_path: Path) -> None:
    with pytest.raises(VtzooError, match=r"cannot read .*model\.safetensors: No such file"):
        write_packaged_graph(Small(), describe("small", 3), tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"\0" * 4)
    with pytest.raises(VtzooError, match="truncated"):
        write_packaged_graph(Small(), describe("small", 3), tmp_path)
    assert not (tmp_path / "onnx").exists()
