"""How many threads compute: what is given, what is free, and what is said about it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fewshot_cli import threads
from fewshot_cli.errors import ConfigError
from fewshot_cli.progress import SilentReporter

REPOSITORY = Path(__file__).parents[1]


class Heard(SilentReporter):
    """A reporter that keeps what is said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


@pytest.fixture
def four_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that may use four cores and computes with four threads by default."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(threads, "_cores", lambda: {0, 1, 4, 5})
    monkeypatch.setattr(threads, "default_threads", lambda: 4)


@pytest.mark.parametrize(
    ("free", "chosen", "busy"),
    [
        (4.0, 4, None), (3.7, 4, None), (3.0, 3, "1 core"), (2.4, 2, "2 cores"), (0.3, 1, "4 cores"), (-1, 1, "5 cores")
    ],
)  # fmt: skip
def test_free_cores_decide(
    four_cores: None, monkeypatch: pytest.MonkeyPatch, free: float, chosen: int, busy: str | None
) -> None:
    """One thread for each free core, at least one, and a remark if that is fewer than all."""
    monkeypatch.setattr(threads, "free_cores", lambda: free)
    heard = Heard()
    assert chosen == threads.choose_threads(None, heard)
    said = f"Using {chosen} of 4 threads: other processes keep {busy} busy (--threads sets it)."
    assert ([said] if busy else []) == heard.lines


def test_a_given_number_is_taken(four_cores: None) -> None:
    """Also one above the number of cores, without a remark; a number without sense is a configuration error."""
    heard = Heard()
    assert [1, 7] == [threads.choose_threads(number, heard) for number in (1, 7)]
    assert [] == heard.lines
    for number in (0, -1, 1025):
        with pytest.raises(ConfigError, match=f"threads is {number}"):
            threads.choose_threads(number, heard)


def test_the_users_variable_is_respected(monkeypatch: pytest.MonkeyPatch) -> None:
    """With OMP_NUM_THREADS set, auto takes what torch makes of it, however busy the machine is."""
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.setattr(threads, "default_threads", lambda: 3)
    monkeypatch.setattr(threads, "free_cores", lambda: pytest.fail("measured in vain"))
    assert 3 == threads.choose_threads(None, Heard())


def test_the_load_of_others_counts_on_our_cores_alone(four_cores: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Free is what may be used, less the use of those cores, plus our own part of it."""
    import psutil

    monkeypatch.setattr(psutil, "cpu_percent", lambda *_, **__: [100.0, 50.0, 90.0, 90.0, 0.0, 30.0])
    monkeypatch.setattr(psutil.Process, "cpu_percent", lambda _: 80.0)
    assert 4 - (100 + 50 + 0 + 30 - 80) / 100 == pytest.approx(threads.free_cores())


def test_the_number_is_set_and_the_default_remembered() -> None:
    """`use_threads` changes torch; what it would have used by itself stays known."""
    import torch

    before = threads.default_threads()
    try:
        threads.use_threads(3)
        assert (3, before) == (torch.get_num_threads(), threads.default_threads())
    finally:
        threads.use_threads(before)


@pytest.mark.parametrize(
    ("given", "imports", "expected"),
    [
        ({}, "fewshot_cli", "2000"),
        ({"GOMP_SPINCOUNT": "5"}, "fewshot_cli", "5"),
        ({"OMP_WAIT_POLICY": "active"}, "fewshot_cli", "None"),
        pytest.param({}, "torch, fewshot_cli", "None", marks=pytest.mark.slow),
    ],
)
def test_spinning_is_limited_unless_it_is_too_late_or_decided(
    given: dict[str, Any], imports: str, expected: str
) -> None:
    """Importing the package limits it, before torch is imported and where no OpenMP variable is set."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_"))}
    code = f"import os, {imports}; print(os.environ.get('GOMP_SPINCOUNT'))"
    environment = {**clean, **given, "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert expected == done.stdout.strip()
