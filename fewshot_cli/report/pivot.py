"""A table over two axes of a sweep in four formats, and its figure: a measure against an axis, with intervals."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import astuple
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.table import Table

from fewshot_cli.colors import class_color
from fewshot_cli.report.grids import Styled, latex_grid, markdown_grid, marked, rich_grid
from fewshot_cli.report.lines import MOST, End, name_lines
from fewshot_cli.sweeps.axes import value_text
from fewshot_cli.sweeps.measures import MEASURES
from fewshot_cli.sweeps.pivot import AVERAGE, Pivot
from fewshot_cli.sweeps.summary import Estimate

APART = 0.008
"""Distance of the bars of two lines, as a share of the axis."""
PAIRED = "Differences from the first row, paired by seed."
LEGEND = "Mean ± half the 95 % confidence interval over three seeds or more; underlined: the highest of a column."


def header(pivot: Pivot) -> list[str]:
    """Names of the columns: what is measured, where nothing is in the columns."""
    names = map(pivot.column_text, pivot.column_values) if pivot.columns else _labels(pivot)
    return [_axis(pivot), *names]


def styled_rows(pivot: Pivot, measure: str = "ap") -> list[list[Styled]]:
    """The cells of every row."""
    return [[*marked([value_text(pivot.rows, row)]), *_cells(pivot, row, measure)] for row in pivot.row_values]


def difference_rows(pivot: Pivot, measure: str = "ap") -> list[list[Styled]]:
    """The same of every further row minus the first, paired by seed."""
    first = value_text(pivot.rows, pivot.row_values[0])
    return [
        marked(
            [
                f"{value_text(pivot.rows, row)} − {first}",
                *(_signed(pivot.difference(row, *place), place[1]) for place in _places(pivot, measure)),
            ]
        )
        for row in pivot.row_values[1:]
    ]


def title(pivot: Pivot, measure: str = "ap") -> str:
    """What the table shows, of what."""
    what = MEASURES[measure].label if pivot.columns else "What was measured"
    columns = f" by {pivot.rows} and {pivot.columns}" if pivot.columns else f" by {pivot.rows}"
    return f"{what}{columns}" + (f"; {pivot.title}" if pivot.title else "")


def rich_table(pivot: Pivot) -> Table:
    """For a terminal."""
    return rich_grid(title(pivot), header(pivot), styled_rows(pivot))


def markdown(pivot: Pivot, measure: str = "ap") -> str:
    """A Markdown table with its title."""
    lines = [f"**{title(pivot, measure)}**", "", *markdown_grid(header(pivot), styled_rows(pivot, measure)), "", LEGEND]
    if rows := difference_rows(pivot, measure):
        lines += ["", PAIRED, "", *markdown_grid(header(pivot), rows)]
    return "\n".join(lines) + "\n"


def latex(pivot: Pivot, measure: str = "ap") -> str:
    """A booktabs tabular."""
    return latex_grid(f"{title(pivot, measure)}. {LEGEND}", header(pivot), styled_rows(pivot, measure))


def comma_separated(pivots: Sequence[Pivot]) -> str:
    """For other programs: one line a row, column and measure, numbers in full precision."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    panels = list(dict.fromkeys(name for pivot in pivots for name in pivot.panel))
    writer.writerow([*panels, "row_axis", "row", "column_axis", "column", "measure", "mean", "margin", "seeds"])
    for pivot in pivots:
        common = [value_text(name, pivot.panel[name]) if name in pivot.panel else "" for name in panels]
        for row in pivot.row_values:
            for column in pivot.column_values:
                place = [pivot.rows, value_text(pivot.rows, row), pivot.columns or "", pivot.column_text(column)]
                for measure in MEASURES:
                    if found := pivot.entry(row, column, measure):
                        writer.writerow([*common, *place, measure, *astuple(found)])
    return file.getvalue()


def estimate_text(found: Estimate | None, measure: str) -> str:
    """`0.231 ± 0.014`, with the digits of the measure; a dash where nothing is finished."""
    if found is None:
        return "–"
    digits = MEASURES[measure].digits
    margin = f" ± {found.margin:,.{digits}f}" if found.interval and found.margin is not None else ""
    mean = round(found.mean, digits) + 0.0  # no −0.000
    return f"{mean:,.{digits}f}{margin}".replace("-", "−")


