"""What a sweep leaves to read: tables in four formats, the curves, and a page with all of it and pictures."""

from __future__ import annotations

import base64
import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fewshot_cli.data.store import open_dataset
from fewshot_cli.files import write_atomically, write_json, write_text
from fewshot_cli.report.curves import draw_curves
from fewshot_cli.report.page import write_page
from fewshot_cli.report.run import SCORE, drawn
from fewshot_cli.report.table1 import (
    LEGEND,
    comma_separated,
    comparison_text,
    header,
    latex,
    markdown,
    styled_rows,
    title,
    to_json,
)
from fewshot_cli.sweep.engine import Sweep
from fewshot_cli.sweep.grid import Cell, Setup
from fewshot_cli.sweep.summary import Summary

SHOWN_TESTS = 2
"""Test pictures of each class on the page: the first ones of the first seed."""


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
    pictures = base64.b64encode(figure.read_bytes()).decode()
    return {
        "title": title(summary),
        "header": header(summary),
        "rows": styled_rows(summary),
        "comparisons": [comparison_text(comparison) for comparison in summary.comparisons],
        "curves": f"data:image/png;base64,{pictures}",
        "costs": [_cost(row.setup, cells) for row in summary.rows],
        "drift": _drift(summary, cells),
        "pictures": [_pictures(sweep, summary, name) for name in summary.classes],
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


def _pictures(sweep: Sweep, summary: Summary, name: str) -> dict[str, Any]:
    """The first test pictures of a class, with what each setup of the first finished seed found in them."""
    cells = [cell for cell in _cells(sweep, summary) if cell.group.class_name == name]
    first = [cell for cell in cells if cell.group.seed == cells[0].group.seed]
    data = open_dataset(sweep.data(cells[0].group))
    rows = []
    for picture in data.test.pictures[:SHOWN_TESTS]:
        found = {cell: _found(sweep, cell, picture.id) for cell in first}
        rows.append([drawn(data, picture, results) for results in found.values()])
    return {
        "name": name,
        "shots": [drawn(data, picture, []) for picture in data.train.pictures],
        "setups": [str(cell.setup) for cell in first],
        "rows": rows,
    }


def _found(sweep: Sweep, cell: Cell, image_id: int) -> list[dict[str, Any]]:
    results = json.loads(sweep.run(cell).predictions_file.read_text("utf-8"))
    return [found for found in results if found["image_id"] == image_id and found["score"] >= SCORE]
