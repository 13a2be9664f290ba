"""A small CNN trained by its recipe: all runtimes agree on its predictions, and whitening happens once."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file

from vtzoo import models
from vtzoo.data import named, named_reader
from vtzoo.data.read import read_images
from vtzoo.data.transform import Preprocess
from vtzoo.errors import VtzooError
from vtzoo.finetune import run as tuning
from vtzoo.finetune.defaults import Overrides
from vtzoo.finetune.session import prepare
from vtzoo.models.cnn import SmallCNN
from vtzoo.predict.load import load
from vtzoo.train import loop, run
from vtzoo.zoo.recipe import Recipe


def test_torch_the_graph_and_plain_timm_agree_on_a_trained_model(small_cnn: Path, tiny_data: Path) -> None:
    test = named_reader.read(named.named_set("cifar10"), "test", tiny_data)
    onnx, torch_ = (load(small_cnn, backend=backend, device="cpu") for backend in ("onnx", "torch"))
    pixels = test.pixels(Preprocess.square(16))
    assert np.abs(onnx(pixels) - torch_(pixels)).max() < 1e-4
    assert np.abs(onnx.embed(pixels) - torch_.embed(pixels)).max() < 1e-3
    model = timm.create_model(f"local-dir:{small_cnn}", pretrained=True).eval()
    mean, std = (torch.tensor(getattr(named.named_set("cifar10"), name)).view(3, 1, 1) for name in ("mean", "std"))
    with torch.inference_mode():
        probabilities = model((torch.from_numpy(pixels) / 255 - mean) / std).softmax(1).numpy()
    assert np.abs(probabilities - onnx(pixels)).max() < 1e-4
    certificate = json.loads((small_cnn / "result.json").read_text())["certificate"]
    assert (certificate["images"], certificate["top1_agreement"]) == (20, 1)


def test_a_run_whitens_by_its_first_training_batch(
    small_cnn: Path, tiny: Callable[..., Recipe], tiny_data: Path
) -> None:
    stored = load_file(small_cnn / "checkpoint.safetensors")["model.whitening.weight"]
    fresh: Any = models.create(json.loads((small_cnn / "config.json").read_text()))
    assert not torch.equal(fresh.whitening.weight, stored)
    recipe, dataset = tiny(baseline=True, small_cnn=True, muon=True), named.named_set("cifar10")
    split = named_reader.read(dataset, "train", tiny_data)
    batches, _ = run.open_batches(
        recipe, split, mean=dataset.mean, std=dataset.std, flip=dataset.flip, seed=0, device=torch.device("cpu")
    )
    run.whiten(recipe, fresh, batches)
    torch.testing.assert_close(fresh.whitening.weight, stored)


def test_a_recipe_may_whiten_the_first_layer_of_any_model(
    recipe_text: Callable[..., str], tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Recorded(BaseException): ...

    def record(run: loop.Run, *_: Any, **__: Any) -> float:
        kernels.append(run.model.get_parameter("patch_embed.proj.weight").clone())
        raise Recorded

    kernels: list[torch.Tensor] = []
    monkeypatch.setattr(run, "fit", record)
    for name, text in (
        ("plain", recipe_text()),
        ("white", recipe_text().replace("[model]", "[model]\nwhitening = 0.01")),
    ):
        (tmp_path / f"{name}.toml").write_text(text)
        with pytest.raises(Recorded):
            run.train(tmp_path / f"{name}.toml", data=tiny_data, out=tmp_path / name, device="cpu")
    plain, white = kernels
    half = len(white) // 2
    assert not torch.equal(plain[:half], -plain[half:])
    assert torch.equal(white[:half], -white[half : 2 * half])


def test_a_model_without_a_first_convolution_to_whiten_is_refused_before_the_data_is_read(
    recipe_text: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "recipe.toml").write_text(recipe_text().replace("[model]", "[model]\nwhitening = 0.01"))
    monkeypatch.setattr(models, "build", lambda *_, **__: torch.nn.Linear(2, 2))
    with pytest.raises(VtzooError, match="Linear starts with no convolution to whiten"):
        run.train(tmp_path / "recipe.toml", data=tmp_path / "nowhere", out=tmp_path / "run", device="cpu")


def test_a_resumed_run_keeps_its_whitening_and_equals_an_uninterrupted_run(
    small_cnn: Path, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException): ...

    def die(state: loop.Run, *rest: Any) -> Any:
        if state.step == 3:
            raise Killed
        return real(state, *rest)

    real, path, out = loop._step, small_cnn / "recipe.toml", tmp_path / "run"
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", -1)
    monkeypatch.setattr(run, "finish", lambda *_, **__: {})
    monkeypatch.setattr(loop, "_step", die)
    with pytest.raises(Killed):
        run.train(path, data=tiny_data, out=out, device="cpu")
    monkeypatch.setattr(loop, "_step", real)
    monkeypatch.setattr(SmallCNN, "whiten", None)
    run.train(path, data=tiny_data, out=out, device="cpu", resume=True)
    actual, expected = (load_file(folder / "checkpoint.safetensors") for folder in (out, small_cnn))
    assert actual.keys() == expected.keys()
    assert all(torch.equal(actual[name], tensor) for name, tensor in expected.items())


def test_fine_tuning_leaves_the_whitening_as_it_was_trained(
    small_cnn: Path, people: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tuning, "finish", lambda *_, result, **__: result)
    monkeypatch.setattr(SmallCNN, "whiten", None)
    job = prepare(small_cnn, read_images(people), overrides=Overrides(epochs=3), device="cpu")
    tuning.finetune(job, tmp_path / "run")
    before = load_file(small_cnn / "model.safetensors")
    after = load_file(tmp_path / "run" / "checkpoint.safetensors")
    assert torch.equal(after["model.whitening.weight"], before["whitening.weight"].float())
    assert not torch.equal(after["model.whitening.bias"], before["whitening.bias"].float())


def test_a_muon_recipe_of_a_model_without_hidden_matrices_is_refused_before_the_data_is_read(
    recipe_text: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Patches(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.pretrained_cfg = {"first_conv": "stem", "classifier": "head"}
            self.stem, self.head = torch.nn.Conv2d(3, 4, 2), torch.nn.Linear(4, 10)

    (tmp_path / "recipe.toml").write_text(recipe_text(muon=True))
    monkeypatch.setattr(models, "build", lambda *_, **__: Patches())
    with pytest.raises(VtzooError, match="Patches has no hidden matrices for Muon to move") as raised:
        run.train(tmp_path / "recipe.toml", data=tmp_path / "nowhere", out=tmp_path / "run", device="cpu")
    assert "leave name, momentum, iterations and adamw_learning_rate out of [optimizer]" in str(raised.value.hint)
