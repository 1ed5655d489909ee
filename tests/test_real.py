"""Real pictures and real weights: skipped where ../shared/real is absent."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers_runs import REPOSITORY, fsod


def run_fsod(folder: Path, *arguments: str | Path) -> dict:
    """Call `fsod … --json` as its own process, with the machine's threads."""
    environment = {key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"}
    done = subprocess.run(
        [sys.executable, "-m", "fewshot_cli", *map(str, arguments), "--json", "--quiet"],
        cwd=folder, env={**environment, "PYTHONPATH": str(REPOSITORY)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert 0 == done.returncode, done.stderr
    return dict(json.loads(done.stdout))


@pytest.mark.slow
def test_ten_helmets_to_a_detector_within_a_minute(real: Path, tmp_path: Path) -> None:
    """10 shots, symmetric 3, 200 iterations, 100 test images at the end: under 60 s with process start, mAP above 0.05."""
    pool, test = (f"coco:{real / 'data' / 'helmet' / name}" for name in ("pool", "test"))
    run_fsod(tmp_path, "fetch", "--source", pool, "--test-source", test, "--class", "helmet", "--shots", 10)
    started = time.perf_counter()
    result = run_fsod(
        tmp_path, "finetune", "--detector", "yolox_nano", "--weights", real / "weights" / "yolox_nano_coco.pth",
        "--policy", "symmetric", "--budget", 3, "--iterations", 200, "--eval-every", 0, "--no-report",
    )  # fmt: skip
    seconds = time.perf_counter() - started
    assert {"train": 10, "test": 100} == result["images"]
    assert result["ap"] > 0.05
    assert seconds < 60, f"load average {os.getloadavg()}: torch's threads wait for each other on a busy machine"
    measured = run_fsod(tmp_path, "eval", "--data", real / "data" / "helmet" / "test")
    assert result["ap"] == pytest.approx(measured["numbers"]["AP"], abs=1e-6)


@pytest.mark.slow
def test_the_base_detector_is_still_itself(real: Path, tmp_path: Path) -> None:
    """yolox_nano with the COCO weights scores AP 0.340 ± 0.005 on coco_val128, by the command line."""
    found = run_fsod(
        tmp_path, "eval", "--detector", "yolox_nano", "--weights", real / "weights" / "yolox_nano_coco.pth",
        "--data", real / "data" / "coco_val128",
    )  # fmt: skip
    assert 128 == found["images"]
    assert 0.340 == pytest.approx(found["numbers"]["AP"], abs=0.005)


def test_a_few_real_steps(real: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Real weights know flowers no class of which COCO has: the start is the mean, and 3 shots train in seconds."""
    monkeypatch.chdir(tmp_path)
    source = f"coco:{real / 'data' / 'flower' / 'pool'}"
    fetched = fsod("fetch", "--source", source, "--class", "flower", "--shots", 3, "--test-images", 6)
    assert 0 == fetched.exit_code, fetched.stderr
    done = fsod(
        "finetune", "--weights", real / "weights" / "yolox_nano_coco.pth", "--policy", "last", "--budget", 2,
        "--iterations", 20, "--copies", 4, "--eval-every", 0, "--json",
    )  # fmt: skip
    assert 0 == done.exit_code, done.stderr
    assert "Class 'flower' starts from the mean of the " in done.stderr
    result = json.loads(done.stdout)
    assert 0.0 < result["ap"] and 0 == result["frozen"]["changed"]


@pytest.mark.parametrize(
    ("class_name", "bases", "fine_lr"), [("raccoon", {"bear", "cat", "dog"}, 1.0), ("helmet", {"80 base classes"}, 2.0)]
)
def test_the_shots_say_what_a_class_starts_from_and_how_fast_the_finest_level_learns(
    class_name: str, bases: set[str], fine_lr: float, real: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real detector takes raccoons, which fill their pictures, for other animals, and small helmets for nothing."""
    monkeypatch.chdir(tmp_path)
    source = f"coco:{real / 'data' / class_name / 'pool'}"
    assert 0 == fsod("fetch", "--source", source, "--class", class_name, "--shots", 10, "--test-images", 2).exit_code
    weights = real / "weights" / "yolox_nano_coco.pth"
    done = fsod(
        "finetune", "--weights", weights, "--policy", "last", "--budget", 1, "--iterations", 1, "--copies", 1, "--json"
    )
    assert 0 == done.exit_code, done.stderr
    _, _, said = done.stderr.partition(f"Class '{class_name}' starts from the mean of the ")
    assert bases == set(said.partition(".")[0].removeprefix("base classes ").split(", ")), done.stderr
    assert fine_lr == json.loads(done.stdout)["fine_lr"]
    assert ("Most objects are small" in done.stderr) == (fine_lr > 1)
