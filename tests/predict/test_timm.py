"""Folders in timm's Hub format: predictions and class names equal timm's, or the folder is refused."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from forked import Python
from PIL import Image
from safetensors.torch import load_file, save_file
from timm.data import create_transform, resolve_model_data_config
from timm.models import get_model_input_config, save_for_hf

import vtzoo.models  # noqa: F401  registers vtzoo_cvt_13 and vtzoo_t2t_vit_14 with timm
from vtzoo.data.transform import prepare, read_image
from vtzoo.errors import VtzooError
from vtzoo.predict.classifier import Classifier
from vtzoo.predict.load import load
from vtzoo.predict.torch import imagenet_labels
from vtzoo.zoo import resources

PHOTOS = sorted((Path(__file__).parents[1] / "photos").glob("*.jpg"))
EMBEDDED = resources.weights_folder() / "swin_t-drloc-cifar100"
TINY = {"patch_size": 8, "embed_dim": 48, "depth": 2, "num_heads": 3}
# One small model of each family: the paper's five, and families with other layouts.
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "swin": (
        "swin_tiny_patch4_window7_224",
        {"img_size": 32, "patch_size": 2, "window_size": 4, "embed_dim": 16, "depths": [2, 1], "num_heads": [1, 2]},
    ),
    "cvt": ("vtzoo_cvt_13", {"img_size": 32, "patch_size": 2}),
    "t2t": ("vtzoo_t2t_vit_14", {"img_size": 32, "strides": [1, 2, 2]}),
    "vit": ("vit_base_patch16_224", {"img_size": 32} | TINY),
    "resnet": ("resnet50", {"layers": [1, 1, 1, 1], "channels": [8, 8, 16, 16]}),
    "convnext": ("convnext_atto", {"depths": [1, 1, 1, 1], "dims": [8, 16, 16, 32]}),
    "averaging vit": ("vit_base_patch16_224", {"img_size": [32, 48], "global_pool": "avg"} | TINY),
    "deit": ("deit_tiny_distilled_patch16_224", {"img_size": 32} | TINY),
    "mobilenet": ("mobilenetv3_small_050", {}),
}

Written = Callable[..., Path]


def make(name: str, **arguments: Any) -> Any:
    """A timm model with weights and statistics random enough to tell images apart."""
    architecture, usual = MODELS[name]
    torch.manual_seed(0)
    model = timm.create_model(architecture, **{"num_classes": 7, **usual, **arguments})
    for tensor in model.parameters():
        if tensor.ndim > 1 and tensor.requires_grad:
            torch.nn.init.normal_(tensor, std=2 * tensor[0].numel() ** -0.5)
        elif tensor.requires_grad:
            torch.nn.init.uniform_(tensor, 0.5, 1.5)
    return model


@pytest.fixture
def written(tmp_path: Path) -> Written:
    """Writes a model in timm's Hub format, with changed keys of config.json; `...` leaves a key out."""

    def write(model: Any, **changes: Any) -> Path:
        folder, size = tmp_path / "pushed", get_model_input_config(model)["input_size"]
        save_for_hf(model, str(folder), safe_serialization=True, data_config={"input_size": size})
        rewrite(folder, **changes)
        return folder

    return write


def rewrite(folder: Path, **changes: Any) -> None:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8")) | changes
    config = {key: value for key, value in config.items() if value is not ...}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")


def pretrained(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "config.json").read_text(encoding="utf-8"))["pretrained_cfg"]


def change_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> None:
    save_file(change(load_file(folder / "model.safetensors")), folder / "model.safetensors")


