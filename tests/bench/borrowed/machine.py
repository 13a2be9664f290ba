"""The borrowed machine's own folder: the files that have arrived, and the runs that train there."""

import os
import shutil
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

from vtzoo.errors import VtzooError

from .packing import FOLDER
from .pieces import MANIFEST, join

ROOT = Path(__file__).resolve().parents[3]
CODE = ("vtzoo", "recipes", "model_cards", "tests/bench/borrowed")  # the folders that a training needs


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Folders that outlast a call, inside a folder that no transfer changes."""

    folder: Path

    @property
    def runs(self) -> Path:
        """The folder with a folder for each run, named RECIPE, or RECIPE-seedN for a seed N other than 0."""
        return self.folder / "runs"

    def data(self, dataset: str) -> Path:
        """The folder of a data set's Parquet files."""
        return self.folder / "cargo" / "data" / dataset

    def model(self, name: str) -> Path | None:
        """The folder of a model that was trained here or came from home; None without such a model."""
        places = (self.runs / name, self.folder / "cargo" / "models" / name)
        return next((place for place in places if (place / "result.json").exists()), None)

    def arrive(self) -> list[str]:
        """Join the parts that have come, make the wheels importable, and return the files that are still missing.

        Child processes can import the wheels too. Call this before any heavy import.
        """
        cargo, site, parts = self.folder / "cargo", self.folder / "site", self._parts()
        missing = join(parts, cargo) if parts else []
        for wheel in sorted((cargo / "wheels").glob("*.whl")):
            with zipfile.ZipFile(wheel) as file:
                if not (site / file.namelist()[0]).exists():
                    file.extractall(site)
        sys.path.insert(0, str(site))
        others = os.environ.get("PYTHONPATH", "").split(os.pathsep)
        os.environ["PYTHONPATH"] = os.pathsep.join([str(site), *filter(None, others)])
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
        os.environ["VTZOO_CACHE"] = str(self.folder / "cache")
        return missing

    def _parts(self) -> list[Path]:
        """Copies of the latest pack's parts that have come, because a call may remove the part of an earlier call."""
        store = self.folder / "parts"
        for part in sorted((ROOT / FOLDER).glob("part*")):
            manifest = (part / MANIFEST).read_bytes() if (part / MANIFEST).exists() else b""
            for kept in store.glob("part*"):
                if kept.name == part.name or (kept / MANIFEST).read_bytes() != manifest:
                    shutil.rmtree(kept)
            shutil.copytree(part, store / part.name)
        return sorted(store.glob("part*"))

    def require(self, dataset: str, missing: list[str]) -> None:
        """Refuse to train on a data set with files that have not arrived."""
        absent = [name for name in missing if name.startswith(f"data/{dataset}/")]
        if absent or not self.data(dataset).is_dir():
            first = absent[0] if absent else f"data/{dataset}"
            raise VtzooError(f"{first} has not arrived", f"carry the other parts too: {FOLDER}/part1, part2...")

    def code(self, name: str) -> Path:
        """A copy of the code for a run, which the transfers of later calls do not change."""
        copy = self.folder / "code" / name
        shutil.rmtree(copy, ignore_errors=True)
        for folder in CODE:
            ignored = shutil.ignore_patterns("__pycache__", "weights")
            shutil.copytree(ROOT / folder, copy / folder, ignore=ignored)
        return copy
