import hashlib
import os
import time
from pathlib import Path

import pytest

from vtzoo.base import files


def test_a_file_is_replaced_whole_and_nothing_else_is_left(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(b"old")
    files.write(tmp_path / "a.json", b"new")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("a.json", b"new")]


def test_a_write_that_fails_leaves_only_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.json").write_bytes(b"old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("vtzoo.base.files.os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        files.write(tmp_path / "a.json", b"new")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("a.json", b"old")]


def test_a_block_that_fails_leaves_only_the_old_file(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(b"old")

    def write_half() -> None:
        with files.replacing(tmp_path / "a.json") as partial:
            partial.write_bytes(b"ne")
            raise ValueError("half written")

    with pytest.raises(ValueError, match="half"):
        write_half()
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("a.json", b"old")]


@pytest.mark.parametrize(("older_than", "left"), [(0, []), (3600, [".a.json.1.partial"])])
def test_only_old_partial_files_of_the_same_file_are_removed(older_than: int, left: list[str], tmp_path: Path) -> None:
    for number, age in enumerate((7200, 0)):
        (tmp_path / f".a.json.{number}.partial").touch()
        os.utime(tmp_path / f".a.json.{number}.partial", (time.time() - age,) * 2)
    (tmp_path / ".b.json.0.partial").touch()
    files.remove_partials(tmp_path / "a.json", older_than=older_than)
    assert sorted(path.name for path in tmp_path.iterdir()) == [*left, ".b.json.0.partial"]


def test_a_file_appears_with_the_permissions_that_the_umask_leaves(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    files.write(tmp_path / "a.json", b"new")
    assert (tmp_path / "a.json").stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.parametrize(
    ("given", "folder"), [({"VTZOO_CACHE": "/a", "XDG_CACHE_HOME": "/b"}, "/a"), ({"XDG_CACHE_HOME": "/b"}, "/b/vtzoo")]
)
def test_the_environment_chooses_the_cache_folder(
    given: dict[str, str], folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("VTZOO_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.setenv(variable, given.get(variable, ""))
    assert files.cache_folder() == Path(folder)


def test_a_hash_is_that_of_the_whole_content(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(bytes(range(256)) * 4096)
    assert files.sha256(tmp_path / "a") == hashlib.sha256(bytes(range(256)) * 4096).hexdigest()