def timm_answers(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Logits and pooled features of the photographs, by timm's own loading, transform and forward pass."""
    model: Any = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    transform: Any = create_transform(**resolve_model_data_config(model), is_training=False)
    images = torch.stack([transform(Image.open(photo).convert("RGB")) for photo in PHOTOS])
    with torch.inference_mode():
        logits = model(images)
        features = model.forward_head(model.forward_features(images), pre_logits=True)
    return logits.numpy(), features.numpy()


def our_logits(classifier: Classifier) -> np.ndarray:
    return classifier.run(np.stack([prepare(read_image(photo), classifier.preprocess) for photo in PHOTOS]))[0]


def assert_answers_as_timm(folder: Path) -> None:
    classifier = load(folder, device="cpu")
    logits, features = timm_answers(folder)
    assert np.ptp(logits, axis=0).max() > 1e-2  # otherwise agreement would be trivial
    np.testing.assert_array_equal(our_logits(classifier), logits)
    np.testing.assert_array_equal(classifier.embed([str(photo) for photo in PHOTOS]), features)
    np.testing.assert_allclose(
        classifier([str(photo) for photo in PHOTOS]), torch.from_numpy(logits).softmax(1), atol=1e-6
    )


def refusal(folder: Path, **options: Any) -> VtzooError:
    with pytest.raises(VtzooError) as caught:
        load(folder, **options)
    return caught.value


# --- the same numbers --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
def test_a_folder_that_timm_wrote_gives_the_logits_of_timm(name: str, written: Written) -> None:
    assert_answers_as_timm(written(make(name)))


@pytest.mark.parametrize(
    "change",
    [
        {"crop_pct": 0.9, "crop_mode": "squash", "interpolation": "bilinear"},
        {"crop_pct": 1.0, "crop_mode": "border", "interpolation": "lanczos", "mean": [0.5, 0.4, 0.3]},
        {"input_size": [3, 96, 64], "test_input_size": [3, 128, 128], "crop_pct": None, "mean": None, "std": None},
    ],
)
def test_a_folder_with_another_transform_gives_the_logits_of_timm(change: dict[str, Any], written: Written) -> None:
    folder = written(make("resnet"))
    rewrite(folder, pretrained_cfg=pretrained(folder) | change)
    assert_answers_as_timm(folder)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_weights_of_half_precision_give_the_logits_of_timm(dtype: torch.dtype, written: Written) -> None:
    folder = written(make("vit"))
    change_weights(folder, lambda weights: {name: tensor.to(dtype) for name, tensor in weights.items()})
    assert_answers_as_timm(folder)


def test_a_config_of_timms_first_format_gives_the_logits_of_timm(written: Written) -> None:
    folder = written(timm.create_model("resnet18", num_classes=7))
    table = pretrained(folder) | {"interpolation": "bicubic", "crop_pct": 0.875}
    rewrite(folder, pretrained_cfg=..., model_args=..., global_pool=..., labels=list("abcdefg"), **table)
    assert_answers_as_timm(folder)
    assert load(folder).labels == tuple("abcdefg")


def test_the_places_to_load_from_in_a_config_are_never_looked_at(written: Written, tmp_path: Path) -> None:
    folder = written(make("resnet"))
    expected = timm_answers(folder)[0]
    elsewhere = {"file": str(tmp_path / "elsewhere.pth"), "source": "local-dir", "custom_load": True, "url": "x://y"}
    rewrite(folder, pretrained_cfg=pretrained(folder) | elsewhere | {"hf_hub_id": "somebody/model", "state_dict": {}})
    change_weights(folder, without_counters)  # so that timm itself loads the weights
    classifier = load(folder, device="cpu")
    np.testing.assert_array_equal(our_logits(classifier), expected)


# --- weights that are not as timm's model is today ---------------------------------------------------------------


def without_counters(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Like files from before torch 0.4."""
    return {name: tensor for name, tensor in weights.items() if "num_batches_tracked" not in name}


def with_fixed_buffers(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Like files of Swin's authors, which include the computed buffers."""
    index = torch.zeros(16, 16, dtype=torch.int64)
    return weights | {
        "layers.0.blocks.0.attn.relative_position_index": index,
        "layers.0.blocks.1.attn_mask": index.float(),
    }


def of_more_positions(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Like the file of a model for images of 48 px instead of 32."""
    return weights | {"pos_embed": torch.randn(1, 37, 48, generator=torch.Generator().manual_seed(1))}


def with_a_background_class(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Like TensorFlow's files, with a class before the first."""
    return weights | {
        "fc.weight": torch.randn(8, 64, generator=torch.Generator().manual_seed(1)),
        "fc.bias": torch.arange(8.0),
    }


@pytest.mark.parametrize(
    ("name", "change", "changes"),
    [
        ("resnet", without_counters, {}),
        ("swin", with_fixed_buffers, {}),
        ("vit", of_more_positions, {}),
        ("resnet", with_a_background_class, {"label_offset": 1}),
    ],
)
def test_older_weights_go_through_timms_own_filter(
    name: str, change: Any, changes: dict[str, Any], written: Written
) -> None:
    folder = written(make(name))
    rewrite(folder, pretrained_cfg=pretrained(folder) | changes)
    change_weights(folder, change)
    assert_answers_as_timm(folder)


@pytest.mark.parametrize("name", ["resnet", "convnext", "swin", "t2t", "mobilenet"])
def test_a_tensor_less_or_more_is_refused_for_all_of_timms_filters(name: str, written: Written) -> None:
    folder = written(make(name))
    norm = next(key for key in load_file(folder / "model.safetensors") if key.endswith("bias"))
    change_weights(folder, lambda weights: {key: tensor for key, tensor in weights.items() if key != norm})
    assert f"does not fit its config.json: {norm} is missing" in refusal(folder).message
    change_weights(folder, lambda weights: weights | {norm: torch.ones(5), "zzz": torch.ones(1)})
    assert "model.safetensors does not fit its config.json" in refusal(folder).message


def test_an_architecture_that_timm_loads_loosely_is_loaded_strictly(written: Written) -> None:
    folder = written(timm.create_model("dla34", num_classes=7))
    change_weights(folder, lambda weights: {key: tensor for key, tensor in weights.items() if key != "fc.bias"})
    timm.create_model(f"local-dir:{folder}", pretrained=True)  # does not mind
    assert "does not fit its config.json: fc.bias is missing" in refusal(folder).message


def test_weights_in_a_pickle_alone_are_refused_by_name(tmp_path: Path) -> None:
    save_for_hf(make("resnet"), str(tmp_path / "pickled"), safe_serialization=False)
    error = refusal(tmp_path / "pickled")
    assert "pickled has its weights only in pytorch_model.bin: a pickle" in error.message
    assert "model.safetensors" in str(error.hint)


def test_a_pickle_beside_the_weights_does_no_harm(written: Written) -> None:
    folder = written(make("resnet"))
    (folder / "pytorch_model.bin").write_bytes(b"no pickle at all")
    assert load(folder)(str(PHOTOS[0])).shape == (1, 7)


def test_weights_that_are_not_finite_are_refused(written: Written) -> None:
    folder = written(make("resnet"))
    change_weights(folder, lambda weights: weights | {"fc.bias": torch.full((7,), torch.nan)})
    assert "fc.bias in" in refusal(folder).message


def test_images_of_a_size_that_the_model_cannot_take_are_one_sentence(written: Written) -> None:
    folder = written(make("vit"))
    rewrite(folder, pretrained_cfg=pretrained(folder) | {"input_size": [3, 48, 48], "fixed_input_size": False})
    with pytest.raises(VtzooError, match=r"torch could not run the model: .*48"):
        load(folder)(str(PHOTOS[0]))


# --- the names of the classes ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("naming", "labels"),
    [
        ({"label_names": ["n01", "n02", "n03"]}, ("n01", "n02", "n03")),
        ({"label_names": {"0": "n01", "2": "n03"}}, ("n01", "1", "n03")),
        (
            {"label_names": ["n01", "n02", "n03"], "label_descriptions": {"n01": "cat", "n03": "dog"}},
            ("cat", "n02", "dog"),
        ),
        (
            {
                "label_names": ["n01", "n02", "n03"],
                "label_descriptions": {"n01": "crane", "n02": "cat", "n03": "crane"},
            },
            ("crane (n01)", "cat", "crane (n03)"),
        ),
        ({"label_names": ["n01", "n02", "n03"], "label_descriptions": ["cat", "dog", "rat"]}, ("cat", "dog", "rat")),
        ({"label_descriptions": ["cat", "dog", "rat"]}, ("cat", "dog", "rat")),
        ({"label_names": ["cat", "cat", "dog"]}, ("cat", "cat", "dog")),
        ({}, ("0", "1", "2")),
    ],
)
@pytest.mark.parametrize("place", ["top", "pretrained_cfg"])
def test_classes_are_called_by_what_the_config_describes_them_as(
    naming: dict[str, Any], labels: tuple[str, ...], place: str, written: Written
) -> None:
    folder = written(make("resnet", num_classes=3))
    rewrite(folder, **(naming if place == "top" else {"pretrained_cfg": pretrained(folder) | naming}))
    assert load(folder).labels == labels


def test_the_classes_of_imagenet_are_called_by_their_names(written: Written) -> None:
    labels = load(written(make("resnet", num_classes=1000))).labels
    # The first and the last of ILSVRC 2012, and its cranes: the bird and the machine.
    assert (labels[0], labels[999]) == ("tench, Tinca tinca", "toilet tissue, toilet paper, bathroom tissue")
    assert (labels[134], labels[517]) == ("crane (n02012849)", "crane (n03126707)")
    assert len(set(labels)) == 1000


@pytest.mark.parametrize("classes", [11221, 11821, 21841, 21842, 21843])
def test_the_classes_of_every_larger_imagenet_have_names_of_their_own(classes: int) -> None:
    labels = imagenet_labels(classes)
    assert labels is not None
    assert len(set(labels)) == classes


def test_a_thousand_classes_with_names_are_not_imagenets(written: Written) -> None:
    names = [str(index) for index in range(1000)]
    assert load(written(make("resnet", num_classes=1000), label_names=names)).labels == tuple(names)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"label_names": {"cat": "0"}}, "has no list of class names: "),
        ({"label_names": {"3": "cat"}}, "has no list of class names: it names class 3, and its model has 3"),
        ({"label_names": {"0": 1}}, "has no list of class names"),
        ({"label_descriptions": "cat"}, "has no list of class names"),
        ({"label_descriptions": ["cat"]}, "names 1 classes, and its model has 3"),
        ({"pretrained_cfg": [1]}, "cannot be read as timm's"),
    ],
)
def test_names_that_fit_no_model_are_refused(change: dict[str, Any], message: str, written: Written) -> None:
    assert message in refusal(written(make("resnet", num_classes=3), **change)).message


