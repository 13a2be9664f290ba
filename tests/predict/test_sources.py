"""The images of the arguments and their order, against the standard library and pyarrow."""

import io
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from vtzoo.errors import VtzooError
from vtzoo.predict.sources import Source, count, image_sources


def write(folder: Path, *names: str) -> list[str]:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")
    return [str(folder / name) for name in names]


def names(*paths: str) -> list[str]:
    found = list(image_sources(paths))
    assert count(paths) == len(found)
    return [source.name for source in found]


def test_a_folder_stands_for_its_images_sorted_and_joined(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "photos/b.jpg", "photos/a.PNG", "photos/c/d/e.webp", "photos/c.jpeg", "photos/a/z.tiff")
    write(tmp_path, "photos/notes.txt", "photos/.hidden.jpg", "photos/.cache/x.jpg", "photos/jpg", "photos/a.parquet")
    monkeypatch.chdir(tmp_path)
    expected = ["a/z.tiff", "a.PNG", "b.jpg", "c/d/e.webp", "c.jpeg"]
    assert names("photos") == [f"photos/{name}" for name in expected]
    assert names("photos/") == [f"photos/{name}" for name in expected]
    assert names("./photos") == [f"./photos/{name}" for name in expected]


def test_files_stay_as_given_and_in_order(tmp_path: Path) -> None:
    files = write(tmp_path, "b.txt", ".a.jpg")
    assert names(*files, files[0], "gone.jpg") == [*files, files[0], "gone.jpg"]
    assert [source.content for source in image_sources(files)] == files


def test_a_pattern_stands_for_what_it_matches_sorted(tmp_path: Path) -> None:
    files = write(tmp_path, "a1.jpg", "a2.jpg", "b.jpg", "deep/er/a3.jpg")
    assert names(f"{tmp_path}/a*.jpg") == files[:2]
    assert names(f"{tmp_path}/**/a*.jpg") == [files[0], files[1], files[3]]


def test_a_pattern_that_matches_a_folder_and_its_files_names_each_once(tmp_path: Path) -> None:
    files = write(tmp_path, "deep/a.jpg", "deep/er/b.jpg")
    assert sorted(names(f"{tmp_path}/**")) == sorted(files)


def test_a_file_with_brackets_in_its_name_is_no_pattern(tmp_path: Path) -> None:
    files = write(tmp_path, "a[1].jpg", "a1.jpg")
    assert names(files[0]) == [files[0]]


