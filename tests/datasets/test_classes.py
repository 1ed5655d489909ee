"""Class names as people type them."""

from __future__ import annotations

import pytest

from fewshot_cli.datasets.classes import match_class, match_classes
from fewshot_cli.errors import DataError

MATCHES = {
    "coffee cup": ("coffee cup", "Coffee-Cup", "COFFEE_CUPS", "coffeecup"),
    "bus": ("bus", "buses"),
    "cherries": ("cherry",),
    "Dogs": ("Dogs", "dogs"),
    "dog": ("dog",),
    "glass": ("glass",),
    "glasses": ("glasses",),
}
"""Class → what people may type for it."""


def test_class_names_match_leniently() -> None:
    """Case, separators and a simple plural do not matter; an exact match wins."""
    for name, typed in MATCHES.items():
        assert [name] * len(typed) == [match_class(wanted, list(MATCHES)) for wanted in typed]


def test_unknown_classes_get_a_suggestion() -> None:
    """A misspelt class names the closest one and the others."""
    with pytest.raises(DataError, match="unknown class 'helmt'") as raised:
        match_class("helmt", ["fish", "helmet"])
    assert "Did you mean helmet? Valid: fish, helmet." == raised.value.hint


def test_long_lists_are_counted_not_printed() -> None:
    """With hundreds of classes the hint gives the closest one and the number."""
    with pytest.raises(DataError) as raised:
        match_class("class7x", [f"class{number}" for number in range(600)])
    assert "There are 600 classes." in (raised.value.hint or "") and len(raised.value.hint or "") < 80


def test_ambiguous_and_doubled_classes_are_errors() -> None:
    """Two classes that fit equally well, or one asked for twice, are not guessed at."""
    with pytest.raises(DataError, match="fits several: hard hat, hard-hat"):
        match_class("Hard_Hat", ["hard hat", "hard-hat"])
    with pytest.raises(DataError, match="is given twice"):
        match_classes(["cat", "Cats"], ["cat", "dog"])
