"""The share of the trained weights, chosen on left-out shots where these are clear.

Ten shots say little of α: the best value on them is mostly chance. So α stays what the classes suggest
(`averaging.class_alpha`), unless another value is better on the left-out shots by more than one standard error.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

from fewshot_cli.evaluation.interval import standard_error
from fewshot_cli.selection.folds import FEWEST_SHOTS
from fewshot_cli.training.averaging import Average


def choose_average(start: Average, scores: Mapping[float, Sequence[float]]) -> Average:
    """The value with the highest mean, if it beats that of `start` by more than a standard error; else `start`.

    Fewer than FEWEST_SHOTS left-out shots change nothing.

    Args:
        start: what the option or the classes say.
        scores: α → a score of each left-out shot, in the same order; holds `start.alpha`, and nothing else if it is
            not to be changed.
    """
    best = clearly_best(start.alpha, scores)
    return start if best == start.alpha else Average(best, "cross-validation")


def clearly_best(start: float, scores: Mapping[float, Sequence[float]]) -> float:
    """The same for any value that left-out shots are scored at."""
    mean = {value: statistics.mean(own) for value, own in scores.items()}
    # Of equal means the one closest to where the choice starts.
    best = max(mean, key=lambda value: (mean[value], -abs(value - start)))
    gains = [higher - lower for higher, lower in zip(scores[best], scores[start], strict=True)]
    error = standard_error(gains)
    if error is None or len(gains) < FEWEST_SHOTS or statistics.mean(gains) <= error:
        return start
    return best
