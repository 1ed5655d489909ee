"""The figures of a run's page, as images inside the page."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fewshot_cli.evaluation.coco_metrics import RECALLS
from fewshot_cli.report.choices import outcomes
from fewshot_cli.report.curves import PALETTE

GREY = "#767676"
"""The lightest that is easily read on white."""


class Plot(NamedTuple):
    """A figure: its title, the image as a data URL, and what it shows, in words."""

    title: str
    image: str
    text: str


def learning_plot(lines: Sequence[Mapping[str, Any]]) -> Plot:
    """mAP on the test set, where there is one, and the training loss against the iteration."""
    figure = Figure(figsize=(5, 3.2), layout="constrained")
    panel = figure.subplots()
    panel.set(xlabel="iteration")
    scores = [(line["iteration"], line["ap"]) for line in lines if line["ap"] is not None]
    losses = [(line["iteration"], line["losses"]["loss"]) for line in lines if "loss" in line["losses"]]
    if scores:
        _draw_curve(panel, scores, "test mAP", "o-", PALETTE[0])
    if losses:
        other = panel.twinx() if scores else panel
        _draw_curve(other, losses, "training loss", "s--", PALETTE[1])
        handles = dict.fromkeys([*panel.lines, *other.lines])
        panel.legend(handles=[*handles], loc="upper center", bbox_to_anchor=(0.5, 1.16), ncols=2, frameon=False)
    last = f"The last test mAP is {scores[-1][1]:.3f}." if scores else "There is no test set."
    return Plot("Learning", figure_url(figure), f"Test mAP and training loss against the iteration. {last}")


def _draw_curve(panel: Axes, points: Sequence[tuple[int, float]], name: str, style: str, color: str) -> None:
    panel.plot(*zip(*points, strict=True), style, color=color, label=name)
    panel.set(ylabel=name, ylim=(0, None))


def precision_recall_plot(curves: Mapping[str, Mapping[float, Sequence[float]]]) -> Plot:
    """Precision at each recall, for each class, at two overlaps."""
    figure = Figure(figsize=(5, 3.2), layout="constrained")
    panel = figure.subplots()
    for number, (name, by_iou) in enumerate(curves.items()):
        for (iou, precision), dashes in zip(by_iou.items(), ("-", "--"), strict=True):
            color = PALETTE[number % len(PALETTE)]
            panel.plot(RECALLS, precision, dashes, color=color, label=f"{name}, IoU {iou:.2f}")
    panel.set(xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.02))
    if 0 < len(curves) <= 6:
        panel.legend(frameon=False, fontsize=8)
    return Plot("Precision and recall", figure_url(figure), "Precision against recall, by class, at IoU 0.50 and 0.75.")


def drift_plot(drift: Mapping[str, float]) -> Plot:
    """How far each layer has turned."""
    figure = Figure(figsize=(5, 0.9 + 0.24 * len(drift)), layout="constrained")
    panel = figure.subplots()
    names = list(drift)
    panel.barh(names, [drift[name] for name in names], color=PALETTE[2])
    panel.invert_yaxis()
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
    panel.set(xlabel="mAP on left-out shots, ± one standard error", xlim=(0, None), ylim=(len(rows) - 0.5, -0.5))
    panel.grid(axis="x", alpha=0.25)
    scores = "; ".join(f"{one['name']} {one['score']:.3f}, {outcome[one['name']]}" for one in rows)
    text = f"mAP on left-out shots of each candidate that was measured, fewest parameters first: {scores}."
    return Plot("Candidates that were measured, fewest parameters first", figure_url(figure), text)


def _candidate_color(candidate: Mapping[str, Any], chosen: str) -> str:
    if candidate["name"] == chosen:
        return PALETTE[1]
    return GREY if candidate["dropped"] else PALETTE[0]


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
    panel.plot(*zip(*points, strict=True), "o-", color=PALETTE[0], label="compared")
    panel.plot(*chosen, "o", color=PALETTE[1], markersize=10, label="chosen")
    panel.legend(frameon=False, loc="lower center")
    highest = max(ap for _, ap in points)
    panel.set(xlabel="α, share of the trained weights", ylabel="mAP on left-out shots", ylim=(0, 1.1 * highest or 1))
    values = ", ".join(f"{ap:.3f} at {share:.4g}" for share, ap in points)
    text = f"mAP on left-out shots against α, the share of the trained weights: {values}; chosen: {chosen[0]:.4g}."
    return Plot("Shares that were compared", figure_url(figure), text)


def figure_url(figure: Figure) -> str:
    """The figure as a data URL, for a page."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=130)
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
