"""Boxes from shapes: the geometry that the formats share."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fewshot_cli.datasets.formats.boxes import TOLERANCE, clip, ellipse_hull, hull, turned
from fewshot_cli.datasets.formats.image_files import tails

pixels = st.floats(-50, 150, allow_nan=False, width=32)


def test_the_hull_of_points_is_the_box_around_them() -> None:
    """Their smallest and largest coordinates."""
    assert (1, 2, 5, 9) == hull([(1, 9), (5, 4), (3, 2)])


@pytest.mark.parametrize(("degrees", "box"), [(0, (2, 2, 6, 4)), (90, (3, 1, 5, 5)), (180, (2, 2, 6, 4))])
def test_a_box_turned_about_its_centre(degrees: float, box: tuple[float, ...]) -> None:
    """A quarter turn swaps the sides, a half turn changes nothing."""
    assert pytest.approx(box) == turned((2, 2, 6, 4), degrees, (4, 3))


def test_turning_is_clockwise_on_the_screen() -> None:
    """About its upper left corner, as in Label Studio, a box turned by 90 degrees lies to the left of it."""
    assert pytest.approx((8, 5, 10, 9)) == turned((10, 5, 14, 7), 90, (10, 5))


@given(st.floats(0, 360), st.floats(0.5, 40), st.floats(0.5, 40))
def test_the_box_of_an_ellipse_touches_its_outline(degrees: float, a: float, b: float) -> None:
    """It is the box around many points of the outline."""
    angles, turn = np.linspace(0, 2 * math.pi, 4001), math.radians(degrees)
    x, y = a * np.cos(angles), b * np.sin(angles)
    xs, ys = x * math.cos(turn) - y * math.sin(turn), x * math.sin(turn) + y * math.cos(turn)
    expected = (xs.min() + 7, ys.min() - 3, xs.max() + 7, ys.max() - 3)
    assert pytest.approx(expected, abs=1e-3) == ellipse_hull((7, -3), (a, b), degrees)


@given(pixels, pixels, pixels, pixels)
def test_a_box_is_clipped_to_its_image_or_refused_with_a_reason(x1: float, y1: float, x2: float, y2: float) -> None:
    """What comes back has an area inside the image, and was no more than the tolerance outside."""
    box, reason = clip((x1, y1, x2, y2), (100, 80), "box")
    assert (box is None) == (reason is not None)
    if box:
        assert 0 <= box[0] < box[2] <= 100
        assert 0 <= box[1] < box[3] <= 80
        assert max(abs(new - old) for new, old in zip(box, (x1, y1, x2, y2), strict=True)) <= TOLERANCE


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("/data/upload/1/a.jpg", ["data/upload/1/a.jpg", "upload/1/a.jpg", "1/a.jpg", "a.jpg"]),
        ("C:\\photos\\a.jpg", ["photos/a.jpg", "a.jpg"]),
        ("../images/./a.jpg", ["images/a.jpg", "a.jpg"]),
        ("../..", []),
    ],
)
def test_a_path_of_another_machine_has_ends(name: str, expected: list[str]) -> None:
    """The longest first, without roots, drives and ways out."""
    assert expected == list(tails(name))
