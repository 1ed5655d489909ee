"""Whether two measures of the same fine-tunes rise and fall together: Spearman's rank correlation over seeds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fewshot_cli.evaluation.interval import CONFIDENCE

SAMPLES = 1_000
SEED = 0
FEWEST_SEEDS = 3
"""With fewer, samples of them are too much alike for an interval."""


class RankCorrelation(NamedTuple):
    """Spearman's correlation of two measures.

    rho: −1 to 1; None where it is not defined: fewer than two pairs, or one measure is the same in all of them.
    interval: low and high end of its 95 % interval over samples of the seeds; None with fewer than FEWEST_SEEDS.
    seeds, pairs: how many there were.
    """

    rho: float | None
    interval: tuple[float, float] | None
    seeds: int
    pairs: int


def spearman(groups: Mapping[int, Sequence[tuple[float, float]]]) -> RankCorrelation:
    """The correlation of the ranks of x and y (Spearman 1904); ties share their mean rank.

    Pairs of one seed share its shots, so seeds are drawn again with replacement, each with all of its pairs, and the
    middle 95 % of the correlations of such samples are the interval: percentile intervals of Efron and Tibshirani, An
    Introduction to the Bootstrap, 1993, chapter 13. The same pairs give the same interval.

    Args:
        groups: seed → (x, y) of each of its fine-tunes; pairs with a NaN are left out, and so are seeds without pairs.
    """
    given = [np.asarray(pairs, dtype=np.float64).reshape(-1, 2) for pairs in groups.values()]
    seeds = [kept for pairs in given if len(kept := pairs[~np.isnan(pairs).any(axis=1)])]
    if not seeds:
        return RankCorrelation(None, None, 0, 0)
    pairs = np.concatenate(seeds)
    rho = _correlation(pairs)
    return RankCorrelation(
        None if math.isnan(rho) else rho,
        None if math.isnan(rho) or len(seeds) < FEWEST_SEEDS else _interval(seeds),
        len(seeds),
        len(pairs),
    )


def _interval(seeds: Sequence[NDArray[np.float64]]) -> tuple[float, float]:
    drawn = np.random.default_rng(SEED).integers(len(seeds), size=(SAMPLES, len(seeds)))
    found = [_correlation(np.concatenate([seeds[i] for i in sample])) for sample in drawn]
    tail = 50 * (1 - CONFIDENCE)
    # A measure may be the same in all pairs of a sample.
    low, high = np.nanpercentile(found, [tail, 100 - tail])
    return float(low), float(high)


def _correlation(pairs: NDArray[np.float64]) -> float:
    """Of (N, 2) pairs; NaN where it is not defined."""
    from scipy.stats import rankdata

    if (pairs == pairs[0]).all(axis=0).any():
        return math.nan
    x, y = rankdata(pairs, axis=0).T
    return float(np.corrcoef(x, y)[0, 1])
