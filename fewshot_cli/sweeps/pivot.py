"""Tables of a sweep over any of its axes: one in rows, one in columns, some in panels, averaged over the rest.

Means are over seeds. For each seed the cells of a table's entry are averaged first, if all of them are finished, so
that the interval says what another draw of images would change.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Annotated, Any, Literal

from typing_extensions import Doc, TypedDict

from fewshot_cli.schemas import schema_of
from fewshot_cli.sweeps.axes import value_text
from fewshot_cli.sweeps.cells import Cell
from fewshot_cli.sweeps.config import SweepConfig
from fewshot_cli.sweeps.measures import MEASURES, Result
from fewshot_cli.sweeps.summary import Estimate, estimate, mean_by_seed

Results = Mapping[Cell, Result]
"""Finished cells with the content of their result.json."""
Place = tuple[Any, ...]
"""A value of each of several axes."""
AVERAGE = "avg"
"""The column of the mean over the classes, where these are in the columns."""


class PivotRow(TypedDict):
    """One row of a table."""

    value: Annotated[str, Doc("Of the axis in the rows.")]
    columns: Annotated[dict[str, dict[str, Estimate | None]], Doc("Column → measure → mean; null: not finished.")]
    differences: Annotated[
        dict[str, dict[str, Estimate | None]],
        Doc("Column → measure → minus the first row, paired by seed; null: no pair."),
    ]


class PivotTable(TypedDict):
    """A table over the axes of a sweep; pivot.json in its folder is a list of them."""

    schema: Annotated[Literal["fsod/sweep-pivot/1"], Doc("Kind and version.")]
    panel: Annotated[dict[str, str], Doc("What all cells of the table have in common: axis → value.")]
    row_axis: Annotated[str, Doc("What is in the rows.")]
    column_axis: Annotated[str | None, Doc("What is in the columns; null: nothing, there is one column, `all`.")]
    averaged: Annotated[list[str], Doc("Axes over whose values the entries are averaged.")]
    rows: Annotated[list[PivotRow], Doc("In the order of the sweep.")]


@dataclass(frozen=True, slots=True)
class Pivot:
    """One table.

    Attributes:
        rows, columns: what is in them; `columns` may be None: a single column of all cells.
        row_values, column_values: in the order of the sweep; behind several classes, AVERAGE.
        panel: what all cells of the table have in common.
        averaged: axes with several values that are in none of them.
        scores: measure → (row, column) → seed → mean over the averaged axes.
    """

    rows: str
    columns: str | None
    row_values: tuple[Any, ...]
    column_values: tuple[Any, ...]
    panel: dict[str, Any]
    averaged: tuple[str, ...]
    scores: Mapping[str, Mapping[Place, Mapping[int, float]]]

    def entry(self, row: Any, column: Any, measure: str = "ap") -> Estimate | None:
        """Mean over the seeds; None if none is finished."""
        return estimate(list(self.scores[measure].get((row, column), {}).values()))

    def difference(self, row: Any, column: Any, measure: str = "ap") -> Estimate | None:
        """Minus the first row, paired by seed; None if no seed is finished in both."""
        scores = self.scores[measure]
        return paired(scores.get((row, column), {}), scores.get((self.row_values[0], column), {}))

    @property
    def title(self) -> str:
        """`fraction 0.25, detector yolox_nano; averaged over class`."""
        panel = ", ".join(f"{name} {value_text(name, value)}" for name, value in self.panel.items())
        mean = f"averaged over {', '.join(self.averaged)}" if self.averaged else ""
        return "; ".join(filter(None, (panel, mean)))

    def to_json(self) -> dict[str, Any]:
        """Everything, by name."""
        return {
            "schema": schema_of(PivotTable),
            "panel": {name: value_text(name, value) for name, value in self.panel.items()},
            "row_axis": self.rows,
            "column_axis": self.columns,
            "averaged": list(self.averaged),
            "rows": [
                {
                    "value": value_text(self.rows, row),
                    "columns": self._by_column(partial(self.entry, row)),
                    "differences": self._by_column(partial(self.difference, row)),
                }
                for row in self.row_values
            ],
        }

    def _by_column(self, estimate_at: Callable[[Any, str], Estimate | None]) -> dict[str, Any]:
        return {
            self.column_text(column): {
                measure: asdict(found) if (found := estimate_at(column, measure)) else None for measure in MEASURES
            }
            for column in self.column_values
        }

    def column_text(self, column: Any) -> str:
        """The name of a column."""
        return value_text(self.columns, column) if self.columns else "all"


def value_of(cell: Cell, axis: str) -> Any:
    """What a cell has of an axis: an option that is varied, or setup, class, shots, detector."""
    group = cell.group
    own = {"setup": cell.setup, "class": group.class_name, "shots": group.shots, "detector": group.detector}
    return own[axis] if axis in own else cell.varied[axis]


def pivots(config: SweepConfig, results: Results) -> list[Pivot]:
    """The tables that a configuration asks for, one for each combination of its panels.

    Without rows and columns: the first axis is in the rows, the second in the columns.
    """
    axes = config.axes
    free = [name for name in axes if name not in (config.rows, config.columns, *config.panels)]
    rows = config.rows or (free.pop(0) if free else "setup")
    columns = config.columns or (free.pop(0) if free else None)
    return tables(results, rows=rows, columns=columns, panels=config.panels, averaged=tuple(free))


def tables(
    results: Results, *, rows: str, columns: str | None, panels: Sequence[str] = (), averaged: Sequence[str] = ()
) -> list[Pivot]:
    """One table for each combination of values in `panels`, of the cells that are finished."""
    split: dict[Place, dict[Cell, Result]] = {}
    for cell, result in results.items():
        split.setdefault(tuple(value_of(cell, name) for name in panels), {})[cell] = result
    return [
        _pivot(cells, rows, columns, dict(zip(panels, values, strict=True)), tuple(averaged))
        for values, cells in split.items()
    ]


def _pivot(cells: Results, rows: str, columns: str | None, panel: dict[str, Any], averaged: tuple[str, ...]) -> Pivot:
    placed: dict[Cell, Place] = {
        cell: (value_of(cell, rows), value_of(cell, columns) if columns else None) for cell in cells
    }
    column_values = tuple(dict.fromkeys(column for _, column in placed.values()))
    scores = {name: _scores(cells, placed, averaged, name) for name in MEASURES}
    if columns == "class" and len(column_values) > 1 and AVERAGE not in column_values:
        column_values += (AVERAGE,)
        mean = {cell: (row, AVERAGE) for cell, (row, _) in placed.items()}
        for name, of in scores.items():
            of.update(_scores(cells, mean, (*averaged, columns), name))
    return Pivot(
        rows=rows,
        columns=columns,
        row_values=tuple(dict.fromkeys(row for row, _ in placed.values())),
        column_values=column_values,
        panel=panel,
        averaged=averaged,
        scores=scores,
    )


def _scores(
    cells: Results, placed: Mapping[Cell, Place], averaged: Sequence[str], measure: str
) -> dict[Place, dict[int, float]]:
    """(row, column) → seed → mean over the averaged axes, for seeds in which every part of it is finished."""
    by_place: dict[Place, list[tuple[int, Place, float | None]]] = {}
    for cell, result in cells.items():
        part = tuple(value_of(cell, name) for name in averaged)
        by_place.setdefault(placed[cell], []).append((cell.group.seed, part, MEASURES[measure].of(result)))
    return {place: mean_by_seed(values) for place, values in by_place.items()}


def paired(first: Mapping[int, float], second: Mapping[int, float]) -> Estimate | None:
    """The mean difference of two entries over the seeds that both have, with its interval; None without any."""
    return estimate([first[seed] - second[seed] for seed in sorted(first.keys() & second.keys())])
