"""What this process runs on, and how much memory it needed: for reports of what an arm costs."""

import os
import platform
from pathlib import Path

import torch

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")
_CPU = Path("/proc/cpuinfo")
_NAMED = ("cuda", "xpu")
"""Kinds of accelerator that tell the name of a device."""


class _Peak:
    """Whether the kernel has agreed to begin the peak anew: else an earlier arm's peak would be told as this one's."""

    began = False


def reset_peak_memory() -> None:
    """Begin the measurement that `peak_memory` reads, for this process."""
    _Peak.began = False
    if torch.accelerator.is_available():
        torch.accelerator.reset_peak_memory_stats()
        _Peak.began = True
        return
    try:
        _CLEAR.write_text("5")  # man 5 proc: resets the peak resident set size
    except OSError:
        return
    _Peak.began = True


def peak_memory() -> int | None:
    """Most bytes in use since `reset_peak_memory`.

    Returns:
        Bytes of tensors on the accelerator; without one, of this process's resident memory. None where nobody can
        tell: before a reset, or on a system without Linux's /proc.
    """
    if not _Peak.began:
        return None
    if torch.accelerator.is_available():
        return torch.accelerator.max_memory_allocated() or None
    found = _field(_STATUS, "VmHWM")
    return None if found is None else int(found.split()[0]) * 1024


def describe_hardware() -> str:
    """What ran it: accelerators by name, or the processor, with the cores and threads that this process may use."""
    if torch.accelerator.is_available():
        accelerator = torch.accelerator.current_accelerator()
        assert accelerator is not None
        module = torch.get_device_module(accelerator)
        count = torch.accelerator.device_count()
        names = [module.get_device_name(i) if accelerator.type in _NAMED else accelerator.type for i in range(count)]
        return ", ".join(f"{names.count(name)} x {name}" for name in dict.fromkeys(names))
    name = _field(_CPU, "model name") or platform.processor() or platform.machine()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{cores} x {name} (CPU), torch threads {torch.get_num_threads()}"


def _field(path: Path, name: str) -> str | None:
    """The first value of a `name: value` file of the kernel's; None if it has none."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    for line in text.splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return None
