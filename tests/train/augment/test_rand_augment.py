"""RandAugment and color jitter: draws against timm's, images against timm's and torchvision's, on PIL images."""

import random
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import NormalDist

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import stats
from timm.data import auto_augment as timms
from torchvision.transforms import functional

from vtzoo.train.augment import mix, rand_augment

PHOTOS = sorted((Path(__file__).parents[2] / "photos").glob("*.jpg"))
FILL = (124, 116, 104)
NAMES = [*rand_augment.COLOR_OPS, *rand_augment.GEOMETRIC_OPS]
M9 = {"operations": 2, "magnitude": 9.0, "magnitude_std": 0.5, "probability": 0.5, "fill": FILL}
WITHOUT_AMOUNT = ("AutoContrast", "Equalize", "Invert")

Record = list[tuple[str, float]]


def photographs(count: int, size: int = 32) -> torch.Tensor:
    """Crops of four photographs, (count, 3, size, size)."""
    pictures = [Image.open(path).convert("RGB").resize((size + count, size)) for path in PHOTOS]
    crops = [np.asarray(pictures[i % 4].crop((i, 0, i + size, size))).transpose(2, 0, 1) for i in range(count)]
    return torch.from_numpy(np.stack(crops))


def drawn(count: int, operations: int = 2) -> torch.Tensor:
    return mix.draws(3, 1, torch.arange(count), mix.COLOR, operations * rand_augment.DRAWS_PER_OPERATION)


@pytest.fixture
def record(monkeypatch: pytest.MonkeyPatch) -> Record:
    """The name and the amount of each operation on each image; the operations themselves leave images unchanged."""
    seen: Record = []

    def recorder(name: str) -> Callable[..., torch.Tensor]:
        def note(images: torch.Tensor, amounts: torch.Tensor, **_: object) -> torch.Tensor:
            seen.extend((name, amount) for amount in amounts.tolist())
            return images

        return note

    for operations in (rand_augment.COLOR_OPS, rand_augment.GEOMETRIC_OPS):
        for name in operations:
            monkeypatch.setitem(operations, name, recorder(name))
    monkeypatch.setattr(rand_augment, "JITTERS", tuple(recorder(name) for name in ("brightness", "contrast", "color")))
    return seen


def timms_record(recipe: str, count: int) -> Record:
    """The record of timm's transform; posterizing to 0 bits, at which Pillow 13 fails, is recorded as 1."""
    seen: Record = []
    transform = timms.rand_augment_transform(recipe, {"img_mean": FILL})
    for operation in transform.ops:
        operation.aug_fn = lambda image, amount=-1.0, name=operation.name, **_: seen.append((name, amount)) or image
    random.seed(0)
    np.random.seed(0)
    for _ in range(count):
        transform(Image.new("RGB", (1, 1)))
    return [(name, max(amount, 1) if name.startswith("Poster") else amount) for name, amount in seen]


def by_name(record: Record) -> dict[str, list[float]]:
    amounts = defaultdict(list)
    for name, amount in record:
        amounts[name].append(amount)
    return amounts


def test_the_operations_are_timms() -> None:
    assert sorted(NAMES) == sorted(timms._RAND_INCREASING_TRANSFORMS)
    assert list(rand_augment.AMOUNTS) == NAMES


