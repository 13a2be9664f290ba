from collections.abc import Callable

import numpy as np
import pytest
import torch

from vtzoo.data import named
from vtzoo.errors import VtzooError
from vtzoo.train.augment import mix
from vtzoo.train.augment.rand_augment import color_jitter, rand_augment
from vtzoo.train.pipeline import batches as data
from vtzoo.train.pipeline.batches import Batches, generator, key
from vtzoo.train.pipeline.crops import Crops
from vtzoo.train.pipeline.pixels import Pixels
from vtzoo.train.pipeline.resized_crop import random_boxes, resized_crop
from vtzoo.zoo.recipe import Augmentation, RandAugment, RandomResizedCrop, Recipe

PLAIN = Augmentation(
    crop_padding=0, flip=False, mixup=0.0, cutmix=0.0, mix_probability=0.0, erasing=0.0, label_smoothing=0.0
)
EVERYTHING = Augmentation(
    crop_padding=0, random_resized_crop=RandomResizedCrop(scale=(0.08, 1.0), ratio=(0.75, 4 / 3)), flip=True,
    rand_augment=RandAugment(operations=2, magnitude=9.0, magnitude_std=0.5, probability=0.5), color_jitter=0.4,
    mixup=0.8, cutmix=1.0, mix_probability=0.5, erasing=0.5, erasing_noise=1.0, label_smoothing=0.1,
)  # fmt: skip
CPU = torch.device("cpu")


def plain(
    images: int, batch_size: int, *, seed: int = 0, flip: bool = True, augmentation: Augmentation = PLAIN
) -> Batches:
    """Batches of images whose pixels all equal the image's number, which is also the label."""
    pixels = np.broadcast_to(np.arange(images, dtype=np.uint8)[:, None, None, None], (images, 3, 4, 4)).copy()
    return Batches(
        Pixels.of(pixels, CPU), np.arange(images), crops=Crops.of(augmentation, size=4, flip=flip),
        augmentation=augmentation, batch_size=batch_size, classes=images, mean=(0.0,) * 3, std=(1.0,) * 3, seed=seed,
        device=CPU,
    )  # fmt: skip


def numbers(batches: Batches, step: int) -> list[int]:
    return (batches.batch(step).images[:, 0, 0, 0] * 255).round().int().tolist()


def epoch(batches: Batches, number: int) -> list[int]:
    steps = range(number * batches.steps_per_epoch, (number + 1) * batches.steps_per_epoch)
    return [image for step in steps for image in numbers(batches, step)]


def test_an_epoch_shows_every_image_once_when_batches_fit() -> None:
    batches = plain(12, 4)
    assert batches.steps_per_epoch == 3
    assert sorted(epoch(batches, 0)) == list(range(12))


def test_images_that_an_epoch_leaves_out_appear_in_other_epochs() -> None:
    batches = plain(14, 4)
    assert batches.steps_per_epoch == 3
    seen = [set(epoch(batches, number)) for number in range(8)]
    assert {len(shown) for shown in seen} == {12}
    assert set.union(*seen) == set(range(14))


def test_a_set_smaller_than_a_batch_is_one_batch() -> None:
    batches = plain(5, 64)
    assert (batches.batch_size, batches.steps_per_epoch) == (5, 1)
    assert sorted(numbers(batches, 0)) == list(range(5))


def test_epochs_and_seeds_have_orders_of_their_own() -> None:
    orders = [tuple(epoch(plain(32, 32, seed=seed), number)) for seed in range(3) for number in range(3)]
    assert len(set(orders)) == 9


def test_a_label_stays_with_its_image() -> None:
    batch = plain(32, 8).batch(2)
    assert batch.targets.argmax(1).tolist() == (batch.images[:, 0, 0, 0] * 255).round().int().tolist()


def test_a_batch_depends_on_its_step_and_not_on_the_steps_before(tiny: Callable[..., Recipe]) -> None:
    how = tiny().augmentation
    walked, jumped = plain(24, 8, augmentation=how), plain(24, 8, augmentation=how)
    for step in range(8):
        last = walked.batch(step)
    direct = jumped.batch(7)
    assert torch.equal(last.images, direct.images)
    assert torch.equal(last.targets, direct.targets)


def ragged(count: int, batch_size: int, how: Augmentation) -> Batches:
    """Batches of crops of 12x12 pixels from noise images of many sizes."""
    random, row = np.random.default_rng(2), named.named_set("cifar10")
    extents = torch.from_numpy(random.integers(8, 20, (count, 2)))
    pixels = torch.from_numpy(random.integers(0, 256, int(3 * extents.prod(1).sum()), dtype=np.uint8))
    return Batches(
        Pixels(pixels, extents, CPU), np.arange(count) % 10, crops=Crops.of(how, size=12, flip=True),
        augmentation=how, batch_size=batch_size, classes=10, mean=row.mean, std=row.std, seed=1, device=CPU,
    )  # fmt: skip


