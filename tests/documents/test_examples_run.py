"""Scripts under examples/ run, in a mode that takes seconds: tiny images, random weights, one iteration."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from helpers_data import draw_coco
from helpers_examples import EXAMPLES, run_example, table
from helpers_runs import fsod

SMALL = ["--options", json.dumps({"iterations": 1, "copies": 1, "image_size": 64})]
"""For scripts that take options of a fine-tune as JSON."""


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def helmets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of two drawn shots and two test images."""
    root = tmp_path_factory.mktemp("data")
    drawn = ["--source", "miniature", "--class", "helmet", "--shots", "2", "--test-images", "2"]
    assert 0 == fsod("fetch", *drawn, "--root", root).exit_code
    return root / "helmet"


@pytest.mark.slow
def test_augmentation_value(tmp_path: Path) -> None:
    """A row with all six operations, one without each, and one with none."""
    draw_coco(tmp_path / "cat", [["cat"]] * 11, classes=("cat",))
    rows = table(
        run_example(
            "augmentation_value.py", "cat", "--source", f"coco:{tmp_path}/{{class}}", "--weights", "none",
            "--seeds", "1", "--test-images", "1", *SMALL,
        )
    )  # fmt: skip
    assert 8 == len(rows)
    assert ["all six", "none"] == [rows[0][0], rows[-1][0]]


def test_cached_vs_uncached(helmets: Path) -> None:
    """The last losses are the same with the cache and without it."""
    rows = table(run_example("cached_vs_uncached.py", helmets, "--weights", "none", *SMALL))
    assert ["symmetric 3", "last 1"] == [row[0] for row in rows]
    assert [row[4] for row in rows] == [row[5] for row in rows]


@pytest.mark.slow
def test_keep_base_classes(tmp_path: Path, helmets: Path) -> None:
    """Base classes are lost without the option, and as before with it; the new class is as good either way."""
    draw_coco(tmp_path / "apples", [["apple"], ["apple"]], classes=("apple",))
    small = ["--detector", "retinanet_mini", "--rounds", "1", "--timed", "1", *SMALL]
    printed = run_example("keep_base_classes.py", helmets, tmp_path / "apples", *small)
    pretrained, plain, kept = table(printed)
    assert (pretrained[1:3], ["none left", "–"]) == (kept[1:3], plain[1:3])
    assert ["none left", "–"] == pretrained[3:5] and plain[3:5] == kept[3:5]
    assert "of the 28 kept classes with the option and before: the same, bit for bit" in printed


def test_cross_validation(tmp_path: Path) -> None:
    """A row for the data set and one for all, and a plot; the second call trains nothing."""
    for name, images, seed in (("pool", 6, 1), ("test", 2, 2)):
        draw_coco(tmp_path / "cats" / name, [["cat", "dog"]] * images, seed=seed)
    call = [
        "cross_validation.py",
        tmp_path,
        "--weights",
        "none",
        "--seeds",
        "1",
        "--shots",
        "4",
        "--folds",
        "2",
        *SMALL,
    ]
    printed = run_example(*call)
    rows = table(printed)
    assert (["cats", "all"], rows[0][1:]) == ([row[0] for row in rows], rows[1][1:])
    assert (tmp_path / "cross-validation" / "scatter.png").stat().st_size > 1000
    run = tmp_path / "cross-validation" / "runs" / "cats-seed0" / "result.json"
    before = run.stat().st_mtime_ns
    assert printed == run_example(*call) and before == run.stat().st_mtime_ns


@pytest.mark.slow
def test_what_trains(tmp_path: Path) -> None:
    """A row for every setup, the default and policy auto, in numbers for the class; the second call trains nothing."""
    for name, images, seed in (("pool", 6, 1), ("test", 2, 2)):
        draw_coco(tmp_path / "cats" / name, [["cat"]] * images, seed=seed)
    call = ["what_trains.py", f"cat={tmp_path / 'cats'}", "--weights", "none", "--seeds", "1", "--shots", "4", *SMALL]
    printed = run_example(*call)
    rows = {row[0]: row[1:] for row in table(printed)}
    assert {"none", "symmetric 3", "default (full, averaged)", "policy auto, averaged"} <= rows.keys()
    assert all(0 <= float(row[0]) <= 1 for row in rows.values() if row[-1] == "1")
    begun = sorted(path.stat().st_mtime_ns for path in (tmp_path / "what-trains").glob("*.json"))
    assert printed == run_example(*call)
    assert begun == sorted(path.stat().st_mtime_ns for path in (tmp_path / "what-trains").glob("*.json"))