@pytest.mark.parametrize("recipe", ["rand-m9-mstd0.5-inc1", "rand-m5-n3-mstd3-p0.8-inc1"])
def test_operations_amounts_and_signs_are_distributed_as_timms(recipe: str, record: Record) -> None:
    """A chi-square test of the operations' counts and Kolmogorov-Smirnov tests of amounts, each at level 0.001."""
    m9 = recipe.startswith("rand-m9")
    how = M9 if m9 else {"operations": 3, "magnitude": 5.0, "magnitude_std": 3.0, "probability": 0.8, "fill": FILL}
    images = torch.zeros(20_000, 3, 1, 1, dtype=torch.uint8)
    rand_augment.rand_augment(images, drawn(20_000, how["operations"]), **how)
    ours, theirs = by_name(record), by_name(timms_record(recipe, 20_000))
    counts = [[len(amounts[name]) for name in NAMES] for amounts in (ours, theirs)]
    skipped = [20_000 * how["operations"] - sum(applied) for applied in counts]
    assert stats.chi2_contingency(np.column_stack([counts, skipped])).pvalue > 1e-3
    for name in set(NAMES) - set(WITHOUT_AMOUNT):
        assert stats.ks_2samp(ours[name], theirs[name]).pvalue > 1e-3


@pytest.mark.parametrize("sign", [-1, 1])
@pytest.mark.parametrize("name", sorted(set(NAMES) - set(WITHOUT_AMOUNT)))
def test_an_amount_is_timms_at_the_same_magnitude_and_sign(
    name: str, sign: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timms, "_randomly_negate", lambda value: sign * value)
    magnitudes = torch.linspace(0, 10, 401, dtype=torch.float64)
    amounts = rand_augment.AMOUNTS[name](magnitudes, torch.full_like(magnitudes, sign))
    expected = [timms.LEVEL_TO_ARG[name](magnitude, {})[0] for magnitude in magnitudes.tolist()]
    if name == "PosterizeIncreasing":
        expected = [max(1, bits) for bits in expected]
    np.testing.assert_allclose(amounts, expected, rtol=1e-14, atol=1e-14)


def test_the_operations_of_two_layers_are_independent() -> None:
    uniform = drawn(20_000)
    first, second = ((uniform[:, column] * 15).long() for column in (0, rand_augment.DRAWS_PER_OPERATION))
    table = (first * 15 + second).bincount(minlength=225).view(15, 15)
    assert stats.chi2_contingency(table).pvalue > 1e-3


def reference(image: torch.Tensor, uniform: list[float], how: dict) -> np.ndarray:
    """An image transformed by timm's functions on PIL images, with the same draws."""
    picture = Image.fromarray(image.permute(1, 2, 0).numpy())
    for layer in range(how["operations"]):
        which, applied, normal, sign = uniform[4 * layer : 4 * layer + 4]
        name = NAMES[int(which * len(NAMES))]
        magnitude = how["magnitude"] + how["magnitude_std"] * NormalDist().inv_cdf(normal + 2**-25)
        numbers = torch.tensor([[min(10.0, max(0.0, magnitude))], [-1 if sign < 0.5 else 1]], dtype=torch.float64)
        amount = [] if name in WITHOUT_AMOUNT else [rand_augment.AMOUNTS[name](*numbers).item()]
        amount = [int(bits) for bits in amount] if name == "PosterizeIncreasing" else amount
        if applied < how["probability"]:
            interpolation = {"resample": Image.Resampling.BICUBIC, "fillcolor": FILL}
            picture = timms.NAME_TO_OP[name](picture, *amount, **interpolation)
    return np.asarray(picture).transpose(2, 0, 1)


@pytest.mark.parametrize(("size", "count"), [(32, 400), (224, 40)])
@pytest.mark.parametrize("operations", [1, 2, 4])
def test_an_image_is_changed_as_by_timms_operations_in_order(size: int, count: int, operations: int) -> None:
    """A warp is off by a level in a few pixels; later operations may spread and enlarge the error: 0.02 in the mean."""
    images, uniform, how = photographs(count, size), drawn(count, operations), M9 | {"operations": operations}
    expected = [reference(image, row, how) for image, row in zip(images, uniform.tolist(), strict=True)]
    error = np.abs(rand_augment.rand_augment(images, uniform, **how).numpy() - np.stack(expected).astype(int))
    assert error.mean() < 0.02
    assert np.mean(error <= 1) > 0.999
    assert error.max() <= 1 or operations > 1


