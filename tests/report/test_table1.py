"""Table I: every mean, interval, mark and comparison against a computation of its own."""

from __future__ import annotations

import csv
import io
import json
import math
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from scipy import stats

from fewshot_cli.report.curves import draw_curves
from fewshot_cli.report.table1 import comma_separated, latex, markdown, rich_differences, rich_table
from fewshot_cli.sweeps.cells import Cell, Group, Setup
from fewshot_cli.sweeps.summary import Difference, Estimate, Summary, estimate, summarize

SETUPS = [Setup("none", None), Setup("last", 2), Setup("symmetric", 2), Setup("full", None)]
CLASSES = {"bird": True, "fish": False, "tire": False}
SEEDS = 4


def score(name: str, setup: Setup, seed: int) -> float:
    """Any numbers will do, if they differ."""
    rng = np.random.default_rng([sorted(CLASSES).index(name), SETUPS.index(setup), seed])
    return float(rng.random())


def result(cell: Cell) -> dict[str, Any]:
    known = [cell.group.class_name] if CLASSES[cell.group.class_name] else []
    return {
        "ap": score(cell.group.class_name, cell.setup, cell.group.seed),
        "known_classes": known,
        "trained_layers": ["head.1", "head.5"],
        "parameters": {"trained": 1234, "total": 9999},
        "seconds": {"total": 3.0 + cell.group.seed},
    }


def cells(shots: int = 10) -> list[Cell]:
    groups = [Group(name, shots, seed, "retinanet_mini") for seed in range(SEEDS) for name in CLASSES]
    return [Cell(group, setup) for group in groups for setup in SETUPS]


@pytest.fixture
def summary() -> Summary:
    (only,) = summarize((cell, result(cell)) for cell in cells())
    return only


def test_an_estimate_is_the_mean_with_student_s_interval() -> None:
    """Against scipy's own interval, for several numbers of seeds."""
    for count in range(2, 12):
        values = np.random.default_rng(count).random(count)
        found = estimate(list(values))
        assert found is not None and found.margin is not None
        low, high = stats.t.interval(0.95, count - 1, values.mean(), stats.sem(values))
        assert (low, high) == pytest.approx((found.mean - found.margin, found.mean + found.margin))
    assert Estimate(0.5, None, 1) == estimate([0.5])
    assert estimate([]) is None


def test_what_auto_trains_may_differ_by_cell() -> None:
    """Its row shows the median; other setups train the same in every cell."""
    found = {
        Cell(Group("bird", 10, seed, "retinanet_mini"), SETUPS[1]): number for seed, number in enumerate((5, 1, 2))
    }
    results = [
        (
            cell._replace(setup=Setup("auto", None)),
            {
                **result(cell),
                "trained_layers": [f"head.{layer}" for layer in range(number)],
                "parameters": {"trained": 10 * number, "total": 99},
            },
        )
        for cell, number in found.items()
    ]
    (table,) = summarize(results)
    assert [("auto", 2, 20)] == [(str(row.setup), row.layers, row.parameters) for row in table.rows]


def test_columns_are_classes_and_averages_by_domain(summary: Summary) -> None:
    """In-domain is what the detector knew: of one class it is that class's column; intervals are over seeds."""
    assert {
        "avg": ("bird", "fish", "tire"),
        "avg (out-of-domain)": ("fish", "tire"),
    } == summary.averages
    row = summary.rows[1]
    table = np.array([[score(name, SETUPS[1], seed) for name in CLASSES] for seed in range(SEEDS)])
    for column, values in (
        ("fish", table[:, 1]),
        ("avg", table.mean(axis=1)),
        ("avg (out-of-domain)", table[:, 1:].mean(axis=1)),
    ):
        found = row.columns[column]
        assert found is not None and found.margin is not None
        assert values.mean() == pytest.approx(found.mean)
        assert stats.t.ppf(0.975, SEEDS - 1) * stats.sem(values) == pytest.approx(found.margin)
    assert (2, 1234, 4.5) == (row.layers, row.parameters, row.seconds)


