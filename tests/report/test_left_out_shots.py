"""The page of a run without a test set: the mistakes on shots that a fold of the cross-validation left out."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from helpers_runs import TINY, config_of, draw_shapes

from fewshot_cli.report.run import write_run_report
from fewshot_cli.runs.folder import Run
from fewshot_cli.verbs.finetune import run_at

IN_SHOTS = "Cut out of the shots, each with the detections of a detector that was not trained on it"


@pytest.fixture(scope="module")
def shots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six shots with a square each, three of which show a disc too; no test set."""
    folder = tmp_path_factory.mktemp("data") / "six"
    draw_shapes(folder / "train", 6, seed=1)
    return folder


@pytest.fixture(scope="module")
def run(shots: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Two folds, one iteration each."""
    return run_at(tmp_path_factory.mktemp("runs") / "run", config_of(shots, TINY, iterations=1, cross_validate=2))


def page_of(run: Run, folder: Path, results: list[dict[str, Any]], **changes: Any) -> str:
    """The page of a copy of the run whose folds detected something else."""
    copy = Run(Path(shutil.copytree(run.folder, folder / "run")))
    folds = run.read_folds()
    for fold in folds:
        inside = [each for each in results if each["image_id"] in fold["images"]]
        fold["results"] = dict.fromkeys(fold["results"], inside)  # at every share of the trained weights
    copy.write_folds(folds)
    copy.write_result({**run.read_result(), "thresholds": {}, **changes})
    return write_run_report(copy).read_text("utf-8")


def counts(page: str) -> dict[str, int]:
    """Heading of each strip → the number in it."""
    return {title: int(count) for title, count in re.findall(r"<h2>((?:False|Missed)[^<(]*) \((\d+)\)</h2>", page)}


def test_the_mistakes_on_left_out_shots_are_shown(run: Run, shots: Path, tmp_path: Path) -> None:
    """One object of nine is found, and one detection is of nothing; what scores too low does not count."""
    (square, *_) = json.loads((shots / "train" / "annotations.json").read_text())["annotations"]
    right = {key: square[key] for key in ("image_id", "category_id", "bbox")}
    wrong = {**right, "bbox": [0, 0, 3, 2]}
    page = page_of(run, tmp_path, [{**right, "score": 0.9}, {**wrong, "score": 0.8}, {**wrong, "score": 0.2}])
    assert {"False positives in left-out shots": 1, "Missed objects in left-out shots": 8} == counts(page)
    assert 2 == page.count(IN_SHOTS)
    assert "Cut out of the test images" not in page
    assert "<h3>Shots</h3>" in page


def test_classes_that_were_not_validated_are_left_out(run: Run, tmp_path: Path) -> None:
    """No detector saw a class whose only shot was left out, so it is no mistake to miss it."""
    validated = run.result["cross_validation"]
    squares = {**validated, "per_class": {"square": validated["per_class"]["square"]}}
    foreign = [
        {"image_id": 1, "category_id": 2, "bbox": [0, 0, 3, 2], "score": 0.9},
        {"image_id": 99, "category_id": 1, "bbox": [0, 0, 3, 2], "score": 0.9},
    ]
    page = page_of(run, tmp_path, foreign, cross_validation=squares)
    assert {"Missed objects in left-out shots": 6} == counts(page)


@pytest.mark.parametrize("content", [None, "[{}]", "damaged"])
def test_without_folds_there_are_no_strips(run: Run, tmp_path: Path, content: str | None) -> None:
    """Neither of a run without a cross-validation, nor where its file is damaged; the page is written all the same."""
    copy = Run(Path(shutil.copytree(run.folder, tmp_path / "run")))
    if content is None:
        copy.write_result({**run.read_result(), "cross_validation": None, "thresholds": {}})
    else:
        copy.folds_file.write_text(content)
    assert {} == counts(write_run_report(copy).read_text("utf-8"))