@pytest.mark.parametrize("name", ["none*.jpg", "gone.jpg", "empty", "x" * 5000])
def test_what_stands_for_no_image_is_a_source_all_the_same(name: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert list(image_sources([f"{tmp_path}/{name}"])) == [Source(f"{tmp_path}/{name}", f"{tmp_path}/{name}")]


def test_links_to_folders_are_followed_and_one_that_leads_back_ends(tmp_path: Path) -> None:
    write(tmp_path, "photos/a.jpg", "photos/deep/b.jpg", "elsewhere/c.jpg")
    (tmp_path / "photos" / "deep" / "loop").symlink_to(tmp_path / "photos", target_is_directory=True)
    (tmp_path / "photos" / "more").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    assert names(f"{tmp_path}/photos") == [
        f"{tmp_path}/photos/{name}" for name in ("a.jpg", "deep/b.jpg", "more/c.jpg")
    ]


def test_a_folder_that_cannot_be_read_is_named_and_the_others_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = write(tmp_path, "a.jpg", "broken/b.jpg", "c.jpg")
    scandir = os.scandir

    def failing(folder: str) -> Iterator[os.DirEntry[str]]:
        if folder.endswith("broken"):
            raise OSError(5, "Input/output error")
        return scandir(folder)

    monkeypatch.setattr("os.scandir", failing)
    first, broken, last = image_sources([str(tmp_path)])
    assert (first.name, last.name) == (files[0], files[2])
    assert str(broken.content) == f"cannot read the folder '{tmp_path}/broken': Input/output error"


# A list on stdin


def test_a_list_on_stdin_stands_where_the_dash_does(tmp_path: Path) -> None:
    files = write(tmp_path, "a b.jpg", "c.jpg", "folder/d.jpg", "last.jpg")
    listed = f"{files[0]}\n\n{tmp_path}/folder\r\n{files[1]}".encode()
    found = image_sources(["first.jpg", "-", files[3]], io.BytesIO(listed))
    assert [source.name for source in found] == ["first.jpg", files[0], files[2], files[1], files[3]]
    assert count(["first.jpg", "-"]) is None


@pytest.mark.parametrize("chunk", [1, 7, 1 << 16])
def test_a_list_may_end_its_paths_with_nul(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vtzoo.predict.sources.CHUNK", chunk)
    found = image_sources(["-"], io.BytesIO(b"a\nb.jpg\0c.jpg\0\0d.jpg"), null=True)
    assert [source.name for source in found] == ["a\nb.jpg", "c.jpg", "d.jpg"]


@pytest.mark.parametrize("end", [b"\n", b"\0"])
def test_the_first_paths_are_taken_before_the_list_ends(end: bytes) -> None:
    reader, writer = os.pipe()
    with os.fdopen(reader, "rb") as listed, os.fdopen(writer, "wb", buffering=0) as writing:
        found = image_sources(["-"], listed, null=end == b"\0")
        for name in ("a.jpg", "b.jpg"):
            writing.write(name.encode() + end)
            assert next(found).name == name


def test_a_name_that_is_not_utf8_leads_to_its_file(tmp_path: Path) -> None:
    path = os.fsencode(tmp_path) + b"/\xff.jpg"
    (source,) = image_sources(["-"], io.BytesIO(path))
    assert os.fsencode(source.name) == path


def test_a_closed_stdin_is_a_sentence() -> None:
    with pytest.raises(VtzooError, match="stdin is closed"):
        list(image_sources(["-"], None))


# Parquet


def parquet(path: Path, columns: dict[str, pa.Array], group: int = 1000) -> str:
    pq.write_table(pa.table(columns), path, row_group_size=group)
    return str(path)


IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
ROWS = [{"bytes": b"one", "path": None}, {"bytes": None, "path": "b.jpg"}, None, {"bytes": None, "path": None}]


def test_rows_are_called_by_file_and_number_across_groups_of_rows(tmp_path: Path) -> None:
    stored = [b"%d" % row for row in range(150)]
    path = parquet(tmp_path / "a.parquet", {"label": pa.array(range(150)), "photo": pa.array(stored)}, group=40)
    found = list(image_sources([path]))
    assert found == [Source(f"{path}#{row}", content) for row, content in enumerate(stored)]
    assert count([path]) == 150


def test_images_are_bytes_or_a_path_and_an_empty_row_is_named(tmp_path: Path) -> None:
    path = parquet(tmp_path / "a.parquet", {"img": pa.array(ROWS, IMAGE), "thumbnail": pa.array([b""] * 4)})
    one, two, *empty = image_sources([path])
    assert (one.content, two.content) == (b"one", "b.jpg")
    assert [str(source.content) for source in empty] == [f"there is no image in {path}#{row}" for row in (2, 3)]


def test_a_folder_without_images_and_a_pattern_stand_for_their_parquet_files(tmp_path: Path) -> None:
    paths = [parquet(tmp_path / f"{name}.parquet", {"image": pa.array([b"1", b"2"])}) for name in "ba"]
    expected = [f"{path}#{row}" for path in reversed(paths) for row in (0, 1)]
    assert names(str(tmp_path)) == names(f"{tmp_path}/*.parquet") == expected


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"label": pa.array([1])}, "no column of images among label"),
        ({"left": pa.array([b""]), "right": pa.array([b""])}, "several columns of images: left, right"),
    ],
)
def test_a_file_without_one_column_of_images_is_named(
    columns: dict[str, pa.Array], message: str, tmp_path: Path
) -> None:
    path = parquet(tmp_path / "a.parquet", columns)
    (source,) = image_sources([path])
    assert source.name == path
    assert str(source.content) == f"{path!r} has {message}"


@pytest.mark.parametrize("content", [b"", b"PAR1 but no more", b"\0" * 1000])
def test_a_damaged_parquet_file_is_named_and_the_next_is_read(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(content)
    good = parquet(tmp_path / "b.parquet", {"image": pa.array([b"1"])})
    bad, row = image_sources([str(tmp_path)])
    assert str(bad.content).startswith(f"cannot read '{tmp_path}/a.parquet': ")
    assert row.name == f"{good}#0"
    assert count([str(tmp_path)]) is None


def test_in_a_damaged_group_of_rows_each_lost_row_is_named_and_the_other_groups_are_read(tmp_path: Path) -> None:
    stored = [os.urandom(2000) for _ in range(400)]
    path = parquet(tmp_path / "a.parquet", {"image": pa.array(stored)}, group=100)
    first = pq.ParquetFile(path).metadata.row_group(2).column(0)
    content = bytearray(Path(path).read_bytes())
    content[first.dictionary_page_offset : first.dictionary_page_offset + 400] = b"\xff" * 400
    Path(path).write_bytes(content)
    found = list(image_sources([path]))
    assert [source.name for source in found] == [f"{path}#{row}" for row in range(400)]
    lost = [source for source in found if isinstance(source.content, VtzooError)]
    assert lost == found[200:300]
    assert [source.content for source in found if source not in lost] == stored[:200] + stored[300:]


def test_parquet_without_pyarrow_is_a_sentence_that_stops_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = parquet(tmp_path / "a.parquet", {"image": pa.array([b"1"])})
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.delitem(sys.modules, "pyarrow.parquet")
    with pytest.raises(VtzooError, match="need pyarrow, which is not installed") as caught:
        list(image_sources([path]))
    assert caught.value.hint == 'install it: pip install "vtzoo[train]"'
