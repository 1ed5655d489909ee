"""With what a number was computed: what may change its last digits, recorded beside it."""

from __future__ import annotations

import platform
import sys
from collections.abc import Mapping
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Annotated

from typing_extensions import Doc, TypedDict

PACKAGES = ("torch", "torchvision", "numpy", "pycocotools", "pillow", "opencv-python-headless", "onnxruntime")
"""Whose versions are recorded, where they are installed."""


class Environment(TypedDict):
    """With what a number was computed."""

    threads: Annotated[int, Doc("Threads that computed on the CPU.")]
    device: Annotated[str, Doc("`cpu`, `cuda:0`, ….")]
    device_name: Annotated[str, Doc("What the manufacturer calls the processor or GPU.")]
    precision: Annotated[str, Doc("Number format of convolutions: `fp32` or `bf16`.")]
    deterministic: Annotated[bool, Doc("Whether `--deterministic` was given.")]
    versions: Annotated[dict[str, str], Doc("Of fsod, Python and the packages that compute.")]
    platform: Annotated[str, Doc("Operating system and architecture.")]
    data: Annotated[
        dict[str, str], Doc("Split → a short SHA-256 of its annotations and images; empty without ground truth.")
    ]


def describe_environment(
    *, device: str, precision: str, threads: int, deterministic: bool = False, data: Mapping[str, str] | None = None
) -> Environment:
    """What a number depends on beside its configuration.

    Args:
        device: that computed, `cpu`, `cuda:0`, ….
        precision: `fp32` or `bf16`.
        threads: that computed on the CPU.
        deterministic: whether only operations were used that give the same bits in every run.
        data: split → its hash (`datasets.fingerprint`).
    """
    return {
        "threads": threads,
        "device": device,
        "device_name": device_name(device),
        "precision": precision,
        "deterministic": deterministic,
        "versions": versions(),
        "platform": platform.platform(),
        "data": dict(data or {}),
    }


def versions() -> dict[str, str]:
    """Of fsod, Python and PACKAGES, without importing these."""
    from fewshot_cli import __version__

    found = {"fsod": __version__, "python": platform.python_version()}
    for name in PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def device_name(device: str) -> str:
    """What the manufacturer calls it."""
    if device.startswith("cuda"):
        import torch

        return torch.cuda.get_device_name(device)
    return _processor()


def _processor() -> str:
    # Python itself knows the processor's architecture alone on Linux.
    if sys.platform == "linux":
        with suppress(OSError):
            for line in Path("/proc/cpuinfo").read_text("utf-8", errors="replace").splitlines():
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
