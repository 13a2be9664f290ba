"""The images that verify an export: local images of the model's dataset, never downloaded, or photographs."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from vtzoo.data import named, named_reader
from vtzoo.data.transform import Preprocess
from vtzoo.errors import VtzooError
from vtzoo.export import images
from vtzoo.export.images import sample_images
from vtzoo.export.onnx_files import export_model
from vtzoo.models import create
from vtzoo.predict.load import load
from vtzoo.zoo.model_folder import ModelFolder

PHOTOS = Path(__file__).parents[1] / "photos"
CLASSES = named.labels("cifar10")
assert CLASSES


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small ViT for CIFAR-10."""
    folder = tmp_path_factory.mktemp("runs") / "vit"
    folder.mkdir()
    arguments = {"img_size": 32, "patch_size": 8, "embed_dim": 16, "depth": 1, "num_heads": 1}
    pretrained = {"input_size": [3, 32, 32], "interpolation": "bicubic", "crop_pct": 1.0}
    pretrained |= {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]}
    config = {"architecture": "vit_tiny_patch16_224", "num_classes": 10, "model_args": arguments}
    config |= {"label_names": list(CLASSES or ()), "pretrained_cfg": pretrained}
    torch.manual_seed(0)
    model = create(config)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    save_file(model.state_dict(), folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (folder / "result.json").write_text('{"dataset": "cifar10"}', encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset with CIFAR-10's classes: three test images and three training images per class."""
    root, generator = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    for split in ("train", "test"):
        for name in CLASSES or ():
            (root / split / name).mkdir(parents=True)
            for number in range(3):
                cells = generator.integers(0, 256, (4, 4, 3), dtype=np.uint8)
                Image.fromarray(cells).resize((32, 32)).save(root / split / name / f"{number}.png")
    return root


def test_the_bundled_photographs_are_those_whose_terms_are_stated() -> None:
    bundled = {file.name: file.read_bytes() for file in images.PHOTOGRAPHS.glob("*.jpg")}
    assert bundled == {file.name: file.read_bytes() for file in PHOTOS.glob("*.jpg")}
    stated = (images.PHOTOGRAPHS / "README.md").read_text(encoding="utf-8")
    assert len(bundled) == 4
    assert all(f"`{name}`" in stated for name in bundled)


def test_crops_are_the_same_every_time_and_no_two_alike() -> None:
    crops = sample_images(32, 64)
    assert (crops.dtype, crops.shape) == (np.uint8, (64, 3, 32, 32))
    np.testing.assert_array_equal(crops, sample_images(32, 64))
    assert len({crop.tobytes() for crop in crops}) == 64
    others = images.photograph_crops(Preprocess(size=32, interpolation="bicubic", crop=1.0), 64, seed=1).pixels
    assert not {crop.tobytes() for crop in crops} & {crop.tobytes() for crop in others}


def test_crops_take_any_shape() -> None:
    wide = Preprocess(size=16, width=24, interpolation="bilinear", crop=1.0, mode="squash")
    assert images.photograph_crops(wide, 3).pixels.shape == (3, 3, 16, 24)


def test_a_certificate_counts_what_is_right_on_the_evaluation_split(folder: Path, data: Path, tmp_path: Path) -> None:
    certificate = export_model(folder, tmp_path / "a.onnx", images=30, data=data)
    split = named_reader.read(named.named_set("cifar10"), "test", data)
    assert (certificate.images, certificate.source) == (30, "the test split of cifar10")
    assert certificate.manifest == split.fingerprint
    right = load(folder, backend="torch")(split.pixels(Preprocess.square(32))).argmax(1) == split.targets
    assert certificate.torch_top1 == certificate.onnx_top1 == right.mean()


def test_fewer_images_are_evenly_spaced_over_the_split(folder: Path, data: Path, tmp_path: Path) -> None:
    certificate = export_model(folder, tmp_path / "a.onnx", images=4, data=data)
    split = named_reader.read(named.named_set("cifar10"), "test", data)
    assert certificate.manifest == split.select(np.array([0, 9, 19, 29])).fingerprint


def test_int8_is_calibrated_on_training_images_alone(
    folder: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[np.ndarray] = []
    monkeypatch.setattr("vtzoo.export.onnx_files.quantize", lambda graph, images: seen.append(images) or graph)
    export_model(folder, tmp_path / "a.onnx", images=4, data=data, precision="int8")
    np.testing.assert_array_equal(
        seen[0], named_reader.read(named.named_set("cifar10"), "train", data).pixels(Preprocess.square(32))
    )


@pytest.mark.parametrize("cached", [False, True])
def test_a_data_set_is_read_where_it_is_cached_and_never_downloaded(
    cached: bool, folder: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset, asked = named.named_set("cifar10"), []
    place = tmp_path / dataset.hub_id.replace("/", "___") / "plain_text" / "0.0.0" / str(dataset.revision)
    if cached:
        place.mkdir(parents=True)
        (place / "cifar10-test.arrow").touch()
    read = named_reader.read

    def recorded(row: Any, split: str, source: Path | None = None) -> Any:
        asked.append((row.name, split, source))
        return read(row, split, data)

    monkeypatch.setattr(named_reader.library().config, "HF_DATASETS_CACHE", tmp_path)
    monkeypatch.setattr(named_reader, "read", recorded)
    certificate = export_model(folder, tmp_path / "a.onnx", images=4)
    assert asked == ([("cifar10", "test", None)] if cached else [])
    assert certificate.source == ("the test split of cifar10" if cached else images.BUNDLED)


def test_data_for_a_model_that_names_no_data_set_are_refused(folder: Path, data: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    for name in ("model.safetensors", "config.json"):
        (other / name).write_bytes((folder / name).read_bytes())
    with pytest.raises(VtzooError, match="other names no dataset"):
        export_model(other, tmp_path / "a.onnx", data=data)
    assert export_model(other, tmp_path / "a.onnx", images=3).source == images.BUNDLED


def test_a_folder_without_the_data_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(VtzooError, match="no folder"):
        export_model(folder, tmp_path / "a.onnx", data=tmp_path / "nowhere")
    assert not list(tmp_path.iterdir())


def test_a_file_says_where_its_weights_are_from(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commit = "0123456789" * 4
    cached = tmp_path / "models--some-org--mine" / "snapshots" / commit
    shutil.copytree(folder, cached)
    sha256 = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    entry = ModelFolder("mine", cached, pinned={"model.safetensors": sha256})
    monkeypatch.setattr("vtzoo.export.onnx_files.fetch.model_folder", lambda name, **_: entry)
    export_model("some-org/mine", tmp_path / "a.onnx", images=2)
    stated = {item.key: item.value for item in onnx.load(tmp_path / "a.onnx").metadata_props}["vtzoo.source"]
    assert stated == f"mine sha256:{sha256} some-org/mine@{commit}"