def test_symmetric_is_compared_with_last_in_pairs(summary: Summary) -> None:
    """Difference, interval and wins over the same class and seed."""
    first, second = SETUPS[2], SETUPS[1]
    gains = np.array([[score(n, first, s) - score(n, second, s) for n in CLASSES] for s in range(SEEDS)])
    comparison = summary.comparisons[0]
    assert (first, second) == (comparison.first, comparison.second)
    overall = comparison.columns["avg"]
    assert overall is not None and overall.estimate.margin is not None
    assert gains.mean() == pytest.approx(overall.estimate.mean)
    assert stats.t.ppf(0.975, SEEDS - 1) * stats.sem(gains.mean(axis=1)) == pytest.approx(overall.estimate.margin)
    assert ((gains > 0).sum(), (gains < 0).sum()) == (overall.wins, overall.losses)
    for place, name in enumerate(CLASSES):
        alone = comparison.columns[name]
        assert alone is not None and gains[:, place].mean() == pytest.approx(alone.estimate.mean)
        assert SEEDS == alone.wins + alone.losses


def test_every_setup_that_trains_is_compared_with_full(summary: Summary) -> None:
    """Zero-shot is not, nor `full` with itself; where no pair is whole, nothing is said."""
    assert ["symmetric 2 − last 2", "last 2 − full", "symmetric 2 − full"] == [str(c) for c in summary.comparisons]
    (part,) = summarize((c, result(c)) for c in cells() if c.setup.policy != "full" or c.group.class_name != "fish")
    against = part.comparisons[1].columns
    assert against["bird"] is not None and against["fish"] is None and against["avg"] is None


def test_a_difference_is_printed_with_its_pairs() -> None:
    """Signed, with the interval where there are seeds for one."""
    assert "+0.016 ± 0.014 (11 : 1)" == str(Difference(Estimate(0.0162, 0.0138, 3), 11, 1))
    assert "−0.040 (0 : 1)" == str(Difference(Estimate(-0.04, None, 1), 0, 1))
    assert "+0.016 (2 : 0)" == str(Difference(Estimate(0.0162, 0.8, 2), 2, 0))


def test_two_seeds_have_no_interval() -> None:
    """Student's t with one degree of freedom is 12.7: the number of seeds says more."""
    assert "0.515 (2 seeds)" == str(estimate([0.386, 0.644]))
    assert ("0.500", "0.500 ± 0.248") == (str(estimate([0.5])), str(estimate([0.4, 0.5, 0.6])))


def test_an_average_that_is_another_column_is_left_out() -> None:
    """Of one class there is none; where all classes are new, the average of the new ones is that of all."""
    (one,) = summarize((cell, result(cell)) for cell in cells() if cell.group.class_name == "fish")
    assert ("fish",) == one.columns and {*one.rows[0].columns} == {"fish"}
    assert "difference" in markdown(one) and str(one.comparisons[0].columns["fish"]) in text_of(rich_differences(one))
    (new,) = summarize((cell, result(cell)) for cell in cells() if cell.group.class_name != "bird")
    assert ("fish", "tire", "avg") == new.columns


def text_of(table: object) -> str:
    console = Console(width=400, file=io.StringIO())
    console.print(table)
    return console.file.getvalue()  # type: ignore[attr-defined,no-any-return]


def test_the_best_of_a_budget_and_of_all_are_marked(summary: Summary) -> None:
    """Bold among setups of the same budget, underlined among all rows; a lone setup is never bold."""
    for column in ("bird", "avg"):
        means = {row.setup: row.columns[column].mean for row in summary.rows}  # type: ignore[union-attr]
        for row in summary.rows:
            rivals = [mean for setup, mean in means.items() if setup.budget == 2]
            assert (row.setup.budget == 2 and means[row.setup] == max(rivals)) == summary.best_of_budget(row, column)
            assert (means[row.setup] == max(means.values())) == summary.best_of_all(row, column)


def test_missing_cells_leave_what_can_be_said(summary: Summary) -> None:
    """A class lacks a seed: its own mean is over the others, the averages over the seeds that are whole."""
    lost = [cell for cell in cells() if not (cell.group.class_name == "fish" and cell.group.seed == 3)]
    (part,) = summarize((cell, result(cell)) for cell in lost)
    row = part.rows[0]
    assert (4, 3, 3) == tuple(row.columns[name].seeds for name in ("bird", "fish", "avg"))  # type: ignore[union-attr]
    only = [cell for cell in cells() if cell.group.class_name == "bird" or cell.setup.policy == "last"]
    (sparse,) = summarize((cell, result(cell)) for cell in only)
    assert sparse.rows[0].columns["fish"] is None
    assert "–" in markdown(sparse)


