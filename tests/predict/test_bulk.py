"""Predictions of many images: each correct and in order, even if one image is unreadable."""

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vtzoo.errors import VtzooError
from vtzoo.predict import bulk
from vtzoo.predict.bulk import ImagePredictions, predict
from vtzoo.predict.load import load
from vtzoo.predict.sources import Source

PHOTOS = Path(__file__).parents[1] / "photos"


def answers(classifier: Any, files: list[str], *arguments: int) -> list[ImagePredictions]:
    sources = [Source(file, file) for file in files]
    return [answer for batch in predict(classifier, sources, *arguments) for answer in batch.images]


def test_500_files_with_one_bad_among_them_get_499_right_answers(handmade: Path, tmp_path: Path) -> None:
    shades = np.random.default_rng(0).integers(0, 256, (500, 3), dtype=np.uint8)
    files = [str(tmp_path / f"{index:03}.png") for index in range(500)]
    for file, shade in zip(files, shades, strict=True):
        Image.new("RGB", (8, 8), tuple(shade.tolist())).save(file)
    Path(files[217]).write_bytes(b"no image")

    classifier = load(handmade)
    found = answers(classifier, files, 1, 16)

    assert [answer.image for answer in found] == files
    assert [index for index, answer in enumerate(found) if answer.error] == [217]
    assert found[217].predictions == []
    assert "217.png' is not an image" in str(found[217].error)
    expected = classifier([np.broadcast_to(shade, (8, 8, 3)) for shade in shades])
    for index, answer in enumerate(found):
        if index != 217:
            assert answer.predictions[0].label == classifier.labels[expected[index].argmax()]
            assert answer.predictions[0].probability == pytest.approx(expected[index].max(), abs=1e-6)


def test_features_are_those_of_the_images_that_can_be_read(handmade: Path) -> None:
    files = [str(PHOTOS / "rocket.jpg"), "gone.jpg", str(PHOTOS / "coffee.jpg")]
    classifier = load(handmade)
    (batch,) = predict(classifier, [Source(file, file) for file in files])
    assert batch.failed == [batch.images[1]]
    assert batch.features == pytest.approx(classifier.embed([files[0], files[2]]), abs=1e-4)


def test_encoded_bytes_and_errors_are_answered_under_their_names(handmade: Path) -> None:
    content = (PHOTOS / "rocket.jpg").read_bytes()
    sources = [Source("a#0", content), Source("a#1", VtzooError("there is no image in a#1")), Source("a#2", b"no")]
    (batch,) = predict(load(handmade), sources, 4)
    assert [answer.image for answer in batch.images] == ["a#0", "a#1", "a#2"]
    assert batch.images[0].predictions == answers(load(handmade), [str(PHOTOS / "rocket.jpg")], 4)[0].predictions
    assert [answer.error for answer in batch.failed] == [
        "there is no image in a#1",
        "the image of 2 bytes is not an image, or of a kind that cannot be read",
    ]


def test_a_batch_of_bad_files_alone_is_answered(handmade: Path, tmp_path: Path) -> None:
    (tmp_path / "a.jpg").touch()
    found = answers(load(handmade), [str(tmp_path / "a.jpg"), str(tmp_path), "gone.jpg"], 5, 2)
    assert [answer.predictions for answer in found] == [[], [], []]
    assert found[2] == ImagePredictions(image="gone.jpg", error="there is no file 'gone.jpg'")


def test_no_files_get_no_answers(handmade: Path) -> None:
    assert answers(load(handmade), []) == []


@pytest.mark.parametrize("batch_size", [1, 3, 50])
def test_the_batch_size_changes_no_answer(batch_size: int, handmade: Path) -> None:
    files = [str(file) for file in sorted(PHOTOS.glob("*.jpg"))]
    classifier = load(handmade)
    expected = classifier([*files])
    for answer, probabilities in zip(answers(classifier, files, 9, batch_size), expected, strict=True):
        order = np.argsort(-probabilities)
        assert [one.label for one in answer.predictions] == [classifier.labels[index] for index in order]
        assert [one.probability for one in answer.predictions] == pytest.approx(probabilities[order].tolist(), abs=1e-6)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [((5, 0), "the batch size must be at least 1, not 0"), ((0, 5), "the number of classes to show must be at least")],
)
def test_a_number_below_one_is_refused(arguments: tuple[int, int], told: str, handmade: Path) -> None:
    with pytest.raises(VtzooError, match=told):
        answers(load(handmade), ["a.jpg"], *arguments)


def test_answers_keep_the_order_where_decoding_does_not(handmade: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def slow_if_even(source: Source, *_: Any) -> str:
        time.sleep(0.01 if int(source.name) % 2 == 0 else 0)
        return source.name

    monkeypatch.setattr(bulk, "_prepare", slow_if_even)
    monkeypatch.setattr(bulk, "cores", lambda: 4)
    names = [str(index) for index in range(40)]
    assert [answer.image for answer in answers(load(handmade), names, 5, 1)] == names


def test_no_more_than_a_few_batches_are_decoded_ahead(handmade: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk, "cores", lambda: 2)
    taken = 0

    def endless() -> Iterator[Source]:
        nonlocal taken
        while True:
            taken += 1
            yield Source("rocket", str(PHOTOS / "rocket.jpg"))

    found = predict(load(handmade), endless(), batch_size=4)
    assert next(found).failed == []
    assert taken <= 4 * (3 * 2 + 1)
    threads = threading.active_count()
    found.close()  # type: ignore[attr-defined]
    assert threading.active_count() < threads


def test_no_more_than_two_batches_are_in_the_model_at_once(handmade: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk, "cores", lambda: 6)
    classifier, inside, most = load(handmade), 0, 0
    run, lock = classifier.run, threading.Lock()

    def watched(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        nonlocal inside, most
        with lock:
            inside += 1
            most = max(most, inside)
        time.sleep(0.01)
        with lock:
            inside -= 1
        return run(pixels)

    monkeypatch.setattr(classifier, "run", watched)
    answers(classifier, [str(PHOTOS / "rocket.jpg")] * 12, 5, 1)
    assert most == 2


def test_a_model_that_fails_is_an_error_and_no_answer(handmade: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    classifier = load(handmade)

    def failing(_: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        raise VtzooError("ONNX Runtime could not run the model: no memory")

    monkeypatch.setattr(classifier, "run", failing)
    with pytest.raises(VtzooError, match="no memory"):
        answers(classifier, [str(PHOTOS / "rocket.jpg")] * 3, 5, 1)


# The process's peak memory, as Linux counts it, during the predictions of the given number of images.
MEMORY = """
import sys
from itertools import repeat
from pathlib import Path
from vtzoo.predict.load import load
from vtzoo.predict.bulk import predict
from vtzoo.predict.sources import Source
source = Source(sys.argv[2], sys.argv[2])
assert sum(len(batch.images) for batch in predict(load(sys.argv[1]), repeat(source, int(sys.argv[3])))) > 0
status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
print(int(status["VmHWM"].split()[0]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux")
def test_ten_times_the_images_need_no_more_memory(handmade: Path, tmp_path: Path) -> None:
    Image.effect_noise((64, 64), 50).save(tmp_path / "noise.png")

    def peak(images: int) -> int:
        command = [sys.executable, "-c", MEMORY, str(handmade), str(tmp_path / "noise.png"), str(images)]
        return int(subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout)

    assert peak(10_000) < 1.1 * peak(1000)
