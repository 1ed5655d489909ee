"""Where a fine-tune computes, and in which precision."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path

import torch

from fewshot_cli.detectors.chain import Detector
from fewshot_cli.errors import ConfigError


def choose_device(name: str) -> torch.device:
    """`auto` takes a CUDA GPU if there is one; raises ConfigError for a device that this machine does not have."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"unknown device {name!r}", hint="Give auto, cpu, cuda or cuda:N.") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        found = torch.cuda.device_count()
        raise ConfigError(f"no device {name}: this machine has {found} CUDA GPUs", hint="Give --device auto or cpu.")
    if device.type not in ("cpu", "cuda"):
        raise ConfigError(f"device {name} is not supported", hint="Give auto, cpu, cuda or cuda:N.")
    return device


def computes_in_bf16(precision: str, device: torch.device, detector: Detector) -> bool:
    """Whether to run convolutions in bfloat16.

    `auto`: on GPUs that have it, and on CPUs that have it if it measured faster for this detector.
    """
    if precision != "auto":
        return precision == "bf16"
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return detector.fast_in_bf16 and bool(torch.cpu.get_capabilities().get("avx512_bf16", False))


def forget_peak_memory(device: torch.device) -> None:
    """Let `peak_memory` count from now on, where the system can (CUDA, Linux)."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # proc(5): resets the peak resident set size


def peak_memory(device: torch.device) -> int:
    """The most bytes that this process had in use: on the GPU if it computed there, else in main memory.

    Since `forget_peak_memory`, or since the process started.
    """
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    try:
        import resource
    except ImportError:  # not on Windows
        return 0
    # Kilobytes on Linux, bytes on macOS.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
