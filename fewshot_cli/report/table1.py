"""The paper's Table I: a row a setup, a column a class, as a Rich table, Markdown, CSV and LaTeX."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from dataclasses import astuple

from rich.table import Table

from fewshot_cli.report.grids import Styled, latex_grid, markdown_grid, marked, rich_grid
from fewshot_cli.sweeps.summary import Estimate, Row, Summary

LEGEND = "mAP@[.50:.95] after the last iteration, mean ± half the 95 % confidence interval over three seeds or more; "
LEGEND += "bold: best of its budget, underlined: best of all. "
LEGEND += "Not averaged with the weights before training (--average 1), unless the title says so."
PAIRED = "Paired differences over the same shots and seeds; in brackets the pairs (class and seed) won : lost."


def title(summary: Summary) -> str:
    averaged = ", averaged with the weights before training" if summary.averaged else ""
    shots = "" if summary.shots is None else f", {summary.shots} shots"
    return f"{summary.detector}{shots}{averaged}"


def header(summary: Summary) -> list[str]:
    """Names of the columns."""
    return ["setup", "layers", "parameters", *summary.columns]


def rich_table(summary: Summary) -> Table:
    """For a terminal."""
    return rich_grid(title(summary), header(summary), styled_rows(summary))


def rich_differences(summary: Summary) -> Table:
    """For a terminal; averages only, where there are any, because more columns do not fit."""
    columns = list(summary.averages) or list(summary.columns)
    named = f"{title(summary)}, paired (won : lost)"
    return rich_grid(named, ["difference", *columns], map(marked, differences(summary, columns)))


def differences(summary: Summary, columns: Iterable[str]) -> list[list[str]]:
    """A line a comparison: its name and the paired difference in each column."""
    return [
        [str(comparison), *(str(comparison.columns[name] or "–") for name in columns)]
        for comparison in summary.comparisons
    ]


def markdown(summary: Summary) -> str:
    """A Markdown table with its legend and differences."""
    lines = [f"**{title(summary)}**", "", *markdown_grid(header(summary), styled_rows(summary)), "", LEGEND]
    if summary.comparisons:
        rows = map(marked, differences(summary, summary.columns))
        lines += ["", PAIRED, "", *markdown_grid(["difference", *summary.columns], rows)]
    return "\n".join(lines) + "\n"


def latex(summary: Summary) -> str:
    """A booktabs tabular."""
    return latex_grid(f"{title(summary)}. {LEGEND}", header(summary), styled_rows(summary))


def comma_separated(summary: Summary) -> str:
    """For other programs: one line a setup and column, numbers in full precision."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["detector", "shots", "setup", "layers", "parameters", "column", "mean", "margin", "seeds"])
    for row in summary.rows:
        for column, estimate in row.columns.items():
            if estimate:
                setup = [summary.detector, summary.shots, row.setup, row.layers, row.parameters]
                writer.writerow([*setup, column, *astuple(estimate)])
    return file.getvalue()


def styled_rows(summary: Summary) -> list[list[Styled]]:
    """The cells of every row."""
    return [
        [
            *marked((str(row.setup), f"{row.layers}", f"{row.parameters:,}")),
            *(_cell(summary, row, name) for name in row.columns),
        ]
        for row in summary.rows
    ]


def _cell(summary: Summary, row: Row, column: str) -> Styled:
    found: Estimate | None = row.columns[column]
    if found is None:
        return Styled("–")
    return Styled(str(found), summary.best_of_budget(row, column), summary.best_of_all(row, column))
