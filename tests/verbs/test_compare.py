"""Runs beside each other, and their pages written again."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers_runs import LEARNING, config_of, draw_shapes, fine_tune, fsod
from safetensors.numpy import load_file

from fewshot_cli.errors import DataError, UsageError
from fewshot_cli.runs.folder import Run
from fewshot_cli.verbs.compare import compare


@pytest.fixture(scope="module")
def other(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The same as `trained`, but for its layers."""
    config = config_of(shapes, {**LEARNING, "policy": "last", "budget": 2})
    return fine_tune(tmp_path_factory.mktemp("runs") / "other", config)


def rewritten(run: Run, folder: Path, **changes: Any) -> Run:
    copy = Run(folder)
    shutil.copytree(run.folder, folder)
    copy.result_file.write_text(json.dumps({**run.read_result(), **changes}))
    return copy


def test_differences_are_to_the_first_run(trained: Run, other: Run) -> None:
    """mAP and AP of each class, as result.json has them."""
    document = compare(trained, other).to_json()
    first, second = trained.result, other.result
    assert ["trained", "other"] == [row["name"] for row in document["runs"]]
    assert [first["ap"], second["ap"]] == [row["ap"] for row in document["runs"]]
    (difference,) = document["differences"]
    assert second["ap"] - first["ap"] == pytest.approx(difference["ap"])
    aps = [result["metrics"]["per_class"] for result in (first, second)]
    assert {name: aps[1][name] - aps[0][name] for name in aps[0]} == pytest.approx(difference["per_class"])


def test_drift_between_runs_is_that_of_their_weights(trained: Run, other: Run) -> None:
    """Layers in both checkpoints against numpy; one that trained in one run alone is as far as that run moved it."""
    drift = compare(trained, other).drift[0]
    assert drift is not None
    one, two = load_file(trained.checkpoint), load_file(other.checkpoint)
    shared = [name for name in one if name in two and "pred" in name]
    u, v = (np.concatenate([tensors[name].ravel().astype(float) for name in shared]) for tensors in (one, two))
    assert 1 - abs(u @ v) / np.linalg.norm(u) / np.linalg.norm(v) == pytest.approx(drift["head.4"], abs=1e-9)
    alone = set(trained.result["trained_layers"]) ^ set(other.result["trained_layers"])
    for layer in alone:
        assert max(run.result["drift"][layer] for run in (trained, other)) == drift[layer] > 0
    assert 0 == drift["backbone.stem"]


def test_a_run_and_its_copy_are_not_apart(trained: Run, tmp_path: Path) -> None:
    """Exactly zero, everywhere; names that are the same are shown as paths."""
    copy = rewritten(trained, tmp_path / "trained")
    comparison = compare(trained.folder, copy)
    assert comparison.drift[0] is not None and {0.0} == {*comparison.drift[0].values()}
    assert [str(trained.folder), str(copy.folder)] == comparison.names
    printed = fsod("compare", trained.folder, copy.folder).stdout
    assert "difference" in printed and "drift from" not in printed


def test_what_cannot_be_compared_is_refused(trained: Run, shapes: Path, tmp_path: Path) -> None:
    """One run, the same run, other classes, other test images."""
    for runs in ([trained], [trained, trained.folder], []):
        with pytest.raises(UsageError, match="nothing to compare"):
            compare(*runs)
    with pytest.raises(DataError, match="detects cat, .* square, disc"):
        compare(trained, rewritten(trained, tmp_path / "cat", classes=["cat"]))
    draw_shapes(tmp_path / "shapes" / "train", 4, seed=1)
    draw_shapes(tmp_path / "shapes" / "test", 6, seed=77)
    with pytest.raises(DataError, match="other test images"):
        compare(trained, rewritten(trained, tmp_path / "elsewhere", data=str(tmp_path / "shapes")))
    shutil.copytree(shapes, tmp_path / "moved")
    assert compare(trained, rewritten(trained, tmp_path / "same", data=str(tmp_path / "moved")))


def test_the_command_prints_a_table_or_json_and_writes_a_page(trained: Run, other: Run, tmp_path: Path) -> None:
    """The page holds the curves, nothing from elsewhere, and escapes what comes from outside."""
    page = tmp_path / "page.html"
    result = fsod("compare", trained.folder, other.folder, "--page", page)
    assert 0 == result.exit_code, result.output
    assert "difference" in result.stdout and "AP by class" in result.stdout and str(page) in result.stdout
    text = page.read_text("utf-8")
    assert "Learning curves" in text or "data:image/png" in text
    assert "http" not in text and "<script" not in text
    document = json.loads(fsod("compare", trained.folder, other.folder, "--json").stdout)
    assert compare(trained, other).to_json() == document
    assert 2 == fsod("compare", trained.folder).exit_code
    assert 3 == fsod("compare", trained.folder, tmp_path).exit_code


def test_caveats_and_intervals_are_beside_the_number(trained: Run, other: Run, tmp_path: Path) -> None:
    """Where result.json has them: in the table, and on the page of a run."""
    facts = {"ap_interval": [0.1, 0.4], "caveats": ["only 6 test images"], "environment": {"torch": "2.x"}}
    run = rewritten(trained, tmp_path / "careful", **facts)
    shown = fsod("compare", run.folder, other.folder).stdout
    assert "(0.100 to 0.400)" in shown and "only 6 test images" in shown
    assert 0 == fsod("report", run.folder).exit_code
    page = run.report_file.read_text("utf-8")
    assert "(0.100 to 0.400)" in page and "only 6 test images" in page and "<td>2.x</td>" in page


def test_a_run_without_averaging_is_compared(trained: Run, other: Run, tmp_path: Path) -> None:
    """One whose result.json says null."""
    run = rewritten(trained, tmp_path / "before", average=None, cross_validation=None)
    assert [1.0] == [row["alpha"] for row in compare(other, run).to_json()["runs"]][1:]


def test_report_writes_the_page_again(trained: Run, tmp_path: Path) -> None:
    """In the run's folder, or where --out says; a folder that is no run is an error of data."""
    copy = rewritten(trained, tmp_path / "run")
    assert 0 == fsod("report", copy.folder).exit_code
    result = fsod("report", copy.folder, "--out", tmp_path / "page.html", "--json")
    assert str(tmp_path / "page.html") == json.loads(result.stdout)["page"]
    assert copy.report_file.read_text("utf-8") == (tmp_path / "page.html").read_text("utf-8")
    assert 3 == fsod("report", tmp_path).exit_code
