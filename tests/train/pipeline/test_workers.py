"""Decoding processes give the batches of stored images, and report a failure in a sentence."""

import gc
import os
import pickle
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow
import pytest
import torch

from vtzoo.data import named
from vtzoo.data.encoded_images import EncodedImages
from vtzoo.data.labelled_images import LabelledImages
from vtzoo.errors import VtzooError
from vtzoo.train.pipeline.batches import Batch, Batches
from vtzoo.train.pipeline.crops import Crops
from vtzoo.train.pipeline.pixels import Pixels
from vtzoo.train.pipeline.workers import Decoder, Plan, Request, Workers
from vtzoo.zoo.recipe import Augmentation, RandAugment, RandomResizedCrop

CPU = torch.device("cpu")
BOX = RandomResizedCrop(scale=(0.2, 1.0), ratio=(0.75, 4 / 3))
ERASED = Augmentation(
    crop_padding=0, random_resized_crop=BOX, flip=True, mixup=0.8, cutmix=1.0, mix_probability=0.5, erasing=0.5,
    erasing_noise=1.0, label_smoothing=0.1,
)  # fmt: skip
SHIFTED = Augmentation(**{**vars(ERASED), "crop_padding": 2, "random_resized_crop": None})
RANDOM = RandAugment(operations=2, magnitude=9.0, magnitude_std=0.5, probability=1.0)
EVERYTHING = Augmentation(**{**vars(SHIFTED), "rand_augment": RANDOM, "color_jitter": 0.4})
COUNT, SIZE, STEPS = 20, 14, 5  # images, pixels a side, steps per epoch


@pytest.fixture(scope="module")
def split(make_split: Callable[..., LabelledImages]) -> LabelledImages:
    """Images of medium levels, with a shorter side of 16 pixels at most."""
    random = np.random.default_rng(1)
    extents = [(16, 16 + number) if number % 2 else (10 + number % 7, 15) for number in range(COUNT)]
    return make_split([random.integers(80, 176, (*extent, 3), dtype=np.uint8) for extent in extents])


def make_batches(source: Workers | Pixels, how: Augmentation, accumulate: int = 1) -> Batches:
    row = named.named_set("cifar10")
    return Batches(
        source, np.arange(COUNT) % 10, crops=Crops.of(how, size=SIZE, flip=True), augmentation=how, batch_size=4,
        classes=10, mean=row.mean, std=row.std, seed=3, device=CPU, accumulate=accumulate,
    )  # fmt: skip


def stored(split: LabelledImages, how: Augmentation) -> Batches:
    storage = Crops.of(how, size=SIZE, flip=True).storage
    pixels = [torch.from_numpy(storage.pixels(image)) for image in split.encoded]
    extents = torch.tensor([image.shape[1:] for image in pixels])
    return make_batches(Pixels(torch.cat([image.flatten() for image in pixels]), extents, CPU), how)


Decoded = Callable[..., Batches]


@pytest.fixture
def decoded(split: LabelledImages) -> Decoded:
    """Returns batches that processes decode; the processes end with the batches."""

    def make(how: Augmentation, count: int = 2, rows: EncodedImages = split.encoded, accumulate: int = 1) -> Batches:
        decoder = Decoder(rows, Crops.of(how, size=SIZE, flip=True), 3)
        return make_batches(Workers(decoder, count, CPU), how, accumulate)

    return make


def processes(batches: Batches) -> list[int]:
    """The ids of the decoding processes."""
    return [process.pid for process in batches._source._loader._iterator._workers]  # pyright: ignore


def failure(batches: Batches) -> VtzooError:
    """Asserts that four epochs of batches raise a VtzooError in one line, and returns the error."""
    with pytest.raises(VtzooError) as caught:
        walk(batches, range(1, 4 * STEPS))
    batches._source._loader._iterator._shutdown_workers()  # pyright: ignore  # else the traceback keeps them alive
    assert "\n" not in caught.value.message
    return caught.value


def walk(batches: Batches, steps: range) -> None:
    for step in steps:
        batches.batch(step)


def assert_same(actual: Batch, expected: Batch, levels: float = 0.0) -> None:
    """Assert equal targets, and images equal up to the given number of levels of 255."""
    assert torch.equal(actual.chosen, expected.chosen)
    assert torch.equal(actual.targets, expected.targets)
    assert actual.epoch == expected.epoch
    assert (
        float((actual.images - expected.images).abs().max())
        <= levels / 255 / min(named.named_set("cifar10").std) + 1e-5
    )


