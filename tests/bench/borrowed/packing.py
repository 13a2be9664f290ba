"""pack: the folders to carry, and a working tree without weights for as long as it travels."""

import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

from vtzoo.data import named, named_reader
from vtzoo.errors import VtzooError

from .pieces import MIB, cut

FOLDER = ".borrowed"  # in the root of the checkout; git ignores it
CALL = 64 * MIB  # that travel at a time: the working tree, and a part
SPARE = MIB  # of it, for what a transfer adds
WEIGHTS = Path("vtzoo", "weights")
WHEELS = ("datasets", "dill", "multiprocess", "timm")  # what the machine lacks, or may have in another version
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")  # of its wheels
ENDING = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}


def pack(root: Path, data: list[Path], models: list[Path]) -> list[Path]:
    """Write the parts to carry, and return their folders: each with the working tree is small enough for one call.

    `data` are folders of a data set's Parquet files, called as the data set; `models` are folders of trained models to
    take along, as teachers.
    """
    put_back(root)
    for stale in (root / FOLDER).glob("part*"):
        shutil.rmtree(stale)
    cargo = {f"wheels/{path.name}": path for path in wheels(root / FOLDER / "wheels")}
    for folder in data:
        dataset = named.named_set(folder.resolve().name)
        parts = (*dataset.train_splits, *dataset.test_splits)
        cargo |= {f"data/{dataset.name}/{path.name}": path for path in named_reader.parquet_files(folder, parts)}
    for folder in models:
        needed = [folder / name for name in ("config.json", "model.safetensors", "result.json")]
        if lacking := [path.name for path in needed if not path.is_file()]:
            raise VtzooError(f"{folder} is no trained model: it has no {lacking[0]}", "vtzoo train makes one")
        cargo |= {f"models/{folder.resolve().name}/{path.name}": path for path in needed}
    room = CALL - SPARE - tree_bytes(root)
    if room <= 0:
        raise VtzooError("the working tree alone is larger than a call takes", "have git ignore what need not travel")
    return cut(cargo, lambda number: root / FOLDER / f"part{number + 1}", room=room, largest=room)


def wheels(folder: Path) -> list[Path]:
    """The wheels of WHEELS as they are installed here, for Python 3.12 on Linux; what is missing is downloaded."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in WHEELS:
        if not list(folder.glob(f"{name}-{version(name)}-*.whl")):
            command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary=:all:"]
            command += ["--python-version", "3.12", "--implementation", "cp", "-d", str(folder)]
            command += [f"--platform={platform}" for platform in PLATFORMS]
            done = subprocess.run([*command, f"{name}=={version(name)}"], capture_output=True, text=True, check=False)
            if done.returncode:
                reason = (done.stderr.strip().splitlines() or ["pip failed"])[-1]
                raise VtzooError(f"no wheel of {name} {version(name)}: {reason}", f"put one into {folder}")
    return [next(folder.glob(f"{name}-{version(name)}-*.whl")) for name in WHEELS]


def tree_bytes(root: Path) -> int:
    """What travels of the working tree: the files that git does not ignore, without weights."""
    command = ["git", "-C", str(root), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise VtzooError(f"{root} is no git checkout: {done.stderr.strip()}", "pack from one")
    paths = [root / name for name in done.stdout.split("\0") if name and not Path(name).is_relative_to(WEIGHTS)]
    return sum(path.stat().st_size for path in paths if path.is_file())


@contextmanager
def light(root: Path) -> Iterator[None]:
    """A block in which the working tree has no weights: they are moved aside within the disk, and put back after it."""
    put_back(root)
    aside = root / FOLDER / "aside"
    aside.mkdir(parents=True, exist_ok=True)
    try:
        for folder in sorted((root / WEIGHTS).glob("*/")):
            folder.rename(aside / folder.name)
        yield
    finally:
        put_back(root)


def put_back(root: Path) -> int:
    """Put weights that lie aside back into the working tree; how many folders. None is ever overwritten."""
    folders = sorted((root / FOLDER / "aside").glob("*/"))
    for folder in folders:
        if (place := root / WEIGHTS / folder.name).exists():
            raise VtzooError(f"{place} is there again, and {folder} too", "delete the one that is not wanted")
        folder.rename(place)
    return len(folders)


def hold(root: Path, message: str) -> None:
    """Keep the working tree light until Ctrl-C or SIGTERM; a signal at any moment ends in a tree that is whole."""
    for number in ENDING:
        signal.signal(number, signal.SIG_DFL)  # a shell lets its background jobs ignore Ctrl-C
    signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
    try:
        with light(root):
            print(message, flush=True)
            signal.sigwait(ENDING)
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)
