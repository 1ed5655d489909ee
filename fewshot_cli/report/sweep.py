"""The report of a sweep: tables in four formats, learning curves, and a page with all of it and images."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.figure import Figure

from fewshot_cli.datasets.store import Dataset, open_dataset
from fewshot_cli.evaluation.coco_metrics import evaluate
from fewshot_cli.files import write_atomically, write_json, write_text
from fewshot_cli.inference.filtering import SCORE_THRESHOLD
from fewshot_cli.report.axes import write_axes_page, write_axes_report
from fewshot_cli.report.cells import write_cells
from fewshot_cli.report.curves import draw_curves, draw_precision_recall
from fewshot_cli.report.judging import Judged, judge
from fewshot_cli.report.page import write_page
from fewshot_cli.report.plots import CURVE_IOU, figure_url
from fewshot_cli.report.run import LEAST, drawn
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
)
from fewshot_cli.sweeps.cells import Cell, Setup
from fewshot_cli.sweeps.folder import SweepFolder
from fewshot_cli.sweeps.summary import Summary

Results = Mapping[Cell, Mapping[str, Any]]
"""Finished cells with the content of their result.json."""
SHOWN_TESTS = 2
"""Best, and worst, test images of each class on the page."""


def write_report(folder: SweepFolder, summaries: Sequence[Summary], results: Results) -> list[Path]:
    """Write `cells.csv`, `table.md`, `.tex`, `.csv`, `.json`, one `curves-….png` a table, and `report.html`.

    A sweep over further axes has tables and figures over these: see `write_axes_report`.

    Args:
        folder: of the sweep.
        summaries: its tables.
        results: the cells that they are made of, with the content of their result.json.

    Raises:
        StorageError: a file cannot be written.
    """
    if folder.config.vary:
        return write_axes_report(folder, results)
    path = folder.path
    for name, render in (("table.md", markdown), ("table.tex", latex), ("table.csv", comma_separated)):
        write_text(path / name, "\n".join(render(summary) for summary in summaries))
    write_json(path / "table.json", [summary.to_json() for summary in summaries])
    tables = [path / f"table.{ending}" for ending in ("md", "tex", "csv", "json")]
    parts = [_Part(folder, summary, _cells(summary, results)) for summary in summaries]
    figures = [_write_curves(part) for part in parts]
    return [write_page_of(folder, summaries, results), write_cells(folder, results), *tables, *figures]


def write_page_of(
    folder: SweepFolder, summaries: Sequence[Summary], results: Results, page: Path | None = None
) -> Path:
    """Write the page alone; default: `report.html` in the folder. Raises StorageError."""
    if folder.config.vary:
        return write_axes_page(folder, results, page)
    page = page or folder.path / "report.html"
    parts = [_Part(folder, summary, _cells(summary, results)) for summary in summaries]
    write_page(
        page,
        "sweep.html",
        options=folder.config.to_json(),
        legend=LEGEND,
        paired=PAIRED,
        tables=[_section(part) for part in parts],
        missing=[str(cell) for cell in folder.grid.cells() if cell not in results],
        score=SCORE_THRESHOLD,
    )
    return page


class _Part(NamedTuple):
    """One table and its cells."""

    folder: SweepFolder
    summary: Summary
    cells: Results


def _cells(summary: Summary, results: Results) -> Results:
    """The cells of one table."""
    wanted = (summary.detector, summary.shots)
    return {cell: result for cell, result in results.items() if (cell.group.detector, cell.group.shots) == wanted}


def _write_curves(part: _Part) -> Path:
    folder, summary = part.folder, part.summary
    shots = "" if summary.shots is None else f"-{summary.shots}shots"
    path = folder.path / f"curves-{summary.detector}{shots}.png"
    figure = _curves(part)
    write_atomically(path, lambda temporary: figure.savefig(temporary, format="png", dpi=150))
    return path


def _curves(part: _Part) -> Figure:
    return draw_curves({cell: part.folder.run(cell).read_metrics() for cell in part.cells})


# --- the page ---


def _section(part: _Part) -> dict[str, Any]:
    """What the page shows of one table."""
    folder, summary, cells = part
    judged = {name: _judged(folder, cells, name) for name in summary.classes}
    return {
        "title": title(summary),
        "header": header(summary),
        "columns": summary.columns,
        "rows": styled_rows(summary),
        "differences": differences(summary, summary.columns),
        "curves": figure_url(_curves(part)),
        "precision": _precision_recall({cell: one for found in judged.values() for cell, one in found.cells.items()}),
        "costs": [_cost(row.setup, cells) for row in summary.rows],
        "drift": _drift(summary, cells),
        "images": [_images(name, found) for name, found in judged.items()],
    }


def _cost(setup: Setup, cells: Results) -> dict[str, Any]:
    """Median seconds and memory of a setup's cells."""
    results = [result for cell, result in cells.items() if cell.setup == setup]
    return {
        "setup": str(setup),
        "cells": len(results),
        "seconds": statistics.median(result["seconds"]["total"] for result in results),
        "memory": max(result["peak_memory_mb"] for result in results),
    }


