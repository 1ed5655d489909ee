"""Running a sweep, by the library and by `fsod sweep`: resumption, failures, shared features, the report."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers_runs import browse, fsod, needs_browser
from helpers_sweeps import GRID, TINY, draw_classes, losses, sweep_config
from PIL import Image

from fewshot_cli.datasets import store
from fewshot_cli.errors import DataError
from fewshot_cli.runs.folder import RESULT
from fewshot_cli.sweeps import run as running
from fewshot_cli.sweeps.folder import SweepFolder, open_sweep, remaining_seconds
from fewshot_cli.sweeps.forecast import Costs, forecast, seconds_of
from fewshot_cli.sweeps.run import SweepResult, sweep

BOTH = ("cat", "dog")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A source with two classes."""
    return draw_classes(tmp_path_factory.mktemp("photos"))


def run(source: str, out: Path, classes: Any = BOTH, **changes: Any) -> SweepResult:
    return sweep(classes, source=source, out=out, **{**GRID, **changes})


def scores(folder: SweepFolder) -> dict[str, float]:
    return {str(cell): result["ap"] for cell, result in folder.results()}


def times(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.glob(f"runs/*/{RESULT}")}


# --- the library ---


def test_a_sweep_runs_every_cell_once(photos: str, tmp_path: Path) -> None:
    """All cells are finished and summed up; a second call touches no run; the remaining time is then zero."""
    out = tmp_path / "sweep"
    assert remaining_seconds(open_sweep(out, sweep_config(photos, baselines=False))) is None
    first = run(photos, out, baselines=False)
    assert ((), 2 * 2) == (first.failures, len(scores(first.folder)))
    (table,) = first.summaries
    assert (BOTH, 2) == (table.classes, len(table.rows))
    before = times(out)
    second = run(photos, out, baselines=False)
    assert (first.summaries, before) == (second.summaries, times(out))
    assert 0 == remaining_seconds(second.folder)


def test_only_missing_cells_are_run(photos: str, tmp_path: Path) -> None:
    """A cell whose result is gone is run again, and no other; more seeds add cells."""
    out = tmp_path / "sweep"
    folder = run(photos, out, "cat").folder
    before, kept = scores(folder), times(out)
    victim = folder.run(next(folder.grid.cells()))
    victim.result_file.unlink()
    assert [victim.folder] == [folder.run(cell).folder for cell in folder.missing()]
    run(photos, out, "cat")
    assert before == scores(folder)
    assert [victim.result_file] == [path for path, time in times(out).items() if time != kept[path]]
    assert 5 == len(open_sweep(out, sweep_config(photos, classes=("cat",), seeds=2)).missing())


def test_shared_features_change_no_number(photos: str, tmp_path: Path) -> None:
    """Losses are the same with shared caches and without."""
    same_cut: dict[str, Any] = {"policies": ("symmetric",), "budgets": (2, 3), "baselines": False}
    shared = losses(run(photos, tmp_path / "shared", "cat", **same_cut).folder)
    apart = losses(run(photos, tmp_path / "apart", "cat", **same_cut, share=False).folder)
    assert 2 == len(shared)
    assert apart == shared


@pytest.mark.slow
def test_processes_change_no_number(photos: str, tmp_path: Path) -> None:
    """Losses are the same in two processes as in one, but for rounding."""
    grid = {"policies": ("symmetric",), "baselines": False, "options": {**TINY, "precision": "fp32"}}
    one = losses(run(photos, tmp_path / "one", **grid).folder)
    two = losses(run(photos, tmp_path / "two", **grid, jobs=2).folder)
    assert 2 == len(one) and one.keys() == two.keys()
    for cell, lines in one.items():
        for ours, theirs in zip(two[cell], lines, strict=True):
            assert ours == pytest.approx(theirs, rel=1e-3)


@pytest.fixture
def fills(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, bool]]:
    """What every cache was filled with, and whether it was computed from another cache."""
    from fewshot_cli.training.cache import FeatureCache

    found: list[tuple[str, bool]] = []
    fill = FeatureCache.fill

    def counted(self: Any, reporter: Any = None, description: str = "", compute: Any = None) -> Any:
        found.append((description, compute is not None))
        return fill(self, reporter, description, compute)

    monkeypatch.setattr(FeatureCache, "fill", counted)
    return found


