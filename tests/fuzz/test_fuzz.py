"""Malformed input of every class: refused with a message and an exit code, quickly, with nothing left behind.

The cases and how they are judged: fuzz_harness.py; one of them by its name: fuzz_campaign.py.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from fuzz_campaign import cases
from helpers_runs import REPOSITORY

FOLDER = Path(__file__).parent


def lines_of(program: str, *arguments: str, seconds: int) -> list[dict[str, Any]]:
    """What a campaign prints, in a process that has computed nothing when it forks."""
    folders = (REPOSITORY, REPOSITORY / "tests", FOLDER)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, folders)), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, FOLDER / program, *arguments],
        env=environment, capture_output=True, text=True, timeout=seconds, check=False,
    )  # fmt: skip
    assert 0 == done.returncode, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def check(*arguments: str, least: int, seconds: int) -> None:
    lines = lines_of("fuzz_campaign.py", "--sample", *arguments, seconds=seconds)
    assert least <= len(lines)
    assert [] == [(line["name"], line["faults"], line["stderr"][-300:]) for line in lines if line["faults"]]


def test_names_are_unique() -> None:
    """Each case is found by its name."""
    names = [case.name for case in cases()]
    assert len(names) == len(set(names))


def test_a_sample_is_refused_well() -> None:
    """A case of every class."""
    check("1", "--quick", least=8, seconds=600)


@pytest.mark.slow
def test_a_larger_sample_is_refused_well() -> None:
    """Eight cases of every class."""
    check("8", "--quick", least=60, seconds=600)


@pytest.mark.slow
def test_every_class_is_refused_well() -> None:
    """More than 2,000 cases: no exit 1, no traceback, nothing over 20 s or 2 GB, nothing left behind."""
    check("350", least=2_000, seconds=4 * 3600)
