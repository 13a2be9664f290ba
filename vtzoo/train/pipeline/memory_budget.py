"""The memory budget of decoded images: bytes on a device, bytes on a disk."""

import os
import shutil
from pathlib import Path

import torch

from vtzoo.base.machine import available_memory

DEVICE_SHARE = 0.6  # of a GPU's free memory; the model and its activations get the rest
SHARE = 0.5  # of the host's available memory, and of a disk's free space


def on_device(device: torch.device) -> int:
    """The bytes that decoded images may take on the device; on the host, the share of one of its training processes."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return int(DEVICE_SHARE * free)
    return int(SHARE * available_memory()) // processes()


def on_disk(folder: Path) -> int:
    """The bytes that a cache may take in a folder, which need not exist yet; an unreachable folder is an OSError."""
    existing = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    return int(SHARE * shutil.disk_usage(existing).free)


def processes() -> int:
    """The number of processes that train on this machine, from torchrun's environment."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", 1))
