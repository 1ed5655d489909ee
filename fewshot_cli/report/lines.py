"""Names of lines, written at their ends instead of in a legend, and the axis of scores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from scipy.optimize import isotonic_regression

MOST = 6
"""Lines of a panel whose names find room beside it; more are named in a legend."""
APART = 0.085
"""Least distance of two names, as a share of the panel's height."""
ABOVE = 1.1
"""Where an axis ends, as a multiple of the highest that is drawn."""


class End(NamedTuple):
    """Where a line ends, in the panel's coordinates, and what it is called."""

    x: float
    y: float
    name: str
    color: str


def limit_scores(panel: Axes) -> None:
    """Let the vertical axis of scores go from 0 to a little above the highest that is drawn, at most to 1."""
    highest = float(panel.dataLim.y1) if panel.has_data() else 0.0
    panel.set_ylim(0, min(1.0, ABOVE * highest) if highest > 0 else 1.0)


def name_lines(panel: Axes, ends: Sequence[End]) -> None:
    """Write each line's name to the right of the panel, at the height of its end, moved where names would collide.

    Call it when the limits of the axes are set.
    """
    low, high = panel.get_ylim()
    ordered = sorted(ends, key=lambda end: end.y)
    heights = spread([(end.y - low) / (high - low) for end in ordered], APART)
    for end, height in zip(ordered, heights, strict=True):
        panel.annotate(
            end.name,
            xy=(end.x, end.y),
            xytext=(1.03, height),
            textcoords="axes fraction",
            color=end.color,
            fontsize=8,
            va="center",
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": end.color, "linewidth": 0.6, "alpha": 0.6, "shrinkA": 1},
        )


def spread(places: Sequence[float], apart: float) -> list[float]:
    """Places from 0 to 1 in ascending order, moved as little as it takes for any two to be `apart`, in least squares.

    If there are too many of them, they are spread evenly.
    """
    if not places:
        return []
    steps = min(apart, 1 / max(1, len(places) - 1)) * np.arange(len(places))
    levels = isotonic_regression(np.asarray(places) - steps).x
    spaced: list[float] = (np.clip(levels, 0, 1 - steps[-1]) + steps).tolist()
    return spaced
