"""The borrowed machine's own folder: what has arrived there, unpacked, and what is trained there."""

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
TRAVELS = ("vtzoo", "recipes", "model_cards", "tests/bench/borrowed")  # what a training needs of the working tree


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Folders that outlast a call, under one that no transfer touches."""

    folder: Path

    @property
    def runs(self) -> Path:
        """Where models are trained, a folder each, called as its recipe."""
        return self.folder / "runs"

    def data(self, dataset: str) -> Path:
        """The Parquet files of a data set."""
        return self.folder / "cargo" / "data" / dataset

    def model(self, name: str) -> Path | None:
        """The folder of a trained model, from here or from home; None where there is none."""
        places = (self.runs / name, self.folder / "cargo" / "models" / name)
        return next((place for place in places if (place / "result.json").exists()), None)

    def arrive(self) -> list[str]:
        """Join what was carried, make it importable here and in processes started from here; what is still missing.

        To be called before anything heavy is imported.
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
        """The parts of the latest pack that have come: copies, as a call may take away what another one brought."""
        store = self.folder / "parts"
        for part in sorted((ROOT / FOLDER).glob("part*")):
            manifest = (part / MANIFEST).read_bytes() if (part / MANIFEST).exists() else b""
            for kept in store.glob("part*"):
                if kept.name == part.name or (kept / MANIFEST).read_bytes() != manifest:
                    shutil.rmtree(kept)
            shutil.copytree(part, store / part.name)
        return sorted(store.glob("part*"))

    def require(self, dataset: str, missing: list[str]) -> None:
        """Refuse to train on a data set of which files have not arrived."""
        lacking = [name for name in missing if name.startswith(f"data/{dataset}/")]
        if lacking or not self.data(dataset).is_dir():
            what = lacking[0] if lacking else f"data/{dataset}"
            raise VtzooError(f"{what} has not arrived", f"carry the other parts too: {FOLDER}/part1, part2...")

    def code(self, name: str) -> Path:
        """A copy of the code for one run: a later call's transfer changes nothing under it."""
        copy = self.folder / "code" / name
        shutil.rmtree(copy, ignore_errors=True)
        for folder in TRAVELS:
            ignored = shutil.ignore_patterns("__pycache__", "weights")
            shutil.copytree(ROOT / folder, copy / folder, ignore=ignored)
        return copy
