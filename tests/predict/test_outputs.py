"""Growing output files, read back by numpy, pyarrow and the standard library."""

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from vtzoo.errors import VtzooError
from vtzoo.predict.bulk import Batch, ImagePredictions
from vtzoo.predict.classifier import Prediction
from vtzoo.predict.outputs import HEADER, FeatureParts, NpyFile, Output, PredictionParts, TextFile


def batch(first: int, *readable: bool) -> Batch:
    """Images named by their numbers, some of them unreadable, with 3 features each."""
    images = [
        ImagePredictions(image=f"{number}.jpg", predictions=[Prediction(label="cat", probability=0.5)])
        if good
        else ImagePredictions(image=f"{number}.jpg", error="truncated")
        for number, good in enumerate(readable, first)
    ]
    features = np.arange(3 * sum(readable), dtype=np.float32).reshape(-1, 3) + first
    return Batch(images=images, features=features if any(readable) else np.zeros((0, 0), np.float32))


ONE, TWO, THREE = batch(0, True, False), batch(2, False), batch(3, True, True, True)
NAN = [np.nan] * 3
EXPECTED = np.array([[0, 1, 2], NAN, NAN, [3, 4, 5], [6, 7, 8], [9, 10, 11]], np.float32)


def test_npy_has_a_row_an_image_and_nan_where_it_could_not_be_read(tmp_path: Path) -> None:
    output = NpyFile(tmp_path / "f.npy", 3)
    output.open(None)
    for one in (ONE, TWO, THREE):
        output.add(one)
    output.finish()
    loaded = np.load(tmp_path / "f.npy", mmap_mode="r")
    assert loaded.dtype == np.float32
    assert np.array_equal(loaded, EXPECTED, equal_nan=True)


def test_npy_can_be_loaded_while_it_grows(tmp_path: Path) -> None:
    output = NpyFile(tmp_path / "f.npy", 3)
    output.open(None)
    assert np.load(tmp_path / "f.npy").shape == (0, 3)
    output.add(ONE)
    assert output.sync() == HEADER + 2 * 3 * 4
    output.add(TWO)
    assert np.array_equal(np.load(tmp_path / "f.npy"), EXPECTED[:2], equal_nan=True)
    output.close()


@pytest.mark.parametrize("kind", ["npy", "json", "jsonl", "csv"])
def test_a_file_that_goes_on_at_its_size_loses_what_lies_behind_it_and_ends_the_same(kind: str, tmp_path: Path) -> None:
    def made(name: str) -> Output:
        return NpyFile(tmp_path / name, 3) if kind == "npy" else TextFile(tmp_path / name, kind, 1)

    whole, killed, again = made("whole"), made("killed"), made("killed")
    for output in (whole, killed):
        output.open(None)
        output.add(ONE)
        size = output.sync()
        output.add(TWO)
    killed.close()
    with (tmp_path / "killed").open("ab") as file:
        file.write(b"half a li")
    again.open(size)
    for output in (whole, again):
        if output is again:
            output.add(TWO)
        output.add(THREE)
        output.finish()
    assert (tmp_path / "killed").read_bytes() == (tmp_path / "whole").read_bytes()


def test_a_file_that_is_shorter_than_it_was_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"image")
    output = TextFile(tmp_path / "a.csv", "csv", 1)
    with pytest.raises(VtzooError, match=r"a\.csv is shorter than when it was written"):
        output.open(6)
    output.close()


def test_a_name_that_is_not_utf8_is_escaped(tmp_path: Path) -> None:
    hard = Batch(
        images=[ImagePredictions(image="\udcff.jpg", error="'\udcff.jpg' is empty")], features=np.zeros((0, 0))
    )
    output = TextFile(tmp_path / "a.csv", "csv", 0)
    output.open(None)
    output.add(hard)
    output.finish()
    assert (tmp_path / "a.csv").read_text("utf-8").splitlines()[1] == r"\udcff.jpg,'\udcff.jpg' is empty"
    (row,) = PredictionParts(tmp_path / "a.parquet").table(hard).to_pylist()
    assert (row["image"], row["error"]) == (r"\udcff.jpg", r"'\udcff.jpg' is empty")


def test_answers_in_parquet_have_the_fields_of_json(tmp_path: Path) -> None:
    output = PredictionParts(tmp_path / "a.parquet")
    output.open(None)
    output.add(ONE)
    output.add(TWO)
    assert not output.exists()
    assert output.sync() == 1
    assert output.exists()
    output.add(THREE)
    output.finish()
    first, second = (pq.read_table(tmp_path / f"a-0000{part}.parquet").to_pylist() for part in (0, 1))
    expected = TextFile(tmp_path / "a.json", "json", 1)
    expected.open(None)
    for one in (ONE, TWO, THREE):
        expected.add(one)
    expected.finish()
    assert first + second == json.loads((tmp_path / "a.json").read_text())


def test_features_in_parquet_are_null_where_an_image_could_not_be_read(tmp_path: Path) -> None:
    output = FeatureParts(tmp_path / "f.parquet", 3)
    output.open(None)
    for one in (ONE, TWO, THREE):
        output.add(one)
    output.finish()
    rows = pq.read_table(tmp_path / "f-00000.parquet").to_pylist()
    assert [row["image"] for row in rows] == [f"{number}.jpg" for number in range(6)]
    assert [row["features"] or NAN for row in rows] == [pytest.approx(row.tolist(), nan_ok=True) for row in EXPECTED]


def test_parts_go_on_after_those_that_are_there(tmp_path: Path) -> None:
    output = FeatureParts(tmp_path / "f.parquet", 3)
    output.open(2)
    output.add(ONE)
    assert output.sync() == 3
    assert output.sync() == 3
    assert [file.name for file in tmp_path.iterdir()] == ["f-00002.parquet"]


def test_parts_in_a_folder_that_is_not_there_are_refused(tmp_path: Path) -> None:
    with pytest.raises(VtzooError, match=r"there is no folder '.*nowhere' to write a\.parquet into"):
        PredictionParts(tmp_path / "nowhere" / "a.parquet").open(None)
