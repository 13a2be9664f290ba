"""Cores, memory, processor and GPUs, as the machine reports them and under a container's limits."""

import os
from pathlib import Path

import pytest

from vtzoo.base import machine
from vtzoo.data import decoding


@pytest.fixture
def cgroup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder in place of /sys/fs/cgroup, for a container's limits."""
    monkeypatch.setattr(machine, "CGROUP", tmp_path)
    return tmp_path


def test_the_cores_are_those_that_decoding_uses() -> None:
    assert machine.cores() == decoding.cores() <= (os.cpu_count() or 1)


@pytest.mark.parametrize(("content", "cores"), [("150000 100000\n", 1.5), ("max 100000\n", None), ("", None)])
def test_a_containers_limit_of_cores_is_its_quota_over_its_period(
    cgroup: Path, content: str, cores: float | None
) -> None:
    (cgroup / "cpu.max").write_text(content)
    assert machine.core_limit() == cores


@pytest.mark.parametrize(("quota", "cores"), [("250000", 2.5), ("-1", None)])
def test_cgroups_version_1_has_quota_and_period_in_two_files(cgroup: Path, quota: str, cores: float | None) -> None:
    (cgroup / "cpu").mkdir()
    (cgroup / "cpu" / "cpu.cfs_quota_us").write_text(quota)
    (cgroup / "cpu" / "cpu.cfs_period_us").write_text("100000")
    assert machine.core_limit() == cores


@pytest.mark.parametrize(
    ("file", "content", "limit"),
    [
        ("memory.max", "1000000\n", 1_000_000),
        ("memory.max", "max\n", None),
        ("memory/memory.limit_in_bytes", "2000000", 2_000_000),
        ("memory/memory.limit_in_bytes", str(2**63 - 4096), None),
    ],
)
def test_a_containers_limit_of_memory_is_in_bytes(cgroup: Path, file: str, content: str, limit: int | None) -> None:
    (cgroup / file).parent.mkdir(exist_ok=True)
    (cgroup / file).write_text(content)
    assert machine.memory_limit() == limit


def test_memory_is_in_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "meminfo").write_text("MemTotal:  2000 kB\nMemFree: 1 kB\nMemAvailable:  500 kB\n")
    monkeypatch.setattr(machine, "MEMORY", tmp_path / "meminfo")
    assert machine.memory() == (2_048_000, 512_000)


@pytest.fixture
def available(cgroup: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in place of /sys/fs/cgroup, without limits, of a machine with 8,000 KiB of available memory."""
    (cgroup / "meminfo").write_text("MemTotal:  16000 kB\nMemFree: 100 kB\nMemAvailable:  8000 kB\n")
    monkeypatch.setattr(machine, "MEMORY", cgroup / "meminfo")
    return cgroup


@pytest.mark.parametrize("files", machine.MEMORY_FILES)
@pytest.mark.parametrize(
    ("limit", "used", "bytes_left"),
    [
        ("3000000", "1000000", 2_000_000),
        ("max", "1000000", 8_192_000),
        ("10000", "20000", 0),
        ("90000000", "0", 8_192_000),
        (str(2**63 - 4096), "1000000", 8_192_000),
    ],
)
def test_available_memory_is_bounded_by_the_containers_limit(
    available: Path, files: tuple[str, str], limit: str, used: str, bytes_left: int
) -> None:
    for file, content in zip(files, (limit, used), strict=True):
        (available / file).parent.mkdir(exist_ok=True)
        (available / file).write_text(f"{content}\n")
    assert machine.available_memory() == bytes_left


def test_without_meminfo_half_of_the_installed_memory_counts_as_available(
    available: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (available / "meminfo").unlink()
    monkeypatch.setattr(os, "sysconf", {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 1000}.__getitem__)
    assert machine.available_memory() == 2_048_000
    monkeypatch.delattr(os, "sysconf")
    assert machine.available_memory() == 0


def test_the_processor_has_a_name_with_and_without_proc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cpuinfo").write_text("processor: 0\nmodel name\t: Abacus 9 @ 2 Hz\n")
    monkeypatch.setattr(machine, "PROCESSOR", tmp_path / "cpuinfo")
    assert machine.processor() == "Abacus 9 @ 2 Hz"
    monkeypatch.setattr(machine, "PROCESSOR", tmp_path / "nowhere")
    assert machine.processor()


def test_without_a_driver_there_are_no_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "DRIVER", "libno-such-driver.so.1")
    assert not machine.has_driver()
    assert machine.gpus() == []


def test_a_driver_without_nvidia_smi_lists_no_gpus(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(machine, "has_driver", lambda: True)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert machine.gpus() == []
