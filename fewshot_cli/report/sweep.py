"""What a sweep leaves to read: tables in four formats, the curves, and a page with all of it and images."""

from __future__ import annotations

import base64
import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fewshot_cli.datasets.store import Dataset, open_dataset
from fewshot_cli.evaluation.coco_metrics import evaluate
from fewshot_cli.files import write_atomically, write_json, write_text
from fewshot_cli.report.curves import draw_curves, draw_precision_recall
from fewshot_cli.report.page import write_page
from fewshot_cli.report.plots import figure_url
from fewshot_cli.report.run import SCORE, Judged, drawn, judge
from fewshot_cli.report.table1 import (
    LEGEND,
    PAIRED,
    comma_separated,
    differences,
    header,
    latex,
    markdown,
    styled_rows,
    title,
    to_json,
)
from fewshot_cli.sweeps.engine import Sweep
from fewshot_cli.sweeps.grid import Cell, Setup
from fewshot_cli.sweeps.summary import Summary

SHOWN_TESTS = 2
"""Best, and worst, test images of each class on the page."""
CURVE_IOU = 0.5
"""Overlap of the precision–recall curves."""


def write_report(sweep: Sweep, summaries: Sequence[Summary]) -> list[Path]:
    """Write `table.md`, `.tex`, `.csv`, `.json`, one `curves-….png` a table, and `report.html`.

    Raises:
        StorageError: the disk refuses.
    """
    folder = sweep.folder
    for name, render in (("table.md", markdown), ("table.tex", latex), ("table.csv", comma_separated)):
        write_text(folder / name, "\n".join(render(summary) for summary in summaries))
    write_json(folder / "table.json", [to_json(summary) for summary in summaries])
    tables = [folder / f"table.{ending}" for ending in ("md", "tex", "csv", "json")]
    figures = [_write_curves(sweep, summary) for summary in summaries]
    page = folder / "report.html"
    write_page(
        page,
        "sweep.html",
        options=sweep.config.to_json(),
        legend=LEGEND,
        paired=PAIRED,
        tables=[_section(sweep, *pair) for pair in zip(summaries, figures, strict=True)],
        missing=[str(cell) for cell in sweep.missing()],
        score=SCORE,
    )
    return [page, *tables, *figures]


def _cells(sweep: Sweep, summary: Summary) -> dict[Cell, dict[str, Any]]:
    """The finished cells of one table."""
    wanted = (summary.detector, summary.shots)
    return {cell: result for cell, result in sweep.results() if (cell.group.detector, cell.group.shots) == wanted}


def _write_curves(sweep: Sweep, summary: Summary) -> Path:
    path = sweep.folder / f"curves-{summary.detector}-{summary.shots}shots.png"
    points = {
        cell: [json.loads(line) for line in sweep.run(cell).metrics_file.read_text("utf-8").splitlines()]
        for cell in _cells(sweep, summary)
    }
    figure = draw_curves(points)
    write_atomically(path, lambda temporary: figure.savefig(temporary, format="png", dpi=150))
    return path


# --- the page ---


def _section(sweep: Sweep, summary: Summary, figure: Path) -> dict[str, Any]:
    """Everything that the page says of one table."""
    cells = _cells(sweep, summary)
    judged = {name: _judged(sweep, cells, name) for name in summary.classes}
    return {
        "title": title(summary),
        "header": header(summary),
        "columns": summary.columns,
        "rows": styled_rows(summary),
        "differences": differences(summary, summary.columns),
        "curves": f"data:image/png;base64,{base64.b64encode(figure.read_bytes()).decode()}",
        "precision": _precision_recall({cell: one for found in judged.values() for cell, one in found.cells.items()}),
        "costs": [_cost(row.setup, cells) for row in summary.rows],
        "drift": _drift(summary, cells),
        "images": [_images(name, found) for name, found in judged.items()],
    }


def _cost(setup: Setup, cells: dict[Cell, dict[str, Any]]) -> dict[str, Any]:
    """Median seconds and memory of a setup's cells."""
    results = [result for cell, result in cells.items() if cell.setup == setup]
    return {
        "setup": str(setup),
        "cells": len(results),
        "seconds": statistics.median(result["seconds"]["total"] for result in results),
        "memory": max(result["peak_memory_mb"] for result in results),
    }


def _drift(summary: Summary, cells: dict[Cell, dict[str, Any]]) -> dict[str, list[float | None]]:
    """Layer → mean drift in each setup, in the order of the rows; None where the layer was frozen."""
    table: dict[str, list[float | None]] = {}
    for row in summary.rows:
        results = [result for cell, result in cells.items() if cell.setup == row.setup]
        for layer in results[0]["drift"]:
            trained = layer in results[0]["trained_layers"]
            value = statistics.mean(result["drift"][layer] for result in results) if trained else None
            table.setdefault(layer, []).append(value)
    return {layer: values for layer, values in table.items() if any(value is not None for value in values)}


class JudgedCell(NamedTuple):
    """Precision at each recall, and every test image with what was found in it."""

    precision: Sequence[float]
    images: list[Judged]


class JudgedClass(NamedTuple):
    """The data set of a class in its first finished seed, and each setup's cell on it."""

    data: Dataset
    cells: dict[Cell, JudgedCell]


def _judged(sweep: Sweep, cells: Iterable[Cell], name: str) -> JudgedClass:
    """Look at what was found in the first finished seed of a class."""
    of_class = [cell for cell in cells if cell.group.class_name == name]
    data = open_dataset(sweep.data(of_class[0].group))
    truth = data.require_test().to_coco()
    found = {}
    for cell in of_class:
        if cell.group == of_class[0].group:
            results = json.loads(sweep.run(cell).predictions_file.read_text("utf-8"))
            curves = evaluate(truth, results).curves
            precision = next((by_iou[CURVE_IOU] for by_iou in curves.values()), ())
            found[cell] = JudgedCell(precision, judge(data, results))
    return JudgedClass(data, found)


def _precision_recall(cells: Mapping[Cell, JudgedCell]) -> str:
    return figure_url(
        draw_precision_recall({cell: found.precision for cell, found in cells.items() if found.precision})
    )


def _images(name: str, found: JudgedClass) -> dict[str, Any]:
    """The test images that went best and worst on average over the setups, with what each setup found."""
    by_image = list(zip(*(cell.images for cell in found.cells.values()), strict=True))
    ordered = sorted(by_image, key=lambda shown: -statistics.mean(one.f1 for one in shown))
    chosen = ordered[:SHOWN_TESTS] + ordered[SHOWN_TESTS:][-SHOWN_TESTS:]
    return {
        "name": name,
        "shots": [drawn(found.data, image, []) for image in found.data.train.images],
        "setups": [str(cell.setup) for cell in found.cells],
        "rows": [[(drawn(found.data, one.image, one.results), one.f1) for one in shown] for shown in chosen],
    }