@pytest.mark.parametrize("parts", [2, 3, 4])
@pytest.mark.parametrize("sizes", ["one", "many"])
def test_parts_make_up_the_whole_batch_bit_for_bit(parts: int, sizes: str, tiny: Callable[..., Recipe]) -> None:
    how = tiny().augmentation
    batches = plain(60, 24, augmentation=how) if sizes == "one" else ragged(60, 24, EVERYTHING)
    whole, cut = batches.batch(3), [batches.batch(3, part, parts) for part in range(parts)]
    assert {len(part.images) for part in cut} == {24 // parts}
    assert {part.epoch for part in cut} == {whole.epoch} == {1}
    for name in ("images", "targets", "chosen"):
        assert torch.equal(torch.cat([getattr(part, name) for part in cut]), getattr(whole, name))


def test_a_batch_is_cropped_recoloured_normalized_erased_and_mixed_in_this_order() -> None:
    how, row, batches = EVERYTHING, named.named_set("cifar10"), ragged(30, 10, EVERYTHING)
    assert how.random_resized_crop
    batch = batches.batch(4)  # the second batch of epoch 1
    geometry = mix.draws(1, 1, batch.chosen, mix.GEOMETRY, 64)
    colour = mix.draws(1, 1, batch.chosen, mix.COLOR, 12)
    canvas, extents = batches._source.take(batch.chosen)  # pyright: ignore
    boxes = random_boxes(geometry[:, 16:], extents, (0.08, 1.0), (0.75, 4 / 3))
    images = resized_crop(canvas, boxes, 12, geometry[:, mix.FLIP] < 0.5)
    images = rand_augment(
        images, colour, operations=2, magnitude=9.0, magnitude_std=0.5, probability=0.5, fill=(125, 123, 114)
    )
    images = mix.normalize(color_jitter(images, colour[:, 8:], 0.4), row.mean, row.std)
    images = mix.erase(images, geometry, 0.5, 1.0)
    images, targets = mix.mix(
        images, mix.smooth(batch.chosen % 10, 10, 0.1), mix.draws(1, 1, batch.chosen, mix.MIX, 5),
        mixup=0.8, cutmix=1.0, probability=0.5,
    )  # fmt: skip
    assert torch.equal(batch.images, images)
    assert torch.equal(batch.targets, targets)


def test_an_image_is_augmented_the_same_in_any_batch_of_an_epoch() -> None:
    how = Augmentation(**{**vars(EVERYTHING), "mix_probability": 0.0})
    whole = ragged(24, 24, how).batch(1)
    cut = [ragged(24, 6, how).batch(step) for step in range(4, 8)]
    pictures = {int(number): image for batch in cut for number, image in zip(batch.chosen, batch.images, strict=True)}
    assert all(torch.equal(pictures[int(n)], image) for n, image in zip(whole.chosen, whole.images, strict=True))
    again = ragged(24, 24, how).batch(2)
    assert not any(torch.equal(pictures[int(n)], image) for n, image in zip(again.chosen, again.images, strict=True))


def test_parts_that_are_not_equal_are_refused() -> None:
    with pytest.raises(VtzooError, match="a batch of 10 images cannot be cut into 4 equal parts"):
        plain(20, 10).check_parts(4)


@pytest.mark.parametrize(("mixup", "cutmix", "probability", "refused"), [
    (0.8, 0.0, 0.5, True), (0.0, 1.0, 0.5, True), (0.8, 1.0, 0.0, False), (0.0, 0.0, 0.5, False)
])  # fmt: skip
def test_parts_of_an_odd_size_are_refused_only_where_images_are_mixed(
    mixup: float, cutmix: float, probability: float, refused: bool
) -> None:
    how = Augmentation(**{**vars(PLAIN), "mixup": mixup, "cutmix": cutmix, "mix_probability": probability})
    batches = plain(20, 10, augmentation=how)
    batches.check_parts(1)
    if not refused:
        batches.check_parts(2)
        return
    with pytest.raises(VtzooError, match="2 parts of a batch of 10 images have 5 each"):
        batches.check_parts(2)


def test_a_batch_has_the_numbers_of_its_images_and_its_epoch() -> None:
    batch = plain(12, 4).batch(7)
    assert batch.chosen.tolist() == (batch.images[:, 0, 0, 0] * 255).round().int().tolist()
    assert batch.epoch == 2


@pytest.mark.parametrize(
    ("recipe", "dataset", "mirrored"), [(True, True, True), (True, False, False), (False, True, False)]
)
def test_images_are_mirrored_only_where_recipe_and_data_set_allow(recipe: bool, dataset: bool, mirrored: bool) -> None:
    how = Augmentation(**{**vars(PLAIN), "flip": recipe})
    batches = plain(16, 16, flip=dataset, augmentation=how)
    batches._source.values[:, :, :, 0] = 255  # a bright left edge
    left = batches.batch(0).images[:, 0, 0, 0] == 1
    assert bool((~left).any()) == mirrored


@pytest.mark.parametrize(
    ("module", "name"), [(mix, "erase"), (mix, "mix"), (data, "rand_augment"), (data, "color_jitter")]
)
def test_an_augmentation_that_the_recipe_turns_off_is_not_called(
    module: object, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, name, None)
    plain(8, 8).batch(0)


def test_keys_of_neighbouring_seeds_steps_and_streams_are_all_different_and_fit_a_generator() -> None:
    keys = {key(seed, step, stream) for seed in range(20) for step in range(50) for stream in range(4)}
    assert len(keys) == 4000
    assert all(0 <= value < 2**63 for value in keys)


def test_a_generator_is_a_function_of_seed_step_and_stream() -> None:
    arguments = [
        (1, 3, data.SHUFFLE),
        (1, 3, data.SHUFFLE),
        (2, 3, data.SHUFFLE),
        (1, 4, data.SHUFFLE),
        (1, 3, data.WEIGHTS),
    ]
    first, again, *others = (torch.rand(4, generator=generator(seed, step, stream)) for seed, step, stream in arguments)
    assert torch.equal(first, again)
    assert not any(torch.equal(first, other) for other in others)
