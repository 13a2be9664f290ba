import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from vtzoo.base import machine as host
from vtzoo.train.pipeline import memory_budget

CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Simulates a machine with 8,000 KiB of available memory; returns its folder of limits, which has none yet."""
    memory = tmp_path / "meminfo"
    memory.write_text(
        "MemTotal:       16000 kB\nMemFree:          100 kB\nMemAvailable:    8000 kB\nHugePages_Total: 0\n"
    )
    monkeypatch.setattr(host, "MEMORY", memory)
    monkeypatch.setattr(host, "CGROUP", tmp_path)
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    return tmp_path


def test_images_may_take_half_of_the_available_memory(machine: Path) -> None:
    assert memory_budget.on_device(CPU) == 4000 * 1024


def test_processes_on_one_machine_share_its_memory(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert memory_budget.on_device(CPU) == 1000 * 1024


def test_images_may_take_six_tenths_of_a_gpus_free_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (1000, 5000))
    assert memory_budget.on_device(GPU) == 600


def test_a_cache_may_take_half_of_the_free_space_where_its_folder_will_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    queried: list[Path] = []
    monkeypatch.setattr(shutil, "disk_usage", lambda place: queried.append(place) or SimpleNamespace(free=500))
    assert memory_budget.on_disk(tmp_path / "not" / "yet") == 250
    assert queried == [tmp_path]
