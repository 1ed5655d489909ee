"""Ten images and no test set: cross-validation on the shots stands in for it, and everything says so."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from helpers_data import draw_coco
from helpers_runs import TINY, argv_of, fsod
from typer.testing import Result

from fewshot_cli import DataError, evaluate, fetch, finetune, load_run
from fewshot_cli.runs.folder import Run

NAME = "cat-yolox_nano-full-seed0"
TINY_OPTIONS = {key: value for key, value in TINY.items() if key not in ("policy", "budget")}


def draw_ten(folder: Path) -> None:
    draw_coco(folder / "my_photos", [["cat"]] * 10)


@pytest.fixture
def ten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with exactly ten labelled images in my_photos/."""
    draw_ten(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def trained_on_ten(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Result, Result]:
    """The run that the README's commands make of exactly ten images, and what `fetch` and `finetune` answered."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("ten")
        draw_ten(folder)
        patch.chdir(folder)
        fetched = fsod("fetch", "--source", "coco:my_photos", "--class", "cat", "--shots", 10)
        done = fsod(*argv_of(None, TINY_OPTIONS))
        return load_run((folder / "runs" / NAME).resolve()), fetched, done


def test_ten_images_become_ten_shots_and_a_finished_run(trained_on_ten: tuple[Run, Result, Result]) -> None:
    """The README's commands on exactly ten images: exit 0, no test mAP, and both commands say why."""
    _, fetched, done = trained_on_ten
    assert 0 == fetched.exit_code, fetched.stderr
    assert "no test set" in (fetched.stdout + fetched.stderr).casefold()
    assert 0 == done.exit_code, done.stderr
    assert "no test set" in done.stderr
    assert "not measured" in done.stdout
    assert "by cross-validation on the shots (mean of 3 folds)" in done.stdout
    assert "on all left-out shots together" in done.stdout
    assert f"Next: fsod predict {Path('runs') / NAME} IMAGES" in done.stdout + done.stderr


@pytest.mark.slow
def test_twelve_images_can_all_be_shots(ten: Path) -> None:
    """`--shots 12` of twelve: no image is left to test on, and each is left out by one of five folds, with a budget."""
    draw_coco(ten / "dozen", [["cat"]] * 12)
    data = fetch("cat", source="coco:dozen", shots=12)
    run = finetune(data, budget=3, **{**TINY_OPTIONS, "iterations": 1})
    assert {"train": 12, "test": 0} == run.result["images"]
    folds = run.read_folds()
    assert [2, 2, 2, 3, 3] == sorted(len(fold["images"]) for fold in folds)
    assert 12 == len({image for fold in folds for image in fold["images"]})


def test_the_result_holds_no_zero_for_what_was_not_measured(trained_on_ten: tuple[Run, Result, Result]) -> None:
    """`ap`, `best` and `metrics` are null; the mAP on the shots is a number; no predictions, no best checkpoint."""
    run, _, _ = trained_on_ten
    result = json.loads(run.result_file.read_text("utf-8"))
    assert (None, None, None) == (result["ap"], result["best"], result["metrics"])
    assert {"train": 10, "test": 0} == result["images"]
    assert isinstance(result["train_ap"], float)
    estimate = result["cross_validation"]
    assert (3, 3) == (estimate["folds"], len(estimate["fold_ap"]))
    assert isinstance(estimate["ap"], float) and isinstance(estimate["ap_interval"], float)
    assert {"cat"} == estimate["per_class"].keys() >= result["thresholds"].keys()
    assert not run.predictions_file.exists() and not run.best_checkpoint.exists()
    assert [None] == [record["ap"] for record in run.read_metrics()][-1:]


def test_the_page_says_that_there_is_no_test_set(trained_on_ten: tuple[Run, Result, Result]) -> None:
    """report.html is written, shows the shots, and claims no test mAP."""
    run, _, _ = trained_on_ten
    page = (run.folder / "report.html").read_text("utf-8")
    assert "Not measured on a test set" in page and "mAP 0.000</strong>" not in page
    assert 10 == page.count('alt="training image')
    assert "Best test images" not in page
    assert "by cross-validation" in page


@pytest.mark.slow
def test_cross_validation_can_be_left_out(ten: Path) -> None:
    """`--cross-validate 0`: no estimate anywhere."""
    fsod("fetch", "--source", "coco:my_photos", "--class", "cat", "--shots", 10)
    done = fsod(*argv_of(None, TINY_OPTIONS, cross_validate=0), "--name", "ten")
    assert 0 == done.exit_code, done.stderr
    assert "cross-validation" not in done.stdout
    page = Path("runs/ten/report.html").read_text("utf-8")
    assert "by cross-validation" not in page
    assert None is json.loads(Path("runs/ten/result.json").read_text("utf-8"))["cross_validation"]


def test_none_asks_for_no_test_set_either(ten: Path) -> None:
    """`--test-images 0` on a pool of more images: the shots and nothing else."""
    data = fetch("cat", source="coco:my_photos", shots=4, test_images=0)
    assert (4, None) == (len(data.dataset.train.images), data.dataset.test)


def test_measuring_such_a_run_needs_data(
    trained_on_ten: tuple[Run, Result, Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`evaluate` on a run without a test set says what to give; with --data it measures."""
    run, _, _ = trained_on_ten
    monkeypatch.chdir(run.folder.parents[1])
    with pytest.raises(DataError, match="no test set"):
        evaluate(run)
    assert 10 == len(evaluate(run, "my_photos", device="cpu").split.images)


def test_losses_are_recorded_without_a_test_set(ten: Path) -> None:
    """One record every --eval-every iterations, as with one."""
    options: dict[str, Any] = {**TINY_OPTIONS, "iterations": 4, "eval_every": 2, "cross_validate": 0}
    data = fetch("cat", source="coco:my_photos")
    whole = finetune(data, name="whole", **options)
    assert [2, 4] == [record["iteration"] for record in whole.read_metrics()]
