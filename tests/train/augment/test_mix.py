import math

import numpy as np
import pytest
import torch
from scipy import stats
from torchvision.transforms.functional import normalize as reference_normalize

from vtzoo.train.augment import mix

MASK = 2**64 - 1


class SplitMix64:
    """Steele, Lea and Flood's generator, in plain Python."""

    def __init__(self, state: int) -> None:
        self.state = state & MASK

    def next(self) -> int:
        self.state = (self.state + 0x9E3779B97F4A7C15) & MASK
        z = self.state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
        return z ^ (z >> 31)


def reference_draws(seed: int, epoch: int, image: int, stream: int, columns: int) -> list[float]:
    """The numbers of `draws`: SplitMix64, at the stream's offset, from a state hashed from seed, epoch and image."""
    state = seed * 0x9E3779B97F4A7C15
    for part in (epoch, image):
        state = SplitMix64(state ^ SplitMix64(part + 1).next()).next()
    numbers = SplitMix64(state + stream * 2**32 * 0x9E3779B97F4A7C15)
    return [(numbers.next() >> 40) / 2**24 for _ in range(columns + 1)][1:]


def draws(seed: int = 3, epoch: int = 7, images: int = 20_000, stream: int = mix.GEOMETRY) -> torch.Tensor:
    return mix.draws(seed, epoch, torch.arange(images), stream).double()


def test_splitmix64_gives_the_known_outputs_of_seed_1234567() -> None:
    known = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431, 16408922859458223821]
    stream, state = SplitMix64(1234567), 1234567
    for expected in known:
        assert stream.next() == expected
        assert mix._splitmix(torch.tensor([state])).item() & MASK == expected
        state = mix._signed(state + 0x9E3779B97F4A7C15)


@pytest.mark.parametrize(("seed", "epoch", "image"), [(0, 0, 0), (0, 0, 1), (1, 0, 0), (5, 299, 49_999), (2**40, 3, 8)])
def test_draws_are_those_of_a_splitmix64_in_python(seed: int, epoch: int, image: int) -> None:
    assert mix.draws(seed, epoch, torch.tensor([image]))[0].tolist() == reference_draws(seed, epoch, image, 0, 16)


@pytest.mark.parametrize("stream", [mix.GEOMETRY, mix.MIX, mix.COLOR, mix.LOCALIZE])
@pytest.mark.parametrize("columns", [1, 5, 256])
def test_a_stream_is_a_distant_range_of_columns_of_the_same_splitmix64(stream: int, columns: int) -> None:
    drawn = mix.draws(5, 3, torch.tensor([49_999]), stream, columns)
    assert drawn[0].tolist() == reference_draws(5, 3, 49_999, stream, columns)


def test_a_seed_gives_the_recorded_draws() -> None:
    drawn = (mix.draws(3, 7, torch.tensor([42])) * 2**24).long()
    assert drawn[0].tolist() == [
        2310253, 13982043, 9953560, 4379700, 15089787, 14457046, 979469, 14360268,
        6579607, 1586788, 6476399, 6039695, 16585057, 7742972, 8764499, 15796883,
    ]  # fmt: skip


def test_an_image_draws_the_same_in_any_batch() -> None:
    together = mix.draws(1, 2, torch.arange(100))
    order = torch.randperm(100, generator=torch.Generator().manual_seed(0))
    assert torch.equal(mix.draws(1, 2, order), together[order])
    assert torch.equal(mix.draws(1, 2, torch.tensor([42])), together[42:43])


def test_draws_differ_between_seeds_epochs_images_and_columns() -> None:
    values = [mix.draws(seed, epoch, torch.arange(64)) for seed in range(8) for epoch in range(8)]
    assert torch.cat(values).unique().numel() > 0.99 * 64**2 * mix.DRAWS  # the rest coincide by chance


def test_draws_are_uniform_in_every_column() -> None:
    values = draws().numpy()
    assert values.min() >= 0
    assert values.max() < 1
    assert np.abs(values.mean(0) - 0.5).max() < 5 * math.sqrt(1 / 12 / len(values))
    assert np.abs(values.var(0) - 1 / 12).max() < 5 * math.sqrt(1 / 180 / len(values))
    assert min(stats.kstest(column, "uniform").pvalue for column in values.T) > 1e-4


