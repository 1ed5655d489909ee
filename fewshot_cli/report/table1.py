"""The paper's Table I: a row a setup, a column a class, as a Rich table, Markdown, CSV and LaTeX."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable
from dataclasses import astuple
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from fewshot_cli.sweeps.summary import Estimate, Row, Summary

LEGEND = "mAP@[.50:.95] after the last iteration, mean ± half the 95 % confidence interval over three seeds or more; "
LEGEND += "bold: best of its budget, underlined: best of all. "
LEGEND += "Not averaged with the weights before training (--average 1), unless the title says so."
PAIRED = "Paired differences over the same shots and seeds; in brackets the pairs (class and seed) won : lost."


def title(summary: Summary) -> str:
    averaged = ", averaged with the weights before training" if summary.averaged else ""
    return f"{summary.detector}, {summary.shots} shots{averaged}"


def header(summary: Summary) -> list[str]:
    """Names of the columns."""
    return ["setup", "layers", "parameters", *summary.columns]


def rich_table(summary: Summary) -> Table:
    """For a terminal."""
    table = Table(box=box.SIMPLE_HEAD, title=title(summary), title_justify="left")
    for name in header(summary):
        table.add_column(name, justify="left" if name == "setup" else "right")
    for row in summary.rows:
        table.add_row(*_cells(summary, row, _rich))
    return table


def rich_differences(summary: Summary) -> Table:
    """For a terminal; averages only, where there are any, because more columns do not fit."""
    columns = list(summary.averages) or list(summary.columns)
    table = Table(box=box.SIMPLE_HEAD, title=f"{title(summary)}, paired (won : lost)", title_justify="left")
    table.add_column("difference")
    for name in columns:
        table.add_column(name, justify="right")
    for row in differences(summary, columns):
        table.add_row(*row)
    return table


def differences(summary: Summary, columns: Iterable[str]) -> list[list[str]]:
    """A line a comparison: its name and the paired difference in each column."""
    return [
        [str(comparison), *(str(comparison.columns[name] or "–") for name in columns)]
        for comparison in summary.comparisons
    ]


def markdown(summary: Summary) -> str:
    """A Markdown table with its legend and differences; Markdown has no underline, so `<u>` is used."""
    names = header(summary)
    lines = [f"**{title(summary)}**", "", _piped(names), _piped("---" for _ in names)]
    lines += [_piped(_cells(summary, row, _markdown)) for row in summary.rows]
    lines += ["", LEGEND]
    if summary.comparisons:
        names = ["difference", *summary.columns]
        lines += ["", PAIRED, "", _piped(names), _piped("---" for _ in names)]
        lines += [_piped(row) for row in differences(summary, summary.columns)]
    return "\n".join(lines) + "\n"


def latex(summary: Summary) -> str:
    """A booktabs tabular."""
    names = header(summary)
    lines = [f"% {title(summary)}. {LEGEND}", rf"\begin{{tabular}}{{l{'r' * (len(names) - 1)}}}", r"\toprule"]
    lines += [" & ".join(map(_escaped, names)) + r" \\", r"\midrule"]
    lines += [" & ".join(_cells(summary, row, _latex)) + r" \\" for row in summary.rows]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"


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


def styled_rows(summary: Summary) -> list[list[tuple[str, bool, bool]]]:
    """(text, bold, underlined) of every cell, for other renderers."""
    return [_cells(summary, row, lambda *styled: styled) for row in summary.rows]


Style = Callable[[str, bool, bool], Any]
"""(text, bold, underlined) → a cell in the form of one kind of table."""


def _cells(summary: Summary, row: Row, style: Style) -> list[Any]:
    plain = [str(row.setup), f"{row.layers}", f"{row.parameters:,}"]
    return [*(style(text, False, False) for text in plain), *(_cell(summary, row, name, style) for name in row.columns)]


def _cell(summary: Summary, row: Row, column: str, style: Style) -> Any:
    found: Estimate | None = row.columns[column]
    if found is None:
        return style("–", False, False)
    return style(str(found), summary.best_of_budget(row, column), summary.best_of_all(row, column))


def _rich(text: str, bold: bool, underlined: bool) -> Text:
    return Text(text, style=" ".join(["bold"] * bold + ["underline"] * underlined))


def _markdown(text: str, bold: bool, underlined: bool) -> str:
    text = f"<u>{text}</u>" if underlined else text
    return f"**{text}**" if bold else text


def _latex(text: str, bold: bool, underlined: bool) -> str:
    text = _escaped(text).replace("±", r"$\pm$").replace("–", "--")
    text = rf"\underline{{{text}}}" if underlined else text
    return rf"\textbf{{{text}}}" if bold else text


def _escaped(text: str) -> str:
    return "".join(f"\\{letter}" if letter in "&%$#_{}" else letter for letter in text)


def _piped(cells: Any) -> str:
    return f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |"
