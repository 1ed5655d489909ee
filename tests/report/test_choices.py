"""What a person sees of policy `auto` and of averaging: the table of a run, and its page."""

from __future__ import annotations

import html
import io
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers_runs import browse, needs_browser
from matplotlib.figure import Figure
from rich.console import Console

from fewshot_cli.colors import CLASSES
from fewshot_cli.report import plots
from fewshot_cli.report.choices import chosen_text, outcomes
from fewshot_cli.report.plots import GREY, average_plot, search_plot
from fewshot_cli.report.run import write_run_report
from fewshot_cli.report.tables import result_table
from fewshot_cli.runs.folder import Run


def candidate(
    name: str, parameters: int, score: float | None, dropped: str | None = None, **more: Any
) -> dict[str, Any]:
    """As `Trial.to_json` describes it, measured on all ten shots unless `more` says something else."""
    policy, _, budget = name.partition(" ")
    return {
        "name": name,
        "policy": policy,
        "budget": int(budget) if budget.isdigit() else None,
        "backbone_lr": 0.02,
        "layers": ["head.1", "head.5"] if parameters else [],
        "parameters": parameters,
        "criterion": None,
        "score": score,
        "standard_error": None if score is None else 0.05,
        "shots": 0 if score is None else 10,
        "dropped": dropped,
        **more,
    }


CANDIDATES = [
    candidate("none", 0, 0.2, "clearly worse", shots=4),
    candidate("last 1", 100, 0.41),
    candidate("last 2", 200, None, "ranked lower", criterion=0.0123456),
    candidate("symmetric 2", 200, 0.5, criterion=0.0234567),
    candidate("symmetric 3", 300, 0.45, "clearly worse"),
    candidate("all", 500, 0.48),
    candidate("full, backbone rate 0.02", 9000, None, "diverged"),
    candidate("full, backbone rate 0.1", 9000, 0.55, layers=[f"layer.{number}" for number in range(11)]),
]
SEARCH: dict[str, Any] = {
    "chosen": "symmetric 2",
    "criterion": "rgn",
    "folds": 3,
    "iterations": 75,
    "candidates": CANDIDATES,
    "seconds": 1.0,
}
OUTCOMES = {
    "none": "clearly worse after 4 of 10 shots",
    "last 1": "worse by more than one standard error",
    "last 2": "ranked lower",
    "symmetric 2": "chosen",
    "symmetric 3": "clearly worse",
    "all": "more parameters",
    "full, backbone rate 0.02": "diverged",
    "full, backbone rate 0.1": "best score, but more parameters",
}
HALF = {"alpha": 0.5, "reason": "classes"}
AVERAGES = {"0": 0.1, "0.25": 0.3, "0.5": 0.4, "0.666667": 0.5, "1": 0.2}


def page_of(run: Run, folder: Path, **changes: Any) -> str:
    """The page of a copy of the run whose result says something else."""
    copy = Run(Path(shutil.copytree(run.folder, folder / "run")))
    result = {key: value for key, value in {**run.read_result(), **changes}.items() if value is not ...}
    copy.result_file.write_text(json.dumps(result))
    return html.unescape(write_run_report(copy).read_text("utf-8"))


