"""The interval of a mean."""

from __future__ import annotations

import pytest

from fewshot_cli.evaluation.interval import half_interval


def test_half_the_interval_is_student_s() -> None:
    """Five values: t is 2.776 for four degrees of freedom, as tables print it."""
    values = [0.1, 0.2, 0.3, 0.4, 0.5]
    deviation = (sum((value - 0.3) ** 2 for value in values) / 4) ** 0.5
    assert 2.776 * deviation / 5**0.5 == pytest.approx(half_interval(values), rel=1e-3)


def test_one_value_has_no_interval() -> None:
    """Nor has none."""
    assert half_interval([0.3]) is half_interval([]) is None