def test_draws_are_uncorrelated_between_columns_images_epochs_seeds_and_streams() -> None:
    values, limit = draws(), 5 / math.sqrt(20_000)
    for other in (values.roll(1, 0), draws(epoch=8), draws(seed=4), draws(stream=1), draws(stream=3)):
        both = np.corrcoef(values.T.numpy(), other.T.numpy())[: mix.DRAWS, mix.DRAWS :]
        assert np.abs(both).max() < limit
    within = np.corrcoef(values.T.numpy()) - np.eye(mix.DRAWS)
    assert np.abs(within).max() < limit


@pytest.mark.parametrize("flip", [True, False])
@pytest.mark.parametrize("padding", [0, 1, 4, 8])
def test_crops_are_slices_of_the_reflected_image_mirrored_below_a_half(padding: int, flip: bool) -> None:
    images = torch.randint(256, (200, 3, 9, 12), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    uniform = mix.draws(0, 0, torch.arange(200))
    cropped = mix.crop_and_flip(images, uniform, padding, flip)
    border = ((0, 0), (padding, padding), (padding, padding))
    for image, row, result in zip(images.numpy(), uniform.numpy(), cropped.numpy(), strict=True):
        top, left = (int(row[column] * (2 * padding + 1)) for column in (mix.TOP, mix.LEFT))
        expected = np.pad(image, border, mode="reflect")[:, top : top + 9, left : left + 12]
        mirrored = flip and row[mix.FLIP] < 0.5
        np.testing.assert_array_equal(result, expected[:, :, ::-1] if mirrored else expected)


def test_crops_are_uniform_and_half_are_mirrored() -> None:
    uniform = draws()
    places = (uniform[:, mix.TOP] * 9).long() * 9 + (uniform[:, mix.LEFT] * 9).long()
    assert stats.chisquare(places.bincount(minlength=81)).pvalue > 1e-4
    assert stats.binomtest(int((uniform[:, mix.FLIP] < 0.5).sum()), len(uniform)).pvalue > 1e-4


@pytest.mark.parametrize("probability", [0.0, 0.25, 1.0])
def test_images_are_erased_at_the_given_probability(probability: float) -> None:
    erased = mix.erase(torch.ones(20_000, 1, 8, 8), draws().float(), probability)
    count = int((erased == 0).flatten(1).any(1).sum())
    assert stats.binomtest(count, 20_000, probability).pvalue > 1e-4


def test_an_erased_area_is_one_rectangle_within_its_bounds_over_all_channels() -> None:
    hole = mix.erase(torch.ones(5000, 3, 32, 32), draws(images=5000).float(), 1.0) == 0
    assert torch.equal(hole.all(1), hole.any(1))
    high, wide = hole[:, 0].any(2).sum(1), hole[:, 0].any(1).sum(1)
    covered = hole[:, 0].sum((1, 2))
    assert torch.equal(covered, high * wide)
    assert covered.max() <= 32 * 32 / 3
    assert ((high + 1) * (wide + 1)).min() >= 0.02 * 32 * 32  # sides are rounded down
    assert ((high + 1) / wide).min() >= 0.3
    assert (high / (wide + 1)).max() <= 1 / 0.3
    assert abs(covered.float().mean() / 1024 - (0.02 + 1 / 3) / 2) < 0.03
    assert hole[:, 0].float().mean(0).min() > 0  # every pixel is erased in some image


def test_an_erased_pixel_is_the_mean_and_the_others_are_untouched() -> None:
    images = torch.randn(50, 3, 16, 16, generator=torch.Generator().manual_seed(2))
    erased = mix.erase(images, mix.draws(0, 0, torch.arange(50)), 1.0)
    assert torch.equal(erased, torch.where(erased == 0, 0.0, images))


def test_erasing_with_noise_writes_the_same_rectangle_as_erasing_without() -> None:
    images, uniform = torch.full((50, 3, 16, 16), 9.0), mix.draws(0, 0, torch.arange(50))
    noisy, empty = mix.erase(images, uniform, 0.5, 1.0), mix.erase(images, uniform, 0.5)
    assert torch.equal(noisy == 9, empty == 9)


def noise_of(count: int, deviation: float = 1.0) -> torch.Tensor:
    """The noise in the erased rectangles of `count` images; all other pixels are NaN."""
    uniform = mix.draws(1, 2, torch.arange(count))
    erased = mix.erase(torch.ones(count, 3, 32, 32), uniform, 1.0) == 0
    return mix.erase(torch.ones(count, 3, 32, 32), uniform, 1.0, deviation).where(erased, torch.nan)


@pytest.mark.parametrize("deviation", [0.5, 1.0])
def test_erased_noise_is_normal_with_the_deviation_that_was_asked_for(deviation: float) -> None:
    values = noise_of(200, deviation).double()
    values = values[~values.isnan()].numpy()
    assert stats.kstest(values, stats.norm(0, deviation).cdf).pvalue > 1e-3
    # Drawn for every pixel and channel; values of 24 bits may coincide by chance.
    assert np.unique(values).size > 0.99 * values.size


def test_erased_noise_is_uncorrelated_between_channels_neighbours_and_images() -> None:
    values = noise_of(2000).double()
    for other in (values.roll(1, 0), values.roll(1, 1), values.roll(1, 2), values.roll(1, 3)):
        both = ~(values.isnan() | other.isnan())
        product = values[both] * other[both]
        assert abs(product.mean()) < 5 / math.sqrt(product.numel())


@pytest.mark.parametrize("noise", [None, 0.7])
def test_an_image_is_erased_the_same_in_any_batch(noise: float | None) -> None:
    images = torch.randn(500, 3, 15, 17, generator=torch.Generator().manual_seed(7))
    uniform = mix.draws(0, 0, torch.arange(500))
    together = mix.erase(images, uniform, 0.5, noise)
    for cut in ([1] * 500, [13, 487]):
        parts = zip(images.split(cut), uniform.split(cut), strict=True)
        assert torch.equal(torch.cat([mix.erase(*part, 0.5, noise) for part in parts]), together)


def mixed(
    count: int = 64, *, mixup: float, cutmix: float, probability: float, seed: int = 0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mixed images and targets; the pixels and the class of an image are its number, which identifies its partner."""
    images = torch.arange(count).float().view(-1, 1, 1, 1).expand(-1, 3, 16, 16)
    uniform = mix.draws(seed, 0, torch.arange(count), mix.MIX, 5)
    return mix.mix(images, torch.eye(count), uniform, mixup=mixup, cutmix=cutmix, probability=probability)


def test_cutmix_targets_are_the_shares_of_the_pixels() -> None:
    images, targets = mixed(mixup=0.0, cutmix=1.0, probability=1.0)
    for number in range(64):
        pixels = images[number, 0].flatten()
        shares = torch.stack([(pixels == other).float().mean() for other in range(64)])
        assert torch.equal(shares, targets[number])


def test_cutmix_pastes_one_rectangle() -> None:
    images, _ = mixed(mixup=0.0, cutmix=1.0, probability=1.0)
    for number, image in enumerate(images[:, 0]):
        pasted = image != number
        assert pasted.sum() == pasted.any(0).sum() * pasted.any(1).sum()


def test_mixup_blends_pixels_as_it_blends_targets() -> None:
    images, targets = mixed(mixup=0.8, cutmix=0.0, probability=1.0)
    expected = targets @ torch.arange(64.0)
    torch.testing.assert_close(images, expected.view(-1, 1, 1, 1).expand_as(images), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(("mixup", "cutmix"), [(0.8, 0.0), (0.0, 1.0), (0.8, 1.0)])
def test_targets_of_mixtures_sum_to_one(mixup: float, cutmix: float) -> None:
    _, targets = mixed(mixup=mixup, cutmix=cutmix, probability=0.5)
    torch.testing.assert_close(targets.sum(1), torch.ones(64))
    assert targets.min() >= 0


def test_a_probability_of_zero_mixes_nothing() -> None:
    images, targets = mixed(mixup=0.8, cutmix=1.0, probability=0.0)
    assert torch.equal(targets, torch.eye(64))
    assert torch.equal(images[:, 0, 0, 0], torch.arange(64.0))


def test_a_probability_of_one_mixes_every_image_with_its_neighbour() -> None:
    _, targets = mixed(mixup=20.0, cutmix=0.0, probability=1.0)  # shares near a half
    pairs = torch.eye(32).repeat_interleave(2, 0).repeat_interleave(2, 1)
    assert torch.equal(targets > 0, pairs > 0)


def test_the_images_of_a_pair_draw_separate_shares() -> None:
    _, targets = mixed(mixup=1.0, cutmix=0.0, probability=1.0)
    own = targets.diagonal()
    assert (own[::2] - own[1::2]).abs().median() > 0.1
    assert abs(np.corrcoef(own[::2], own[1::2])[0, 1]) < 5 / math.sqrt(32)


@pytest.mark.parametrize("count", [1, 7])
def test_the_last_image_of_an_odd_batch_stays_unmixed(count: int) -> None:
    images, targets = mixed(count, mixup=20.0, cutmix=20.0, probability=1.0)
    assert torch.equal(images[-1], torch.full((3, 16, 16), count - 1.0))
    assert torch.equal(targets[-1], torch.eye(count)[-1])
    assert (targets.diagonal()[:-1] < 1).all()


def test_slices_of_even_lengths_mix_as_the_whole_batch_does() -> None:
    generator = torch.Generator().manual_seed(6)
    images, targets = torch.randn(64, 3, 7, 9, generator=generator), torch.randn(64, 13, generator=generator)
    uniform = mix.draws(0, 0, torch.arange(64), mix.MIX, 5)
    batch, how = (images, targets, uniform), {"mixup": 0.8, "cutmix": 1.0, "probability": 0.7}
    whole = mix.mix(*batch, **how)
    slices = [mix.mix(*parts, **how) for parts in zip(*(part.split([2, 20, 42]) for part in batch), strict=True)]
    for together, apart in zip(whole, zip(*slices, strict=True), strict=True):
        assert torch.equal(together, torch.cat(apart))


def test_half_the_images_are_mixed_at_a_probability_of_a_half_and_half_of_those_by_cutmix() -> None:
    images, targets = mixed(2000, mixup=20.0, cutmix=20.0, probability=0.5)
    changed = targets.diagonal() < 1
    pasted = changed & (images.flatten(1) == torch.arange(2000.0)[:, None]).any(1)
    assert stats.binomtest(int(changed.sum()), 2000).pvalue > 1e-3
    assert stats.binomtest(int(pasted.sum()), int(changed.sum())).pvalue > 1e-3


@pytest.mark.parametrize("alpha", [0.2, 0.8, 1.0])
def test_the_share_of_a_mixup_is_beta_distributed(alpha: float) -> None:
    _, targets = mixed(2000, mixup=alpha, cutmix=0.0, probability=1.0)
    shares = 1 - targets.diagonal().double().numpy()
    assert stats.kstest(shares, stats.beta(alpha, alpha).cdf).pvalue > 1e-3


@pytest.mark.parametrize("alpha", [0.1, 0.2, 0.8, 1.0, 1.5, 5.0, 10.0])
def test_beta_quantiles_are_scipys_to_a_thousandth(alpha: float) -> None:
    ends = torch.tensor([0.0, 2**-24, 1 - 2**-24])  # the two smallest draws and the largest
    uniform = torch.cat([ends, mix.draws(0, 0, torch.arange(1000)).flatten()])
    expected = stats.beta.ppf(uniform.double(), alpha, alpha)
    np.testing.assert_allclose(mix.beta_quantile(uniform, alpha), expected, rtol=0, atol=1e-3)


def test_normalization_is_torchvisions() -> None:
    images = torch.randint(256, (4, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(3))
    mean, std = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
    expected = reference_normalize(images / 255, list(mean), list(std))
    torch.testing.assert_close(mix.normalize(images, mean, std), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
def test_smoothing_gives_torchs_smoothed_cross_entropy(smoothing: float) -> None:
    generator = torch.Generator().manual_seed(5)
    logits, labels = torch.randn(16, 10, generator=generator), torch.randint(10, (16,), generator=generator)
    expected = torch.nn.CrossEntropyLoss(label_smoothing=smoothing)(logits, labels)
    targets = mix.smooth(labels, 10, smoothing)
    torch.testing.assert_close(torch.nn.functional.cross_entropy(logits, targets), expected)
