"""Many files: the right answer for each, in order, whatever is wrong with one of them."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vtzoo.errors import VtzooError
from vtzoo.inference import bulk, load
from vtzoo.inference.bulk import Answer, expand, predict_files

PHOTOS = Path(__file__).parents[1] / "photos"


def write(folder: Path, *names: str) -> list[str]:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")
    return [str(folder / name) for name in names]


def test_500_files_with_one_bad_among_them_get_499_right_answers(handmade: Path, tmp_path: Path) -> None:
    shades = np.random.default_rng(0).integers(0, 256, (500, 3), dtype=np.uint8)
    files = [str(tmp_path / f"{index:03}.png") for index in range(500)]
    for file, shade in zip(files, shades, strict=True):
        Image.new("RGB", (8, 8), tuple(shade.tolist())).save(file)
    Path(files[217]).write_bytes(b"no image")

    classifier = load(handmade)
    found = list(predict_files(classifier, files, top_k=1, batch_size=16))

    assert [answer.image for answer in found] == files
    assert [index for index, answer in enumerate(found) if answer.error] == [217]
    assert found[217].predictions == []
    assert "217.png' is not an image" in str(found[217].error)
    expected = classifier([np.broadcast_to(shade, (8, 8, 3)) for shade in shades])
    for index, answer in enumerate(found):
        if index != 217:
            assert answer.predictions[0].label == classifier.labels[expected[index].argmax()]
            assert answer.predictions[0].probability == pytest.approx(expected[index].max(), abs=1e-6)


def test_a_batch_of_bad_files_alone_is_answered(handmade: Path, tmp_path: Path) -> None:
    files = write(tmp_path, "a.jpg", "b.jpg")
    found = list(predict_files(load(handmade), [*files, "gone.jpg"], batch_size=2))
    assert [answer.predictions for answer in found] == [[], [], []]
    assert found[2] == Answer(image="gone.jpg", error="there is no file 'gone.jpg'")


def test_no_files_get_no_answers(handmade: Path) -> None:
    assert list(predict_files(load(handmade), [])) == []


@pytest.mark.parametrize("batch_size", [1, 3, 50])
def test_the_batch_size_changes_no_answer(batch_size: int, handmade: Path) -> None:
    files = [str(file) for file in sorted(PHOTOS.glob("*.jpg"))]
    classifier = load(handmade)
    expected = classifier([*files])
    for answer, probabilities in zip(predict_files(classifier, files, 4, batch_size), expected, strict=True):
        assert [one.label for one in answer.predictions] == [classifier.labels[i] for i in np.argsort(-probabilities)]


def test_a_batch_size_below_one_is_refused(handmade: Path) -> None:
    with pytest.raises(VtzooError, match="batch size must be at least 1, not 0"):
        list(predict_files(load(handmade), ["a.jpg"], batch_size=0))


def test_answers_keep_the_order_where_decoding_does_not(handmade: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def slow_if_even(name: str, *_: Any) -> str:
        time.sleep(0.01 if int(name) % 2 == 0 else 0)
        return name

    monkeypatch.setattr(bulk, "_prepare", slow_if_even)
    monkeypatch.setattr(bulk, "THREADS", 4)
    names = [str(index) for index in range(40)]
    assert [answer.image for answer in predict_files(load(handmade), names, batch_size=8)] == names


def test_only_two_batches_are_decoded_ahead(handmade: Path) -> None:
    taken = 0

    def endless() -> Iterator[str]:
        nonlocal taken
        while True:
            taken += 1
            yield str(PHOTOS / "rocket.jpg")

    found = predict_files(load(handmade), endless(), batch_size=4)
    assert next(found).error is None
    assert taken <= 4 + 2 * 4
    threads = threading.active_count()
    found.close()  # type: ignore[attr-defined]
    assert threading.active_count() < threads


# --- which files -------------------------------------------------------------------------------------------------


def test_a_folder_stands_for_its_images_sorted_and_joined(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "photos/b.jpg", "photos/a.PNG", "photos/c/d/e.webp", "photos/c.jpeg", "photos/a/z.tiff")
    write(tmp_path, "photos/notes.txt", "photos/.hidden.jpg", "photos/.cache/x.jpg", "photos/jpg")
    monkeypatch.chdir(tmp_path)
    expected = ["a/z.tiff", "a.PNG", "b.jpg", "c/d/e.webp", "c.jpeg"]
    assert expand(["photos"]) == [f"photos/{name}" for name in expected]
    assert expand(["photos/"]) == [f"photos/{name}" for name in expected]
    assert expand(["./photos"]) == [f"./photos/{name}" for name in expected]


def test_files_stay_as_given_and_in_order(tmp_path: Path) -> None:
    files = write(tmp_path, "b.txt", ".a.jpg")
    assert expand([*files, files[0], "gone.jpg"]) == [*files, files[0], "gone.jpg"]


def test_a_pattern_stands_for_what_it_matches_sorted(tmp_path: Path) -> None:
    names = write(tmp_path, "a1.jpg", "a2.jpg", "b.jpg", "deep/er/a3.jpg")
    assert expand([f"{tmp_path}/a*.jpg"]) == names[:2]
    assert expand([f"{tmp_path}/**/a*.jpg"]) == [names[0], names[1], names[3]]


def test_a_pattern_that_matches_a_folder_and_its_files_names_each_once(tmp_path: Path) -> None:
    names = write(tmp_path, "deep/a.jpg", "deep/er/b.jpg")
    assert sorted(expand([f"{tmp_path}/**"])) == sorted(names)


def test_a_file_with_brackets_in_its_name_is_no_pattern(tmp_path: Path) -> None:
    names = write(tmp_path, "a[1].jpg", "a1.jpg")
    assert expand([names[0]]) == [names[0]]


@pytest.mark.parametrize("name", ["none*.jpg", "gone.jpg", "empty"])
def test_what_stands_for_no_image_stays_to_be_answered_by_its_error(name: str, handmade: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (found,) = predict_files(load(handmade), expand([str(tmp_path / name)]))
    assert found.image == str(tmp_path / name)
    assert f"{name}'" in str(found.error)
