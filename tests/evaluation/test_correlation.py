"""Rank correlation over the cells of a sweep, held against ranks by hand and scipy's own function."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr

from fewshot_cli.evaluation.correlation import RankCorrelation, spearman

Pairs = list[tuple[float, float]]


def by_hand(pairs: Sequence[tuple[float, float]]) -> float:
    """Ranks by counting, ties sharing their mean, and Pearson's correlation of the ranks."""
    ranks = [
        [sum(other < one for other in values) + (sum(other == one for other in values) + 1) / 2 for one in values]
        for values in zip(*pairs, strict=True)
    ]
    x, y = ([rank - sum(each) / len(each) for rank in each] for each in ranks)
    return sum(map(math.prod, zip(x, y, strict=True))) / math.sqrt(sum(a * a for a in x) * sum(b * b for b in y))


values = st.integers(-5, 5).map(float)
seeds = st.dictionaries(st.integers(0, 9), st.lists(st.tuples(values, values), max_size=6), max_size=6)


@given(groups=seeds)
def test_it_is_the_correlation_of_the_ranks(groups: dict[int, Pairs]) -> None:
    """Of all pairs together, with ties; undefined where a measure is the same in all of them."""
    pairs = [pair for each in groups.values() for pair in each]
    found = spearman(groups)
    assert (len(pairs), sum(bool(each) for each in groups.values())) == (found.pairs, found.seeds)
    if min((len(set(each)) for each in zip(*pairs, strict=True)), default=0) < 2:
        assert (None, None) == found[:2]
        return
    assert pytest.approx(by_hand(pairs)) == found.rho
    assert pytest.approx(spearmanr(*zip(*pairs, strict=True)).statistic) == found.rho
    assert (found.interval is None) == (found.seeds < 3)
    if found.interval:
        assert -1 - 1e-9 <= found.interval[0] <= found.interval[1] <= 1 + 1e-9


def drawn(count: int, noise: float) -> dict[int, Pairs]:
    """Five cells a seed; y follows x, up to what is the seed's own."""
    chance = random.Random(1)
    groups = {}
    for seed in range(count):
        own = chance.gauss(0, noise)
        groups[seed] = [(x, x + own + chance.gauss(0, 0.1)) for x in (chance.random() for _ in range(5))]
    return groups


def test_the_interval_is_that_of_samples_of_the_seeds() -> None:
    """As a plain bootstrap with a generator of its own finds it; a second call gives the same."""
    groups = drawn(8, noise=0.3)
    found = spearman(groups)
    assert found == spearman(groups)
    chance = random.Random(2)
    samples = [by_hand([pair for seed in chance.choices(range(8), k=8) for pair in groups[seed]]) for _ in range(2000)]
    assert found.interval == pytest.approx(np.percentile(samples, [2.5, 97.5]), abs=0.03)


def test_seeds_that_differ_widen_the_interval() -> None:
    """The pairs of a seed are drawn together, so what they share counts once and not for each pair."""
    width = [np.ptp(spearman(drawn(8, noise)).interval or ()) for noise in (0.0, 0.5)]
    assert width[0] < width[1] / 3


def test_what_is_not_measured_is_left_out() -> None:
    """Pairs with a NaN do not count; without pairs there is nothing to say."""
    nan = math.nan
    groups = {0: [(1.0, 1.0), (nan, 9.0)], 1: [(2.0, 2.0), (0.0, nan)], 2: [(nan, nan)], 3: []}
    assert RankCorrelation(pytest.approx(1.0), None, 2, 2) == spearman(groups)  # type: ignore[arg-type]
    assert RankCorrelation(None, None, 0, 0) == spearman({})
    assert RankCorrelation(None, None, 3, 3) == spearman({seed: [(float(seed), 5.0)] for seed in range(3)})
