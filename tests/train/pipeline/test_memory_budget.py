import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from vtzoo.train.pipeline import memory_budget

CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with 8,000 KiB of available memory; its folder of limits, still empty."""
    memory = tmp_path / "meminfo"
    memory.write_text(
        "MemTotal:       16000 kB\nMemFree:          100 kB\nMemAvailable:    8000 kB\nHugePages_Total: 0\n"
    )
    monkeypatch.setattr(memory_budget, "MEMORY", memory)
    monkeypatch.setattr(memory_budget, "CGROUP", tmp_path)
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    return tmp_path


def test_images_may_take_half_of_the_available_memory(machine: Path) -> None:
    assert memory_budget.on_device(CPU) == 4000 * 1024


def test_processes_on_one_machine_share_its_memory(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert memory_budget.on_device(CPU) == 1000 * 1024


@pytest.mark.parametrize(
    ("limit", "used", "available"),
    [
        ("3000000", "1000000", 2_000_000),
        ("max", "1000000", 8_192_000),
        ("10000", "20000", 0),
        ("90000000", "0", 8_192_000),
    ],
)
def test_a_containers_limit_counts_where_it_is_lower(machine: Path, limit: str, used: str, available: int) -> None:
    (machine / "memory.max").write_text(f"{limit}\n")
    (machine / "memory.current").write_text(f"{used}\n")
    assert memory_budget.available_memory() == available


def test_where_the_system_does_not_tell_half_of_the_installed_memory_counts(
    machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (machine / "meminfo").unlink()
    monkeypatch.setattr(os, "sysconf", {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 1000}.__getitem__)
    assert memory_budget.available_memory() == 2_048_000


def test_images_may_take_six_tenths_of_a_gpus_free_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (1000, 5000))
    assert memory_budget.on_device(GPU) == 600


def test_a_cache_may_take_half_of_the_free_space_where_its_folder_will_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Path] = []
    monkeypatch.setattr(shutil, "disk_usage", lambda place: asked.append(place) or SimpleNamespace(free=500))
    assert memory_budget.on_disk(tmp_path / "not" / "yet") == 250
    assert asked == [tmp_path]