def test_cells_with_the_same_cut_share_their_features(
    photos: str, tmp_path: Path, fills: list[tuple[str, bool]]
) -> None:
    """symmetric 2, symmetric 3 and all fill one cache; none, last 2, last 3 and full one each of their own.

    All but the first, for full, are computed from the one before; none caches fewer variants.
    """
    result = run(photos, tmp_path / "sweep", "cat", budgets=(2, 3))
    assert ["none", "last 2", "symmetric 2", "last 3", "symmetric 3", "all", "full"] == [
        str(row.setup) for row in result.summaries[0].rows
    ]
    variants, tests = "Features of the variants", "Features of the test images"
    assert [5, 5] == [sum(kind == description for description, _ in fills) for kind in (variants, tests)]
    assert [variants, tests, variants] == [description for description, continued in fills if not continued]


@pytest.mark.parametrize(
    "option",
    [
        {"cache_type": "bf16"},
        pytest.param({"precision": "bf16"}, marks=pytest.mark.slow),
        pytest.param({"cache_memory": 1e-5, "cache_disk": 0.0}, marks=pytest.mark.slow),
    ],
)
def test_rounded_or_missing_features_are_not_continued(
    photos: str, tmp_path: Path, fills: list[tuple[str, bool]], option: dict[str, Any]
) -> None:
    """Each cache is then computed from the images."""
    run(photos, tmp_path / "sweep", "cat", budgets=(1, 2), baselines=False, options={**TINY, **option})
    assert 4 <= len(fills)
    assert not any(continued for _, continued in fills)


@pytest.mark.slow
def test_layers_and_parameters_are_rows_of_the_tables(photos: str, tmp_path: Path) -> None:
    """By the command line: 60,000 parameters are last 2 and symmetric 3; named layers have a row and a run of their own."""
    out = tmp_path / "sweep"
    options = [f"--set={name}={value}" for name, value in TINY.items()]
    grid = ["--class", "cat", "--source", photos, "--shots", "2", "--seeds", "1", "--test-images", "3"]
    grid += ["--budget", "60k", "--layers", "head.4,head.1", "--no-baselines", "--weights", "none", "--eval-every", "1"]
    done = fsod("sweep", *grid, *options, "--out", out, "--json")
    assert 0 == done.exit_code, done.stderr
    (table,) = json.loads(done.stdout)["tables"]
    rows = {row["setup"]: (row["layers"], row["parameters"]) for row in table["rows"]}
    assert {"last 2": (2, 30_738), "symmetric 3": (3, 59_794), "head.1 + head.4": (2, 30_226)} == rows
    assert (out / "runs" / "cat-2shots-seed0-yolox_nano-custom-head.1_head.4" / RESULT).exists()
    for name in ("table.md", "table.tex", "table.csv", "report.html"):
        assert "head.1 + head.4" in (out / name).read_text("utf-8"), name
    before = times(out)
    again = fsod("sweep", *grid, "--budget", "2", *options, "--out", out, "--json")
    assert 0 == again.exit_code, again.stderr
    assert before.items() < times(out).items()
    assert 4 == len(times(out))


def test_a_failed_cell_stops_no_other(photos: str, tmp_path: Path) -> None:
    """A class that cannot be drawn and a run that cannot be written fail alone, with reason and exit code."""
    out, classes = tmp_path / "sweep", ("cat", "cow")
    folder = open_sweep(out, sweep_config(photos, classes=classes))
    blocked = folder.run(next(cell for cell in folder.grid.cells() if cell.setup.policy == "last")).folder
    blocked.write_text("a file where the run should be")
    failures = run(photos, out, classes).failures
    assert {"cow": 5, "cat": 1} == {
        name: sum(failure.cell.group.class_name == name for failure in failures) for name in ("cow", "cat")
    }
    assert {3} == {failure.exit_code for failure in failures}
    assert 4 == len(scores(folder))
    blocked.unlink()
    assert {"cow"} == {failure.cell.group.class_name for failure in run(photos, out, classes).failures}
    assert 5 == len(scores(folder))


