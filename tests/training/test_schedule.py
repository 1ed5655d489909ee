"""Learning rates and the order of items, as numbers."""

from __future__ import annotations

import itertools
import math
from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fewshot_cli.training.schedule import batch_order, learning_rate


def rates(iterations: int, warmup: float, final: float = 0.01) -> list[float]:
    return [learning_rate(i, iterations, 2.0, warmup, final) for i in range(iterations)]


def test_the_warm_up_is_a_straight_line_to_the_peak() -> None:
    """Ten of a hundred iterations rise in equal steps from above zero; the eleventh is at the peak."""
    found = rates(100, 0.1)
    assert [2.0 * (i + 1) / 11 for i in range(11)] == pytest.approx(found[:11])
    assert 2.0 == pytest.approx(max(found))


def test_the_decay_is_half_a_cosine() -> None:
    """Half way between peak and end the rate is their mean, and it only falls."""
    found = rates(110, 10 / 110)
    assert 2.0 * (1 + 0.01) / 2 == pytest.approx(found[60])
    assert 2.0 * (0.01 + 0.99 * (1 + math.cos(math.pi / 4)) / 2) == pytest.approx(found[35])
    assert all(later < earlier for earlier, later in itertools.pairwise(found[10:]))


@given(st.floats(0, 1))
def test_the_run_ends_at_the_final_share(final: float) -> None:
    """The last iteration's rate is within a thousandth of `final` times the peak, and never below it."""
    last = rates(200, 0.05, final)[-1]
    assert 2.0 * final <= last == pytest.approx(2.0 * final, abs=2e-3)


def test_without_warm_up_the_first_rate_is_the_peak() -> None:
    """A warm-up of 0 starts at the peak."""
    assert 2.0 == rates(50, 0.0)[0]


@given(st.integers(1, 20), st.floats(0, 1))
def test_short_runs_have_usable_rates(iterations: int, warmup: float) -> None:
    """However short the run and long the warm-up, every rate is above zero and at most the peak."""
    assert all(0 < rate <= 2.0 for rate in rates(iterations, warmup))


@given(st.integers(1, 64), st.integers(1, 9), st.integers(1, 20))
def test_every_item_comes_once_before_any_comes_again(count: int, batch_size: int, iterations: int) -> None:
    """Batches are full, and the stream of items is a row of complete shuffles, the last cut short."""
    order = batch_order(count, batch_size, iterations, 0)
    assert [batch_size] * iterations == [len(batch) for batch in order]
    stream = [item for batch in order for item in batch]
    for start in range(0, len(stream), count):
        epoch = stream[start : start + count]
        assert {1} == set(Counter(epoch).values())
        assert set(epoch) <= set(range(count))


def test_every_round_is_shuffled_anew() -> None:
    """Two rounds over the same items come in different orders, neither in order of number."""
    first, second = batch_order(20, 20, 2, 0)
    assert first != second
    assert list(range(20)) not in (first, second)


def test_the_order_is_a_pure_function_of_the_seed() -> None:
    """The same seed gives the same order whatever torch's global generator does, which is left alone; others differ."""
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    first = batch_order(20, 4, 10, 5)
    assert torch.equal(before, torch.random.get_rng_state())
    torch.manual_seed(2)
    assert first == batch_order(20, 4, 10, 5)
    assert first != batch_order(20, 4, 10, 6)


def test_a_longer_run_begins_like_a_shorter_one() -> None:
    """The first iterations do not depend on how many follow."""
    assert batch_order(20, 4, 10, 0) == batch_order(20, 4, 30, 0)[:10]
