"""Learning rates and the order of items, as numbers."""

from __future__ import annotations

import itertools
import math
from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fewshot_cli.runs.schedules import PLATEAU, STEPS, Schedule, parse_schedule
from fewshot_cli.training.schedule import LOWER, PATIENCE, Rates, batch_order, decay_gain, learning_rate, plateaus


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


def test_steps_divide_the_rate_by_ten() -> None:
    """Those of the thesis, 61.5 % and 84.6 % of 130 iterations: at 80 and 110; the warm-up is that of the cosine."""
    rates_ = Rates(parse_schedule("steps:0.615,0.846"), iterations=130, peak=2.0, warmup=0.1)
    found = [rates_.at(i) for i in range(130)]
    assert rates(130, 0.1)[:14] == pytest.approx(found[:14])
    assert [2.0] * 67 + [0.2] * 30 + [0.02] * 20 == pytest.approx(found[13:])


def test_a_cosine_is_what_there_is_without_a_choice() -> None:
    """Rates of schedule `cosine`, the default, are those of `learning_rate`."""
    rates_ = Rates(iterations=50, peak=2.0, warmup=0.1)
    assert rates(50, 0.1) == [rates_.at(i) for i in range(50)]


@given(st.lists(st.floats(0.001, 10), max_size=60))
def test_plateaus_are_those_of_torch(means: list[float]) -> None:
    """PyTorch's ReduceLROnPlateau, told the same losses, reduces as often (its patience leaves out the last one)."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, factor=0.5, patience=PATIENCE - 1, threshold=LOWER, threshold_mode="rel", min_lr=0, eps=0
    )
    for mean in means:
        scheduler.step(mean)
    assert 0.5 ** plateaus(means) == optimizer.param_groups[0]["lr"]


def test_a_plateau_follows_the_mean_loss_between_measurements() -> None:
    """Losses that jump around a mean that stays: a tenth after the measurement that begins and five more."""
    rates_ = Rates(Schedule(PLATEAU), iterations=60, peak=2.0, warmup=0.0, every=5)
    found = []
    for done in range(1, 61):
        found.append(rates_.at(done - 1))
        rates_.add_loss(done, 3.0 + done % 5)
    assert [2.0] * 30 + [0.2] * 25 + [0.02] * 5 == pytest.approx(found)
    assert 12 == len(rates_.means)


def test_a_loss_that_falls_keeps_its_rate() -> None:
    """3 % lower from one measurement to the next, or over five of them, is no plateau; 2.9 % over five is."""
    assert 0 == plateaus([0.97**i * (1 - 1e-9) ** i for i in range(40)])
    assert 0 == plateaus([0.9 ** (i / 5) for i in range(40)])
    assert 1 == plateaus([1.0, 0.99, 0.98, 0.975, 0.972, 0.971])


@given(st.integers(1, 39))
def test_continued_rates_are_those_of_the_unbroken_run(stop: int) -> None:
    """From the means up to a measurement on, the rates are the same."""
    chance = torch.Generator().manual_seed(0)
    losses = torch.rand(200, generator=chance).tolist()

    def follow(rates_: Rates, start: int) -> list[float]:
        found = []
        for done in range(start + 1, 201):
            found.append(rates_.at(done - 1))
            rates_.add_loss(done, losses[done - 1])
        return found

    options = {"iterations": 200, "peak": 2.0, "warmup": 0.05, "every": 5}
    whole = Rates(Schedule(PLATEAU), **options)
    found = follow(whole, 0)
    assert found[5 * stop :] == follow(Rates(Schedule(PLATEAU), **options, means=whole.means[:stop]), 5 * stop)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "linear",
        "cosine:0.5",
        "steps",
        "steps:",
        "steps:0",
        "steps:1",
        "steps:0.5,0.5",
        "steps:0.8,0.6",
        "steps:a",
        "steps:nan",
        "plateau:3",
    ],
)
def test_no_schedule(text: str) -> None:
    """Unknown names, and shares that are not between 0 and 1 in increasing order."""
    with pytest.raises(ValueError, match=r"steps:0\.6,0\.85|cosine"):
        parse_schedule(text)


@given(st.lists(st.floats(0.001, 0.999), min_size=1, max_size=5, unique=True).map(sorted))
def test_steps_are_read_as_typed(steps: list[float]) -> None:
    """Any shares in increasing order."""
    assert Schedule(STEPS, tuple(steps)) == parse_schedule("steps:" + ", ".join(map(str, steps)))


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


@pytest.mark.parametrize(
    ("schedule", "measured", "gain"),
    [
        ("steps:0.5,0.75", {20: 0.1, 50: 0.2, 70: 0.5, 80: 0.9, 100: 0.9}, 0.3),
        ("steps:0.5", {50: 0.2, 100: 0.25}, 0.05),
        ("steps:0.5,0.75", {50: 0.2, 100: 0.25}, None),
        ("steps:0.5", {100: 0.25}, None),
        ("cosine", {50: 0.2, 100: 0.25}, None),
    ],
)
def test_the_gain_at_the_first_step_is_up_to_the_second(
    schedule: str, measured: dict[int, float], gain: float | None
) -> None:
    """From the last measurement before it; none where one of the two was not measured."""
    records = [{"iteration": iteration, "ap": ap} for iteration, ap in measured.items()]
    found = decay_gain([*records, {"iteration": 60, "ap": None}], parse_schedule(schedule), 100)
    assert found == (None if gain is None else pytest.approx(gain))