def test_a_data_set_without_a_test_set_is_refused(photos: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the first cell, with the folder."""

    def without_test(path: Path) -> Any:
        return replace(store.open_dataset(path), test=None)

    monkeypatch.setattr(running, "open_dataset", without_test)
    with pytest.raises(DataError, match="no test set in .*cat-2shots-seed0"):
        run(photos, tmp_path / "sweep")
    assert {} == times(tmp_path / "sweep")


def test_a_forecast_counts_what_will_be_run() -> None:
    """Steps, measurements as a share of them, and features once for the cells that share them; a second seed anew."""
    options = {"iterations": 20, "copies": 3}
    config = sweep_config(classes=("cat",), seeds=2, options=options, eval_every=5)
    costs, cached = Costs(image=1.0, step=10.0, once=100.0), set()  # type: ignore[var-annotated]
    seconds = [
        seconds_of(config, cell, costs, cached)
        for cell in config.grid.cells()
        if cell.setup.policy in ("last", "symmetric", "all")
    ]
    once_and_steps, images = 100 + 10 * (20 + 4 * 3 / 8), 2 * 3 + 3
    first, shared = once_and_steps + images, once_and_steps
    assert [first, first, shared] * 2 == seconds


def test_a_forecast_needs_no_evaluations(tmp_path: Path) -> None:
    """A trial run has only one, at its end, also where the schedule follows the evaluations."""
    options = {**TINY, "schedule": "plateau"}
    config = sweep_config(classes=("cat",), policies=("last",), baselines=False, options=options)
    assert 0 < forecast(open_sweep(tmp_path / "sweep", config))


# --- the command ---


def argv(source: str, folder: Path, *more: str) -> list[str]:
    sets = [word for name, value in TINY.items() for word in ("--set", f"{name}={value}")]
    grid = ["--class", "cat", "--source", source, "--budget", "2", "--shots", "2", "--seeds", "2", "--weights", "none"]
    return ["sweep", *grid, "--test-images", "3", *sets, "--eval-every", "1", "--out", str(folder), *more]


@pytest.fixture(scope="module")
def swept(photos: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The folder of a finished sweep, and the JSON document of the command."""
    folder = tmp_path_factory.mktemp("swept") / "sweep"
    result = fsod(*argv(photos, folder, "--json"))
    assert 0 == result.exit_code, result.stderr
    return folder, json.loads(result.stdout)


def test_the_command_writes_tables_and_curves(swept: tuple[Path, dict[str, Any]]) -> None:
    """--json lists the tables and the files; each file is there and of its kind."""
    folder, document = swept
    assert (str(folder), []) == (document["folder"], document["failures"])
    assert ["none", "last 2", "symmetric 2", "all", "full"] == [row["setup"] for row in document["tables"][0]["rows"]]
    endings = {Path(file).suffix for file in document["files"]}
    assert {".html", ".md", ".tex", ".csv", ".json", ".png"} == endings
    for file in document["files"]:
        if file.endswith(".png"):
            with Image.open(file) as image:
                assert image.width > 400
        else:
            assert Path(file).read_text().strip()


def test_a_dry_run_lists_the_cells_and_runs_none(photos: str, tmp_path: Path) -> None:
    """All are missing, trial runs tell how long they take, and no folder is made."""
    plan = json.loads(fsod(*argv(photos, tmp_path / "sweep", "--dry-run", "--json")).stdout)
    assert (10, 10) == (len(plan["cells"]), plan["missing"])
    assert 0.1 < plan["seconds"] < 600
    assert not (tmp_path / "sweep").exists()


def test_a_failure_is_reported_and_sets_the_exit_code(
    photos: str, swept: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    """The table of the finished cells is printed all the same, and the page lists what is missing."""
    folder = shutil.copytree(swept[0], tmp_path / "sweep")
    result = fsod(*argv(photos, folder, "--class", "cow"))
    page = (folder / "report.html").read_text("utf-8")
    assert "cells are missing" in page and "cow, 2 shots" in page
    assert 3 == result.exit_code
    assert "cow" in result.stderr
    assert "symmetric 2" in result.stdout


def test_a_sweep_whose_cells_all_fail_says_so_once_and_writes_no_table(photos: str, tmp_path: Path) -> None:
    """One warning a cause with its hint, the exit code of the cause, nothing that looks finished."""
    out = tmp_path / "sweep"
    failed = fsod(*(word if before != "--shots" else "50" for before, word in pairwise(["", *argv(photos, out)])))
    assert 3 == failed.exit_code, failed.output
    assert "10 cells failed (the first is cat, 50 shots" in failed.stderr and "too few images" in failed.stderr
    assert 1 == failed.stderr.count("warning:") and "--shots 8 is the most" in failed.stderr
    assert "No cell is finished" in failed.stdout
    assert [] == [*out.glob("table*"), *out.glob("*.html")]


def test_a_damaged_file_is_the_failure_of_its_cell(
    photos: str, swept: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    """result.json, metrics.jsonl or predictions.json: the file is named, the others are in the table, exit 3."""
    folder = shutil.copytree(swept[0], tmp_path / "sweep")
    runs = sorted((folder / "runs").iterdir())
    damages = (("result.json", "{}"), ("metrics.jsonl", "[1]"), ("predictions.json", "{"))
    for run_folder, (name, content) in zip(runs, damages, strict=False):
        (run_folder / name).write_text(content)
    result = fsod(*argv(photos, folder, "--json"))
    document = json.loads(result.stdout)
    assert 3 == result.exit_code
    assert 3 == len(document["failures"]) and document["tables"][0]["rows"]
    for (name, _), run_folder in zip(damages, runs, strict=False):
        (failure,) = [one for one in document["failures"] if str(run_folder / name) in one["message"]]
        assert f"Remove {run_folder}" in failure["hint"]


def test_a_dry_run_looks_at_the_source(photos: str, tmp_path: Path) -> None:
    """An unknown class, too few images: told at once."""
    for more, said in ((("--class", "cow"), "cow"), (("--shots", "50"), "too few images")):
        result = fsod(*argv(photos, tmp_path / "sweep", "--dry-run", *more))
        assert (3, True) == (result.exit_code, said in result.stderr), result.output


NOWHERE = ("--class", "cat", "--source", "coco:nowhere")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("--source", "miniature"), 2, "no class is given"),
        (("--class", "cat"), 2, "no source is given"),
        ((*NOWHERE, "--preset", "table2"), 2, "Did you mean table1?"),
        ((*NOWHERE, "--engine", "dask"), 2, "Valid: local, ray."),
        ((*NOWHERE, "--address", "auto"), 2, "--address does not go with --engine local"),
        ((*NOWHERE, "--set", "lr"), 2, "Write --set NAME=VALUE."),
        ((*NOWHERE, "--fetch-set", "split"), 2, "Write --fetch-set NAME=VALUE."),
        ((*NOWHERE, "--set", "iterations=abc"), 4, "iterations is 'abc'"),
        ((*NOWHERE, "--set", "lr=null"), 4, "lr is 'null': give a valid number"),
        ((*NOWHERE, "--set", "ops=5"), 4, "unknown operation '5'"),
        ((*NOWHERE, "--set", "itterations=5"), 4, "Did you mean iterations?"),
        ((*NOWHERE, "--fetch-set", "splitt=test"), 4, "Did you mean split?"),
        ((*NOWHERE, "--fetch-set", "skip_invalid=5"), 4, "skip_invalid is '5': give true or false"),
    ],
)
def test_a_wrong_command_line_is_refused_before_anything_runs(
    arguments: tuple[str, ...], code: int, message: str, tmp_path: Path
) -> None:
    """Exit code, what is wrong and what would be right; no folder is made."""
    result = fsod("sweep", *arguments, "--out", tmp_path / "sweep")
    said = result.stderr + str(getattr(result.exception, "message", "")) + str(getattr(result.exception, "hint", ""))
    assert (code, True) == (result.exit_code, message in said), said
    assert not (tmp_path / "sweep").exists()


