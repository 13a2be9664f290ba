"""The rows of vtzoo/data/named.py, checked against each other and, if available, against the real data."""

import re

import pytest

from vtzoo.data import named, named_reader
from vtzoo.errors import VtzooError

DOMAINS = ["clipart", "infograph", "painting", "quickdraw", "real", "sketch"]
# The folder of real data for each row that is marked as seen.
FOLDERS = {"cifar10": "cifar10", "cifar100": "cifar100", "flowers102": "flowers102_64px"}


def test_the_eleven_sets_of_the_paper_are_rows() -> None:
    assert list(named.DATASETS) == ["cifar10", "cifar100", "svhn", "flowers102", *DOMAINS, "imagenet100"]


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(VtzooError, match="unknown dataset 'cifar1000'") as caught:
        named.named_set("cifar1000")
    assert caught.value.hint is not None
    assert "cifar100" in caught.value.hint


def test_an_unknown_split_is_answered_with_the_known() -> None:
    with pytest.raises(VtzooError, match="unknown split 'validation'") as caught:
        named.named_set("cifar10").splits("validation")
    assert caught.value.hint == "known: test, train"


def test_flowers102_trains_on_two_splits_of_the_hub() -> None:
    assert named.named_set("flowers102").splits("train") == ("train", "validation")
    assert named.named_set("flowers102").splits("test") == ("test",)


@pytest.mark.parametrize("row", named.DATASETS.values(), ids=named.DATASETS)
def test_a_revision_is_a_whole_commit_or_absent(row: named.NamedSet) -> None:
    assert row.revision is None or re.fullmatch("[0-9a-f]{40}", row.revision)


@pytest.mark.parametrize("row", named.DATASETS.values(), ids=named.DATASETS)
def test_recorded_names_are_as_many_as_the_classes_and_all_different(row: named.NamedSet) -> None:
    names = named.labels(row.name)
    assert (names is not None) == row.seen
    assert names is None or len(set(names)) == len(names) == row.classes


def test_labels_of_an_unknown_set_are_an_error_not_none() -> None:
    with pytest.raises(VtzooError, match="unknown dataset 'mnist'"):
        named.labels("mnist")


def test_only_digits_are_not_mirrored() -> None:
    assert [row.name for row in named.DATASETS.values() if not row.flip] == ["svhn"]


def test_the_domains_differ_in_name_and_size_alone() -> None:
    rows = [named.named_set(name) for name in DOMAINS]
    assert [row.domain for row in rows] == DOMAINS
    assert len({(row.hub_id, row.revision, row.classes, row.image_column, row.label_column) for row in rows}) == 1


def test_every_row_states_a_licence() -> None:
    assert all(row.licence for row in named.DATASETS.values())


def test_cifar_means_are_those_of_the_training_pixels() -> None:
    # An independent source: the channel means, 0..255, that come with the copies of the data (cifar10: one channel).
    assert [round(value / 255, 4) for value in (129.304, 124.070, 112.434)] == list(named.named_set("cifar100").mean)
    assert round(125.307 / 255, 4) == named.named_set("cifar10").mean[0]


@pytest.mark.parametrize("name", FOLDERS)
def test_recorded_names_are_those_in_the_data(name: str, real_data, tmp_path) -> None:
    row, folder, file = named.named_set(name), real_data(FOLDERS[name]), tmp_path / "labels.json"
    file.write_text("{}")
    assert named_reader.record_labels(row, folder, file) == named.labels(name)


@pytest.mark.parametrize("name", FOLDERS)
def test_a_seen_row_states_the_sizes_of_the_data(name: str, real_data) -> None:
    row, folder = named.named_set(name), real_data(FOLDERS[name])
    assert (len(named_reader.read(row, "train", folder)), len(named_reader.read(row, "test", folder))) == (
        row.train,
        row.test,
    )
