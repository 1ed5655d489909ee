"""Real images and real weights: skipped where ../shared/real is absent."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers_runs import REPOSITORY, fsod


def run_python(folder: Path, *arguments: str | Path) -> str:
    """What a process of its own, with the machine's threads, prints."""
    environment = {key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"}
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=folder, env={**environment, "PYTHONPATH": str(REPOSITORY)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert 0 == done.returncode, done.stderr
    return done.stdout


def run_fsod(folder: Path, *arguments: str | Path) -> dict:
    """The document that `fsod … --json` prints."""
    return dict(json.loads(run_python(folder, "-m", "fewshot_cli", *arguments, "--json", "--quiet")))


@pytest.fixture(scope="module")
def helmets(real: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which ten helmets were fetched."""
    folder = tmp_path_factory.mktemp("helmets")
    pool, test = (f"coco:{real / 'data' / 'helmet' / name}" for name in ("pool", "test"))
    run_fsod(folder, "fetch", "--source", pool, "--test-source", test, "--class", "helmet", "--shots", "10")
    return folder


@pytest.mark.slow
def test_ten_helmets_make_a_detector(real: Path, helmets: Path) -> None:
    """10 shots, symmetric 3, 200 iterations: mAP above 0.05 on 100 test images, and `eval` measures the same."""
    result = run_fsod(
        helmets, "finetune", "--detector", "yolox_nano", "--weights", real / "weights" / "yolox_nano_coco.pth",
        "--policy", "symmetric", "--budget", "3", "--iterations", "200",
    )  # fmt: skip
    assert {"train": 10, "test": 100} == result["images"]
    assert result["ap"] > 0.05
    measured = run_fsod(helmets, "eval", "--data", real / "data" / "helmet" / "test")
    assert result["ap"] == pytest.approx(measured["numbers"]["AP"], abs=1e-6)


@pytest.mark.slow
def test_one_fine_tune_takes_less_than_a_minute(real: Path, helmets: Path) -> None:
    """With process start, as the example times it; not judged where the host gave the cores to others."""
    (data,) = (helmets / "data").iterdir()
    weights = real / "weights" / "yolox_nano_coco.pth"
    example = REPOSITORY / "examples" / "one_finetune.py"
    printed = run_python(helmets, example, data, "--weights", weights, "--repeats", "1")
    row = next(line for line in printed.splitlines() if "| one measurement" in line)
    seconds, stolen = map(float, row.strip("| ").split(" | ")[2:])
    if seconds >= 60 and stolen > 1:
        pytest.skip(f"{seconds} s, but the host withheld {stolen} s of computing")
    assert seconds < 60, f"load average {os.getloadavg()}: torch's threads wait for each other on a busy machine"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("detector", "weights", "ap", "within"),
    [
        ("yolox_nano", "yolox_nano_coco.pth", 0.340, 0.005),
        ("ssd_mobilenet_v2_fpnlite", "ssd_mobilenet_v2_fpnlite_10_256_int8.onnx", 0.183, 0.003),
    ],
)
def test_the_base_detector_is_still_itself(
    detector: str, weights: str, ap: float, within: float, real: Path, tmp_path: Path
) -> None:
    """With the COCO weights each scores on coco_val128 what is known of it, by the command line."""
    found = run_fsod(
        tmp_path, "eval", "--detector", detector, "--weights", real / "weights" / weights,
        "--data", real / "data" / "coco_val128",
    )  # fmt: skip
    assert 128 == found["images"]
    assert ap == pytest.approx(found["numbers"]["AP"], abs=within)


@pytest.mark.slow
def test_base_classes_are_kept_bit_for_bit(real: Path, helmets: Path) -> None:
    """coco_val128 before a fine-tune and after one with --keep-base-classes: the same detections, in every bit."""
    weights, data = real / "weights" / "yolox_nano_coco.pth", real / "data" / "coco_val128"
    run_fsod(helmets, "finetune", "--weights", weights, "--iterations", "20", "--name", "kept", "--keep-base-classes")
    before = ["--detector", "yolox_nano", "--weights", weights]
    found = {}
    for name, target in {"before": before, "after": ["runs/kept"]}.items():
        measured = run_fsod(helmets, "eval", *target, "--data", data, "--threads", "1", "--predictions", f"{name}.json")
        found[name] = measured["numbers"], (helmets / f"{name}.json").read_text("utf-8")
    assert found["before"] == found["after"]


def test_a_few_real_steps(real: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Real weights know flowers no class of which COCO has: the start is the mean, and 3 shots train in seconds."""
    monkeypatch.chdir(tmp_path)
    source = f"coco:{real / 'data' / 'flower' / 'pool'}"
    fetched = fsod("fetch", "--source", source, "--class", "flower", "--shots", 3, "--test-images", 6)
    assert 0 == fetched.exit_code, fetched.stderr
    done = fsod(
        "finetune", "--weights", real / "weights" / "yolox_nano_coco.pth", "--policy", "last", "--budget", 2,
        "--iterations", 10, "--copies", 2, "--eval-every", 0, "--no-report", "--json",
    )  # fmt: skip
    assert 0 == done.exit_code, done.stderr
    assert "Class 'flower' starts from the mean of the " in done.stderr
    result = json.loads(done.stdout)
    assert 0.0 < result["ap"] and 0 == result["frozen"]["changed"]


@pytest.mark.parametrize(
    ("class_name", "bases", "small_object_lr"),
    [
        ("raccoon", {"bear", "cat", "dog"}, 1.0),
        pytest.param("helmet", {"80 base classes"}, 2.0, marks=pytest.mark.slow),
    ],
)
def test_the_shots_say_what_a_class_starts_from_and_how_fast_the_finest_level_learns(
    class_name: str,
    bases: set[str],
    small_object_lr: float,
    real: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The real detector takes raccoons, which fill their images, for other animals, and small helmets for nothing."""
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
    assert small_object_lr == json.loads(done.stdout)["small_object_lr"]
    assert ("Most objects are small" in done.stderr) == (small_object_lr > 1)
