"""The figures of a run's page, as images inside the page."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fewshot_cli.evaluation.coco_metrics import RECALLS
from fewshot_cli.report.curves import PALETTE


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


def figure_url(figure: Figure) -> str:
    """The figure as a data URL, for a page."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=130)
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
