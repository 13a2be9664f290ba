"""A recipe's batches of a split: their storage, their recorded facts, and unreadable images."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from vtzoo.data import encoded_images, named
from vtzoo.data.labelled_images import LabelledImages
from vtzoo.data.transform import Preprocess
from vtzoo.errors import VtzooError
from vtzoo.train.pipeline import memory_budget
from vtzoo.train.pipeline.batches import Batches, Facts, check_test_images, open_batches
from vtzoo.zoo.recipe import Augmentation, RandomResizedCrop, Recipe

CPU = torch.device("cpu")
ROW = named.named_set("cifar10")
PLAIN = Augmentation(
    crop_padding=0, flip=False, mixup=0.0, cutmix=0.0, mix_probability=0.0, erasing=0.0, label_smoothing=0.0
)
BOX = RandomResizedCrop(scale=(0.5, 1.0), ratio=(1.0, 1.0))
BROKEN = b"not an image"

MakeSplit = Callable[..., LabelledImages]
Opener = Callable[..., tuple[Batches, Facts]]


@pytest.fixture
def opened(tiny: Callable[..., Recipe], tmp_path: Path) -> Opener:
    """Opens the tiny recipe's batches of a split, at 16 px, with the given augmentation and options."""

    def open_with(split: LabelledImages, how: Augmentation = PLAIN, **options: object) -> tuple[Batches, Facts]:
        arguments = {
            "mean": ROW.mean,
            "std": ROW.std,
            "flip": ROW.flip,
            "seed": 0,
            "device": CPU,
            "folder": tmp_path / "cache",
        } | options
        return open_batches(replace(tiny(), augmentation=how), images=split, **arguments)  # pyright: ignore

    return open_with


def noise(count: int, height: int = 20, width: int = 24) -> list[np.ndarray]:
    return list(np.random.default_rng(count).integers(0, 256, (count, height, width, 3), dtype=np.uint8))


def levels(batches: Batches) -> dict[int, np.ndarray]:
    """The pixels of the first epoch's images by number, with the normalization undone."""
    pixels = {}
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (ROW.mean, ROW.std))
    for step in range(batches.steps_per_epoch):
        batch = batches.batch(step)
        for number, image in zip(batch.chosen.tolist(), batch.images, strict=True):
            pixels[number] = ((image * std + mean) * 255).round().byte().numpy()
    return pixels


@pytest.mark.parametrize("workers", [None, 1])
def test_batches_without_augmentation_have_the_pixels_of_the_evaluation_transform(
    workers: int | None, opened: Opener, make_split: MakeSplit
) -> None:
    split = make_split(noise(16))
    pixels = levels(opened(split, workers=workers)[0])
    assert sorted(pixels) == list(range(16))
    assert np.array_equal(np.stack([pixels[number] for number in range(16)]), split.pixels(Preprocess.square(16)))


@pytest.mark.parametrize("workers", [None, 1])
def test_facts_are_those_of_the_split(workers: int | None, opened: Opener, make_split: MakeSplit) -> None:
    split = make_split(noise(16))
    _, facts = opened(split, workers=workers)
    assert facts == Facts(manifest=split.fingerprint, images=16, skipped=0)


