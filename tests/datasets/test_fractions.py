"""Subsets of a share of the images: a partition in which every class keeps its share of the objects."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fewshot_cli.datasets.fractions import divide, largest_difference
from fewshot_cli.datasets.sampling import subsets_of

TABLES = st.lists(st.lists(st.integers(0, 4), min_size=3, max_size=3), min_size=1, max_size=20)
SHARES = st.floats(0.15, 1)


def crowded(images: int, classes: int, seed: int) -> np.ndarray:
    """Objects as in COCO: few classes are frequent, few images crowded, and no image is empty."""
    chance = np.random.default_rng(seed)
    frequency = 0.5 / (1 + np.arange(classes))
    shown = chance.random((images, classes)) < frequency
    counts = shown * chance.geometric(0.35, (images, classes))
    counts[counts.sum(axis=1) == 0, 0] = 1
    return counts.astype(np.int64)


@pytest.mark.parametrize("parts", [1, 2, 3, 6, 7, 10, 49, 100])
def test_as_many_subsets_as_fit_into_the_whole(parts: int) -> None:
    """The share 1/n gives n subsets, whatever its last bit; a little more of it gives one less."""
    assert parts == subsets_of(1 / parts) == subsets_of(float(f"{1 / parts:.12f}"))
    if parts > 1:
        assert parts - 1 == subsets_of(1 / parts + 1e-3 / parts)


@settings(max_examples=30)
@given(TABLES, SHARES, st.integers(0, 2**63 - 1))
def test_the_subsets_are_disjoint_and_the_rest_is_one_more(table: list[list[int]], share: float, seed: int) -> None:
    """Every image is in one subset or in the rest, sizes are right to within one; the same seed divides alike."""
    counts = np.array(table)
    counts[counts.sum(axis=1) == 0, 0] = 1
    found, most = divide(counts, share, seed), subsets_of(share)
    assert len(counts) == len(found) and found.min() >= 0
    assert found.max() <= (most if most * share < 1 - 1e-9 else most - 1)
    assert all(abs((found == subset).sum() - share * len(counts)) <= 1 for subset in range(most))
    assert found.tolist() == divide(counts, share, seed).tolist()


def test_another_seed_divides_otherwise() -> None:
    """The seed decides between equals."""
    counts = crowded(200, 5, seed=0)
    assert divide(counts, 0.25, 0).tolist() != divide(counts, 0.25, 1).tolist()


@pytest.mark.parametrize("share", [0.25, 0.3, 0.5])
def test_images_and_objects_are_shared_out_evenly(share: float) -> None:
    """Of 600 images with 8 classes each subset has its share of the images, and of each class's objects within three."""
    counts = crowded(600, 8, seed=3)
    found = divide(counts, share, seed=0)
    for subset in range(subsets_of(share)):
        part = counts[found == subset]
        assert share * len(counts) == len(part)
        assert share * counts.sum(axis=0) == pytest.approx(part.sum(axis=0), abs=3)


def test_a_random_subset_is_further_from_the_whole() -> None:
    """The largest difference in a class's share is a tenth of that of the best of 20 random subsets of as many images."""
    counts, chance = crowded(600, 8, seed=3), np.random.default_rng(0)
    part = counts[divide(counts, 0.25, seed=0) == 0]
    drawn = [largest_difference(chance.permutation(counts)[: len(part)], counts).points for _ in range(20)]
    assert largest_difference(part, counts).points < 0.1 * min(drawn)


def test_the_difference_is_in_percentage_points_of_the_objects() -> None:
    """Counted by hand: 3 of 4 objects against 5 of 10 are 25 points apart."""
    part, whole = np.array([[3, 0], [0, 1]]), np.array([[3, 0], [0, 1], [2, 4]])
    assert (25.0, 0) == largest_difference(part, whole)
    exact = Fraction(3, 4) - Fraction(5, 10)
    assert 100 * exact == largest_difference(part, whole).points
