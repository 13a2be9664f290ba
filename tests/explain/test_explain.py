"""Whole explanations: from a photograph and a model folder to the JSON, the text and the picture."""

import io
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import vtzoo
from vtzoo.errors import VtzooError
from vtzoo.explain.drawing import render
from vtzoo.explain.explanation import GRAD_CAM, ROLLOUT, ClassMap, Explanation, explain
from vtzoo.explain.geometry import Box

VIT = {"img_size": 32, "patch_size": 4, "embed_dim": 16, "depth": 2, "num_heads": 2}
Make = Callable[..., Path]


def test_the_explained_class_is_the_one_that_predict_puts_first(photos: Any) -> None:
    model = "swin_t-drloc-cifar100"
    found = explain(model, photos.rocket, device="cpu")
    classify = vtzoo.load(model, device="cpu")
    (probabilities,) = classify(str(photos.rocket))
    assert found.maps[0].label == classify.labels[probabilities.argmax()]
    assert found.maps[0].probability == pytest.approx(probabilities.max(), abs=1e-4)
    assert found.method == GRAD_CAM
    answer = found.as_json()
    keys = ["class", "probability", "method", "grid", "crop", "classes", "localization"]
    assert list(answer) == keys
    assert answer["crop"] == [80, 0, 400, 320]
    assert answer["grid"] == [4, 4]
    assert 0 < answer["localization"]["error_cells"] < answer["localization"]["constant_cells"]
    assert json.loads(json.dumps(answer)) == answer


def test_several_classes_are_the_most_probable_ones_each_with_its_own_map(photos: Any) -> None:
    found = explain("swin_t-drloc-cifar100", photos.rocket, top_k=3, device="cpu")
    classify = vtzoo.load("swin_t-drloc-cifar100", device="cpu")
    best = [classify.labels[index] for index in np.argsort(-classify(str(photos.rocket))[0])[:3]]
    assert [one.label for one in found.maps] == best
    assert not np.allclose(found.maps[0].cells, found.maps[1].cells)


def test_a_class_that_is_asked_for_is_explained_however_improbable(photos: Any) -> None:
    classify = vtzoo.load("swin_t-drloc-cifar100")
    last = classify.labels[classify(str(photos.rocket))[0].argmin()]
    found = explain("swin_t-drloc-cifar100", photos.rocket, label=last, device="cpu")
    assert [one.label for one in found.maps] == [last]
    assert found.maps[0].probability < 0.01


@pytest.mark.parametrize(
    ("name", "size", "arguments"),
    [("vit_tiny_patch16_224", 32, VIT), ("vtzoo_t2t_vit_14", 32, {"img_size": 32, "strides": (1, 2, 2)})],
)
def test_a_plain_vision_transformer_is_rolled_out_but_for_classes_that_are_asked_for(
    name: str, size: int, arguments: dict[str, Any], make: Make, photos: Any
) -> None:
    folder = make(name, size, **arguments)
    found = explain(folder, photos.coffee, device="cpu")
    assert (found.method, found.maps[0].cells.shape) == (ROLLOUT, (8, 8))
    assert found.localization is None
    assert found.as_json()["localization"] is None
    assert explain(folder, photos.coffee, label="rocket", device="cpu").method == GRAD_CAM
    assert explain(folder, photos.coffee, top_k=2, device="cpu").method == GRAD_CAM


def test_a_multi_label_model_is_explained_with_a_sigmoid(make: Make, photos: Any) -> None:
    folder = make("resnet18", 128)
    single = explain(folder, photos.coffee, top_k=4, device="cpu")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps({**config, "multi_label": True}), encoding="utf-8")
    several = explain(folder, photos.coffee, top_k=4, device="cpu")
    logits = [np.log(one.probability) for one in single.maps]
    found = [np.log(one.probability / (1 - one.probability)) for one in several.maps]
    np.testing.assert_allclose(np.diff(found), np.diff(logits), atol=1e-4)


def heated(cells: np.ndarray, *, method: str = GRAD_CAM, label: str = "cat") -> Explanation:
    """The explanation of a grey photograph, 300 x 200; the model saw its middle square."""
    class_map = ClassMap(label=label, probability=0.5, cells=cells.astype(np.float32))
    photo, box = Image.new("RGB", (300, 200), (128, 128, 128)), Box(left=50.0, top=0.0, right=250.0, bottom=200.0)
    return Explanation(photo=photo, box=box, method=method, maps=(class_map,), localization=None)


def panel(content: bytes) -> np.ndarray:
    """The photograph in the second of two panels, resized to its own 300 x 200 pixels: it spans the panel's width."""
    picture = Image.open(io.BytesIO(content)).convert("RGB")
    scale = picture.width / (2 * (3.6 + 0.2) + 0.2)  # pixels per inch
    left, top = (0.2 + 3.8) * scale, 0.4 * scale
    box = (left, top, left + 3.6 * scale, top + 2.4 * scale)
    return np.asarray(picture.resize((300, 200), box=box), float)


def test_the_hot_corner_of_the_picture_is_the_hot_corner_of_the_map_and_what_was_cut_off_is_dark() -> None:
    cells = np.zeros((4, 4))
    cells[3, 0] = 1
    shown = panel(render(heated(cells)))
    brightness = shown.mean(axis=2)
    assert brightness[:, :45].max() < 40  # left and right of the model's crop
    assert brightness[:, 255:].max() < 40
    row, column = np.unravel_index(np.argmax(shown[..., 0]), brightness.shape)
    assert (50 < column < 100, 150 < row < 200) == (True, True)
    assert brightness[10:90, 150:240].min() > 60  # a cold part of the crop


@pytest.mark.parametrize("method", [GRAD_CAM, ROLLOUT])
def test_a_map_that_is_flat_and_a_name_that_no_font_has_are_drawn_without_a_warning(method: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        content = render(heated(np.zeros((4, 4)), method=method, label="猫 $\\frac a$ " + "x" * 60))
    assert Image.open(io.BytesIO(content)).format == "PNG"


def test_a_whole_explanation_is_drawn_with_a_panel_for_each_thing(photos: Any) -> None:
    widths = {}
    for top_k in (1, 5):
        found = explain("swin_t-drloc-cifar100", photos.rocket, top_k=top_k, device="cpu")
        widths[top_k] = Image.open(io.BytesIO(render(found))).size
    assert widths[5][0] == widths[1][0]  # four panels per row
    assert widths[5][1] == pytest.approx(2 * widths[1][1], abs=1)


def test_the_text_states_the_visible_part_only_if_some_was_cut_off(make: Make, photos: Any) -> None:
    lines = heated(np.ones((4, 4))).as_text().splitlines()
    assert lines == [
        "   50.0%  cat",
        "method: Grad-CAM on 4x4 cells",
        "seen: 200x200 of 300x200 pixels, from column 50 and row 0; the rest was cut off",
    ]
    assert "seen" not in explain("swin_t-drloc-cifar100", photos.astronaut, device="cpu").as_text()
    whole = explain(make("vit_tiny_patch16_224", 32, **VIT), photos.astronaut, device="cpu").as_text()
    assert "attention rollout on 8x8 cells, the same for every class" in whole


def test_a_number_of_classes_below_1_is_refused(photos: Any) -> None:
    with pytest.raises(VtzooError, match="the number of classes to explain must be at least 1, not 0"):
        explain("swin_t-drloc-cifar100", photos.rocket, top_k=0, device="cpu")
