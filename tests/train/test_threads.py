from collections.abc import Iterator

import pytest
import torch

from vtzoo.train.augment import mix, rand_augment
from vtzoo.train.pipeline import resized_crop
from vtzoo.train.threads import on_one_thread


@pytest.fixture(autouse=True)
def _two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@on_one_thread
def threads(prefix: str, images: torch.Tensor) -> str:
    """The prefix and the number of threads; the images are not the first argument."""
    return f"{prefix} {torch.get_num_threads()}"


@pytest.mark.parametrize(("side", "expected"), [(32, 1), (104, 1), (105, 2), (224, 2)])
def test_small_images_have_one_thread_and_large_ones_all(side: int, expected: int) -> None:
    assert threads("has", torch.empty(256, 3, side, side, dtype=torch.uint8)) == f"has {expected}"


def test_a_batch_may_be_a_keyword_argument_and_may_be_empty() -> None:
    assert threads(prefix="has", images=torch.empty(0, 3, 32, 32)) == "has 1"


def test_the_threads_come_back_after_a_result_and_after_an_error() -> None:
    @on_one_thread
    def fail(images: torch.Tensor) -> None:
        raise RuntimeError(str(torch.get_num_threads()))

    threads("has", torch.empty(1))
    assert torch.get_num_threads() == 2
    with pytest.raises(RuntimeError, match="1"):
        fail(torch.empty(1))
    assert torch.get_num_threads() == 2


IMAGES, FLOATS = torch.zeros(4, 3, 8, 8, dtype=torch.uint8), torch.zeros(4, 3, 8, 8)
UNIFORM, SHARES, BOXES = torch.zeros(4, 42), torch.zeros(4, 5), torch.tensor([[0, 0, 8, 8]] * 4)
M9 = {"operations": 2, "magnitude": 9.0, "magnitude_std": 0.5, "probability": 0.5, "fill": (0, 0, 0)}
STEPS = {
    "draws": lambda: mix.draws(0, 0, torch.arange(4)),
    "crop_and_flip": lambda: mix.crop_and_flip(IMAGES, UNIFORM, 1, flip=True),
    "normalize": lambda: mix.normalize(IMAGES, (0.5,) * 3, (0.5,) * 3),
    "erase": lambda: mix.erase(FLOATS, UNIFORM, 0.5),
    "mix": lambda: mix.mix(FLOATS, torch.eye(4), SHARES, mixup=1.0, cutmix=1.0, probability=0.5),
    "random_boxes": lambda: resized_crop.random_boxes(UNIFORM, BOXES[:, 2:], (0.1, 1.0), (0.8, 1.2)),
    "resized_crop": lambda: resized_crop.resized_crop(IMAGES, BOXES, 8, torch.zeros(4, dtype=torch.bool)),
    "rand_augment": lambda: rand_augment.rand_augment(IMAGES, UNIFORM, **M9),
    "color_jitter": lambda: rand_augment.color_jitter(IMAGES, UNIFORM, 0.4),
}


@pytest.mark.parametrize("step", STEPS)
def test_every_step_that_makes_a_batch_keeps_to_one_thread(step: str) -> None:
    seen: list[int] = []
    # The context ends before the teardown of _two_threads, which calls set_num_threads.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "set_num_threads", seen.append)
        STEPS[step]()
    assert seen == [1, 2]