def test_the_page_of_a_sweep_holds_all_of_it(swept: tuple[Path, dict[str, Any]]) -> None:
    """Table, comparison, curves, drift and images in one file that needs no other."""
    page = (swept[0] / "report.html").read_text("utf-8")
    assert not re.search(r"https?://|<script|<link|url\(", page)
    for text in ("symmetric 2 − last 2", "symmetric 2 − full", "head.1", "MB at most", "full"):
        assert text in page
    texts = re.findall(r'<img [^>]*alt="([^"]+)"', page)
    # curves, precision and recall, three test images in five setups, two shots
    assert page.count("<img") == len(set(texts)) == 2 + 3 * 5 + 2
    assert page.count("F1 0.") + page.count("F1 1.") == 3 * 5


@needs_browser
def test_a_browser_shows_the_page_of_a_sweep(swept: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    """Headless Chromium, without a network, draws table, curves and images: nothing is empty or cut short."""
    pixels = np.asarray(browse(swept[0] / "report.html", tmp_path / "page.png", 2000).convert("L"))
    for top in range(0, 2000, 400):
        assert pixels[top : top + 400].std() > 5, top


def test_options_of_fetch_reach_every_data_set(photos: str, tmp_path: Path) -> None:
    """What the source of the images does not take is refused with the source's own message."""
    result = fsod(*argv(photos, tmp_path / "sweep", "--fetch-set", "split=test"))
    assert result.exit_code in (2, 4)
    assert "--split does not go with --source coco" in result.stderr