@pytest.mark.slow
def test_miniature_sheets(tmp_path: Path) -> None:
    """The sheets without and with a fine-tune are written as JPEG files, the README's at most 150 KB."""
    sheets = ["classes", "scenes", "before_after"]
    run_example("miniature_sheets.py", *sheets, "--options", '{"iterations": 1, "copies": 1}')
    written = {path.name for path in tmp_path.glob("*.jpg")}
    assert {"miniature_classes.jpg", "miniature_scenes.jpg", "before_after.jpg"} == written
    assert (EXAMPLES / "images" / "before_after.jpg").stat().st_size <= 150_000


@pytest.mark.slow
def test_one_finetune(helmets: Path) -> None:
    """One row for each of the two commands and each detector."""
    small = ["--iterations", "1", "--copies", "1", "--image-size", "64", "--beside", "ssd_mobilenet_v2_fpnlite=none"]
    rows = table(run_example("one_finetune.py", helmets, "--weights", "none", "--repeats", "1", *small))
    detectors, kinds = ("yolox_nano", "ssd_mobilenet_v2_fpnlite"), ("one measurement, no page", "default")
    assert [(name, kind) for name in detectors for kind in kinds] == [tuple(row[:2]) for row in rows]


@pytest.mark.slow
def test_busy_machine(helmets: Path) -> None:
    """A row for each number of busy processes, with the threads that were used."""
    small = ["--iterations", "1", "--copies", "1", "--image-size", "64", "--detector", "yolox_nano"]
    rows = table(
        run_example("busy_machine.py", helmets, "--weights", "none", "--repeats", "1", "--others", "0", *small)
    )
    assert ["0"] == [row[0] for row in rows]
    assert all("thread" in cell for cell in rows[0][1:3])


def test_photograph_variants(helmets: Path) -> None:
    """Both kinds of variants are timed."""
    printed = run_example("photograph_variants.py", helmets, "--canvas", "64", "--side", "300", "--variants", "2")
    assert "for a canvas of 64" in printed


@pytest.mark.slow
def test_pretrain_retinanet_mini(tmp_path: Path) -> None:
    """The weights file is written and measured on all 28 classes."""
    small = ["--images", "4", "--held-out", "2", "--steps", "2", "--batch-size", "2"]
    measured = json.loads(run_example("pretrain_retinanet_mini.py", *small).splitlines()[-1])
    assert (tmp_path / "pretraining" / "retinanet_mini.safetensors").is_file()
    assert 28 == len(measured["per_class"])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("detector", "setups"),
    [
        ("retinanet_resnet50_fpn", ["last 1", "symmetric 3", "all", "all --train-neck"]),
        ("fasterrcnn_mobilenet_v3_large_fpn", ["last 1", "all", "all --train-neck"]),
    ],
)
def test_step_time(detector: str, setups: list[str]) -> None:
    """A row for each setup that trains other layers than those before it; on 64 pixels instead of 640."""
    small = ["--size", "64", "--batch", "1", "--repeats", "1"]
    rows = table(run_example("step_time.py", "--detector", detector, *small))
    assert setups == [row[0] for row in rows]


@pytest.mark.slow
def test_capacity() -> None:
    """A row for each size, the detector's own among them; more capacity is more parameters."""
    rows = table(run_example("capacity.py", "--size", "64", "--batch", "2", "--repeats", "1"))
    assert 5 == len(rows) and "its own" in [row[0] for row in rows]
    parameters = [int(row[1].replace(",", "")) for row in rows]
    assert parameters[0] == min(parameters) and parameters[-2] == max(parameters)


@pytest.mark.slow
def test_predict_speed(helmets: Path) -> None:
    """A row for the plain loop and for predict without and with drawing."""
    small = ["--detector", "retinanet_mini", "--images", "3", "--repeats", "1"]
    rows = table(run_example("predict_speed.py", helmets, *small))
    assert ["plain loop", "fsod predict --no-draw", "fsod predict"] == [row[0] for row in rows]


def test_every_example_has_a_test() -> None:
    """A script NAME.py under examples/ has a test_NAME."""
    tests = "".join(path.read_text("utf-8") for path in Path(__file__).parents[1].rglob("test_*.py"))
    assert [] == [path.stem for path in EXAMPLES.glob("*.py") if f"def test_{path.stem}(" not in tests]
