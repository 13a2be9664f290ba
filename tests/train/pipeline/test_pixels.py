import numpy as np
import pytest
import torch

from vtzoo.train.pipeline import memory_budget
from vtzoo.train.pipeline.pixels import Pixels

CPU = torch.device("cpu")
EXTENTS = [(3, 5), (4, 2), (1, 1), (2, 7)]


def images() -> list[np.ndarray]:
    random = np.random.default_rng(0)
    return [random.integers(1, 256, (3, *extent), dtype=np.uint8) for extent in EXTENTS]


def ragged() -> Pixels:
    return Pixels(torch.from_numpy(np.concatenate([image.ravel() for image in images()])), torch.tensor(EXTENTS), CPU)


def test_images_of_one_size_are_taken_as_they_are() -> None:
    stored = np.random.default_rng(0).integers(0, 256, (5, 3, 4, 6), dtype=np.uint8)
    pixels, extents = Pixels.of(stored, CPU).take(torch.tensor([4, 0, 4]))
    assert np.array_equal(pixels.numpy(), stored[[4, 0, 4]])
    assert extents.tolist() == [[4, 6]] * 3


@pytest.mark.parametrize("chosen", [[0], [2, 1], [3, 0, 1, 2], [1, 1, 1]])
def test_images_of_many_sizes_lie_in_the_corner_of_the_smallest_canvas_for_all(chosen: list[int]) -> None:
    canvas, extents = ragged().take(torch.tensor(chosen))
    assert extents.tolist() == [list(EXTENTS[number]) for number in chosen]
    assert canvas.shape == (len(chosen), 3, *np.max([EXTENTS[number] for number in chosen], axis=0))
    for place, number in enumerate(chosen):
        height, width = EXTENTS[number]
        assert np.array_equal(canvas[place, :, :height, :width].numpy(), images()[number])
        assert int((canvas[place] > 0).sum()) == 3 * height * width  # and zeros elsewhere


@pytest.mark.parametrize(("free", "copied"), [(48, True), (47, False)])
def test_images_from_a_file_are_copied_to_the_device_only_where_they_fit(
    free: int, copied: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory_budget, "on_device", lambda device: free)
    values = torch.zeros(4, 3, 2, 2, dtype=torch.uint8)
    pixels = Pixels.fitting(values, torch.full((4, 2), 2), CPU, copy=True)
    assert (pixels.values.data_ptr() != values.data_ptr()) == copied


def test_images_in_memory_are_not_copied() -> None:
    values = torch.zeros(4, 3, 2, 2, dtype=torch.uint8)
    pixels = Pixels.fitting(values, torch.full((4, 2), 2), CPU, copy=False)
    assert pixels.values.data_ptr() == values.data_ptr()
