"""How much room there is for decoded images: on a device, on a disk."""

import os
import shutil
from pathlib import Path

import torch

DEVICE_SHARE = 0.6  # of a GPU's free memory that images may take; the rest is the model's and its activations'
SHARE = 0.5  # likewise of the host's available memory, and of a disk's free space
CGROUP = Path("/sys/fs/cgroup")
MEMORY = Path("/proc/meminfo")


def on_device(device: torch.device) -> int:
    """Bytes that decoded images may take on the device; on the host, those of one of the processes that share it."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return int(DEVICE_SHARE * free)
    return int(SHARE * available_memory()) // processes()


def on_disk(folder: Path) -> int:
    """Bytes that a cache may take in the folder, which may be still to be made; a folder out of reach is an OSError."""
    existing = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    return int(SHARE * shutil.disk_usage(existing).free)


def processes() -> int:
    """How many processes train together on this machine, as torchrun tells each of them."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", 1))


def available_memory() -> int:
    """The host's available memory, in bytes, or what a container's limit leaves of it."""
    try:
        lines = dict(line.split(":", 1) for line in MEMORY.read_text().splitlines())
        free = 1024 * int(lines["MemAvailable"].split()[0])
    except (OSError, KeyError):  # no Linux: what is available is not told, so half of what is installed
        free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    try:
        limit, used = (int((CGROUP / name).read_text()) for name in ("memory.max", "memory.current"))
    except (OSError, ValueError):  # no container, or one without a limit: "max"
        return free
    return max(0, min(free, limit - used))
