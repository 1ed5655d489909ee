"""Whether two measures of the same fine-tunes rise and fall together: Spearman's rank correlation over seeds."""

from __future__ import annotations

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
    if (pairs == pairs[0]).all(axis=0).any():
        return RankCorrelation(None, None, len(seeds), len(pairs))
    from scipy.stats import spearmanr

    interval = _interval(seeds) if len(seeds) >= FEWEST_SEEDS else None
    return RankCorrelation(float(spearmanr(pairs).statistic), interval, len(seeds), len(pairs))


def _interval(seeds: Sequence[NDArray[np.float64]]) -> tuple[float, float]:
    drawn = np.random.default_rng(SEED).multinomial(len(seeds), np.full(len(seeds), 1 / len(seeds)), SAMPLES)
    times = np.repeat(drawn, [len(pairs) for pairs in seeds], axis=1)
    tail = 50 * (1 - CONFIDENCE)
    # A measure may be the same in all pairs of a sample.
    low, high = np.nanpercentile(_of_samples(np.concatenate(seeds), times), [tail, 100 - tail])
    return float(low), float(high)


def _of_samples(pairs: NDArray[np.float64], times: NDArray[np.int64]) -> NDArray[np.float64]:
    """The correlations of samples of (N, 2) pairs.

    Args:
        times: (S, N), how many times each pair is in each sample.

    Returns:
        (S,): Pearson's correlation of the ranks; NaN where it is not defined.
    """
    middle = (times.sum(axis=1, keepdims=True) + 1) / 2
    x, y = (_ranks(values, times) - middle for values in pairs.T)
    above, below = (times * x * y).sum(axis=1), np.sqrt((times * x**2).sum(axis=1) * (times * y**2).sum(axis=1))
    return np.divide(above, below, out=np.full(len(times), np.nan), where=below > 0)


def _ranks(values: NDArray[np.float64], times: NDArray[np.int64]) -> NDArray[np.float64]:
    """(S, N) ranks of N values in samples that hold each of them so many times; equal ones share their mean rank."""
    _, group = np.unique(values, return_inverse=True)
    order = np.argsort(group)
    counts = np.add.reduceat(times[:, order], np.flatnonzero(np.diff(group[order], prepend=-1)), axis=1)
    means: NDArray[np.float64] = counts.cumsum(axis=1) - (counts - 1) / 2
    return means[:, group]