@pytest.mark.parametrize("how", [SHIFTED, EVERYTHING], ids=["shifted", "everything"])
def test_squares_give_the_batches_of_stored_images_bit_for_bit(
    how: Augmentation, split: LabelledImages, decoded: Decoded
) -> None:
    expected, actual = stored(split, how), decoded(how)
    for step in range(2 * STEPS):
        assert_same(actual.batch(step), expected.batch(step))


def test_boxes_give_the_batches_of_stored_images_to_two_levels_of_255(split: LabelledImages, decoded: Decoded) -> None:
    expected, actual = stored(split, ERASED), decoded(ERASED)
    for step in range(2 * STEPS):
        assert_same(actual.batch(step), expected.batch(step), levels=2)


def test_any_number_of_processes_gives_the_same_batches(decoded: Decoded) -> None:
    single, several = decoded(ERASED, 1), decoded(ERASED, 3)
    for step in range(STEPS + 1):
        assert_same(single.batch(step), several.batch(step))


def test_steps_out_of_order_give_the_same_batches(decoded: Decoded) -> None:
    jumping, walking = decoded(ERASED), decoded(ERASED)
    expected = [walking.batch(step) for step in range(9)]
    for step in (4, 5, 1, 1, 2, 8, 0):
        assert_same(jumping.batch(step), expected[step])


@pytest.mark.parametrize(("ranks", "rank", "accumulate"), [(1, 0, 1), (1, 0, 2), (2, 1, 1)])
def test_the_next_parts_are_prepared_ahead_without_a_restart(
    ranks: int, rank: int, accumulate: int, decoded: Decoded, monkeypatch: pytest.MonkeyPatch
) -> None:
    starts, real = [], Plan.begin
    monkeypatch.setattr(Plan, "begin", lambda plan, requests: starts.append(plan) or real(plan, requests))
    batches, whole, parts = decoded(SHIFTED, accumulate=accumulate), decoded(SHIFTED), ranks * accumulate
    for step in range(STEPS + 1):
        cut = [batches.batch(step, rank * accumulate + turn, parts) for turn in range(accumulate)]
        first, last = rank * 4 // ranks, (rank + 1) * 4 // ranks
        assert torch.equal(torch.cat([part.images for part in cut]), whole.batch(step).images[first:last])
    assert len(starts) == 2  # one start per `Batches`


def test_torchs_global_generator_does_not_change(decoded: Decoded) -> None:
    batches, before = decoded(SHIFTED), torch.get_rng_state()
    batches.batch(0)
    batches.batch(3)
    assert torch.equal(torch.get_rng_state(), before)


def test_an_image_that_is_deleted_during_training_is_named(
    split: LabelledImages, decoded: Decoded, tmp_path: Path
) -> None:
    files = [tmp_path / f"{number}.png" for number in range(COUNT)]
    for number, file in enumerate(files):
        file.write_bytes(split.encoded.content(number) or b"")
    encoded = pyarrow.chunked_array([[{"bytes": None, "path": str(file)} for file in files]])
    batches = decoded(
        SHIFTED, rows=EncodedImages(stored=encoded, positions=np.arange(COUNT), origin=lambda row: files[row].name)
    )
    batches.batch(0)
    files[6].unlink()
    assert failure(batches).message.startswith("unreadable image 6.png: ")


def test_decoding_processes_ignore_ctrl_c(decoded: Decoded) -> None:
    batches, other = decoded(SHIFTED), decoded(SHIFTED, 1)
    batches.batch(0)
    for process in processes(batches):
        os.kill(process, signal.SIGINT)
    for step in range(1, 9):
        assert_same(batches.batch(step), other.batch(step))


def test_a_process_that_dies_is_an_error_in_a_sentence(decoded: Decoded) -> None:
    batches = decoded(SHIFTED)
    batches.batch(0)
    os.kill(processes(batches)[0], signal.SIGKILL)
    error = failure(batches)
    assert error.message.startswith("a process that decodes images failed: ")
    assert error.hint == "try fewer: --workers N"


@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
def test_processes_end_at_once_with_the_batches_that_they_prepare(decoded: Decoded) -> None:
    batches = decoded(SHIFTED)
    batches.batch(0)
    batches.batch(2)
    ids, began = processes(batches), time.monotonic()
    gc.disable()  # a collection would end the processes too, in five seconds each
    del batches
    gc.enable()
    assert time.monotonic() - began < 4
    assert not any(Path(f"/proc/{number}").exists() for number in ids)


def test_a_decoder_can_be_sent_to_a_process(split: LabelledImages) -> None:
    decoder = Decoder(split.encoded, Crops.of(ERASED, size=SIZE, flip=True), 3)
    sent = pickle.loads(pickle.dumps(decoder))
    request = Request(epoch=1, images=(3, 0))
    assert torch.equal(sent[request], decoder[request])
