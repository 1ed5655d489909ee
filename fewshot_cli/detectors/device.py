"""Where a fine-tune computes, and in which precision."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path

import torch

from fewshot_cli.detectors.chain import Detector
from fewshot_cli.errors import ConfigError

DEVICES = "auto, cpu, cuda, cuda:N or mps"
"""What `--device` takes. mps is the GPU of Apple's machines; this package has not been run on one yet."""


def choose_device(name: str) -> torch.device:
    """The device of that name; `auto` takes a CUDA GPU if there is one, else an Apple GPU (mps), else the CPU.

    Raises:
        ConfigError: a device that this machine or this package does not have.
    """
    if name == "auto":
        return torch.device(next((kind for kind in ("cuda", "mps") if _count(kind)), "cpu"))
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"unknown device {name!r}", hint=f"Give {DEVICES}.") from error
    if device.type not in ("cpu", "cuda", "mps"):
        raise ConfigError(f"device {name} is not supported", hint=f"Give {DEVICES}.")
    if device.type != "cpu" and (device.index or 0) >= _count(device.type):
        found = f"{_count(device.type)} {'CUDA' if device.type == 'cuda' else 'Apple'} GPUs"
        raise ConfigError(f"no device {name}: this machine has {found}", hint="Give --device auto or cpu.")
    return device


def _count(kind: str) -> int:
    """How many GPUs of a kind torch can use here."""
    return torch.cuda.device_count() if kind == "cuda" else torch.mps.device_count()


def computes_in_bf16(precision: str, device: torch.device, detector: Detector) -> bool:
    """Whether to run convolutions in bfloat16.

    `auto`: on CUDA GPUs that have it, and on CPUs that have it if it measured faster for this detector; never on
    Apple's GPUs, where it has not been measured.
    """
    if precision != "auto":
        return precision == "bf16"
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "mps":
        return False
    return detector.fast_in_bf16 and bool(torch.cpu.get_capabilities().get("avx512_bf16", False))


def forget_peak_memory(device: torch.device) -> None:
    """Let `peak_memory` count from now on, where the system can (CUDA, mps, Linux)."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    if device.type == "mps":
        torch.mps.empty_cache()
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # proc(5): resets the peak resident set size


def peak_memory(device: torch.device) -> int:
    """The most bytes that this process had in use: on the GPU if it computed there, else in main memory.

    Since `forget_peak_memory`, or since the process started.
    """
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    if device.type == "mps":
        # torch counts no peak there, but keeps what tensors gave back: what it holds is close to the most it needed.
        return int(torch.mps.driver_allocated_memory())
    try:
        import resource
    except ImportError:  # not on Windows
        return 0
    # Kilobytes on Linux, bytes on macOS.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