@pytest.mark.parametrize("cut", [[1] * 60, [13, 47]])
def test_an_image_is_changed_the_same_in_any_batch(cut: list[int]) -> None:
    images, uniform = photographs(60, 33), drawn(60, 4)
    before = images.clone()
    for change in (partial(rand_augment.rand_augment, **M9), partial(rand_augment.color_jitter, strength=0.4)):
        parts = zip(images.split(cut), uniform.split(cut), strict=True)
        assert torch.equal(change(images, uniform), torch.cat([change(*part) for part in parts]))
    assert torch.equal(images, before)


@pytest.mark.parametrize("change", [{"probability": 0.0}, {"operations": 0}])
def test_without_an_operation_images_stay_as_they_are(change: dict) -> None:
    images = photographs(40)
    assert torch.equal(rand_augment.rand_augment(images, drawn(40), **(M9 | change)), images)


def test_pixels_from_outside_the_image_have_the_fill_colour() -> None:
    images = torch.full((500, 3, 8, 8), 200, dtype=torch.uint8)
    uniform = drawn(500, 1)
    uniform[:, 0] = 0.999  # the last operation, a translation
    changed = rand_augment.rand_augment(images, uniform, **(M9 | {"operations": 1, "fill": (9, 8, 7)}))
    colours = changed.movedim(1, 3).flatten(0, 2).unique(dim=0)
    assert colours.tolist() == [[9, 8, 7], [200, 200, 200]]


def jittered(image: torch.Tensor, uniform: list[float], strength: float) -> np.ndarray:
    """An image transformed by torchvision's functions on PIL images, with the same draws."""
    adjust = (functional.adjust_brightness, functional.adjust_contrast, functional.adjust_saturation)
    orders = [(0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)]
    picture, least = Image.fromarray(image.permute(1, 2, 0).numpy()), max(0, 1 - strength)
    for which in orders[int(uniform[3] * 6)]:
        picture = adjust[which](picture, least + uniform[which] * (1 + strength - least))
    return np.asarray(picture).transpose(2, 0, 1)


@pytest.mark.parametrize("strength", [0.0, 0.4, 1.0, 1.5])
def test_jitter_is_torchvisions_on_pil_images(strength: float) -> None:
    """A factor may round to another 32-bit number; a level may then be off by one, and by three after three blends."""
    images, uniform = photographs(200), drawn(200)
    expected = [jittered(image, row, strength) for image, row in zip(images, uniform.tolist(), strict=True)]
    error = np.abs(rand_augment.color_jitter(images, uniform, strength).numpy() - np.stack(expected).astype(int))
    assert error.max() <= 3
    assert error.mean() < 0.001


def test_the_factors_and_orders_of_jitter_are_uniform(record: Record) -> None:
    images, uniform = torch.zeros(12_000, 3, 1, 1, dtype=torch.uint8), drawn(12_000)
    rand_augment.color_jitter(images, uniform, 0.4)
    for name in ("brightness", "contrast", "color"):
        factors = by_name(record)[name]
        assert stats.kstest(factors, stats.uniform(0.6, 0.8).cdf).pvalue > 1e-3
    assert stats.chisquare((uniform[:, 3] * 6).long().bincount(minlength=6)).pvalue > 1e-3


def test_jitter_starts_with_each_of_its_three_changes_a_third_of_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each change writes its own level into black pixels, so the first change sets all levels."""

    def writer(level: int) -> Callable[..., torch.Tensor]:
        return lambda images, _: torch.where(images == 0, level, images).byte()

    monkeypatch.setattr(rand_augment, "JITTERS", tuple(writer(level) for level in (1, 2, 3)))
    first = rand_augment.color_jitter(torch.zeros(12_000, 3, 1, 1, dtype=torch.uint8), drawn(12_000), 0.4)
    assert stats.chisquare(first[:, 0, 0, 0].long().bincount(minlength=4)[1:]).pvalue > 1e-3
