"""How far a mean of a few values may be off."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

CONFIDENCE = 0.95


def half_interval(values: Sequence[float]) -> float | None:
    """Half the 95 % confidence interval of the mean (Student's t); None for fewer than two values."""
    if len(values) < 2:
        return None
    from scipy.stats import t

    quantile = float(t.ppf((1 + CONFIDENCE) / 2, len(values) - 1))
    return quantile * statistics.stdev(values) / len(values) ** 0.5


def interval_text(interval: Sequence[float] | None) -> str:
    """`, 95 % interval 0.312 to 0.447`, to be put behind a mAP; nothing where there is none."""
    return f", {CONFIDENCE:.0%} interval {interval[0]:.3f} to {interval[1]:.3f}".replace("%", " %") if interval else ""


def standard_error(values: Sequence[float]) -> float | None:
    """Of the mean; None for fewer than two values."""
    return statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else None
