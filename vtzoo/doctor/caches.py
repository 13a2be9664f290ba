"""Where downloads and decoded images are kept, whether they can be, and what the environment says of the Hub."""

import os
import shutil
import tempfile
import time
from pathlib import Path
from urllib.parse import urlsplit

from vtzoo.base.files import cache_folder as images_folder
from vtzoo.base.files import caches
from vtzoo.doctor.finding import Finding

GROUP, SPACE = "caches", 1e9  # bytes of free space that are few
PATIENCE = 0.5  # seconds to count the bytes of a cache, which others fill too
ENVIRONMENT = "environment"


def examine() -> list[Finding]:
    """A finding on each cache: its place, its size, the room that is left, and whether it can be written to."""
    return [
        _judge("models", hub_folder(), "HF_HOME"),
        _judge("decoded images", images_folder(), "VTZOO_CACHE"),
    ]


def hub_folder() -> Path:
    """The Hub's cache: where huggingface_hub says that it is, or would say if it could be imported."""
    try:
        from huggingface_hub import constants

        return Path(constants.HF_HUB_CACHE)
    except Exception:  # a broken package is another finding
        home = os.environ.get("HF_HOME") or caches() / "huggingface"
        return Path(os.environ.get("HF_HUB_CACHE") or Path(home) / "hub").expanduser()


def _judge(name: str, folder: Path, variable: str) -> Finding:
    """The finding on the cache in a folder that the environment `variable` moves elsewhere."""
    advice = f"let {variable} name a folder on a disk with room, that you may write to"
    try:
        existing = next(place for place in (folder, *folder.absolute().parents) if place.exists())
        with tempfile.TemporaryFile(dir=existing):
            free = shutil.disk_usage(existing).free
    except OSError as error:
        says = f"{folder} cannot be written to: {error.strerror}"
        return Finding(group=GROUP, name=name, says=says, state="warning", advice=advice)
    says = f"{folder}: {_size(folder)}, {free / 1e9:,.1f} GB free"
    if free < SPACE:
        return Finding(group=GROUP, name=name, says=says, state="warning", advice=advice)
    return Finding(group=GROUP, name=name, says=says)


def _size(folder: Path) -> str:
    """How much is in the folder, in words; a large one is counted for a moment alone."""
    if not folder.exists():
        return "not there yet"
    total, end = 0, time.monotonic() + PATIENCE
    for place, _, files in os.walk(folder):
        for file in files:
            try:
                total += os.lstat(os.path.join(place, file)).st_size  # noqa: PTH118  (pathlib is slow)
            except OSError:  # removed meanwhile
                continue
        if time.monotonic() > end:
            return f"more than {total / 1e9:,.1f} GB"
    return f"{total / 1e9:,.1f} GB" if total >= 1e8 else f"{total / 1e6:,.1f} MB"


def environment() -> list[Finding]:
    """Findings on what the environment says of the Hub; a token is never shown."""
    return [_offline(), _endpoint(), _token()]


def _offline() -> Finding:
    given = os.environ.get("HF_HUB_OFFLINE") or os.environ.get("TRANSFORMERS_OFFLINE") or ""
    on = given.upper() in ("1", "ON", "YES", "TRUE")  # as huggingface_hub reads it
    says = f"{given}: nothing is downloaded" if on else "not set: what is missing is downloaded"
    return Finding(group=ENVIRONMENT, name="HF_HUB_OFFLINE", says=says)


def _endpoint() -> Finding:
    """The Hub's address, without what may be secret in it: a user, a password, a query."""
    given = os.environ.get("HF_ENDPOINT")
    if not given:
        return Finding(group=ENVIRONMENT, name="HF_ENDPOINT", says="not set: https://huggingface.co")
    try:
        address = urlsplit(given)
        port = f":{address.port}" if address.port else ""
        if address.scheme in ("http", "https") and address.hostname:
            says = f"{address.scheme}://{address.hostname}{port}{address.path}"
            return Finding(group=ENVIRONMENT, name="HF_ENDPOINT", says=says)
    except ValueError:
        pass
    advice = "set it to the address of a Hub, as https://huggingface.co, or unset it"
    return Finding(group=ENVIRONMENT, name="HF_ENDPOINT", says="set, to no address", state="warning", advice=advice)


def _token() -> Finding:
    try:
        from huggingface_hub import get_token

        there = get_token() is not None
    except Exception:  # a broken package is another finding
        there = bool(os.environ.get("HF_TOKEN"))
    if there:
        source = "set" if os.environ.get("HF_TOKEN") else "not set; logged in with hf auth login"
        return Finding(group=ENVIRONMENT, name="HF_TOKEN", says=source)
    advice = "to publish, or for private models: hf auth login"
    return Finding(group=ENVIRONMENT, name="HF_TOKEN", says="not set", state="absent", advice=advice)