def _drift(summary: Summary, cells: Results) -> dict[str, list[float | None]]:
    """Layer → mean drift in each setup, over the cells in which it trained; None where it trained in none."""
    table: dict[str, list[float | None]] = {}
    for row in summary.rows:
        results = [result for cell, result in cells.items() if cell.setup == row.setup]
        for layer in results[0]["drift"]:
            moved = [result["drift"][layer] for result in results if layer in result["trained_layers"]]
            table.setdefault(layer, []).append(statistics.mean(moved) if moved else None)
    return {layer: values for layer, values in table.items() if any(value is not None for value in values)}


class JudgedCell(NamedTuple):
    """Precision at each recall, and every test image with its detections."""

    precision: Sequence[float]
    images: list[Judged]


class JudgedClass(NamedTuple):
    """The data set of a class in its first finished seed, and each setup's cell on it."""

    data: Dataset
    cells: dict[Cell, JudgedCell]


def _judged(folder: SweepFolder, cells: Iterable[Cell], name: str) -> JudgedClass:
    """The detections in the first finished seed of a class, beside the truth."""
    of_class = [cell for cell in cells if cell.group.class_name == name]
    data = open_dataset(folder.data(of_class[0].group))
    test = data.require_test()
    truth = test.to_coco()
    found = {}
    for cell in of_class:
        if cell.group == of_class[0].group:
            results = folder.run(cell).read_predictions()
            curves = evaluate(truth, results).curves
            precision = next((by_iou[CURVE_IOU] for by_iou in curves.values()), ())
            found[cell] = JudgedCell(precision, judge(test, results))
    return JudgedClass(data, found)


def _precision_recall(cells: Mapping[Cell, JudgedCell]) -> str:
    return figure_url(
        draw_precision_recall({cell: found.precision for cell, found in cells.items() if found.precision})
    )


def _images(name: str, found: JudgedClass) -> dict[str, Any]:
    """The test images with the best and the worst F1 on average over the setups, with the detections of each setup."""
    by_image = list(zip(*(cell.images for cell in found.cells.values()), strict=True))
    ordered = sorted(by_image, key=lambda shown: -statistics.mean(one.f1 for one in shown))
    chosen = ordered[:SHOWN_TESTS] + ordered[SHOWN_TESTS:][-SHOWN_TESTS:]
    return {
        "name": name,
        "shots": [drawn(found.data.train, image, [], LEAST) for image in found.data.train.images],
        "setups": [str(cell.setup) for cell in found.cells],
        "rows": [
            [(drawn(found.data.require_test(), one.image, one.results, LEAST), one.f1) for one in shown]
            for shown in chosen
        ],
    }
