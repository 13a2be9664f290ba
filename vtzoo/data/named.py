"""Facts about the named data sets: sizes, Hub repositories, columns. Reads no data.

Sizes are from arXiv 2106.03746v1; Hub ids, columns, splits and revisions from public code. Columns and splits of a row
with `seen=False` are unconfirmed: nobody has loaded the data here yet.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from vtzoo import errors

RGB = tuple[float, float, float]

# The usual statistics of ImageNet's training images, for rows whose own statistics nobody has computed here.
IMAGENET_MEAN: RGB = (0.485, 0.456, 0.406)
IMAGENET_STD: RGB = (0.229, 0.224, 0.225)


@dataclass(frozen=True, kw_only=True)
class NamedSet:
    """One named data set and its source."""

    name: str
    classes: int
    train: int  # images
    test: int  # images
    hub_id: str
    config: str | None = None
    revision: str | None = None  # commit on the Hub; None: nobody has pinned one yet
    image_column: str = "image"
    label_column: str = "label"
    train_splits: tuple[str, ...] = ("train",)  # of the Hub, joined in this order
    test_splits: tuple[str, ...] = ("test",)
    domain: str | None = None  # value of the column `domain` in the rows to keep
    licence: str  # as stated by the authors
    mean: RGB = IMAGENET_MEAN  # of the training pixels, 0..1
    std: RGB = IMAGENET_STD
    flip: bool = True  # whether a mirrored image still shows its class
    seen: bool = False  # whether columns, splits and sizes were checked on loaded rows
    copies: Mapping[str, str] = field(default_factory=dict, hash=False)  # with other pixels: test manifest -> name

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that are read."""
        return self.image_column, self.label_column, *(("domain",) if self.domain else ())

    def splits(self, split: str) -> tuple[str, ...]:
        """The Hub's split names that make up "train" or "test"."""
        splits = {"train": self.train_splits, "test": self.test_splits}
        if split not in splits:
            raise errors.unknown("split", split, splits)
        return splits[split]


def domain_net(name: str, train: int, test: int) -> NamedSet:
    """The row of one of DomainNet's six domains, which share a repository."""
    return NamedSet(
        name=name, classes=345, train=train, test=test, domain=name,
        hub_id="wltjr1007/DomainNet", revision="ee20570ae7a29c51571e55a9a17983f7625295d6",
        licence="fair-use notice: copyrighted material, for non-commercial research and education",
    )  # fmt: skip


ROWS = (
    NamedSet(
        name="cifar10", classes=10, train=50_000, test=10_000, seen=True,
        hub_id="uoft-cs/cifar10", image_column="img", licence="not stated by its authors",
        mean=(0.4914, 0.4822, 0.4465), std=(0.2470, 0.2435, 0.2616),  # of the 50,000 training images
    ),
    NamedSet(
        name="cifar100", classes=100, train=50_000, test=10_000, seen=True,
        hub_id="uoft-cs/cifar100", revision="aadb3af77e9048adbea6b47c21a81e47dd092ae5",
        image_column="img", label_column="fine_label", licence="not stated by its authors",
        mean=(0.5071, 0.4865, 0.4409), std=(0.2673, 0.2564, 0.2762),  # of the 50,000 training images
    ),
    NamedSet(
        name="svhn", classes=10, train=73_257, test=26_032,  # without the split `extra`, as in the paper
        hub_id="ufldl-stanford/svhn", config="cropped_digits", licence="custom, non-commercial use only",
        flip=False,  # a mirrored digit is no digit
    ),
    NamedSet(
        name="flowers102", classes=102, train=2_040, test=6_149, licence="not stated by its authors",
        hub_id="dpdl-benchmark/oxford_flowers102",
        train_splits=("train", "validation"),  # 1,020 and 1,020: the paper trains on both
        seen=True,  # in the copy at 64 px: official split and labels, but other pixels, so no mean of its own
        copies={"00fc77ecd1cd4d213a9e5a681cbc65ad75e01b5d887a49d24ecaec30d4def588": "64 px copy"},
    ),
    domain_net("clipart", 33_525, 14_604),
    domain_net("infograph", 36_023, 15_582),
    domain_net("painting", 50_416, 21_850),  # no training image of class 327, t-shirt
    domain_net("quickdraw", 120_750, 51_750),
    domain_net("real", 120_906, 52_041),
    domain_net("sketch", 48_212, 20_916),
    NamedSet(
        name="imagenet100", classes=100, train=126_689, test=5_000, test_splits=("validation",),
        hub_id="clane9/imagenet-100", revision="0519dc2f402a3a18c6e57f7913db059215eee25b",
        licence="ImageNet's terms of access: non-commercial research and education",
    ),
)  # fmt: skip

DATASETS: dict[str, NamedSet] = {row.name: row for row in ROWS}


def copy_of(name: str, manifest: str) -> str | None:
    """The name of the copy whose test images have this manifest; None for the data set's own pixels."""
    return DATASETS[name].copies.get(manifest) if name in DATASETS else None


def named_set(name: str) -> NamedSet:
    """The facts of the data set `name`; an unknown name is a VtzooError with the nearest names."""
    if name not in DATASETS:
        raise errors.unknown("dataset", name, DATASETS)
    return DATASETS[name]


@cache
def recorded_labels() -> dict[str, list[str]]:
    """The class names by data set, as recorded by `python -m vtzoo.data.named_reader NAME [PATH]`."""
    return json.loads(Path(__file__).with_name("labels.json").read_text(encoding="utf-8"))


def labels(name: str) -> tuple[str, ...] | None:
    """The class names of a data set in label order; None if they are not recorded yet."""
    names = recorded_labels().get(named_set(name).name)
    return None if names is None else tuple(names)
