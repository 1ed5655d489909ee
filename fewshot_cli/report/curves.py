"""Figures of a sweep, a panel a class, a line a setup: mAP against iteration (the paper's Fig. 1), precision–recall."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fewshot_cli.evaluation.coco_metrics import RECALLS
from fewshot_cli.sweeps.cells import Cell, Setup
from fewshot_cli.sweeps.summary import estimate

PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
"""Okabe and Ito's colours, distinguishable for colour-blind readers."""
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
        panel.grid(alpha=0.25)
    for panel in panels[len(classes) :]:
        panel.set_visible(False)
    if classes:
        lines, labels = panels[0].get_legend_handles_labels()
        figure.legend(lines, labels, loc="outside lower center", ncols=min(5, len(labels)), frameon=False)
    return figure


def _draw_precision(panel: Axes, name: str, setups: Sequence[Setup], precision: Mapping[Cell, Sequence[float]]) -> None:
    for cell, values in precision.items():
        color, dashes = _color(cell.setup, setups), DASHES.get(cell.setup.policy, "-")
        panel.plot(RECALLS, values, color=color, linestyle=dashes, linewidth=1.4, label=str(cell.setup))
    panel.set(title=name, xlabel="recall", ylabel="precision at IoU 0.50", xlim=(0, 1), ylim=(0, 1.02))


def _draw_learning(
    panel: Axes, name: str, setups: Sequence[Setup], points: Mapping[Cell, Sequence[Mapping[str, Any]]]
) -> None:
    longest = max((line["iteration"] for lines in points.values() for line in lines), default=1)
    for setup in setups:
        by_seed = [lines for cell, lines in points.items() if cell.setup == setup and lines]
        if by_seed:
            _draw_setup(panel, setup, by_seed, longest, _color(setup, setups))
    panel.set(title=name, xlabel="iteration", ylabel="mAP on the test set", ylim=(0, None), xlim=(0, longest * 1.03))


def _draw_setup(
    panel: Axes, setup: Setup, by_seed: Sequence[Sequence[Mapping[str, Any]]], longest: int, color: str
) -> None:
    """Mean over seeds, its 95 % interval as a band; a star at the best iteration, a dot at the last."""
    shared = sorted(set.intersection(*({line["iteration"] for line in lines} for lines in by_seed)))
    values = [[line["ap"] for lines in by_seed for line in lines if line["iteration"] == i] for i in shared]
    means = [statistics.mean(at) for at in values]
    if shared == [0]:
        panel.axhline(means[0], color=color, linestyle=DASHES.get(setup.policy, "-"), linewidth=1, label=str(setup))
        return
    halves = [(found.margin or 0.0) if (found := estimate(at)) else 0.0 for at in values]
    low, high = ([m + sign * h for m, h in zip(means, halves, strict=True)] for sign in (-1, 1))
    panel.plot(shared, means, color=color, linestyle=DASHES.get(setup.policy, "-"), linewidth=1.6, label=str(setup))
    panel.fill_between(shared, low, high, color=color, alpha=0.10, linewidth=0)
    best = max(range(len(means)), key=means.__getitem__)
    panel.plot(shared[best], means[best], marker="*", markersize=9, color=color)
    panel.plot(shared[-1], means[-1], marker="o", markersize=4, color=color)


def _color(setup: Setup, setups: Sequence[Setup]) -> str:
    """One for each budget, and one for each setup without; `full` is black, the darkest in print."""
    if setup.policy == "full":
        return PALETTE[-1]
    kinds = list(dict.fromkeys(other.budget or str(other) for other in setups))
    return PALETTE[kinds.index(setup.budget or str(setup)) % (len(PALETTE) - 1)]