def test_each_number_of_shots_has_a_table() -> None:
    """In the order of the grid."""
    assert [10, 5] == [table.shots for table in summarize((c, result(c)) for c in [*cells(10), *cells(5)])]


def test_all_formats_say_the_same(summary: Summary) -> None:
    """Rich, Markdown and LaTeX hold the same texts; CSV and JSON the same numbers."""
    console = Console(width=400, file=io.StringIO())
    console.print(rich_table(summary), rich_differences(summary))
    printed = console.file.getvalue()  # type: ignore[attr-defined]
    for row in summary.rows:
        for found in row.columns.values():
            assert str(found) in printed
            assert str(found) in markdown(summary)
            assert str(found).replace("±", r"$\pm$") in latex(summary)
    for comparison in summary.comparisons:
        assert f"| {comparison} | {comparison.columns['bird']} |" in markdown(summary)
        assert str(comparison.columns["avg"]) in printed
    lines = {(line["setup"], line["column"]): line for line in csv.DictReader(io.StringIO(comma_separated(summary)))}
    document = json.loads(json.dumps(summary.to_json()))
    for row in document["rows"]:
        for column, found in row["columns"].items():
            assert found["mean"] == pytest.approx(float(lines[row["setup"], column]["mean"]))
            assert found["margin"] == pytest.approx(float(lines[row["setup"], column]["margin"]))


def test_latex_is_balanced_and_escaped() -> None:
    """Class names with special characters do not break the table."""
    odd = [
        Cell(cell.group._replace(class_name="bird"), cell.setup) for cell in cells() if cell.group.class_name == "bird"
    ]
    renamed = [Cell(cell.group._replace(class_name="50%_a&b"), cell.setup) for cell in odd]
    (table,) = summarize((cell, result(was)) for cell, was in zip(renamed, odd, strict=True))
    text = latex(table)
    assert r"50\%\_a\&b" in text
    assert text.count("{") - text.count(r"\{") == text.count("}") - text.count(r"\}")
    body = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert {len(body[0].replace(r"\&", "").split("&"))} == {len(line.replace(r"\&", "").split("&")) for line in body}


def test_the_figure_has_a_panel_a_class_and_a_line_a_setup() -> None:
    """Curves are means over seeds; zero-shot is a level line; best and last are marked."""
    points = {
        cell: [{"iteration": i, "ap": score(cell.group.class_name, cell.setup, cell.group.seed) * math.sqrt(i / 100)} for i in (50, 100)]
        if cell.setup.policy != "none"
        else [{"iteration": 0, "ap": 0.1}]
        for cell in cells()
    }  # fmt: skip
    figure = draw_curves(points)
    panels = [panel for panel in figure.axes if panel.get_visible()]
    assert list(CLASSES) == [panel.get_title() for panel in panels]
    for panel in panels:
        named = {line.get_label(): line for line in panel.lines if not str(line.get_label()).startswith("_")}
        assert {str(setup) for setup in SETUPS} == set(named)
        mean = np.mean([score(panel.get_title(), SETUPS[1], seed) for seed in range(SEEDS)])
        assert mean == pytest.approx(named["last 2"].get_ydata()[-1])
        assert 3 == sum(line.get_marker() == "*" for line in panel.lines)


@pytest.mark.parametrize(
    ("classes", "grid"), [(1, (1, 1)), (3, (1, 3)), (4, (2, 2)), (5, (2, 3)), (6, (2, 3)), (7, (3, 3))]
)
def test_the_panels_fill_their_rows_evenly(classes: int, grid: tuple[int, int]) -> None:
    """Four panels stand two by two, not three and one."""
    group = next(iter(cells())).group
    points = {
        Cell(group._replace(class_name=f"class {n}"), SETUPS[1]): [{"iteration": 50, "ap": 0.1}] for n in range(classes)
    }
    assert grid == draw_curves(points).axes[0].get_gridspec().get_geometry()
