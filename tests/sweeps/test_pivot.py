"""Tables over the axes of a sweep: means, intervals, panels and what is left out, against numpy."""

from __future__ import annotations

import csv
import io
from typing import Any

import numpy as np
import pytest
from helpers_sweeps import made_results, sweep_config
from scipy import stats

from fewshot_cli.report.pivot import (
    comma_separated,
    difference_rows,
    header,
    latex,
    marginal_figure,
    markdown,
    styled_rows,
    title,
)
from fewshot_cli.sweeps.cells import Cell
from fewshot_cli.sweeps.pivot import paired, pivots
from fewshot_cli.sweeps.studies.contract import by_seed

AXES = {"lr": (0.1, 0.2, 0.4), "copies": (2, 3)}


def score(cell: Cell) -> float:
    """Some number that depends on everything that a cell is."""
    numbers = [cell.varied["lr"], cell.varied["copies"], cell.group.seed, len(cell.group.class_name)]
    return float(np.sin(np.dot(numbers, [3.0, 5.0, 7.0, 11.0])) ** 2)


def grid(**changes: Any) -> Any:
    settings = {"classes": ("cat", "horse"), "policies": ("all",), "baselines": False, "seeds": 4, "vary": AXES}
    return sweep_config(**{**settings, "options": {"iterations": 2}, **changes})


def test_an_entry_is_the_mean_over_seeds_of_the_mean_over_the_rest() -> None:
    """With the interval of Student's t over the seeds."""
    config = grid()
    table = pivots(config, made_results(config, score))[0]
    assert (table.rows, table.columns, table.averaged) == ("lr", "copies", ("class",))
    for lr in AXES["lr"]:
        for copies in AXES["copies"]:
            found = table.entry(lr, copies)
            cells = [c for c in config.grid.cells() if (c.varied["lr"], c.varied["copies"]) == (lr, copies)]
            means = [np.mean([score(c) for c in cells if c.group.seed == seed]) for seed in range(4)]
            low, high = stats.t.interval(0.95, 3, loc=np.mean(means), scale=stats.sem(means))
            assert found is not None and found.seeds == 4
            assert found.mean == pytest.approx(np.mean(means)) and found.margin == pytest.approx((high - low) / 2)


def test_a_seed_with_a_missing_cell_is_left_out_of_its_entry_alone() -> None:
    """The mean over classes would otherwise be of other classes in that seed."""
    config = grid()
    results = made_results(config, score)
    gone = next(cell for cell in results if cell.group.seed == 1 and cell.varied == {"lr": 0.2, "copies": 3})
    del results[gone]
    table = pivots(config, results)[0]
    seeds = {(row, column): table.entry(row, column).seeds for row in AXES["lr"] for column in AXES["copies"]}
    assert seeds.pop((0.2, 3)) == 3 and set(seeds.values()) == {4}


def test_panels_have_a_table_each() -> None:
    """And rows and columns are those that are asked for."""
    config = grid(rows="copies", columns="class", panels=("lr",))
    tables = pivots(config, made_results(config, score))
    assert [table.panel for table in tables] == [{"lr": 0.1}, {"lr": 0.2}, {"lr": 0.4}]
    assert header(tables[0]) == ["copies \\ class", "cat", "horse", "avg"] and tables[0].averaged == ()
    assert title(tables[1]) == "mAP by copies and class; lr 0.2"
    setups = pivots(grid(panels=("setup",)), made_results(grid(), score))
    assert title(setups[0]) == "mAP by lr and copies; setup all; averaged over class"


def test_behind_the_columns_of_classes_is_their_average() -> None:
    """The mean over classes in each seed, so that its interval and its differences are over seeds."""
    config = grid(rows="copies", columns="class", panels=("lr",))
    table = pivots(config, made_results(config, score))[0]
    entries = {name: table.scores["ap"][3, name] for name in ("cat", "horse", "avg")}
    assert entries["avg"] == pytest.approx({s: (entries["cat"][s] + entries["horse"][s]) / 2 for s in range(4)})
    parts = [table.difference(3, name) for name in ("cat", "horse", "avg")]
    assert all(parts) and parts[2].mean == pytest.approx((parts[0].mean + parts[1].mean) / 2)


def test_the_average_is_a_line_of_the_figure_and_no_place_on_its_axis() -> None:
    """It is no further class behind the others."""
    config = grid(rows="copies", columns="class", panels=("lr",))
    left, right = marginal_figure(pivots(config, made_results(config, score))[0]).axes
    assert len(left.containers) == 3
    assert [label.get_text() for label in right.get_xticklabels()] == ["cat", "horse"]


