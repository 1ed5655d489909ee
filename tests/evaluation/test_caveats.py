"""Caveats beside a mAP."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fewshot_cli.evaluation.caveats import FEWEST_BOXES, FEWEST_IMAGES, caveats, caveats_of_several

COUNTS = st.tuples(st.integers(0, 100), st.integers(0, 200))


@given(COUNTS)
def test_a_small_test_set_has_a_caveat_that_counts_it(counts: tuple[int, int]) -> None:
    """Below 30 images or 50 boxes, one sentence says how many there are; from there on, none."""
    images, boxes = counts
    said = caveats(images, boxes)
    assert (images < FEWEST_IMAGES or boxes < FEWEST_BOXES) == (len(said) == 1)
    assert all(str(images) in text and str(boxes) in text for text in said)


def test_one_image_with_one_box_is_counted_in_the_singular() -> None:
    """The sentence reads well for single things."""
    assert caveats(1, 1)[0].startswith("1 test image with 1 box: too few")


@given(st.lists(COUNTS))
def test_several_test_sets_have_one_caveat_over_the_small_ones(counts: list[tuple[int, int]]) -> None:
    """However many are small, there is one sentence; and it does not speak of the large ones."""
    said = caveats_of_several(counts)
    small = [each for each in counts if caveats(*each)]
    assert bool(small) == (len(said) == 1)
    assert caveats_of_several(small) == said


@pytest.mark.parametrize("counts", [[(20, 31), (20, 31)], [(20, 31), (100, 400)]])
def test_a_single_kind_of_small_test_set_is_named_exactly(counts: list[tuple[int, int]]) -> None:
    """No range is given where there is one number."""
    assert caveats(20, 31) == caveats_of_several(counts)


def test_a_range_is_given_where_there_is_one() -> None:
    """Test sets of one size are not said to have from that to that."""
    assert caveats_of_several([(6, 8), (6, 6)])[0].startswith("Test sets of 6 images with 6 to 8 boxes: too few")
