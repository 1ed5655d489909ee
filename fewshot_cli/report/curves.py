"""Figures of a sweep, a panel a class, a line a setup: mAP against iteration (the paper's Fig. 1), precision–recall."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from fewshot_cli.colors import BLACK, CLASSES
from fewshot_cli.evaluation.coco_metrics import RECALLS
from fewshot_cli.evaluation.interval import half_interval
from fewshot_cli.report.lines import MOST, End, limit_scores, name_lines
from fewshot_cli.sweeps.cells import Cell, Setup

DASHES = {
    "none": ":",
    "last": "--",
    "symmetric": "-",
    "first": "-.",
    "all": ":",
    "full": (0, (1, 1)),
    "custom": (0, (5, 1)),
    "auto": (0, (3, 1, 1, 1, 1, 1)),
}
"""Line style of each policy, so that the figure can be read without colour; a budget has a colour."""
MOST_COLUMNS = 3
MOST_LINES = 3
"""Seeds that are drawn as a line each; of more, a band shows the interval of their mean."""


def draw_curves(points: Mapping[Cell, Sequence[Mapping[str, Any]]]) -> Figure:
    """The figure.

    Args:
        points: the lines of metrics.jsonl (`iteration`, `ap`) of each cell, all of one detector and number of shots.
            Setups without a curve (zero-shot) are drawn as a level line.
    """
    return _panels(points, _draw_learning)


def draw_precision_recall(precision: Mapping[Cell, Sequence[float]]) -> Figure:
    """Precision at each of COCO's recalls, of the cells given: one a class and setup."""
    return _panels(precision, _draw_precision)


Panel = Callable[[Axes, str, Sequence[Setup], Mapping[Cell, Any]], None]
"""Draws one class: axes, its name, all setups (a setup has one colour in every panel), its cells."""


def _panels(values: Mapping[Cell, Any], draw: Panel) -> Figure:
    classes = list(dict.fromkeys(cell.group.class_name for cell in values))
    setups = list(dict.fromkeys(cell.setup for cell in values))
    rows = max(1, math.ceil(len(classes) / MOST_COLUMNS))
    columns = max(1, math.ceil(len(classes) / rows))
    figure = Figure(figsize=(4.2 * columns, 3.2 * rows + 0.9), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).flatten()
    for panel, name in zip(panels, classes, strict=False):
        draw(panel, name, setups, {cell: value for cell, value in values.items() if cell.group.class_name == name})
        panel.locator_params(axis="x", nbins=5)  # so that their numbers do not collide
        panel.grid(alpha=0.25)
    for panel in panels[len(classes) :]:
        panel.set_visible(False)
    _name_setups(figure, list(panels[: len(classes)]))
    return figure


def _name_setups(figure: Figure, panels: Sequence[Axes]) -> None:
    """At the ends of the lines of a single panel, if they are few; else in a legend of all panels."""
    named = [line for panel in panels for line in panel.lines if not str(line.get_label()).startswith("_")]
    by_name = {str(line.get_label()): line for line in named}
    if len(panels) == 1 and len(named) <= MOST:
        name_lines(panels[0], [_end(line) for line in named])
    elif by_name:
        figure.legend(
            [*by_name.values()], [*by_name], loc="outside lower center", ncols=min(5, len(by_name)), frameon=False
        )


def _end(line: Line2D) -> End:
    x, y = (float(np.asarray(data)[-1]) for data in (line.get_xdata(), line.get_ydata()))
    return End(x, y, str(line.get_label()), str(line.get_color()))


def _draw_precision(panel: Axes, name: str, setups: Sequence[Setup], precision: Mapping[Cell, Sequence[float]]) -> None:
    for cell, values in precision.items():
        color, dashes = _color(cell.setup, setups), DASHES.get(cell.setup.policy, "-")
        panel.plot(RECALLS, values, color=color, linestyle=dashes, linewidth=1.4, label=str(cell.setup))
    panel.set(title=name, xlabel="recall", ylabel="precision at IoU 0.50", xlim=(0, 1), ylim=(0, 1.02))


def _draw_learning(
    panel: Axes, name: str, setups: Sequence[Setup], points: Mapping[Cell, Sequence[Mapping[str, Any]]]
) -> None:
    longest = max((line["iteration"] for lines in points.values() for line in lines), default=1)
    panel.set(title=name, xlabel="iteration", ylabel="mAP on the test set", xlim=(0, longest * 1.03 or 1))
    once = []
    for setup in setups:
        by_seed = [_curve(lines) for cell, lines in points.items() if cell.setup == setup and lines]
        shared = sorted(set.intersection(*map(set, by_seed))) if by_seed else []
        curves = [[curve[i] for i in shared] for curve in by_seed]
        means = [statistics.mean(at) for at in zip(*curves, strict=True)]
        color = _color(setup, setups)
        if shared == [0]:
            _draw_level(panel, setup, means[0], longest, color)
        elif len(shared) == 1:
            once.append(f"{setup}: {means[0]:.3f}")
        elif shared:
            _draw_setup(panel, setup, shared, curves, color)
    limit_scores(panel)
    if once:
        text = "\n".join(["measured once, at the end:", *once])
        panel.text(0.03, 0.97, text, transform=panel.transAxes, va="top", fontsize=8)


def _curve(lines: Sequence[Mapping[str, Any]]) -> dict[int, float]:
    return {line["iteration"]: line["ap"] for line in lines if line["ap"] is not None}


def _draw_level(panel: Axes, setup: Setup, height: float, longest: int, color: str) -> None:
    """What needs no training has no curve."""
    dashes = DASHES.get(setup.policy, "-")
    panel.plot([0, longest], [height, height], color=color, linestyle=dashes, linewidth=1, label=str(setup))


def _draw_setup(
    panel: Axes, setup: Setup, iterations: Sequence[int], curves: Sequence[Sequence[float]], color: str
) -> None:
    """The mean over seeds; a star at its best iteration, a dot at the last.

    Behind it up to MOST_LINES seeds as thin lines; of more, the 95 % interval of their mean as a band.
    """
    at = list(zip(*curves, strict=True))
    means = [statistics.mean(values) for values in at]
    dashes = DASHES.get(setup.policy, "-")
    panel.plot(iterations, means, color=color, linestyle=dashes, linewidth=1.6, label=str(setup))
    if len(curves) > MOST_LINES:
        halves = [half_interval(values) or 0.0 for values in at]
        low, high = ([m + sign * h for m, h in zip(means, halves, strict=True)] for sign in (-1, 1))
        panel.fill_between(iterations, low, high, color=color, alpha=0.10, linewidth=0)
    elif len(curves) > 1:
        for curve in curves:
            panel.plot(iterations, curve, color=color, linestyle=dashes, linewidth=0.6, alpha=0.5)
    best = max(range(len(means)), key=means.__getitem__)
    panel.plot(iterations[best], means[best], marker="*", markersize=9, color=color)
    panel.plot(iterations[-1], means[-1], marker="o", markersize=4, color=color)


def _color(setup: Setup, setups: Sequence[Setup]) -> str:
    """One for each budget, and one for each setup without; `full` is black, the darkest in print."""
    if setup.policy == "full":
        return BLACK
    kinds = list(dict.fromkeys(other.budget or str(other) for other in setups))
    return CLASSES[kinds.index(setup.budget or str(setup)) % len(CLASSES)]
