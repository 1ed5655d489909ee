"""Every script under examples/ runs, in a mode that takes seconds: tiny images, random weights, one iteration."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers_openimages import Mirror, serving, table1_world
from helpers_runs import REPOSITORY, fsod

EXAMPLES = REPOSITORY / "examples"
SMALL = ["--options", json.dumps({"iterations": 1, "copies": 1, "image_size": 64})]
"""For scripts that take options of a fine-tune as JSON."""

Example = Callable[..., str]


@pytest.fixture(scope="module")
def helmets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of two drawn shots and two test images."""
    root = tmp_path_factory.mktemp("data")
    drawn = ["--source", "miniature", "--class", "helmet", "--shots", "2", "--test-images", "2"]
    assert 0 == fsod("fetch", *drawn, "--root", root).exit_code
    return root / "helmet"


@pytest.fixture
def run_example(tmp_path: Path) -> Example:
    """Run a script in an empty folder; what it prints on stdout."""

    def run(script: str, *arguments: str | Path, **environment: str) -> str:
        done = subprocess.run(
            [sys.executable, EXAMPLES / script, *map(str, arguments)],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(REPOSITORY), **environment},
            capture_output=True,
            text=True,
            check=False,
        )
        assert 0 == done.returncode, done.stderr
        return done.stdout

    return run


def table(printed: str) -> list[list[str]]:
    """The rows of the Markdown table that a script prints, without head and rule."""
    rows = [line for line in printed.splitlines() if line.startswith("|")]
    return [[cell.strip(" *") for cell in row.strip("|").split("|")] for row in rows[2:]]


def test_augmentation_value(run_example: Example) -> None:
    """A row with all six operations, one without each, and one with none."""
    rows = table(
        run_example(
            "augmentation_value.py", "helmet", "--source", "miniature", "--weights", "none",
            "--seeds", "1", "--test-images", "1", *SMALL,
        )
    )  # fmt: skip
    assert 8 == len(rows)
    assert ["all six", "none"] == [rows[0][0], rows[-1][0]]


def test_cached_vs_uncached(helmets: Path, run_example: Example) -> None:
    """The last losses are the same with the cache and without it."""
    rows = table(run_example("cached_vs_uncached.py", helmets, "--weights", "none", *SMALL))
    assert ["symmetric 3", "last 1"] == [row[0] for row in rows]
    assert [row[4] for row in rows] == [row[5] for row in rows]


def test_miniature_sheets(tmp_path: Path, run_example: Example) -> None:
    """The sheets without and with a fine-tune are written as JPEG files, the README's at most 150 KB."""
    sheets = ["classes", "scenes", "before_after"]
    run_example("miniature_sheets.py", *sheets, "--options", '{"iterations": 1, "copies": 1}')
    written = {path.name for path in tmp_path.glob("*.jpg")}
    assert {"miniature_classes.jpg", "miniature_scenes.jpg", "before_after.jpg"} == written
    assert (EXAMPLES / "images" / "before_after.jpg").stat().st_size <= 150_000


def test_one_finetune(helmets: Path, run_example: Example) -> None:
    """One row for each of the two commands."""
    small = ["--iterations", "1", "--copies", "1", "--image-size", "64", "--detector", "yolox_nano"]
    rows = table(run_example("one_finetune.py", helmets, "--weights", "none", "--repeats", "1", *small))
    assert ["one measurement, no page", "default"] == [row[0] for row in rows]


def test_busy_machine(helmets: Path, run_example: Example) -> None:
    """A row for each number of busy processes, with the threads that were used."""
    small = ["--iterations", "1", "--copies", "1", "--image-size", "64", "--detector", "yolox_nano"]
    rows = table(
        run_example("busy_machine.py", helmets, "--weights", "none", "--repeats", "1", "--others", "0", *small)
    )
    assert ["0"] == [row[0] for row in rows]
    assert all("thread" in cell for cell in rows[0][1:3])


def test_openimages_csv_memory(run_example: Example) -> None:
    """The list has the number of rows that was given, and a hundred images are read from it."""
    printed = run_example("openimages_csv_memory.py", "--rows", "20000", "--share", "0.1")
    assert "20,000 rows, 10.00% of the class" in printed
    assert "boxes of 100 images" in printed


def test_openimages_table1(tmp_path: Path, run_example: Example) -> None:
    """One class of a small Open Images on this machine: ten runs, and the paper's figures in the table."""
    small = ["--class", "helmet", "--seeds", "1", "--test-images", "2", "--eval-every", "0", "--image-size", "64"]
    homes = {
        "FSOD_CACHE": str(tmp_path / "cache"),
        "FIFTYONE_CONFIG_PATH": str(tmp_path / "fiftyone.json"),
        "FIFTYONE_DATASET_ZOO_DIR": str(tmp_path / "zoo"),
        "FIFTYONE_DO_NOT_TRACK": "true",
    }
    with serving(Mirror(table1_world())) as mirror:
        source = ["--detector", "retinanet_mini", "--weights", "none", "--mirror", mirror.url]
        fit = ["--iterations", "1", "--options", '{"copies": 1}']
        printed = run_example("openimages_table1.py", *small, *source, *fit, **homes)
    assert "| 0.157" in printed
    assert 10 == len(list((tmp_path / "sweep" / "openimages" / "runs").glob("*/result.json")))


def test_photograph_variants(helmets: Path, run_example: Example) -> None:
    """Both kinds of variants are timed."""
    printed = run_example("photograph_variants.py", helmets, "--canvas", "64", "--side", "300", "--variants", "2")
    assert "for a canvas of 64" in printed


def test_pretrain_retinanet_mini(tmp_path: Path, run_example: Example) -> None:
    """The weights file is written and measured on all 28 classes."""
    small = ["--images", "4", "--held-out", "2", "--steps", "2", "--batch-size", "2"]
    measured = json.loads(run_example("pretrain_retinanet_mini.py", *small).splitlines()[-1])
    assert (tmp_path / "pretraining" / "retinanet_mini.safetensors").is_file()
    assert 28 == len(measured["per_class"])


def test_retinanet_step_time(run_example: Example) -> None:
    """A row for each setup; on 64 pixels instead of 640."""
    rows = table(run_example("retinanet_step_time.py", "--size", "64", "--batch", "1", "--repeats", "1"))
    assert ["last 1", "symmetric 3", "all"] == [row[0] for row in rows]


def test_every_example_has_a_test() -> None:
    """A script NAME.py under examples/ has a test_NAME here."""
    missing = [path.stem for path in EXAMPLES.glob("*.py") if f"test_{path.stem}" not in globals()]
    assert [] == missing
