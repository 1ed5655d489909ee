"""Choosing the share of the trained weights: what the classes suggest, unless the left-out shots clearly differ."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fewshot_cli.selection.alpha import choose_average
from fewshot_cli.training.averaging import Average

START = Average(0.5, "classes")


def test_a_clear_gain_moves_alpha() -> None:
    """Every shot is better by about a tenth."""
    scores = {0.5: [0.3, 0.5, 0.2, 0.6], 0.75: [0.4, 0.61, 0.31, 0.7], 1.0: [0.1, 0.1, 0.1, 0.1]}
    assert Average(0.75, "cross-validation") == choose_average(START, scores)


def test_a_gain_within_a_standard_error_does_not() -> None:
    """One shot of four is better, which can be chance: mean 0.1, standard error 0.1."""
    scores = {0.5: [0.3, 0.5, 0.2, 0.1], 1.0: [0.3, 0.5, 0.2, 0.5]}
    assert START == choose_average(START, scores)


def test_few_shots_decide_nothing() -> None:
    """One has no standard error, and that of three can be small by chance."""
    assert START == choose_average(START, {0.5: [0.1], 1.0: [0.9]})
    assert START == choose_average(START, {0.5: [0.1, 0.2, 0.3], 1.0: [0.9, 0.9, 0.91]})


@given(st.lists(st.floats(0, 1), min_size=2, max_size=12))
def test_equal_scores_keep_what_the_classes_suggest(values: list[float]) -> None:
    """Also where all are zero because nothing was found."""
    assert START == choose_average(START, {0.0: values, 0.5: values, 1.0: values})