def table_of(run: Run, **changes: Any) -> dict[str, str]:
    """Row → text of the table in 80 columns."""
    file = io.StringIO()
    result = {
        key: value for key, value in {**run.read_result(), "run": "runs/x", **changes}.items() if value is not ...
    }
    Console(file=file, width=80).print(result_table(result))
    rows: dict[str, str] = {}
    for line in file.getvalue().splitlines()[1:]:
        assert len(line) <= 80
        name = line[:14].strip() or next(reversed(rows), "")
        rows[name] = f"{rows.get(name, '')} {line[14:].strip()}".strip()
    return rows


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that are made into images meanwhile."""
    figures: list[Figure] = []
    monkeypatch.setattr(plots, "figure_url", lambda figure: figures.append(figure) or "data:")
    return figures


def test_every_candidate_has_a_reason() -> None:
    """By the rule that chooses: enough folds, then one standard error, then the number of parameters."""
    assert OUTCOMES == outcomes(SEARCH)


def test_where_the_default_is_kept_that_is_the_outcome() -> None:
    """The others were not clearly better, whatever their scores and sizes."""
    found = outcomes({**SEARCH, "default": "symmetric 2"})
    kept = {"last 1", "all", "full, backbone rate 0.1"}
    assert {"not clearly better than the default"} == {found[name] for name in kept}
    assert "chosen, the default" == found["symmetric 2"]
    assert {name: why for name, why in OUTCOMES.items() if name not in kept | {"symmetric 2"}}.items() <= found.items()


def test_of_as_many_parameters_the_score_decides() -> None:
    """Unless the better one is too far from the best, shot by shot."""
    rivals = [candidate("one", 100, 0.3), candidate("two", 100, 0.4), candidate("three", 100, 0.45)]
    search = {**SEARCH, "chosen": "two", "candidates": [*rivals, candidate("best", 200, 0.5)]}
    expected = {
        "one": "lower score",
        "two": "chosen",
        "three": "worse by more than one standard error",
        "best": "best score, but more parameters",
    }
    assert expected == outcomes(search)


def test_the_table_says_what_was_chosen(trained: Run) -> None:
    """In 80 columns: the setup, of how many, and the shares of the weights."""
    rows = table_of(trained, search=SEARCH, average=HALF)
    assert "symmetric 2, of 8 candidates (policy auto)" == rows["chosen"] == chosen_text(SEARCH)
    assert (
        "0.5 of the trained weights, 0.5 of those before (because of what the classes start from)" == rows["averaged"]
    )


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"average": {"alpha": 1.0, "reason": "option"}}, id="all of the trained weights"),
        pytest.param({"average": HALF, "trained_layers": []}, id="nothing trained", marks=pytest.mark.slow),
        pytest.param({"average": ..., "search": ...}, id="before there was averaging", marks=pytest.mark.slow),
    ],
)
def test_what_did_not_happen_is_not_said(trained: Run, tmp_path: Path, changes: dict[str, Any]) -> None:
    """Neither in the table nor on the page; runs from before have no such keys."""
    assert not {"chosen", "averaged"} & table_of(trained, **changes).keys()
    page = page_of(trained, tmp_path, **changes)
    assert "<h2>Choice of what trains</h2>" not in page
    assert "<h2>Averaging</h2>" not in page


def test_the_page_lists_every_candidate(trained: Run, tmp_path: Path) -> None:
    """Name, layers, parameters, criterion, score and outcome, with how it was chosen and what the scores are not."""
    page = page_of(trained, tmp_path, search=SEARCH)
    assert "<strong>symmetric 2</strong>, of 8 candidates" in page
    assert "in 3 folds with 75 iterations" in " ".join(page.split())
    assert "no estimate of the mAP on the test set" in page
    rows = [re.findall(r"<td[^>]*>(.*?)</td>", row) for row in re.findall(r"<tr>(.*)</tr>", page)]
    by_name = {cells[0]: cells[1:] for cells in rows if cells}
    assert ["none", "0", "–", "0.200 ± 0.050", OUTCOMES["none"]] == by_name["none"]
    assert ["head.1, head.5", "200", "0.0123", "–", "ranked lower"] == by_name["last 2"]
    assert ["head.1, head.5", "200", "0.0235", "0.500 ± 0.050", "chosen"] == by_name["symmetric 2"]
    assert "layer.0, …, layer.10 (11 layers)" == by_name["full, backbone rate 0.1"][0]
    assert OUTCOMES.items() <= {name: cells[-1] for name, cells in by_name.items() if cells}.items()


def test_ranking_is_explained_where_there_was_one(trained: Run, tmp_path: Path) -> None:
    """With one candidate a budget, nothing is ranked."""
    assert "relative gradient norm" in page_of(trained, tmp_path / "ranked", search=SEARCH)
    measured = [one for one in CANDIDATES if one["name"] in ("none", "all", "symmetric 2")]
    unranked = {**SEARCH, "candidates": [{**one, "criterion": None} for one in measured]}
    assert "relative gradient norm" not in page_of(trained, tmp_path / "not", search=unranked)


@pytest.mark.slow
def test_a_criterion_of_another_version_is_named(trained: Run, tmp_path: Path) -> None:
    """The page of a run whose criterion does not exist any more is written all the same."""
    assert "tea leaves" in page_of(trained, tmp_path, search={**SEARCH, "criterion": "tea leaves"})


def test_the_plot_of_candidates_says_what_it_shows(drawn: list[Figure]) -> None:
    """A point for each that was measured, in three colours, the scores in the alternative text."""
    text = search_plot(SEARCH).text
    assert "symmetric 2 0.500, chosen; " in text and "none 0.200, clearly worse after 4 of 10 shots" in text
    assert "last 2" not in text and "diverged" not in text
    (figure,) = drawn
    (panel,) = figure.axes
    assert ["none", "last 1", "symmetric 2", "symmetric 3", "all", "full, backbone rate 0.1"] == [
        label.get_text() for label in panel.get_yticklabels()
    ]
    points = [container.lines[0] for container in panel.containers]
    assert [0.2, 0.41, 0.5, 0.45, 0.48, 0.55] == [float(point.get_xdata()[0]) for point in points]
    blue, orange = CLASSES[:2]
    assert [GREY, blue, orange, GREY, blue, blue] == [point.get_color() for point in points]


def test_one_shot_has_no_standard_error(drawn: list[Figure]) -> None:
    """It is drawn without a bar."""
    one = {**CANDIDATES[0], "shots": 1, "standard_error": None}
    search_plot({**SEARCH, "candidates": [one, *CANDIDATES[1:]]})
    (panel,) = drawn[0].axes
    bar = panel.containers[0].lines[2][0].get_segments()[0]
    assert 0.0 == np.ptp(bar[:, 0])


def test_the_plot_of_shares_marks_the_chosen_one(drawn: list[Figure]) -> None:
    """Shares in JSON have six digits, the chosen one has all."""
    text = average_plot(AVERAGES, 2 / 3).text
    assert text.endswith("0.400 at 0.5, 0.500 at 0.6667, 0.200 at 1; chosen: 0.6667.")
    (panel,) = drawn[0].axes
    curve, mark = panel.lines
    assert [0.0, 0.25, 0.5, 0.666667, 1.0] == list(curve.get_xdata())
    assert (0.666667, 0.5) == (mark.get_xdata()[0], mark.get_ydata()[0])


def test_nothing_found_at_any_share_is_a_flat_line(drawn: list[Figure]) -> None:
    """The axis still goes from zero upwards."""
    average_plot({"0": 0.0, "1": 0.0}, 1.0)
    assert (0.0, 1.0) == drawn[0].axes[0].get_ylim()


@pytest.mark.parametrize(
    ("average", "averages", "sentence", "shown"),
    [
        (HALF, AVERAGES, "The detector is 0.5 of the trained weights, 0.5 of those before", True),
        (HALF, {"0.5": 0.4}, "The detector is 0.5 of the trained weights, 0.5 of those before", False),
        ({"alpha": 1.0, "reason": "classes"}, AVERAGES, "not averaged with the weights before training", True),
    ],
    ids=["averaged, compared", "averaged, given", "compared, not averaged"],
)
def test_the_page_says_how_the_detector_is_averaged(
    trained: Run, tmp_path: Path, average: dict[str, Any], averages: dict[str, float], sentence: str, shown: bool
) -> None:
    """In a sentence, with a plot where several shares were compared."""
    validated = {"folds": 2, "ap": 0.4, "ap_interval": 0.1, "pooled_ap": 0.4, "averages": averages}
    validated |= {"per_class": {}, "not_validated": {}}
    page = page_of(trained, tmp_path, average=average, cross_validation=validated)
    section = page.split("<h2>Averaging</h2>")[1].split("<h2>")[0]
    assert sentence in section
    assert shown == ('alt="mAP on left-out shots against α' in section)


def test_a_cross_validation_without_shares_still_gives_a_page(trained: Run, tmp_path: Path) -> None:
    """As runs recorded it before there was averaging."""
    validated = {"folds": 2, "ap": 0.4, "ap_interval": 0.1, "pooled_ap": 0.4, "per_class": {}, "not_validated": {}}
    page = page_of(trained, tmp_path, average=..., search=..., cross_validation=validated)
    assert "Estimate: mAP 0.400" in page and "<h2>Averaging</h2>" not in page


@needs_browser
@pytest.mark.slow
def test_the_plot_of_candidates_is_no_wider_than_a_phone(trained: Run, tmp_path: Path) -> None:
    """It scrolls inside its box, as the table of candidates does."""
    page = page_of(trained, tmp_path, search=SEARCH, average=HALF)
    verdict = "<script>if (document.documentElement.scrollWidth <= innerWidth) document.body.textContent = ''</script>"
    (tmp_path / "page.html").write_text(page.replace("</body>", f"{verdict}</body>"))
    assert 0 == np.asarray(browse(tmp_path / "page.html", tmp_path / "page.png", 700, 390)).std()
