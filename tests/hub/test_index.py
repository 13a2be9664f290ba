"""The index file: written entries are read back, and misleading ones are refused by name."""

import hashlib
import subprocess
from pathlib import Path

import pytest

from vtzoo.errors import VtzooError
from vtzoo.hub import index
from vtzoo.hub.fetch import Content, Pin

COMMIT = "0123456789abcdef0123456789abcdef01234567"
PIN = Pin(
    repo="zoo/swin", revision=COMMIT, tag="v1.0",
    files={"config.json": Content(size=2, git_sha1="9e26dfeeb6e641a33dae4961196235bdb965b21b"),
           "onnx/model.onnx": Content(size=3, sha256="ab" * 32)},
)  # fmt: skip
TEXT = f"""
[swin]
repo = "zoo/swin"
revision = "{COMMIT}"

[swin.files]
"config.json" = {{ size = 2, sha256 = "{"ab" * 32}" }}
"""


def refusal(tmp_path: Path, text: str) -> str:
    (tmp_path / "index.toml").write_text(text)
    with pytest.raises(VtzooError) as caught:
        index.read(tmp_path / "index.toml")
    return caught.value.message


def test_what_is_written_is_read_again_beside_what_was_there(tmp_path: Path) -> None:
    index.write(tmp_path / "new" / "index.toml", 'a "quoted" näme', PIN)
    index.write(tmp_path / "new" / "index.toml", "another", PIN)
    assert index.read(tmp_path / "new" / "index.toml") == {'a "quoted" näme': PIN, "another": PIN}
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["index.toml"]


def test_the_same_models_make_the_same_file_in_any_order(tmp_path: Path) -> None:
    for name, order in (("one.toml", "ab"), ("two.toml", "ba")):
        for model in order:
            index.write(tmp_path / name, model, PIN)
    assert (tmp_path / "one.toml").read_bytes() == (tmp_path / "two.toml").read_bytes()


def test_the_shipped_index_is_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    shipped = index.known()
    index.write(tmp_path / "own.toml", "mine", PIN)
    monkeypatch.setenv("VTZOO_INDEX", str(tmp_path / "own.toml"))
    assert index.known() == shipped | {"mine": PIN}


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("[swin]", "[swin", "is not an index"),
        ('repo = "zoo/swin"', "", "repo is missing"),
        ('repo = "zoo/swin"', 'repo = "swin"', "names no commit"),
        ('repo = "zoo/swin"', 'repo = "zoo/../swin"', "names no commit"),
        (COMMIT, "main", "names no commit"),
        ("size = 2", 'size = "2"', "must be a whole number"),
        ("size = 2, ", "", "size is missing"),
        ("sha256", "md5", "unknown key"),
        (', sha256 = "' + "ab" * 32 + '"', "", "needs a sha256 or a git_sha1, one of them"),
        ("config.json", "../config.json", "would lead out of its folder"),
        ("config.json", "/etc/passwd", "would lead out of its folder"),
        ("config.json", "onnx/../../x", "would lead out of its folder"),
        ("config.json", "C:x", "would lead out of its folder"),
        ("config.json", "..\\\\x", "would lead out of its folder"),
    ],
)
def test_an_index_that_would_lead_astray_is_refused(tmp_path: Path, old: str, new: str, said: str) -> None:
    assert old in TEXT
    assert said in refusal(tmp_path, TEXT.replace(old, new))


def test_an_index_that_is_not_there_or_no_table_is_named(tmp_path: Path) -> None:
    with pytest.raises(VtzooError, match=r"cannot read the index .*nowhere\.toml"):
        index.read(tmp_path / "nowhere.toml")
    assert "swin is not a table" in refusal(tmp_path, "swin = 1")


def test_contents_are_known_by_the_hashes_that_git_and_sha256sum_give(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"what a file holds\n")
    git = subprocess.run(["git", "hash-object", file], capture_output=True, text=True, check=True).stdout.strip()
    for content in (
        Content(size=18, git_sha1=git),
        Content(size=18, sha256=hashlib.sha256(file.read_bytes()).hexdigest()),
    ):
        assert content.fits(file)
        assert content.fits(file.read_bytes())
        assert not content.fits(b"what a file holdt\n")
        assert not content.fits(tmp_path / "nowhere")
    assert not Content(size=17, git_sha1=git).fits(file)