def marginal_figure(pivot: Pivot, measure: str = "ap") -> Figure:
    """The measure against the rows, a line a column; and against the columns, a line a row, where there are several."""
    views = [(pivot.rows, pivot.row_values, pivot.columns, pivot.column_values, False)]
    if len(pivot.column_values) > 1 and pivot.columns:
        # An average is no place on an axis.
        places = tuple(value for value in pivot.column_values if value != AVERAGE)
        views.append((pivot.columns, places, pivot.rows, pivot.row_values, True))
    figure = Figure(figsize=(6.2 * len(views), 3.8), layout="constrained")
    panels = figure.subplots(1, len(views), squeeze=False)[0]
    for panel, (axis, values, lines, names, turned) in zip(panels, views, strict=True):
        curves = {
            (f"{lines} {value_text(lines, name)}" if lines else MEASURES[measure].label): [
                pivot.entry(*((name, value) if turned else (value, name)), measure) for value in values
            ]
            for name in names
        }
        draw_lines(panel, axis, values, curves)
        panel.set_ylabel(MEASURES[measure].label)
    return figure


def draw_lines(panel: Axes, axis: str, values: Sequence[Any], curves: Mapping[str, Sequence[Estimate | None]]) -> None:
    """One line a curve, with bars for the 95 % intervals of three seeds or more, side by side.

    Args:
        axis: name of what is on the x axis.
        values: numbers are placed by size, anything else in order.
        curves: name → mean at each value; None where there is none.
    """
    numeric = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    places = [float(value) for value in values] if numeric else [float(place) for place in range(len(values))]
    ends, step = [], APART * (max(places) - min(places) or 1.0)
    for number, (name, estimates) in enumerate(curves.items()):
        aside = step * (number - (len(curves) - 1) / 2)
        pairs = zip(places, estimates, strict=True)
        found = sorted(((place + aside, one) for place, one in pairs if one), key=lambda pair: pair[0])
        if not found:
            continue
        at, means = [place for place, _ in found], [one.mean for _, one in found]
        bars = [one.margin if one.interval and one.margin is not None else 0.0 for _, one in found]
        panel.errorbar(at, means, yerr=bars, fmt="o-", color=class_color(number), capsize=3, label=name)
        ends.append(End(at[-1], means[-1], name, class_color(number)))
    panel.set_xticks(places, [value_text(axis, value) for value in values])
    panel.set_xlabel(axis.replace("_", " "))
    panel.grid(alpha=0.25)
    if 1 < len(ends) <= MOST:
        name_lines(panel, ends)
    elif len(ends) > MOST:
        panel.legend(fontsize=8, frameon=False)


def _axis(pivot: Pivot) -> str:
    return f"{pivot.rows} \\ {pivot.columns}" if pivot.columns else pivot.rows


def _labels(pivot: Pivot) -> list[str]:
    return [MEASURES[name].label for name in _measured(pivot)]


def _measured(pivot: Pivot) -> list[str]:
    """The measures that any entry has."""
    return [name for name in MEASURES if any(pivot.scores[name].values())]


def _cells(pivot: Pivot, row: Any, measure: str) -> list[Styled]:
    return [_cell(pivot, row, *place) for place in _places(pivot, measure)]


def _places(pivot: Pivot, measure: str) -> list[tuple[Any, str]]:
    """(column, measure) of every column of a table."""
    if not pivot.columns:
        return [(None, name) for name in _measured(pivot)]
    return [(column, measure) for column in pivot.column_values]


def _signed(found: Estimate | None, measure: str) -> str:
    """`+0.012 ± 0.010`."""
    if found is None:
        return "–"
    sign = "+" if found.mean >= 0 else ""
    return f"{sign}{estimate_text(found, measure)}".replace("-", "−")


def _cell(pivot: Pivot, row: Any, column: Any, measure: str) -> Styled:
    found = pivot.entry(row, column, measure)
    rivals = [one.mean for other in pivot.row_values if (one := pivot.entry(other, column, measure))]
    best = found is not None and measure == "ap" and len(rivals) > 1 and found.mean >= max(rivals)
    return Styled(estimate_text(found, measure), underlined=best)
