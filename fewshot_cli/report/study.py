"""The figures of a study: lines against an axis, learning curves, and drift by convolution."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fewshot_cli.colors import class_color
from fewshot_cli.report.drift import drift_figure
from fewshot_cli.report.pivot import draw_lines
from fewshot_cli.sweeps.axes import value_text
from fewshot_cli.sweeps.cells import Cell
from fewshot_cli.sweeps.measures import MEASURES
from fewshot_cli.sweeps.pivot import Results
from fewshot_cli.sweeps.studies.contract import Curves, Drift, FigureOf, Lines, by_seed, matches, values_of
from fewshot_cli.sweeps.summary import estimate

Metrics = Callable[[Cell], Sequence[Mapping[str, Any]]]
"""Cell → the lines of its metrics.jsonl."""
MOST_COLUMNS = 3


def draw(figure: FigureOf, results: Results, metrics: Metrics) -> Figure:
    """One figure of a study, from the finished cells."""
    if isinstance(figure, Lines):
        return _lines(figure, results)
    if isinstance(figure, Curves):
        return _curves(figure, results, metrics)
    return _drift(figure, results)


def _lines(figure: Lines, results: Results) -> Figure:
    drawn, panels = _panels(figure.panels, results)
    values = values_of(results, figure.axis)
    for panel, where in zip(panels, _places(figure.panels, results), strict=False):
        names = values_of(results, figure.lines) if figure.lines else [None]
        curves = {}
        for name in names:
            line = {figure.lines: name} if figure.lines else {}
            found = [by_seed(results, figure.measure, **{figure.axis: value}, **line, **where) for value in values]
            label = (
                f"{figure.lines} {value_text(figure.lines, name)}" if figure.lines else MEASURES[figure.measure].label
            )
            curves[label] = [estimate(list(of.values())) for of in found]
        draw_lines(panel, figure.axis, values, curves)
        panel.set_ylabel(MEASURES[figure.measure].label)
    return drawn


def _curves(figure: Curves, results: Results, metrics: Metrics) -> Figure:
    drawn, panels = _panels(figure.panels, results)
    names = values_of(results, figure.lines)
    for panel, where in zip(panels, _places(figure.panels, results), strict=False):
        for number, name in enumerate(names):
            cells = [cell for cell in results if matches(cell, {figure.lines: name, **where})]
            for key, dashes in (("ap", "-"), ("train_ap", "--")):
                _draw_curve(panel, [metrics(cell) for cell in cells], key, dashes, class_color(number))
            panel.plot([], [], color=class_color(number), label=f"{figure.lines} {value_text(figure.lines, name)}")
        panel.set(xlabel="iteration", ylabel="mAP")
        panel.grid(alpha=0.25)
    for dashes, label in (("-", "test images"), ("--", "training images")):
        panels[0].plot([], [], color="black", linestyle=dashes, label=label)
    handles, labels = panels[0].get_legend_handles_labels()
    drawn.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False, fontsize=8)
    return drawn


def _draw_curve(panel: Axes, runs: Sequence[Sequence[Mapping[str, Any]]], key: str, dashes: str, color: str) -> None:
    """The mean over runs, at the iterations at which all of them were measured."""
    by_run = [{line["iteration"]: line[key] for line in lines if line.get(key) is not None} for lines in runs]
    shared = sorted(set.intersection(*map(set, by_run))) if by_run else []
    if shared:
        means = [statistics.mean(run[iteration] for run in by_run) for iteration in shared]
        panel.plot(shared, means, dashes, color=color, linewidth=1.4)


def _drift(figure: Drift, results: Results) -> Figure:
    curves = {}
    for name in values_of(results, figure.lines):
        where = {figure.lines: name, **figure.where}
        moved = [result["convolution_drift"] for cell, result in results.items() if matches(cell, where)]
        if moved:
            curves[value_text(figure.lines, name)] = [statistics.mean(at) for at in zip(*moved, strict=True)]
    return drift_figure(curves, "the start")


def _panels(axis: str | None, results: Results) -> tuple[Figure, list[Axes]]:
    """A panel for each value of an axis, all with the same vertical axis; one without."""
    places = _places(axis, results)
    columns = min(MOST_COLUMNS, len(places))
    rows = -(-len(places) // columns)
    figure = Figure(figsize=(max(6.0, 4.2 * columns), 3.4 * rows + 0.5), layout="constrained")
    panels = list(figure.subplots(rows, columns, squeeze=False, sharey=True).flatten())
    for panel, where in zip(panels, places, strict=False):
        panel.set_title(", ".join(f"{name} {value_text(name, value)}" for name, value in where.items()))
    for panel in panels[len(places) :]:
        panel.set_visible(False)
    return figure, panels


def _places(axis: str | None, results: Results) -> list[dict[str, Any]]:
    return [{axis: value} for value in values_of(results, axis)] if axis else [{}]
