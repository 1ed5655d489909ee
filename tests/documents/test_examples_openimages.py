"""The scripts about Open Images run, each as a process of its own: they look at memory, and configure FiftyOne."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers_examples import start_example
from helpers_openimages import Mirror, serving, table1_world


def test_openimages_csv_memory(tmp_path: Path) -> None:
    """The list has the number of rows that was given, and a hundred images are read from it."""
    printed = start_example(tmp_path, "openimages_csv_memory.py", "--rows", "20000", "--share", "0.1")
    assert "20,000 rows, 10.00% of the class" in printed
    assert "boxes of 100 images" in printed


@pytest.mark.slow
def test_openimages_table1(tmp_path: Path) -> None:
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
        printed = start_example(tmp_path, "openimages_table1.py", *small, *source, *fit, **homes)
    assert "| 0.157" in printed
    assert 10 == len(list((tmp_path / "sweep" / "openimages" / "runs").glob("*/result.json")))
