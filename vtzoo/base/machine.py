"""What this machine is: its processor, cores, memory and GPUs. Nothing but the standard library is needed."""

import ctypes
import os
import platform
import sys
from contextlib import suppress
from pathlib import Path

PROCESSOR, MEMORY, CGROUP = Path("/proc/cpuinfo"), Path("/proc/meminfo"), Path("/sys/fs/cgroup")
UNLIMITED = 1 << 60  # bytes; what the first version of cgroups says where there is no limit is larger
DRIVER = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"


def processor() -> str:
    """The processor's name, or its architecture where the system does not tell."""
    with suppress(OSError):
        for line in PROCESSOR.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    if sys.platform == "darwin":
        return _output("sysctl", "-n", "machdep.cpu.brand_string") or platform.machine()
    return platform.processor() or platform.machine()


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def core_limit() -> float | None:
    """How many cores' time a container may take; None without a limit."""
    with suppress(OSError, ValueError):
        quota, period = (CGROUP / "cpu.max").read_text().split()
        return int(quota) / int(period)  # "max" is a ValueError
    with suppress(OSError, ValueError):
        quota, period = (int((CGROUP / "cpu" / f"cpu.cfs_{name}_us").read_text()) for name in ("quota", "period"))
        return quota / period if quota > 0 else None
    return None


def memory() -> tuple[int, int] | None:
    """Installed and available memory, in bytes; None where the system does not tell."""
    with suppress(OSError, ValueError, KeyError):
        lines = dict(line.split(":", 1) for line in MEMORY.read_text().splitlines())
        total, free = (1024 * int(lines[name].split()[0]) for name in ("MemTotal", "MemAvailable"))
        return total, free
    with suppress(OSError, ValueError, AttributeError):  # no Linux, or no Unix
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        return total, total // 2
    return None


def memory_limit() -> int | None:
    """How many bytes of memory a container may take; None without a limit."""
    for file in ("memory.max", "memory/memory.limit_in_bytes"):
        with suppress(OSError, ValueError):
            limit = int((CGROUP / file).read_text())
            return limit if limit < UNLIMITED else None
    return None


def has_driver() -> bool:
    """Whether NVIDIA's driver can be loaded: without it, there is no CUDA."""
    try:
        ctypes.CDLL(DRIVER)
    except OSError:
        return False
    return True


def gpus() -> list[str]:
    """The names of NVIDIA's GPUs here, as the driver tells them."""
    return _output("nvidia-smi", "--query-gpu=name", "--format=csv,noheader").splitlines() if has_driver() else []


def _output(*command: str) -> str:
    """What a command prints; nothing where it is not there or fails."""
    import subprocess  # not for those who only ask for cores or a driver

    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""