def test_only_the_first_run_decodes_the_images(
    opened: Opener, make_split: MakeSplit, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted: list[int] = []
    first, facts = opened(make_split(noise(16)), progress=counted.append)
    assert sum(counted) == 16
    monkeypatch.setattr(encoded_images, "read_image", None)
    again, facts_again = opened(make_split(noise(16)), progress=counted.append)
    assert torch.equal(first.batch(3).images, again.batch(3).images)
    assert (facts, sum(counted)) == (facts_again, 16)


def test_boxes_are_cut_from_images_larger_than_the_models(opened: Opener, make_split: MakeSplit) -> None:
    how = replace(PLAIN, random_resized_crop=BOX)
    batches, _ = opened(make_split(noise(8, 40, 30)), how)
    assert batches._source.values.shape == (8, 3, 24, 18)  # pyright: ignore  # 18 is 16 * 8 // 7
    assert batches.batch(0).images.shape == (8, 3, 16, 16)


@pytest.mark.parametrize("name", ["svhn", "cifar10"])
def test_digits_are_never_mirrored(name: str, opened: Opener, make_split: MakeSplit) -> None:
    batches, _ = opened(make_split(noise(8)), replace(PLAIN, flip=True), flip=named.named_set(name).flip)
    assert batches.crops.flip == (name == "cifar10")


# Unreadable images


@pytest.mark.parametrize("workers", [None, 1])
@pytest.mark.parametrize("time", ["first", "second"])
def test_unreadable_images_are_refused_by_name_and_counted(
    time: str, workers: int | None, opened: Opener, make_split: MakeSplit
) -> None:
    images: list[np.ndarray | bytes] = list(noise(16))
    images[5], images[11] = BROKEN, b""
    if time == "second":
        opened(make_split(images), skip_bad=True, workers=workers)
    with pytest.raises(VtzooError) as caught:
        opened(make_split(images), workers=workers)
    assert caught.value.message.startswith("unreadable image image 5: ")
    assert caught.value.message.endswith("; 2 of 16 images cannot be read")
    assert caught.value.hint == "mend or remove them; --skip-bad leaves them out"


@pytest.mark.parametrize("workers", [None, 1])
def test_an_image_too_narrow_to_be_resized_is_refused_by_name(
    workers: int | None, opened: Opener, make_split: MakeSplit, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vtzoo.data import transform

    split = make_split([*noise(8), *noise(1, 1, 400)])
    monkeypatch.setattr(transform, "PIXEL_CAP", 16 * 16 * 300)
    with pytest.raises(VtzooError, match=r"^unreadable image image 8: .* too narrow to be resized; 1 of 9 images"):
        opened(split, workers=workers)


@pytest.mark.parametrize("workers", [None, 1])
def test_skipped_images_are_counted_and_the_others_keep_their_labels(
    workers: int | None, opened: Opener, make_split: MakeSplit
) -> None:
    images: list[np.ndarray | bytes] = list(noise(18))
    images[5], images[11] = BROKEN, b""
    split = make_split(images)
    batches, facts = opened(split, skip_bad=True, workers=workers)
    rest = split.select(np.delete(np.arange(18), [5, 11]))
    assert facts == Facts(manifest=rest.fingerprint, images=16, skipped=2)
    pixels = levels(batches)
    assert np.array_equal(np.stack([pixels[number] for number in range(16)]), rest.pixels(Preprocess.square(16)))
    for step in range(2):
        batch = batches.batch(step)
        assert batch.targets.argmax(1).tolist() == rest.targets[batch.chosen.numpy()].tolist()


@pytest.mark.parametrize("skip_bad", [False, True])
def test_a_split_without_a_readable_image_is_refused_even_with_skip_bad(
    skip_bad: bool, opened: Opener, make_split: MakeSplit
) -> None:
    with pytest.raises(VtzooError, match="; 3 of 3 images cannot be read") as caught:
        opened(make_split([BROKEN] * 3), skip_bad=skip_bad)
    assert caught.value.hint == "mend or remove them"


@pytest.mark.parametrize("time", ["first", "second"])
def test_an_unreadable_test_image_is_refused_each_time_and_cannot_be_skipped(
    time: str, make_split: MakeSplit, tmp_path: Path
) -> None:
    images: list[np.ndarray | bytes] = list(noise(6))
    check_test_images(make_split(images), 16, name="noise", folder=tmp_path)
    images[4] = BROKEN
    for _ in range(1 + (time == "second")):
        with pytest.raises(VtzooError, match=r"^unreadable image image 4: .*; 1 of 6 images cannot be read") as caught:
            check_test_images(make_split(images), 16, name="noise", folder=tmp_path)
    assert caught.value.hint == "mend or remove them"


# Beyond the budgets


def test_processes_decode_images_beyond_the_budgets_in_every_epoch(
    opened: Opener, make_split: MakeSplit, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    split = make_split(noise(16))
    expected = opened(split)[0].batch(3)
    monkeypatch.setattr(memory_budget, "on_disk", lambda folder: 100)
    monkeypatch.setattr(memory_budget, "on_device", lambda device: 100)
    monkeypatch.setattr(memory_budget, "processes", lambda: 10**6)
    batches, facts = opened(make_split([*noise(16)[:-1], noise(16)[-1][::-1]]))  # not cached: another last image
    assert facts.images == 16
    batch = batches.batch(3)
    assert batch.chosen.tolist() == expected.chosen.tolist()
    equal = [torch.equal(image, reference) for image, reference in zip(batch.images, expected.images, strict=True)]
    assert equal == [number != 15 for number in batch.chosen.tolist()]
    (record,) = caplog.records
    assert "the disk's free space" in record.message
    assert record.message.endswith("; they are decoded in every epoch, as with --workers 1")


@pytest.mark.parametrize("workers", [0, -1])
def test_less_than_one_process_is_refused(workers: int, opened: Opener, make_split: MakeSplit) -> None:
    with pytest.raises(VtzooError, match=f"^{workers} processes cannot decode images$") as caught:
        opened(make_split(noise(8)), workers=workers)
    assert caught.value.hint == "--workers takes 1 or more"
