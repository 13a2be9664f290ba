"""Accuracies against a count by hand, and the errors of an evaluation."""

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pyarrow
import pytest
from PIL import Image
from sklearn.metrics import top_k_accuracy_score

from vtzoo.data.encoded_images import EncodedImages
from vtzoo.data.labelled_images import LabelledImages
from vtzoo.data.transform import Preprocess
from vtzoo.errors import VtzooError
from vtzoo.evaluate import reproduce as metrics
from vtzoo.evaluate.images import Request
from vtzoo.evaluate.predictions import predict_images
from vtzoo.evaluate.reproduce import reproduce
from vtzoo.evaluate.run import measure
from vtzoo.zoo.result import Result

NAMES = tuple(f"class {number}" for number in range(10))


def a_split(sizes: list[int], names: tuple[str, ...] = NAMES) -> LabelledImages:
    """Grey squares of the given sizes, each as bright as its label; labels count up from 0."""
    encoded = []
    for label, size in enumerate(sizes):
        stream = io.BytesIO()
        Image.new("RGB", (size, size), (label, label, label)).save(stream, "PNG")
        encoded.append({"bytes": stream.getvalue(), "path": None})
    rows = EncodedImages(stored=pyarrow.chunked_array([encoded]), positions=np.arange(len(sizes)), origin=str)
    splits = np.full(len(sizes), "train")
    return LabelledImages(targets=np.arange(len(sizes)), classes=names, encoded=rows, splits=splits)


class Reader:
    """A classifier that reads the label from an image's brightness, and adds `shift`."""

    def __init__(self, shift: int = 0, classes: int = 10, size: int = 8) -> None:
        self.labels = NAMES[:classes]
        self.preprocess = Preprocess(size=size, interpolation="bicubic", crop=1.0)
        self.shift = shift
        self.batches: list[tuple[int, ...]] = []

    def __call__(self, images: Any) -> np.ndarray:
        assert images.dtype == np.uint8
        self.batches.append(images.shape)
        # Scores fall on both sides of the prediction, so its neighbours are the other top-5 classes.
        answer = (images[:, 0, 0, 0].astype(int) + self.shift)[:, None]
        return (1 / (1 + np.abs(np.arange(len(self.labels)) - answer))).astype(np.float32)

    def embed(self, images: Any) -> np.ndarray:
        raise NotImplementedError


def test_a_perfect_reader_scores_one_on_every_image() -> None:
    split = a_split([8] * 10)
    found = measure(Reader(), split)
    assert (found["top1"], found["top5"], found["images"]) == (1.0, 1.0, 10)
    assert found["manifest"] == split.fingerprint


def test_a_reader_three_classes_too_high_is_counted_by_hand() -> None:
    # Label 0 is predicted as 3, with the top-5 classes 1 to 5: a miss, as for labels 1 to 4. From label 5
    # on, predicted as 8, the classes end at 9: the top-5 classes are 5 to 9, so labels 5 to 9 are hits.
    found = measure(Reader(shift=3), a_split([8] * 10))
    assert found["top1"] == pytest.approx(0.1)  # label 9, answered 12: the last class is the nearest
    assert found["top5"] == pytest.approx(0.5)


def test_images_of_other_sizes_are_prepared_as_the_model_asks() -> None:
    reader = Reader(size=6)
    assert measure(reader, a_split([8, 6, 30]))["top1"] == 1.0
    assert reader.batches == [(3, 3, 6, 6)]


def test_batches_are_as_asked_and_progress_counts_every_image() -> None:
    reader, done = Reader(), []
    predict_images(reader, a_split([8] * 10), batch_size=4, progress=done.append)
    assert [shape[0] for shape in reader.batches] == done == [4, 4, 2]


@pytest.mark.parametrize("classes", [2, 5])
def test_five_classes_or_fewer_have_a_top5_of_one(classes: int) -> None:
    found = measure(Reader(shift=1, classes=classes), a_split([8] * classes, NAMES[:classes]))
    assert (found["top1"], found["top5"]) == (1 / classes, 1.0)


