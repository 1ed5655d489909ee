"""What a sweep leaves to read: tables in four formats and the curves."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from fewshot_cli.files import write_atomically, write_json, write_text
from fewshot_cli.report.curves import draw_curves
from fewshot_cli.report.table1 import comma_separated, latex, markdown, to_json
from fewshot_cli.sweep.engine import Sweep
from fewshot_cli.sweep.summary import Summary


def write_report(sweep: Sweep, summaries: Sequence[Summary]) -> list[Path]:
    """Write `table.md`, `.tex`, `.csv`, `.json` and one `curves-….png` per table; raises StorageError."""
    folder = sweep.folder
    for name, render in (("table.md", markdown), ("table.tex", latex), ("table.csv", comma_separated)):
        write_text(folder / name, "\n".join(render(summary) for summary in summaries))
    write_json(folder / "table.json", [to_json(summary) for summary in summaries])
    figures = [_write_curves(sweep, summary) for summary in summaries]
    return [*(folder / f"table.{ending}" for ending in ("md", "tex", "csv", "json")), *figures]


def _write_curves(sweep: Sweep, summary: Summary) -> Path:
    path = sweep.folder / f"curves-{summary.detector}-{summary.shots}shots.png"
    points = {
        cell: [json.loads(line) for line in sweep.run(cell).metrics_file.read_text("utf-8").splitlines()]
        for cell, _ in sweep.results()
        if (cell.group.detector, cell.group.shots) == (summary.detector, summary.shots)
    }
    figure = draw_curves(points)
    write_atomically(path, lambda temporary: figure.savefig(temporary, format="png", dpi=150))
    return path
