"""Checks of the cache folders, and of the environment variables of the Hub."""

import os
import shutil
import tempfile
import time
from pathlib import Path
from urllib.parse import urlsplit

from vtzoo.base import files
from vtzoo.doctor.finding import Finding

GROUP, SPACE = "caches", 1e9  # bytes; less free space is a warning
PATIENCE = 0.5  # seconds to count the bytes of a cache, which other programs fill too
ENVIRONMENT = "environment"


def check_caches() -> list[Finding]:
    """A finding on each cache: its folder, its size, the free space, and whether it is writable."""
    return [
        _check_cache("models", hub_folder(), "HF_HOME"),
        _check_cache("decoded images", files.cache_folder(), "VTZOO_CACHE"),
    ]


def hub_folder() -> Path:
    """The cache of huggingface_hub; if the package is broken, the folder that it would use."""
    try:
        from huggingface_hub import constants

        return Path(constants.HF_HUB_CACHE)
    except Exception:  # check_packages reports it
        home = os.environ.get("HF_HOME") or files.user_cache_folder() / "huggingface"
        return Path(os.environ.get("HF_HUB_CACHE") or Path(home) / "hub").expanduser()


def _check_cache(name: str, folder: Path, variable: str) -> Finding:
    """The finding on a cache folder that the environment `variable` sets."""
    advice = f"set {variable} to a writable folder on a disk with free space"
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
    """The size of the folder's files as text; after PATIENCE seconds, the size counted so far."""
    if not folder.exists():
        return "not there yet"
    total, end = 0, time.monotonic() + PATIENCE
    for place, _, names in os.walk(folder):
        for file in names:
            try:
                total += os.lstat(os.path.join(place, file)).st_size  # noqa: PTH118  (pathlib is slow)
            except OSError:  # removed in the meantime
                continue
        if time.monotonic() > end:
            return f"more than {total / 1e9:,.1f} GB"
    return f"{total / 1e9:,.1f} GB" if total >= 1e8 else f"{total / 1e6:,.1f} MB"


def check_environment() -> list[Finding]:
    """Findings on the environment variables of the Hub; a token is never shown."""
    return [_offline(), _endpoint(), _token()]


def _offline() -> Finding:
    given = os.environ.get("HF_HUB_OFFLINE") or os.environ.get("TRANSFORMERS_OFFLINE") or ""
    on = given.upper() in ("1", "ON", "YES", "TRUE")  # as huggingface_hub reads it
    says = f"{given}: nothing is downloaded" if on else "not set: missing files are downloaded"
    return Finding(group=ENVIRONMENT, name="HF_HUB_OFFLINE", says=says)


def _endpoint() -> Finding:
    """The Hub's address without its user, password and query, which may be secret."""
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
    advice = "set it to the address of a Hub, such as https://huggingface.co, or unset it"
    return Finding(
        group=ENVIRONMENT, name="HF_ENDPOINT", says="set, but not to an address", state="warning", advice=advice
    )


def _token() -> Finding:
    try:
        from huggingface_hub import get_token

        there = get_token() is not None
    except Exception:  # check_packages reports it
        there = bool(os.environ.get("HF_TOKEN"))
    if there:
        source = "set" if os.environ.get("HF_TOKEN") else "not set; logged in with hf auth login"
        return Finding(group=ENVIRONMENT, name="HF_TOKEN", says=source)
    advice = "publishing and private models need it: hf auth login"
    return Finding(group=ENVIRONMENT, name="HF_TOKEN", says="not set", state="absent", advice=advice)
