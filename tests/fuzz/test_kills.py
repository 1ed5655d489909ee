"""Commands that are killed at random moments and called again end as if nothing had happened."""

from __future__ import annotations

import pytest
from test_fuzz import lines_of


def check(count: int, seconds: int) -> None:
    lines = lines_of("kill_campaign.py", "--count", str(count), seconds=seconds)
    assert count == len(lines)
    assert [] == [line for line in lines if line["faults"]]


@pytest.mark.slow
def test_a_kill_changes_nothing() -> None:
    """One kill of fetch."""
    check(1, seconds=600)


@pytest.mark.slow
def test_a_few_kills_change_nothing() -> None:
    """One kill each of fetch, augment and fine-tunes."""
    check(4, seconds=600)


@pytest.mark.slow
def test_fifty_kills_change_nothing() -> None:
    """Fetch, augment, fine-tunes of three policies, with folds, sweep and predict: every file is that of the undisturbed call."""
    check(50, seconds=3600)
