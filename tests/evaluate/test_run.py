"""Evaluations of a model on the user's images, against scores by hand."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from vtzoo.data.read import read_images
from vtzoo.errors import VtzooError
from vtzoo.evaluate import run as assessing
from vtzoo.evaluate.images import Request, images_for
from vtzoo.evaluate.predictions import predict_images
from vtzoo.evaluate.run import Assessment, assess, of_classifier
from vtzoo.zoo import lookup
from vtzoo.zoo.result import Result

Photos = Callable[..., Path]


@pytest.fixture
def pets(photos: Photos, sees: type) -> tuple[Path, Assessment]:
    """Five cats, one of them predicted as a dog, and five dogs, with a model that orders the classes differently."""
    root = photos(cat=[1, 1, 1, 1, 0], dog=[0] * 5)
    return root, of_classifier("mine", sees("dog", "cat"), Request(data=str(root)), Result())


def test_scores_are_in_the_model_s_order_of_classes(pets: tuple[Path, Assessment]) -> None:
    found = pets[1].as_json()
    assert (found["top1"], found["top5"], found["images"]) == (0.9, 1.0, 10)
    assert [one["label"] for one in found["per_class"]] == ["dog", "cat"]
    assert [one["recall"] for one in found["per_class"]] == [1.0, 0.8]
    assert list(found["confused"]) == [{"label": "cat", "predicted": "dog", "images": 1}]
    assert found["expected_calibration_error"] == pytest.approx(0.2)  # 0.9 right of those that say 0.7


def test_json_begins_with_the_accuracies_and_says_which_images_gave_them(pets: tuple[Path, Assessment]) -> None:
    root, found = pets
    told = found.as_json()
    assert list(told)[:6] == ["top1", "top5", "images", "manifest", "seconds", "images_per_second"]
    assert (told["model"], told["data"], told["split"]) == ("mine", str(root), "all")
    assert (told["notes"], told["unknown"], told["unreadable"]) == ([], 0, [])
    assert told["images_per_second"] == pytest.approx(10 / told["seconds"])


def test_the_manifest_of_a_given_split_is_that_of_the_collection(photos: Photos, sees: type) -> None:
    root = photos(**{"train/cat": [1] * 4, "train/dog": [0] * 4, "val/cat": [1], "val/dog": [0]})
    found = of_classifier("mine", sees("dog", "cat"), Request(data=str(root)), Result())
    assert found.fingerprint == read_images(root).val.fingerprint


def test_an_accuracy_is_of_the_images_that_can_be_read(photos: Photos, sees: type) -> None:
    root = photos(cat=[1, 1, 1, 0, 0], dog=[0] * 5)
    for broken in (root / "cat" / "1.png", root / "cat" / "4.png"):
        broken.write_bytes(broken.read_bytes()[:60])  # it starts like an image
    found = of_classifier("mine", sees("dog", "cat"), Request(data=str(root)), Result())
    assert found.as_json()["images"] == len(found.images) == len(found.probabilities) == 8
    assert found.as_json()["top1"] == pytest.approx(7 / 8)
    assert len(found.unreadable) == 2
    assert all(f"unreadable image {root}/cat/" in told for told in found.unreadable)
    assert len(found.images.images) == 8


def test_where_no_image_can_be_read_the_first_is_named(photos: Photos, sees: type) -> None:
    root = photos(cat=[1, 1], dog=[0, 0])
    for broken in root.rglob("*.png"):
        broken.write_bytes(broken.read_bytes()[:60])
    with pytest.raises(VtzooError, match=r"unreadable image .*cat/0\.png"):
        of_classifier("mine", sees("dog", "cat"), Request(data=str(root)), Result())


def test_multi_label_images_are_measured_over_known_labels(tmp_path: Path, paint: Photos, sees: type) -> None:
    colours = [(255, 0, 0), (250, 255, 0), (0, 200, 0), (100, 0, 255), (255, 255, 9), (1, 1, 1)]
    cells = ["1,0", "1,", "0,1", "1,0", "1,1", "0,0"]  # of red and green: the purple one is not red enough
    for number, colour in enumerate(colours):
        paint(f"{number}.png", colour)
    lines = "\n".join(f"{number}.png,{cell}" for number, cell in enumerate(cells))
    (tmp_path / "labels.csv").write_text(f"path,red,green\n{lines}\n")
    model = sees("red", "green", "blue", multi=True)
    found = of_classifier("mine", model, Request(data=str(tmp_path / "labels.csv")), Result()).as_json()
    assert list(found)[:6] == ["map", "macro_f1", "images", "manifest", "seconds", "images_per_second"]
    assert found["map"] == 1.0  # nothing that is not red is redder
    assert found["macro_f1"] == pytest.approx((2 * 3 / (2 * 3 + 1) + 1) / 2)
    assert found["known"] == pytest.approx(11 / 18)
    assert [one["label"] for one in found["per_class"]] == ["red", "green"]


def test_an_onnx_file_is_measured_without_a_result(photos: Photos, sees: type, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = []
    monkeypatch.setattr(assessing, "load", lambda source, **_: loaded.append(source) or sees("dog", "cat"))
    found = assess("pets.onnx", Request(data=str(photos(cat=[1] * 5, dog=[0] * 5))))
    assert (loaded, found.as_json()["top1"]) == (["pets.onnx"], 1.0)


def test_the_embedded_model_lacks_the_users_classes(photos: Photos) -> None:
    with pytest.raises(VtzooError, match=r"lacks 1 of the 2 classes in .*, owl: those of 2 images"):
        assess("swin_t-drloc-cifar100", Request(data=str(photos(bear=[1] * 2, owl=[0] * 2))))


def test_the_embedded_model_scores_about_what_its_card_says(real_data: Callable[[str], Path]) -> None:
    name = "swin_t-drloc-cifar100"
    classifier = assessing.load(name)
    request = Request(data=str(real_data("cifar100")))
    images = images_for(request, name, classifier.labels, Result(dataset="cifar100"), multi_label=False)
    some = images.select(np.arange(500))
    answers = predict_images(classifier, some.images)
    scores = assessing.single_label.score(some.targets, answers.probabilities, classifier.labels)
    assert scores.top1_interval[0] < lookup.find_model(name).result.top1 < scores.top1_interval[1]
