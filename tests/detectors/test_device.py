"""Devices: which one is chosen, in which precision, and what an Apple GPU would meet. None is needed here."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest
import torch
from helpers_runs import REPOSITORY
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from fewshot_cli.detectors.chain import Target
from fewshot_cli.detectors.device import choose_device, computes_in_bf16, forget_peak_memory, peak_memory
from fewshot_cli.detectors.registry import build_detector
from fewshot_cli.errors import ConfigError

MPS = torch.device("mps")


def machine(monkeypatch: pytest.MonkeyPatch, *, cuda: int = 0, mps: int = 0) -> None:
    """A machine with so many GPUs of each kind."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: cuda)
    monkeypatch.setattr(torch.mps, "device_count", lambda: mps)


@pytest.mark.parametrize(
    ("cuda", "mps", "chosen"), [(0, 0, "cpu"), (1, 0, "cuda"), (0, 1, "mps"), (2, 1, "cuda")]
)  # fmt: skip
def test_auto_takes_cuda_then_mps_then_the_cpu(
    monkeypatch: pytest.MonkeyPatch, cuda: int, mps: int, chosen: str
) -> None:
    """The fastest that the machine has."""
    machine(monkeypatch, cuda=cuda, mps=mps)
    assert torch.device(chosen) == choose_device("auto")


def test_a_device_that_is_there_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """By its name, with or without a number."""
    machine(monkeypatch, cuda=2, mps=1)
    for name in ("cpu", "cuda", "cuda:1", "mps", "mps:0"):
        assert torch.device(name) == choose_device(name)


@pytest.mark.parametrize(
    ("name", "message", "hint"),
    [
        ("mps", "no device mps: this machine has 0 Apple GPUs", "--device auto or cpu"),
        ("cuda:1", "no device cuda:1: this machine has 1 CUDA GPUs", "--device auto or cpu"),
        ("xla", "device xla is not supported", "auto, cpu, cuda, cuda:N or mps"),
        ("mpz", "unknown device 'mpz'", "auto, cpu, cuda, cuda:N or mps"),
    ],
)
def test_a_device_that_is_not_there_is_a_configuration_error(
    monkeypatch: pytest.MonkeyPatch, name: str, message: str, hint: str
) -> None:
    """The message says what the machine has, the hint what would be right."""
    machine(monkeypatch, cuda=1)
    with pytest.raises(ConfigError, match=message) as caught:
        choose_device(name)
    assert hint in str(caught.value.hint)


def test_mps_computes_in_fp32_unless_told_otherwise() -> None:
    """Also a detector that is faster in bf16 on CPUs."""
    detector = build_detector("retinanet_mini", weights="none")
    assert detector.fast_in_bf16
    assert [False, True, False] == [computes_in_bf16(name, MPS, detector) for name in ("auto", "bf16", "fp32")]


def test_the_memory_of_mps_is_what_its_driver_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Freed memory is kept by torch, so it counts, until it is given back."""
    held = [700, 300]
    monkeypatch.setattr(torch.mps, "driver_allocated_memory", lambda: held[0])
    monkeypatch.setattr(torch.mps, "empty_cache", lambda: held.pop(0))
    before = peak_memory(MPS)
    forget_peak_memory(MPS)
    assert (700, 300) == (before, peak_memory(MPS))


@pytest.mark.parametrize(("given", "expected"), [({}, "1"), ({"PYTORCH_ENABLE_MPS_FALLBACK": "0"}, "0")])
def test_what_mps_lacks_runs_on_the_cpu(given: dict[str, str], expected: str) -> None:
    """The package sets torch's variable before torch can be imported, unless the user has."""
    clean = {name: value for name, value in os.environ.items() if name != "PYTORCH_ENABLE_MPS_FALLBACK"}
    code = "import os, sys, fewshot_cli; print(os.environ['PYTORCH_ENABLE_MPS_FALLBACK'], 'torch' in sys.modules)"
    environment = {**clean, **given, "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert f"{expected} False" == done.stdout.strip()


class NoDouble(TorchDispatchMode):
    """Fails where an operation gives float64, which Apple's GPUs do not have."""

    def __torch_dispatch__(self, operation: Any, types: Any, arguments: Any = (), options: Any = None) -> Any:
        result = operation(*arguments, **(options or {}))
        kinds = [leaf.dtype for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor)]
        assert torch.float64 not in kinds, operation
        return result


@pytest.mark.parametrize("name", ["yolox_nano", "retinanet_mini"])
def test_detectors_compute_without_float64(name: str) -> None:
    """Forward, losses, backward and decoding, of both families."""
    detector = build_detector(name, weights="none", image_size=64)
    canvases = [detector.make_canvas(torch.zeros(3, 50, 64, dtype=torch.uint8)) for _ in range(2)]
    targets = [
        Target(torch.tensor([[4.0, 6.0, 30.0, 40.0]]), torch.tensor([2])),
        Target(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64)),
    ]
    pixels = torch.stack([canvas.pixels for canvas in canvases])
    activations = pixels, torch.tensor([canvas.valid for canvas in canvases])
    with NoDouble():
        torch.stack(list(detector.losses(activations, 0, targets).values())).sum().backward()
        detector.detect(activations, 0, canvases)
