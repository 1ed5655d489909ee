"""The figures of a run's page, as images inside the page."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from fewshot_cli.colors import CLASSES, GREY, class_color
from fewshot_cli.evaluation.coco_metrics import RECALLS
from fewshot_cli.report.choices import outcomes
from fewshot_cli.report.lines import MOST, End, limit_scores, name_lines

CURVE_IOU = 0.5
"""Overlap of the precision–recall curves."""
MOST_NUMBERS = 20
"""Classes of a confusion matrix whose numbers are written."""

TESTED, TRAINED, LOSS = "test mAP", "train mAP", "training loss"
_CURVE_COLORS = {name: class_color(place) for place, name in enumerate((TESTED, LOSS, TRAINED))}


class Plot(NamedTuple):
    """A figure: its title, the image as a data URL, and what it shows, in words."""

    title: str
    image: str
    text: str


def learning_plot(lines: Sequence[Mapping[str, Any]]) -> Plot | None:
    """mAP on test and training images and training loss against the iteration; None where none has two points.

    The loss has an axis of its own, each line its colour.
    """
    curves = {
        TESTED: [(line["iteration"], line["ap"]) for line in lines if line["ap"] is not None],
        TRAINED: [(line["iteration"], line["train_ap"]) for line in lines if line.get("train_ap") is not None],
        LOSS: [(line["iteration"], line["losses"]["loss"]) for line in lines if "loss" in line["losses"]],
    }
    drawn = {name: points for name, points in curves.items() if len(points) > 1}
    if not drawn:
        return None
    figure = Figure(figsize=(5, 3.2), layout="constrained")
    panel = figure.subplots()
    panel.set(xlabel="iteration")
    panel.locator_params(axis="x", nbins=6, integer=True)
    scores = {name: points for name, points in drawn.items() if name != LOSS}
    for name, points in scores.items():
        panel.plot(*zip(*points, strict=True), "o-", color=_CURVE_COLORS[name], label=name)
    if scores:
        panel.set(ylim=(0, 1))
        _color_axis(panel, *scores)
    if LOSS in drawn:
        axes = panel.twinx() if scores else panel
        axes.plot(*zip(*drawn[LOSS], strict=True), "s--", color=_CURVE_COLORS[LOSS])
        axes.set(ylim=(0, 1.08 * max(value for _, value in drawn[LOSS])))
        _color_axis(axes, LOSS)
    tested = curves[TESTED]
    last = f"The last test mAP is {tested[-1][1]:.3f}" if tested else "There is no test set"
    once = ", and was measured once" if len(tested) == 1 else ""
    *others, final = drawn
    names = f"{', '.join(others)} and {final}" if others else final
    text = f"{names[0].upper()}{names[1:]} against the iteration. {last}{once}."
    return Plot("Learning", figure_url(figure), text)


def _color_axis(axes: Axes, *names: str) -> None:
    """Name the vertical axis: in the colour of its line, or with a legend where there are several."""
    if len(names) > 1:
        axes.set_ylabel("mAP")
        axes.figure.legend(loc="outside upper center", ncols=len(names), frameon=False)
        return
    color = _CURVE_COLORS[names[0]]
    axes.set_ylabel(names[0], color=color)
    axes.tick_params(axis="y", colors=color)


BALANCED = {
    "mean at the positives": {"p_c": "score of the class", "p_l": "IoU of the box"},
    "weight of the losses": {"w_c": "classification", "w_l": "localisation"},
}
"""Of each panel of `balance_plot`: its axis, and the keys of the records with what they are."""


def balance_plot(lines: Sequence[Mapping[str, Any]]) -> Plot | None:
    """How good both tasks are, and the weights of their losses, against the iteration; None without a balance.

    Args:
        lines: those of metrics.jsonl.
    """
    lines = [line for line in lines if line.get("balance")]
    if not lines:
        return None
    figure = Figure(figsize=(5, 4.2), layout="constrained")
    ends = []
    for panel, (axis, names), top in zip(figure.subplots(2, sharex=True), BALANCED.items(), (1, 2), strict=True):
        for place, (key, name) in enumerate(names.items()):
            points = [(line["iteration"], line["balance"][key]) for line in lines if line["balance"][key] is not None]
            if points:
                panel.plot(*zip(*points, strict=True), "o-", color=class_color(place), label=name)
                ends.append(f"{name} {points[-1][1]:.3f}")
        panel.set(ylim=(0, top), ylabel=axis)
        if panel.lines:
            panel.legend(frameon=False, fontsize=8, ncols=2)
        panel.locator_params(axis="x", nbins=6, integer=True)
    panel.set(xlabel="iteration")
    text = "Score and IoU of the positives, and the weights of both tasks, each the mean since the measurement before"
    return Plot("Balance of the tasks", figure_url(figure), f"{text}; at the end: {', '.join(ends)}.")


def compared_plot(curves: Mapping[str, Sequence[Mapping[str, Any]]]) -> Plot | None:
    """mAP on the test set against the iteration, a line a run; None where no run was measured twice.

    Args:
        curves: name of a run → the lines of its metrics.jsonl.
    """
    figure = Figure(figsize=(7.2, 4.2), layout="constrained")
    panel = figure.subplots()
    panel.set(xlabel="iteration", ylabel="mAP on the test set")
    panel.locator_params(axis="x", nbins=6, integer=True)
    panel.grid(alpha=0.25)
    ends = []
    for place, (name, lines) in enumerate(curves.items()):
        scores = [(line["iteration"], line["ap"]) for line in lines if line["ap"] is not None]
        if len(scores) > 1:
            panel.plot(*zip(*scores, strict=True), "o-", color=class_color(place), markersize=4, label=name)
            ends.append(End(*scores[-1], name, class_color(place)))
    if not ends:
        return None
    limit_scores(panel)
    if len(ends) <= MOST:
        name_lines(panel, ends)
    else:
        figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=8)
    last = ", ".join(f"{end.name} {end.y:.3f}" for end in ends)
    return Plot(
        "Learning curves", figure_url(figure), f"mAP on the test set against the iteration; at the end: {last}."
    )


def precision_recall_plot(curves: Mapping[str, Mapping[float, Sequence[float]]], classes: Sequence[str]) -> Plot:
    """Precision at each recall that is reached, for each class that has objects, at CURVE_IOU.

    Args:
        curves: those of `evaluation.coco_metrics.Metrics`.
        classes: in label order.
    """
    figure = Figure(figsize=(5, 3.2), layout="constrained")
    panel = figure.subplots()
    panel.set(xlabel="recall", ylabel=f"precision at IoU {CURVE_IOU:.2f}", xlim=(0, 1), ylim=(0, 1.02))
    ends = []
    for label, name in ((label, name) for label, name in enumerate(classes) if name in curves):
        points = zip(RECALLS, curves[name][CURVE_IOU], strict=True)
        reached = [point for point in points if point[1] > 0] or [(0.0, 0.0)]
        panel.plot(*zip(*reached, strict=True), color=class_color(label), label=name)
        ends.append(End(*reached[-1], name, class_color(label)))
    if 1 < len(ends) <= MOST:
        name_lines(panel, ends)
    elif len(ends) > MOST:
        figure.legend(loc="outside right upper", frameon=False, fontsize=8, ncols=1 + len(ends) // 14)
    return Plot(
        "Precision and recall", figure_url(figure), f"Precision against recall at IoU {CURVE_IOU:.2f}, by class."
    )


def confusion_plot(table: NDArray[np.int64], classes: Sequence[str]) -> Plot:
    """Shares of each row in colour, counts in numbers.

    Args:
        table: that of `report.confusion`.
        classes: in label order.
    """
    names = [*classes, "background"]
    side = max(3.2, min(9.0, 1.8 + 0.42 * len(names)))
    figure = Figure(figsize=(side + 1, side), layout="constrained")
    panel = figure.subplots()
    shares = table / table.sum(axis=1, keepdims=True).clip(min=1)
    panel.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    panel.set_xticks(range(len(names)), names, rotation=90, fontsize=8)
    panel.set_yticks(range(len(names)), names, fontsize=8)
    for label in range(len(classes)):
        for tick in (panel.get_xticklabels()[label], panel.get_yticklabels()[label]):
            tick.set_color(class_color(label))
    if len(classes) <= MOST_NUMBERS:
        for (row, column), count in np.ndenumerate(table):
            if count:
                dark = shares[row, column] > 0.6
                panel.text(column, row, f"{count}", ha="center", va="center", fontsize=8, color="w" if dark else "k")
    panel.set(xlabel="detected as", ylabel="true class")
    found = ", ".join(f"{name} {table[i, i]} of {table[i].sum()}" for i, name in enumerate(classes))
    text = f"Confusion matrix at IoU {CURVE_IOU:.2f}; found: {found}; detections on background: {table[-1].sum()}."
    return Plot("Confusion matrix", figure_url(figure), text)


def drift_plot(drift: Mapping[str, float]) -> Plot:
    """How far each layer has turned."""
    figure = Figure(figsize=(5, 0.9 + 0.24 * len(drift)), layout="constrained")
    panel = figure.subplots()
    names = list(drift)
    panel.barh(names, [drift[name] for name in names], color=CLASSES[2])
    panel.invert_yaxis()
    panel.locator_params(axis="x", nbins=4)
    panel.set(xlabel="drift, 1 − |cos(w′, w)|")
    moved = ", ".join(f"{name} {value:.2g}" for name, value in drift.items() if value > 0)
    return Plot("Drift of each layer", figure_url(figure), f"Drift of each layer: {moved or 'none has moved'}.")


def search_plot(search: Mapping[str, Any]) -> Plot:
    """The score of each candidate of policy `auto` that was measured, with one standard error, and what became of it.

    Args:
        search: that of result.json.
    """
    outcome = outcomes(search)
    rows = [one for one in search["candidates"] if one["score"] is not None]
    colors = [_candidate_color(one, search["chosen"]) for one in rows]
    figure = Figure(figsize=(7.2, 0.9 + 0.28 * len(rows)), layout="constrained")
    panel = figure.subplots()
    for place, (one, color) in enumerate(zip(rows, colors, strict=True)):
        panel.errorbar(one["score"], place, xerr=one["standard_error"] or 0.0, fmt="o", color=color, capsize=3)
    panel.set_yticks(range(len(rows)), [one["name"] for one in rows])
    right = panel.secondary_yaxis("right")
    right.set_yticks(range(len(rows)), [outcome[one["name"]] for one in rows])
    for axis in (panel.yaxis, right.yaxis):
        axis.set_tick_params(length=0)
        for label, color in zip(axis.get_ticklabels(), colors, strict=True):
            label.set_color(color)
    panel.set(xlabel="mAP on left-out shots, ± one standard error", xlim=(0, 1), ylim=(len(rows) - 0.5, -0.5))
    panel.grid(axis="x", alpha=0.25)
    scores = "; ".join(f"{one['name']} {one['score']:.3f}, {outcome[one['name']]}" for one in rows)
    text = f"mAP on left-out shots of each candidate that was measured, fewest parameters first: {scores}."
    return Plot("Candidates that were measured, fewest parameters first", figure_url(figure), text)


def _candidate_color(candidate: Mapping[str, Any], chosen: str) -> str:
    if candidate["name"] == chosen:
        return CLASSES[1]
    return GREY if candidate["dropped"] else CLASSES[0]


def average_plot(averages: Mapping[str, float], alpha: float) -> Plot:
    """mAP on left-out shots against the share of the trained weights.

    Args:
        averages: share → mAP, as a cross-validation in result.json holds it.
        alpha: the one that was chosen.
    """
    points = sorted((float(share), ap) for share, ap in averages.items())
    chosen = min(points, key=lambda point: abs(point[0] - alpha))  # a share in JSON has six digits
    figure = Figure(figsize=(5, 3.2), layout="constrained")
    panel = figure.subplots()
    panel.plot(*zip(*points, strict=True), "o-", color=CLASSES[0])
    panel.plot(*chosen, "o", color=CLASSES[1], markersize=10)
    panel.annotate("chosen", chosen, xytext=(0, 9), textcoords="offset points", ha="center", color=CLASSES[1])
    panel.set(xlabel="α, share of the trained weights", ylabel="mAP on left-out shots", ylim=(0, 1))
    values = ", ".join(f"{ap:.3f} at {share:.4g}" for share, ap in points)
    text = f"mAP on left-out shots against α, the share of the trained weights: {values}; chosen: {chosen[0]:.4g}."
    return Plot("Shares that were compared", figure_url(figure), text)


def figure_url(figure: Figure) -> str:
    """The figure as a data URL, for a page."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=130)
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
