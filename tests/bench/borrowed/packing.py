"""pack: writes the folders to carry, and keeps the weights out of the working tree during the transfers."""

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
CALL = 64 * MIB  # bytes of a transfer: the working tree and a part
SPARE = MIB  # bytes of CALL, reserved for the overhead of a transfer
WEIGHTS = Path("vtzoo", "weights")
WHEELS = ("datasets", "dill", "multiprocess", "timm")  # packages that the machine lacks, or may have in another version
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")  # of the wheels
SIGNALS = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}


def pack(root: Path, data: list[Path], models: list[Path]) -> list[Path]:
    """Write the parts to carry, and return their folders; a part and the working tree together fit into one call.

    `data` are folders of Parquet files, each with the name of its data set; `models` are folders of trained teachers to
    take along.
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
        if missing := [path.name for path in needed if not path.is_file()]:
            raise VtzooError(f"{folder} is no trained model: it has no {missing[0]}", "vtzoo train makes one")
        cargo |= {f"models/{folder.resolve().name}/{path.name}": path for path in needed}
    room = CALL - SPARE - tree_bytes(root)
    if room <= 0:
        raise VtzooError("the working tree alone is larger than a call takes", "have git ignore what need not travel")
    return cut(cargo, lambda number: root / FOLDER / f"part{number + 1}", room=room, largest=room)


def wheels(folder: Path) -> list[Path]:
    """The wheels of WHEELS in the installed versions, for Python 3.12 on Linux; missing wheels are downloaded."""
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
    """The bytes of the working tree that travel: the files that git does not ignore, without weights."""
    command = ["git", "-C", str(root), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise VtzooError(f"{root} is no git checkout: {done.stderr.strip()}", "pack from one")
    paths = [root / name for name in done.stdout.split("\0") if name and not Path(name).is_relative_to(WEIGHTS)]
    return sum(path.stat().st_size for path in paths if path.is_file())


@contextmanager
def light(root: Path) -> Iterator[None]:
    """A block in which the working tree has no weights: they are moved aside on the same disk, and then put back."""
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
    """Put weights that lie aside back into the tree, without overwriting any, and return the number of folders."""
    folders = sorted((root / FOLDER / "aside").glob("*/"))
    for folder in folders:
        if (place := root / WEIGHTS / folder.name).exists():
            raise VtzooError(f"{place} is there again, and {folder} too", "delete the one that is not wanted")
        folder.rename(place)
    return len(folders)


def hold(root: Path, message: str) -> None:
    """Keep the weights out of the working tree until Ctrl-C or SIGTERM; after a signal at any moment, they are back."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_DFL)  # a shell lets its background jobs ignore Ctrl-C
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        with light(root):
            print(message, flush=True)
            signal.sigwait(SIGNALS)
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
