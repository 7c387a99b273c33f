"""What a process says of its memory and its hardware, and that it says nothing where it cannot know."""

from pathlib import Path

import numpy as np
import pytest
import torch

from tokensieve import machine
from tokensieve.machine import describe_hardware, peak_memory, reset_peak_memory


def test_the_peak_is_of_the_time_since_the_reset() -> None:
    if torch.accelerator.is_available() or not Path("/proc/self/clear_refs").exists():
        pytest.skip("resident memory of a process without an accelerator, read from Linux's /proc")
    reset_peak_memory()
    before = peak_memory()
    assert before is not None and 10e6 < before < 1e12
    large = np.ones(16_000_000)
    del large
    high = peak_memory()
    assert high is not None and high - before > 100e6
    reset_peak_memory()
    after = peak_memory()
    assert after is not None and after < high - 100e6


def test_no_number_where_the_kernel_gives_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    monkeypatch.setattr(machine, "_CLEAR", tmp_path / "no folder" / "clear_refs")
    reset_peak_memory()
    assert peak_memory() is None
    monkeypatch.setattr(machine, "_CLEAR", tmp_path / "clear_refs")
    monkeypatch.setattr(machine, "_STATUS", tmp_path / "status")
    reset_peak_memory()
    assert (tmp_path / "clear_refs").read_text() == "5"
    assert peak_memory() is None
    (tmp_path / "status").write_text("Name:\tx\nVmPeak:\t 9 kB\nVmHWM:\t     123 kB\n")
    assert peak_memory() == 123 * 1024


def test_hardware_is_described_in_a_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert describe_hardware() and "\n" not in describe_hardware()
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nmodel name\t: Some CPU 9000\n")
    monkeypatch.setattr(machine, "_CPU", tmp_path / "cpuinfo")
    monkeypatch.setattr(machine.os, "sched_getaffinity", lambda pid: {0, 1}, raising=False)
    threads = torch.get_num_threads()
    assert describe_hardware() == f"2 x Some CPU 9000 (CPU), torch threads {threads}"


class Device:
    type = "cuda"


class Devices:
    @staticmethod
    def get_device_name(i: int) -> str:
        return ["A", "B", "A"][i]


def test_accelerators_are_counted_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", Device)
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 3)
    monkeypatch.setattr(torch, "get_device_module", lambda device: Devices)
    assert describe_hardware() == "2 x A, 1 x B"
