import hashlib
from pathlib import Path

import pytest

from vtzoo.base import files


def test_a_file_is_replaced_whole_and_nothing_else_is_left(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(b"old")
    files.write(tmp_path / "a.json", b"new")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("a.json", b"new")]


def test_a_write_that_fails_keeps_the_old_file_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.json").write_bytes(b"old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("vtzoo.base.files.os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        files.write(tmp_path / "a.json", b"new")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("a.json", b"old")]


def test_a_hash_is_that_of_the_whole_content(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(bytes(range(256)) * 4096)
    assert files.sha256(tmp_path / "a") == hashlib.sha256(bytes(range(256)) * 4096).hexdigest()