def test_a_model_without_a_classifier_is_refused(written: Written) -> None:
    assert "describes a model of 0 classes" in refusal(written(make("resnet", num_classes=0))).message


# --- on plain timm and transformers ------------------------------------------------------------------------------


def test_timm_gives_the_logits_of_the_embedded_model() -> None:
    classifier = load(EMBEDDED, backend="torch", device="cpu")
    np.testing.assert_array_equal(our_logits(classifier), timm_answers(EMBEDDED)[0])


def ask_transformers(python: Python, folder: Path) -> list[dict[str, float]]:
    """The output of transformers' pipeline for each photograph: all labels with their probabilities."""
    script = """
import json, sys
import vtzoo.models
from transformers import AutoImageProcessor, pipeline
folder, *photos = sys.argv[1:]
assert type(AutoImageProcessor.from_pretrained(folder)).__name__ == "TimmWrapperImageProcessor"
classify = pipeline("image-classification", model=folder, device="cpu", top_k=100)
print(json.dumps([{one["label"]: one["score"] for one in classify(photo)} for photo in photos]))
"""
    done = python("-c", script, folder, *PHOTOS)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def assert_transformers_agrees(python: Python, folder: Path) -> None:
    classifier = load(folder, device="cpu")
    for photo, answer in zip(PHOTOS, ask_transformers(python, folder), strict=True):
        expected = dict(zip(classifier.labels, classifier(str(photo))[0].tolist(), strict=True))
        assert answer == pytest.approx(expected, abs=1e-4)


def test_transformers_gives_the_probabilities_of_the_embedded_model(python: Python, tmp_path: Path) -> None:
    shutil.copytree(EMBEDDED, tmp_path / "copy", ignore=shutil.ignore_patterns("README.md"))
    assert_transformers_agrees(python, tmp_path / "copy")


@pytest.mark.parametrize("name", ["cvt", "t2t"])
def test_transformers_gives_the_probabilities_of_our_own_architectures(
    name: str, python: Python, written: Written
) -> None:
    folder = written(make(name), model_args=MODELS[name][1], label_names=list("abcdefg"))
    assert_transformers_agrees(python, folder)
