"""`vtzoo predict` on many images: sources, outputs, and the files after a kill.

The model's features are an image's mean red, green and blue, 0 to 255; its logits are the same, 0 to 1.
"""

import csv
import errno
import io
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from typer.testing import Result

from vtzoo.base import progress
from vtzoo.predict import outputs, resume

Command = Callable[..., Result]
LABELS = ["red", "green", "blue"]
COUNT, BAD = 300, (7, 123, 250)  # images of the large folder, and those of them that cannot be read


@pytest.fixture(scope="module")
def model(colours: bytes, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The colour model as a bare .onnx file."""
    path = tmp_path_factory.mktemp("model") / "colours.onnx"
    path.write_bytes(colours)
    return path


def shade(number: int) -> tuple[int, int, int]:
    return number % 256, (7 * number) % 256, (31 * number) % 256


def encoded(number: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 8), shade(number)).save(file, "png")
    return file.getvalue()


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 300 images of one colour each, three of them damaged."""
    folder = tmp_path_factory.mktemp("data") / "photos"
    folder.mkdir()
    for number in range(COUNT):
        (folder / f"{number:03}.png").write_bytes(encoded(number) if number not in BAD else encoded(number)[:40])
    return folder


@pytest.fixture
def predict(vt: Command, model: Path) -> Command:
    """`vtzoo predict` with the colour model."""
    return lambda *arguments: vt("predict", "-m", model, *arguments)


def start(model: Path, *arguments: Any, **settings: Any) -> subprocess.Popen[bytes]:
    """Start a process that writes its resume file after every batch of four images."""
    program = "from vtzoo.predict import resume; resume.SECONDS = 0; from vtzoo.cli import main; main()"
    command = [sys.executable, "-c", program, "predict", "-m", model, "--batch-size", 4, *arguments]
    return subprocess.Popen([str(part) for part in command], stderr=subprocess.PIPE, **settings)


def test_jsonl_is_the_list_of_json_line_by_line(predict: Command, photos: Path) -> None:
    listed = json.loads(predict(photos, "--json").stdout)
    lines = predict(photos, "--format", "jsonl").stdout.splitlines()
    assert [json.loads(line) for line in lines] == listed
    assert [row["image"] for row in listed] == [str(photos / f"{number:03}.png") for number in range(COUNT)]


@pytest.mark.parametrize("options", [["--json"], ["--format", "csv"], ["--format", "table"]])
def test_each_bad_image_among_many_is_named_on_stderr_and_none_is_lost(
    options: list[str], predict: Command, photos: Path
) -> None:
    result = predict(photos, "-k", 1, *options)
    assert result.exit_code == 1
    named = [line.split(":")[1].strip() for line in result.stderr.splitlines()]
    assert named == [str(photos / f"{number:03}.png") for number in BAD]
    assert result.stdout.count(".png") >= COUNT - (len(BAD) if "table" in options else 0)


def test_csv_has_a_row_an_image_with_its_classes_or_its_error(predict: Command, photos: Path) -> None:
    header, *rows = csv.reader(io.StringIO(predict(photos, "--format", "csv", "-k", 2).stdout))
    assert header == ["image", "error", "label_1", "probability_1", "label_2", "probability_2"]
    assert len(rows) == COUNT
    for number, (_, error, first, probability, *_) in enumerate(rows):
        if number in BAD:
            assert error
            continue
        weights = np.exp(np.array(shade(number)) / 255)
        assert first == LABELS[int(weights.argmax())]
        assert float(probability) == pytest.approx(weights.max() / weights.sum(), abs=1e-6)


def test_out_takes_its_format_from_its_name_and_leaves_nothing_beside(
    predict: Command, photos: Path, tmp_path: Path
) -> None:
    for name, options in [
        ("a.csv", []),
        ("a.jsonl", []),
        ("a.json", []),
        ("a.txt", []),
        ("b.txt", ["--format", "csv"]),
    ]:
        result = predict(photos, "--out", tmp_path / name, *options)
        assert (result.exit_code, result.stdout) == (1, "")
        form = options[-1] if options else {".txt": "table"}.get(Path(name).suffix, Path(name).suffix[1:])
        assert (tmp_path / name).read_text() == predict(photos, "--format", form).stdout
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.csv", "a.json", "a.jsonl", "a.txt", "b.txt"]
    assert result.stderr.splitlines()[-1] == f"{tmp_path / 'b.txt'}: 300 images, 3 could not be read"


def test_embeddings_alone_print_no_answers(predict: Command, photos: Path, tmp_path: Path) -> None:
    assert predict(photos, "--embeddings", tmp_path / "f.npy").stdout == ""
    found = np.load(tmp_path / "f.npy")
    expected = np.array([shade(number) for number in range(COUNT)], np.float32)
    expected[list(BAD)] = np.nan
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_embeddings_beside_answers_on_stdout_and_in_files(predict: Command, photos: Path, tmp_path: Path) -> None:
    printed = predict(photos, "--embeddings", tmp_path / "f.parquet", "--format", "csv").stdout
    assert predict(photos, "--embeddings", tmp_path / "g.npy", "--out", tmp_path / "a.csv").stdout == ""
    assert printed == (tmp_path / "a.csv").read_text()
    rows = pq.read_table(tmp_path / "f-00000.parquet")["features"].to_pylist()
    assert [number for number, row in enumerate(rows) if row is None] == list(BAD)
    good = [number for number in range(COUNT) if number not in BAD]
    assert np.array_equal(np.load(tmp_path / "g.npy")[good], np.array([rows[number] for number in good], np.float32))


def test_parquet_in_and_out(predict: Command, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resume, "PART", 64)
    stored = [{"bytes": (photos / f"{number:03}.png").read_bytes(), "path": None} for number in range(COUNT)]
    pq.write_table(pa.table({"image": stored}), tmp_path / "data.parquet", row_group_size=77)
    result = predict(tmp_path / "data.parquet", "--out", tmp_path / "a.parquet")
    assert result.exit_code == 1
    parts = sorted(tmp_path.glob("a-*.parquet"))
    assert [pq.read_metadata(part).num_rows for part in parts] == [64, 64, 64, 64, 44]
    rows = [row for part in parts for row in pq.read_table(part).to_pylist()]
    assert [row["image"] for row in rows] == [f"{tmp_path}/data.parquet#{number}" for number in range(COUNT)]
    expected = json.loads(predict(photos, "--json").stdout)
    assert [row["predictions"] for row in rows] == [
        [{**one, "probability": pytest.approx(one["probability"])} for one in row["predictions"]] for row in expected
    ]


# A list on stdin


@pytest.mark.parametrize("options", [[], ["--null"]])
def test_a_list_on_stdin_is_answered_before_it_ends(options: list[str], model: Path, photos: Path) -> None:
    with start(model, "-", "--format", "jsonl", *options, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin
        assert process.stdout
        names = [str(photos / f"{number:03}.png") for number in range(200, 249)]
        process.stdin.write((b"\0" if options else b"\n").join(os.fsencode(name) for name in [*names, ""]))
        process.stdin.flush()
        assert json.loads(process.stdout.readline())["image"] == names[0]
        process.stdin.close()
        rest = process.stdout.read()
    assert [json.loads(line)["image"] for line in rest.splitlines()] == names[1:]
    assert process.returncode == 0


def test_a_closed_stdin_is_a_sentence(model: Path) -> None:
    command = f'exec "{sys.executable}" -m vtzoo predict -m "{model}" - <&-'
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("Error: stdin is closed")


def test_a_reader_that_leaves_ends_the_command_silently_with_0(model: Path, photos: Path) -> None:
    with start(model, *[photos] * 20, "--format", "jsonl", stdout=subprocess.PIPE) as process:
        assert process.stdout
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr
        told = process.stderr.read()
    assert process.returncode == 0
    damaged = tuple(f"Error: {photos / f'{number:03}.png'}: ".encode() for number in BAD)
    assert all(line.startswith(damaged) for line in told.splitlines()), told


# Errors


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--format", "parquet"], "Parquet cannot be written to stdout"),
        (["--embeddings", "f.txt"], "features cannot be written as 'f.txt'"),
        (["--embeddings", "f.npy", "--out", "f.npy"], "predictions and features cannot both be 'f.npy'"),
        (["--resume"], "--resume needs files, and these predictions go to stdout"),
        (["--resume", "--embeddings", "f.npy", "--format", "csv"], "--resume needs files"),
        (["--out", "nowhere/a.csv"], "cannot write nowhere/a.csv: No such file or directory"),
        (["--out", "nowhere/a.parquet"], "cannot write nowhere/a.parquet: No such file or directory"),
        (["--out", "a.csv", "--embeddings", "nowhere/f.npy"], "cannot write a.csv and nowhere/f.npy: No such file"),
        (["--out", "a.csv", "--embeddings", "nowhere/f.parquet"], "there is no folder 'nowhere' to write f.parquet"),
        (["--out", "."], "'.' is a folder, not a file"),
    ],
)
def test_what_cannot_be_done_is_a_sentence_and_nothing_is_left_behind(
    options: list[str], told: str, predict: Command, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = predict(photos, *options)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith(f"Error: {told}")
    assert list(tmp_path.iterdir()) == []


def test_two_formats_do_not_parse(predict: Command, photos: Path) -> None:
    result = predict(photos, "--json", "--format", "csv")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "--json and --format csv ask for two formats" in " ".join(result.stderr.split())


@pytest.mark.parametrize("name", ["a.csv", "a.parquet"])
def test_a_file_that_exists_is_never_overwritten(name: str, predict: Command, photos: Path, tmp_path: Path) -> None:
    assert predict(photos / "000.png", "--out", tmp_path / name).exit_code == 0
    before = {file: file.read_bytes() for file in tmp_path.iterdir()}
    for options in ([], ["--resume"]):
        result = predict(photos, "--out", tmp_path / name, *options)
        assert result.exit_code == 1
        assert told_of(result) in (
            f"{tmp_path / name} exists already",
            f"{tmp_path / name} is not from an interrupted run",
        )
    assert {file: file.read_bytes() for file in tmp_path.iterdir()} == before


def told_of(result: Result) -> str:
    return result.stderr.removeprefix("Error: ").partition(",")[0].partition(":")[0]


# Progress


class Terminal(io.StringIO):
    """A terminal that keeps its output."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("total", "shown"), [(100, "100/100"), (lambda: 110, "110/110"), (lambda: None, "110/?")])
def test_a_bar_shows_images_and_their_speed_out_of_the_total_where_it_is_known(
    total: Any, shown: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setattr(sys, "stderr", Terminal())
    done = 0 if total == 100 else 10
    assert len(list(progress.counted(["x" * 20] * 5, "predicting", total, len, done=done))) == 5
    told = sys.stderr.getvalue()  # type: ignore[attr-defined]
    assert shown in told
    assert "images/s" in told


def test_nobody_counts_the_images_where_no_bar_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    assert list(progress.counted([1, 2], "predicting", lambda: pytest.fail("counted"))) == [1, 2]


# Interrupted runs


class Full(io.FileIO):
    """A file on a disk with room for 20,000 bytes."""

    def write(self, content: Any) -> int:
        if self.tell() + len(content) > 20_000:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return super().write(content)


@pytest.fixture
def interrupted(
    predict: Command, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Result]:
    """Runs a command on a disk that fills up, and returns its output."""

    def run(*arguments: Any) -> Result:
        monkeypatch.setattr(resume, "SECONDS", 0)
        with monkeypatch.context() as patched:
            patched.setattr(outputs.Path, "open", lambda path, mode: Full(path, mode.replace("b", "")))
            return predict(photos, "--out", tmp_path / "a.jsonl", *arguments)

    return run


def test_a_disk_that_fills_up_is_a_sentence_and_the_run_goes_on_when_there_is_room(
    interrupted: Command, predict: Command, photos: Path, tmp_path: Path
) -> None:
    result = interrupted()
    assert result.exit_code == 1
    *_, error, hint = result.stderr.splitlines()
    assert error == f"Error: cannot continue writing {tmp_path / 'a.jsonl'}: No space left on device"
    assert hint == "Hint: make room, then repeat the command with --resume"
    refused = predict(photos, "--out", tmp_path / "a.jsonl")
    assert refused.stderr.startswith(f"Error: {tmp_path / 'a.jsonl'} is from an interrupted run\nHint: ")
    again = predict(photos, "--out", tmp_path / "a.jsonl", "--resume")
    assert again.exit_code == 1
    assert again.stderr.splitlines()[-1] == f"{tmp_path / 'a.jsonl'}: 300 images, 3 could not be read"
    assert (tmp_path / "a.jsonl").read_text() == predict(photos, "--format", "jsonl").stdout
    assert [file.name for file in tmp_path.iterdir()] == ["a.jsonl"]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["-k", 2], "was begun with top-k 5, not 2"),
        (["--batch-size", 8], "was begun with batch size 32, not 8"),
        (["--format", "csv"], "was begun with format 'jsonl', not 'csv'"),
        (["more.png"], "was begun with images "),
        (["--embeddings", "f.npy"], "was begun with embeddings None, not 'f.npy'"),
    ],
)
def test_another_command_does_not_go_on_with_a_run(
    options: list[Any], told: str, interrupted: Command, predict: Command, photos: Path, tmp_path: Path
) -> None:
    interrupted()
    before = (tmp_path / "a.jsonl").read_bytes()
    result = predict(photos, "--out", tmp_path / "a.jsonl", "--resume", *options)
    assert result.exit_code == 1
    assert result.stderr.startswith(f"Error: {tmp_path / 'a.jsonl'} {told}")
    assert (tmp_path / "a.jsonl").read_bytes() == before


def test_other_weights_under_the_same_name_do_not_go_on_with_a_run(
    interrupted: Command, vt: Command, model: Path, photos: Path, tmp_path: Path
) -> None:
    interrupted()
    content = model.read_bytes()
    changed = onnx.load(model)
    changed.doc_string = "another"
    onnx.save(changed, model)
    try:
        result = vt("predict", "-m", model, photos, "--out", tmp_path / "a.jsonl", "--resume")
    finally:
        model.write_bytes(content)
    assert result.stderr.startswith(f"Error: {tmp_path / 'a.jsonl'} was begun with weights ")


def test_images_that_have_changed_do_not_go_on_with_a_run(
    interrupted: Command, predict: Command, photos: Path, tmp_path: Path
) -> None:
    interrupted()
    extra = photos / "0000.png"  # sorts before the images that were answered
    extra.write_bytes(encoded(0))
    try:
        result = predict(photos, "--out", tmp_path / "a.jsonl", "--resume")
    finally:
        extra.unlink()
    assert "the images have changed" in result.stderr
    assert result.exit_code == 1


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"run": {}, "place": {"pages": 3}}'])
def test_a_damaged_note_is_a_sentence(
    content: bytes, interrupted: Command, predict: Command, photos: Path, tmp_path: Path
) -> None:
    interrupted()
    note = tmp_path / "a.jsonl.resume"
    note.write_bytes(content)
    result = predict(photos, "--out", tmp_path / "a.jsonl", "--resume")
    assert result.stderr.startswith(f"Error: {note} is not a resume file")


def test_resume_begins_where_there_is_nothing_yet(predict: Command, photos: Path, tmp_path: Path) -> None:
    predict(photos, "--out", tmp_path / "a.csv", "--resume")
    assert (tmp_path / "a.csv").read_text() == predict(photos, "--format", "csv").stdout


WRITTEN = {
    "jsonl": ["--out", "a.jsonl", "--embeddings", "f.npy"],
    "csv": ["--out", "a.csv"],
    "json": ["--out", "a.json"],
    "parquet": ["--out", "a.parquet", "--embeddings", "f.parquet"],
}


def killed_at_random(form: str, seed: int, model: Path, photos: Path, folder: Path) -> None:
    """Kill a run at random moments until it ends, and compare its files with an undisturbed run's."""
    draw, seconds = random.Random(seed), 0.0
    for name, kills in (("whole", 0), ("killed", 4)):
        (folder / name).mkdir()
        began = time.monotonic()
        for _ in range(kills):
            with start(model, *[photos] * 4, *WRITTEN[form], "--resume", cwd=folder / name) as process:
                with suppress(subprocess.TimeoutExpired):
                    process.communicate(timeout=draw.uniform(0.4, 1.0) * seconds)
                    break  # faster than the timed run
                process.kill()
        else:
            with start(model, *[photos] * 4, *WRITTEN[form], "--resume", cwd=folder / name) as process:
                _, told = process.communicate()
            assert process.returncode == 1, told  # three of the images are damaged
            assert told.splitlines()[-1].endswith(b": 1,200 images, 12 could not be read")
        seconds = time.monotonic() - began
    whole, killed = (
        {file.name: file.read_bytes() for file in (folder / name).iterdir()} for name in ("whole", "killed")
    )
    assert whole == killed


@pytest.mark.parametrize(("form", "seed"), [("jsonl", 0), ("csv", 1), ("parquet", 2)])
def test_a_run_killed_at_random_moments_ends_with_the_same_files(
    form: str, seed: int, model: Path, photos: Path, tmp_path: Path
) -> None:
    killed_at_random(form, seed, model, photos, tmp_path)


@pytest.mark.stress
@pytest.mark.parametrize("seed", range(3, 23))
def test_a_run_killed_at_random_moments_ends_with_the_same_files_twenty_times(
    seed: int, model: Path, photos: Path, tmp_path: Path
) -> None:
    killed_at_random(list(WRITTEN)[seed % len(WRITTEN)], seed, model, photos, tmp_path)
