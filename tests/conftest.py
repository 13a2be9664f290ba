"""What every test shares. Jaxtyping's shapes are enforced here, by beartype; elsewhere they are documentation."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from jaxtyping import install_import_hook

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # before huggingface_hub is imported: no test may wait for a network

ROOT = Path(__file__).resolve().parents[1]
CHECKED = (
    "vtzoo.drloc", "vtzoo.explain", "vtzoo.models", "vtzoo.training.augment", "vtzoo.training.crops",
    "vtzoo.training.data", "vtzoo.training.joint", "vtzoo.training.pixels", "vtzoo.training.workers",
)  # fmt: skip
install_import_hook(list(CHECKED), "beartype.beartype")


@pytest.fixture(scope="session")
def real_data() -> Callable[[str], Path]:
    """The folder of a real data set, in $VTZOO_DATA or in shared/data beside the checkout; skips where it is absent."""

    def locate(name: str) -> Path:
        folder = Path(os.environ.get("VTZOO_DATA", ROOT.parent / "shared" / "data")) / name
        if not folder.is_dir():
            pytest.skip(f"no real {name}: set VTZOO_DATA to the folder that holds it")
        return folder

    return locate
