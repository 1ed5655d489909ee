"""What a sweep over further axes leaves: tables, figures, a line a cell, and a page with what was measured."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import pytest
from helpers_sweeps import made_results, sweep_config
from PIL import Image

from fewshot_cli.report.axes import write_axes_report
from fewshot_cli.report.pivot import estimate_text
from fewshot_cli.sweeps.config import SweepConfig
from fewshot_cli.sweeps.folder import SweepFolder
from fewshot_cli.sweeps.presets import configure
from fewshot_cli.sweeps.summary import Estimate


def varied() -> SweepConfig:
    vary = {"lr": (0.1, 0.2), "copies": (2, 3)}
    return sweep_config(policies=("all",), baselines=False, seeds=3, options={"iterations": 2}, vary=vary)


def test_every_file_is_written(tmp_path: Path) -> None:
    """Each of its kind: four tables, a line a cell, a figure a table, and the page."""
    config = varied()
    results = made_results(config, lambda cell: cell.varied["lr"])
    files = {path.name: path for path in write_axes_report(SweepFolder(tmp_path, config), results)}
    tables = {"table.md", "table.tex", "table.csv", "table.json"}
    assert files.keys() == {"report.html", "cells.csv", "figure-1.png", *tables}
    lines = list(csv.DictReader(files["cells.csv"].open()))
    assert len(lines) == len(results) and {line["lr"] for line in lines} == {"0.1", "0.2"}
    assert [float(line["ap"]) for line in lines] == [cell.varied["lr"] for cell in results]
    assert json.loads(files["table.json"].read_text())[0]["row_axis"] == "lr"
    assert Image.open(files["figure-1.png"]).width > 500
    assert "mAP by lr and copies; averaged over class" in files["report.html"].read_text()


def test_the_page_shows_options_as_a_person_writes_them(tmp_path: Path) -> None:
    """Lists with commas, yes and no, a dash for nothing: no literal of Python."""
    config = varied()
    write_axes_report(SweepFolder(tmp_path, config), made_results(config, lambda cell: 0.1))
    shown = (tmp_path / "report.html").read_text().split("<h2>Configuration</h2>")[1]
    rows = dict(re.findall('<tr><td>(.*?)</td><td class="value">(.*?)</td></tr>', shown))
    assert ("cat, dog", "no", "lr=0.1,0.2, copies=2,3") == (rows["classes"], rows["baselines"], rows["vary"])
    assert "–" == rows["test_source"] == rows["panels"]


@pytest.mark.parametrize(("mean", "text"), [(-0.0021, "−0.002"), (-0.0001, "0.000"), (0.0312, "0.031")])
def test_a_mean_has_a_minus_sign_and_zero_has_none(mean: float, text: str) -> None:
    """The gap to the training images may be below zero; differences have the same sign."""
    assert f"{text} ± 0.010" == estimate_text(Estimate(mean, 0.01, 3), "gap")


def test_the_page_says_what_is_missing(tmp_path: Path) -> None:
    """With the number of cells and the first of them."""
    config = varied()
    results = made_results(config, lambda cell: 0.1)
    gone = next(iter(results))
    del results[gone]
    write_axes_report(SweepFolder(tmp_path, config), results)
    page = (tmp_path / "report.html").read_text()
    assert "1 cell is missing" in page and str(gone) in page


def test_a_study_has_its_claims_on_the_page_and_in_markdown(tmp_path: Path) -> None:
    """Beside what was measured and the verdict."""
    config = configure(
        "all", source="coco:x", preset="freeze-depth", detectors=("retinanet_mobilenet_v2_fpn",), seeds=3
    )
    results = made_results(
        config, lambda cell: 0.5 - 0.005 * cell.varied["freeze_first"], convolution_drift=lambda _: [0.1, 0.2]
    )
    write_axes_report(SweepFolder(tmp_path, config), results)
    for name in ("report.html", "table.md"):
        text = (tmp_path / name).read_text()
        assert "the lower the mAP (imagenet)" in text and "ρ = −1.00" in text and "holds" in text
    assert (tmp_path / "figure-2.png").exists()
