"""Published models in timm, transformers and ONNX Runtime, and timm's models in vtzoo."""

import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import numpy as np
import onnxruntime
import pytest
import timm
import torch
from folders import NAME, pixels
from server import Hub
from timm.models import save_for_hf

import vtzoo
from vtzoo import models
from vtzoo.cli import DEFAULT_MODEL
from vtzoo.data.transform import Preprocess, prepare
from vtzoo.publish import commit

Run = Vt = Callable[..., CompletedProcess[str]]

# Prints whether timm's model of a repository has the zoo's logits, to the last bit.
SAME_LOGITS = """
import sys, timm, torch, vtzoo, vtzoo.models
for repo in sys.argv[1:]:
    ours = vtzoo.load(repo, backend="torch").model
    theirs = timm.create_model(f"hf-hub:{repo}", pretrained=True).eval()
    size = theirs.pretrained_cfg["input_size"]
    images = torch.rand(4, *size, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        print(repo, torch.equal(ours(images), theirs(images)), tuple(theirs(images).shape))
"""

# Prints the result of transformers' pipeline for an image, and the shape of its processed input.
PIPELINE = """
import json, sys
from PIL import Image
from transformers import AutoImageProcessor, pipeline
repo, file = sys.argv[1:]
processor = AutoImageProcessor.from_pretrained(repo)
shape = list(processor(Image.open(file).convert("RGB"), return_tensors="pt")["pixel_values"].shape)
answers = pipeline("image-classification", model=repo)(file, top_k=5)
print(json.dumps({"shape": shape, "answers": answers}))
"""


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    pixels(3).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def test_plain_timm_gives_the_exact_logits_of_what_we_publish(
    hub: Hub, run: Run, files: dict[str, bytes], tmp_path: Path
) -> None:
    hub.push(f"zoo/{NAME}", files)
    for architecture in ("vtzoo_cvt_13", "vtzoo_t2t_vit_14"):
        hub.push(f"zoo/{architecture}", own_architecture(architecture, tmp_path / architecture))
    repos = [f"zoo/{NAME}", "zoo/vtzoo_cvt_13", "zoo/vtzoo_t2t_vit_14"]
    done = run(f"import sys; sys.argv = ['-', *{repos}]\n{SAME_LOGITS}")
    assert done.stdout.splitlines() == [f"{repo} True (4, 10)" for repo in repos], done.stderr


def own_architecture(architecture: str, folder: Path) -> dict[str, bytes]:
    """The two files that timm loads of a vtzoo architecture at 32 px."""
    torch.manual_seed(0)
    model = models.build(architecture, num_classes=10, image_size=32)
    save_for_hf(model, folder, model_config={"model_args": {"img_size": 32}}, safe_serialization=True)
    return {name: (folder / name).read_bytes() for name in ("config.json", "model.safetensors")}


def test_transformers_pipeline_and_image_processor_answer_as_we_do(
    hub: Hub, vt: Vt, run: Run, photo: Path, tmp_path: Path
) -> None:
    hub.push(f"zoo/{DEFAULT_MODEL}", commit.prepare(DEFAULT_MODEL, "zoo").files)
    ours = json.loads(vt("predict", photo, "--model", f"zoo/{DEFAULT_MODEL}", "--json").stdout)[0]["predictions"]
    done = run(f"import sys; sys.argv = ['-', 'zoo/{DEFAULT_MODEL}', {str(photo)!r}]\n{PIPELINE}")
    assert done.returncode == 0, done.stderr
    theirs = json.loads(done.stdout)
    assert theirs["shape"] == [1, 3, 32, 32]
    assert [one["label"] for one in theirs["answers"]] == [one["label"] for one in ours]
    np.testing.assert_allclose(
        [one["score"] for one in theirs["answers"]], [one["probability"] for one in ours], atol=1e-5
    )


def test_the_published_onnx_file_needs_nothing_beside_it(files: dict[str, bytes], folder: Path) -> None:
    session = onnxruntime.InferenceSession(files["onnx/model.onnx"], providers=["CPUExecutionProvider"])
    image = prepare(pixels(0), Preprocess(size=16, interpolation="bicubic", crop=1.0))[None]
    (logits,) = session.run(["logits"], {"images": image})
    with_weights_beside, _ = vtzoo.load(folder, backend="onnx").run(image)
    np.testing.assert_allclose(logits, with_weights_beside, atol=1e-6)
    labels = json.loads(session.get_modelmeta().custom_metadata_map["vtzoo.labels"])
    assert labels == json.loads(files["config.json"])["label_names"]


def timm_repository(folder: Path, name: str, **settings: object) -> tuple[torch.nn.Module, dict[str, bytes]]:
    """A timm model with random weights, and its repository's files in timm's format."""
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=3)
    model.pretrained_cfg = model.pretrained_cfg | settings
    config = {"label_names": ["ant", "bee", "cat"]}
    save_for_hf(model.eval(), folder, model_config=config, safe_serialization=True)
    return model, {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_model_of_timms_predicts_with_its_own_labels_and_transform(
    hub: Hub, vt: Vt, photo: Path, tmp_path: Path
) -> None:
    model, content = timm_repository(tmp_path / "theirs", "resnet10t", crop_pct=0.9, interpolation="bilinear")
    hub.push("timm/resnet10t.test", content)
    (image,) = json.loads(vt("predict", photo, "--model", "hf-hub:timm/resnet10t.test", "--json").stdout)
    told = {one["label"]: one["probability"] for one in image["predictions"]}
    data = timm.data.resolve_model_data_config(model)
    assert (data["crop_pct"], data["interpolation"]) == (0.9, "bilinear")
    with torch.inference_mode():
        truth = model(timm.data.create_transform(**data)(pixels(3))[None]).softmax(1)[0]
    assert told.keys() == {"ant", "bee", "cat"}
    np.testing.assert_allclose([told[label] for label in ("ant", "bee", "cat")], truth, atol=1e-5)


def test_a_repository_with_a_pickle_alone_is_refused_and_its_weights_never_fetched(
    hub: Hub, vt: Vt, photo: Path, tmp_path: Path
) -> None:
    _, content = timm_repository(tmp_path / "theirs", "resnet10t")
    content.pop("model.safetensors")
    hub.push("timm/old", content | {"pytorch_model.bin": b"pickled"})
    done = vt("predict", photo, "--model", "hf-hub:timm/old", check=False)
    assert done.returncode == 1
    assert "timm/old has no model.safetensors" in done.stderr
    assert not [path for _, path, _ in hub.requests if "pytorch_model.bin" in path]
