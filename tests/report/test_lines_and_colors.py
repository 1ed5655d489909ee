"""Colours of classes, names at the ends of lines, and the figures that use them."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure
from matplotlib.text import Text

from fewshot_cli.colors import CLASSES, class_color, to_rgb
from fewshot_cli.report.curves import MOST_LINES, draw_curves
from fewshot_cli.report.lines import APART, End, name_lines, spread
from fewshot_cli.report.plots import compared_plot, learning_plot
from fewshot_cli.sweeps.cells import Cell, Group, Setup

UNIT = st.floats(0, 1, allow_nan=False)


@given(st.lists(UNIT, max_size=30), st.floats(0.01, 0.3))
def test_names_are_spread_as_far_as_needed_and_stay_in_order(places: list[float], apart: float) -> None:
    """Any two are `apart`, or as far as there is room; none leaves the panel; what does not collide does not move."""
    places = sorted(places)
    moved = spread(places, apart)
    room = min(apart, 1 / max(1, len(places) - 1))
    assert len(places) == len(moved)
    assert all(second - first >= room - 1e-9 for first, second in pairwise(moved))
    assert all(-1e-9 <= place <= 1 + 1e-9 for place in moved)
    if all(second - first >= apart for first, second in pairwise(places)):
        assert places == pytest.approx(moved, abs=1e-9)


def test_names_of_lines_that_end_together_do_not_overlap() -> None:
    """Measured on the drawn figure; the words alone, without what leads to them."""
    figure = Figure(layout="constrained")
    panel = figure.subplots()
    panel.set_ylim(0, 1)
    name_lines(panel, [End(1.0, 0.5 + i / 1000, f"run {i}", class_color(i)) for i in range(6)])
    figure.draw_without_rendering()
    boxes = sorted((Text.get_window_extent(text) for text in panel.texts), key=lambda box: box.y0)
    assert all(below.y1 <= above.y0 for below, above in pairwise(boxes))
    assert 6 * APART < 1


def test_a_class_has_one_colour_by_its_place() -> None:
    """Ten colours, none twice; the eleventh class begins again."""
    assert len(CLASSES) == len({to_rgb(color) for color in CLASSES}) == 10
    assert [class_color(i) for i in range(11)] == [*CLASSES, CLASSES[0]]
    assert (0, 114, 178) == to_rgb(class_color(0))


def line(iteration: int, ap: float | None) -> dict[str, Any]:
    return {"iteration": iteration, "ap": ap, "losses": {}}


def test_a_curve_needs_two_points() -> None:
    """One measurement is a number: the caption of a page says it, no figure is drawn."""
    assert learning_plot([line(200, 0.3)]) is None
    assert compared_plot({"a": [line(200, 0.3)], "b": []}) is None
    both = compared_plot({"a": [line(0, 0.1), line(200, 0.3)], "b": [line(200, 0.3)]})
    assert both is not None and both.text.endswith("at the end: a 0.300.")


def test_a_curve_of_the_training_images_is_drawn_beside_that_of_the_test_images() -> None:
    """The words name what is drawn; a run without a test set has the curve of the training images alone."""
    lines = [{**line(i, 0.1 * i), "train_ap": 0.2 * i, "losses": {"loss": 3.0 - i}} for i in (1, 2)]
    plot = learning_plot(lines)
    assert plot is not None and plot.text.startswith(
        "Test mAP, train mAP and training loss against the iteration. The last test mAP is"
    )
    alone = learning_plot([{**each, "ap": None, "losses": {}} for each in lines])
    assert alone is not None and alone.text.startswith("Train mAP against the iteration. There is no test set")


@pytest.mark.parametrize(("seeds", "thin", "bands"), [(1, 0, 0), (2, 2, 0), (MOST_LINES, 3, 0), (MOST_LINES + 1, 0, 1)])
def test_up_to_three_seeds_are_lines_and_more_are_a_band(seeds: int, thin: int, bands: int) -> None:
    """A band of the mean of two seeds would fill the figure."""
    setup = Setup("last", 2)
    points = {
        Cell(Group("bird", 10, seed, "retinanet_mini"), setup): [line(i, 0.1 * seed + i / 1000) for i in (10, 20, 30)]
        for seed in range(seeds)
    }
    panel = draw_curves(points).axes[0]
    assert (thin, bands) == (sum(each.get_linewidth() < 1 for each in panel.lines), len(panel.collections))
    assert ["last 2"] == [text.get_text() for text in panel.texts]


@pytest.mark.parametrize(("highest", "top"), [(0.05, 0.055), (0.6, 0.66), (0.97, 1.0), (0.0, 1.0)])
def test_the_axis_of_scores_ends_above_the_highest_of_a_panel(highest: float, top: float) -> None:
    """So that the curves of a hard class are not flat lines at the bottom; nothing found is no empty axis."""
    cell = Cell(Group("bird", 10, 0, "retinanet_mini"), Setup("last", 2))
    panel = draw_curves({cell: [line(10, highest / 2), line(20, highest)]}).axes[0]
    assert (0, pytest.approx(top)) == panel.get_ylim()


def test_a_setup_that_was_measured_once_is_a_number() -> None:
    """In words instead of a curve of one point."""
    group = Group("bird", 10, 0, "retinanet_mini")
    points = {Cell(group, Setup("last", 2)): [line(30, 0.25)], Cell(group, Setup("none", None)): [line(0, 0.1)]}
    panel = draw_curves(points).axes[0]
    assert "measured once, at the end:\nlast 2: 0.250" in [text.get_text() for text in panel.texts]
    (level,) = panel.lines
    assert np.all(np.asarray(level.get_ydata()) == 0.1)