def test_without_columns_what_is_measured_is_in_them() -> None:
    """A sweep with a single axis: mAP, gap, time and the rest beside each other."""
    config = grid(vary={"lr": (0.1, 0.2)}, classes=("cat",))
    table = pivots(config, made_results(config, lambda cell: 0.5))[0]
    assert header(table)[:3] == ["lr", "mAP", "best mAP"] and len(styled_rows(table)[0]) == len(header(table))


def test_the_highest_of_a_column_is_underlined() -> None:
    """Once in each column, where there are several rows."""
    config = grid()
    rows = styled_rows(pivots(config, made_results(config, score))[0])
    assert [sum(row[place].underlined for row in rows) for place in (1, 2)] == [1, 1]


def test_every_number_is_in_the_csv() -> None:
    """In full precision, one line an entry and measure."""
    config = grid(panels=("class",))
    tables = pivots(config, made_results(config, score))
    lines = list(csv.DictReader(io.StringIO(comma_separated(tables))))
    shown = [line for line in lines if line["measure"] == "ap" and line["row"] == "0.4" and line["column"] == "3"]
    assert [line["class"] for line in shown] == ["cat", "horse"]
    found = tables[1].entry(0.4, 3)
    assert found is not None and float(shown[1]["mean"]) == found.mean


def test_tables_are_text_in_two_formats_and_a_figure() -> None:
    """Markdown has the title and a line a row; LaTeX is a whole tabular; the figure has both views."""
    config = grid()
    table = pivots(config, made_results(config, score))[0]
    assert (
        markdown(table).splitlines()[2].startswith("| lr \\ copies | 2 | 3 |") and markdown(table).count("\n| 0.") == 5
    )
    assert latex(table).count(r"\\") == 4 and latex(table).endswith("\\end{tabular}\n")
    left, right = marginal_figure(table).axes
    assert (left.get_xlabel(), right.get_xlabel()) == ("lr", "copies") and len(right.containers) == 3


def test_paired_differences_are_over_the_seeds_that_both_have() -> None:
    """Against scipy's paired t interval."""
    first, second = {0: 0.3, 1: 0.5, 2: 0.4, 5: 0.9}, {0: 0.2, 1: 0.45, 2: 0.2, 7: 0.0}
    found = paired(first, second)
    gains = [0.1, 0.05, 0.2]
    low, high = stats.t.interval(0.95, 2, loc=np.mean(gains), scale=stats.sem(gains))
    assert found is not None and found.seeds == 3
    assert (found.mean, found.margin) == pytest.approx((np.mean(gains), (high - low) / 2))
    assert paired(first, {9: 1.0}) is None


def test_every_row_is_compared_with_the_first() -> None:
    """Paired by seed, in every column."""
    config = grid()
    table = pivots(config, made_results(config, score))[0]
    gains: list[list[float]] = [[], []]
    for cell in config.grid.cells():
        other = cell._replace(options=(("lr", 0.1), *cell.options[1:]))
        if cell.varied == {"lr": 0.4, "copies": 2}:
            gains[0 if cell.group.class_name == "cat" else 1].append(score(cell) - score(other))
    means = np.mean(gains, axis=0)
    found = table.difference(0.4, 2)
    low, high = stats.t.interval(0.95, 3, loc=np.mean(means), scale=stats.sem(means))
    assert found is not None and (found.mean, found.margin) == pytest.approx((np.mean(means), (high - low) / 2))
    rows = difference_rows(table)
    assert [row[0].text for row in rows] == ["0.2 − 0.1", "0.4 − 0.1"]
    assert rows[1][1].text == f"{found.mean:+.3f} ± {found.margin:.3f}".replace("-", "−")
    assert table.to_json()["rows"][2]["differences"]["2"]["ap"]["mean"] == pytest.approx(found.mean)


def test_scores_by_seed_are_of_the_cells_that_are_named() -> None:
    """A mean over everything that is not named."""
    config = grid()
    results = made_results(config, score)
    found = by_seed(results, "ap", lr=0.1)
    cells = [cell for cell in results if cell.varied["lr"] == 0.1 and cell.group.seed == 2]
    assert found[2] == pytest.approx(np.mean([score(cell) for cell in cells])) and len(found) == 4
