"""Classification on torch, against timm's own pass and against ONNX Runtime."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

from vtzoo.errors import VtzooError
from vtzoo.predict.load import load

PHOTOS = sorted((Path(__file__).parents[1] / "photos").glob("*.jpg"))


@pytest.fixture
def copy(swin: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(swin, tmp_path / "copy"))


@pytest.fixture
def rewrite(copy: Path, hand: Any) -> Callable[..., None]:
    """Changes the tensors of the copied model folder, and signs it again."""

    def write(change: Callable[[dict[str, torch.Tensor]], Any]) -> None:
        tensors = load_file(copy / "model.safetensors")
        change(tensors)
        save_file(tensors, copy / "model.safetensors")
        hand.sign(copy)

    return write


def pixels(count: int) -> np.ndarray:
    return np.random.default_rng(count).integers(0, 256, (count, 3, 32, 32), dtype=np.uint8)


def refusal(folder: Path, **options: Any) -> str:
    with pytest.raises(VtzooError) as caught:
        load(folder, backend="torch", **options)
    return caught.value.message


def test_torch_gives_the_numbers_of_timms_own_pass(swin: Path) -> None:
    config = json.loads((swin / "config.json").read_text(encoding="utf-8"))
    model = timm.create_model(config["architecture"], num_classes=10, **config["model_args"]).eval()
    model.load_state_dict({name: tensor.float() for name, tensor in load_file(swin / "model.safetensors").items()})
    mean, std = (np.reshape(config["pretrained_cfg"][key], (1, 3, 1, 1)) for key in ("mean", "std"))
    images = pixels(5)
    with torch.no_grad():
        logits = model(torch.from_numpy(((images / 255 - mean) / std).astype(np.float32)))
    np.testing.assert_allclose(load(swin, backend="torch")(images), logits.softmax(1).numpy(), atol=1e-5)


def test_torch_and_onnx_runtime_agree(swin: Path) -> None:
    on_torch, on_onnx = load(swin, backend="torch", device="cpu"), load(swin, device="cpu")
    for images in ([*PHOTOS], pixels(64)):
        expected = on_torch(images)
        assert expected.argmax(1).tolist() == on_onnx(images).argmax(1).tolist()
        np.testing.assert_allclose(on_onnx(images), expected, atol=1e-5)
        np.testing.assert_allclose(on_onnx.embed(images), on_torch.embed(images), atol=1e-3)


def test_the_answers_of_different_images_differ(swin: Path) -> None:
    assert np.ptp(load(swin)(pixels(16)), axis=0).max() > 1e-3  # otherwise agreement would be trivial


def test_a_read_only_batch_is_classified_without_a_warning(swin: Path) -> None:
    images = pixels(2)
    expected = load(swin, backend="torch")(images)
    images.flags.writeable = False
    np.testing.assert_array_equal(load(swin, backend="torch")(images), expected)


def test_a_missing_tensor_is_refused_by_name(rewrite: Callable[..., None], copy: Path) -> None:
    rewrite(lambda tensors: tensors.pop("norm.weight"))
    assert "does not fit its config.json: norm.weight is missing" in refusal(copy)


def test_a_tensor_too_many_is_refused_by_name(rewrite: Callable[..., None], copy: Path) -> None:
    rewrite(lambda tensors: tensors.update(extra=torch.ones(2)))
    assert "the model has no extra" in refusal(copy)


def test_a_tensor_of_another_shape_is_refused_with_both_shapes(rewrite: Callable[..., None], copy: Path) -> None:
    rewrite(lambda tensors: tensors.update({"norm.weight": torch.ones(7)}))
    assert "norm.weight has shape (7,), not (32,)" in refusal(copy)


def test_changed_weights_are_refused(copy: Path) -> None:
    content = bytearray((copy / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (copy / "model.safetensors").write_bytes(content)
    assert "does not have the sha256" in refusal(copy)


@pytest.mark.parametrize(
    "change",
    [
        {"architecture": "no_such_architecture"},
        {"model_args": {"img_size": "big"}},
        {"model_args": {"no_such_argument": 1}},
    ],
)
def test_a_config_that_makes_no_model_is_refused(change: dict[str, Any], copy: Path) -> None:
    config = json.loads((copy / "config.json").read_text(encoding="utf-8")) | change
    (copy / "config.json").write_text(json.dumps(config), encoding="utf-8")
    assert "config.json does not describe a model: " in refusal(copy)


@pytest.mark.skipif(torch.cuda.is_available(), reason="CUDA works here")
def test_cuda_that_does_not_work_is_an_error(swin: Path) -> None:
    assert "CUDA" in refusal(swin, device="cuda")