def test_a_label_that_ties_with_all_classes_counts_as_scikit_learn_counts_it() -> None:
    class Undecided(Reader):
        def __call__(self, images: Any) -> np.ndarray:
            return np.full((len(images), 10), 0.1, np.float32)

    tied = np.full((10, 10), 0.1)
    found = measure(Undecided(), a_split([8] * 10))
    assert found["top5"] == top_k_accuracy_score(np.arange(10), tied, k=5) == 0.5
    assert found["top1"] == 0.1


def test_another_number_of_classes_is_refused_before_any_image_is_read() -> None:
    reader = Reader(classes=9)
    with pytest.raises(VtzooError, match="the model has 9 classes and the data 10"):
        measure(reader, a_split([8]))
    assert not reader.batches


def test_the_same_classes_in_another_order_are_refused() -> None:
    with pytest.raises(VtzooError, match="class 0 is 'class 0' to the model and 'class 9' to the data") as caught:
        measure(Reader(), a_split([8], NAMES[::-1]))
    assert caught.value.hint is not None
    assert "vtzoo show" in caught.value.hint


def test_an_answer_that_is_not_finite_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    reader = Reader()
    monkeypatch.setattr(Reader, "__call__", lambda self, images: np.full((len(images), 10), np.nan))
    with pytest.raises(VtzooError, match="the model answers image 0 with values that are not finite"):
        measure(reader, a_split([8] * 3))


def test_an_unreadable_image_of_the_split_is_refused_by_name() -> None:
    split = a_split([8] * 3)
    encoded = [*split.encoded.stored.to_pylist()[:2], {"bytes": b"no image", "path": None}]
    rows = EncodedImages(stored=pyarrow.chunked_array([encoded]), positions=np.arange(3), origin=str)
    with pytest.raises(VtzooError, match="unreadable image 2: the image of 8 bytes is not an image"):
        measure(Reader(), replace(split, encoded=rows))


# Reproducing the card's accuracy


@pytest.fixture
def stated(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Mock]:
    """Sets the recorded result of every model; returns the mocked measurement, whose accuracy is 0.5."""

    def stated(**result: Any) -> Mock:
        measured = Mock(
            return_value=Mock(
                summary=lambda: {"top1": 0.5, "map": 0.5, "manifest": "abc"},
                fingerprint="abc",
                images=Mock(images=Mock(is_recorded=lambda manifest: False)),
            )
        )
        monkeypatch.setattr(metrics.fetch, "model_folder", lambda *_, **__: Mock(result=Result(**result)))
        monkeypatch.setattr(metrics, "load", Mock())
        monkeypatch.setattr(metrics, "of_classifier", measured)
        return measured

    return stated


@pytest.mark.parametrize(
    ("result", "same"),
    [
        ({"top1": 0.5, "manifest": "abc"}, True),
        ({"top1": 0.5004, "manifest": "abc"}, True),
        ({"top1": 0.4996, "manifest": "abc"}, True),
        ({"top1": 0.501, "manifest": "abc"}, False),
        ({"top1": 0.5, "manifest": "other images"}, False),
        ({"map": 0.5, "manifest": "abc"}, True),
        ({"map": 0.6, "manifest": "abc"}, False),
    ],
)
def test_an_accuracy_is_reproduced_on_the_same_images_up_to_ties(stated: Callable, result: dict, same: bool) -> None:
    stated(**result)
    found = reproduce("mine")
    assert found["reproduced"] is same
    assert found["stated"] == result.get("top1", result.get("map"))


@pytest.mark.parametrize(("said", "split"), [({}, None), ({"split": "validation"}, "val"), ({"split": "test"}, "test")])
def test_a_fine_tuned_model_is_measured_again_on_the_split_of_its_result(
    stated: Callable, said: dict[str, str], split: str | None
) -> None:
    measured = stated(top1=0.5, manifest="abc", **said)
    reproduce("mine", Path("photos"))
    assert measured.call_args.args[2] == Request(data="photos", split=split)


def test_a_model_that_states_no_accuracy_has_none_to_reproduce(stated: Callable) -> None:
    stated(dataset="cifar10")
    with pytest.raises(VtzooError, match="of mine states no accuracy to reproduce"):
        reproduce("mine")
