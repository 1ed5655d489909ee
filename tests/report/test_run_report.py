"""`report.html` of a run: one file, with everything that a person asks of a run."""

from __future__ import annotations

import base64
import io
import json
import mmap
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers_runs import browse, fsod, metrics_of, needs_browser
from PIL import Image

from fewshot_cli.datasets.types import ImageRecord
from fewshot_cli.detectors.device import forget_peak_memory, peak_memory
from fewshot_cli.evaluation.drift import drift
from fewshot_cli.report.run import f1_of, write_run_report
from fewshot_cli.runs.folder import Run


@pytest.fixture(scope="module")
def run(trained: Run, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A copy of the trained run with its page."""
    copy = Run(tmp_path_factory.mktemp("reported") / "run")
    shutil.copytree(trained.folder, copy.folder)
    write_run_report(copy)
    return copy


@pytest.fixture(scope="module")
def page(run: Run) -> str:
    return run.report_file.read_text("utf-8")


def test_the_page_needs_nothing_but_itself(page: str) -> None:
    """No address, no script; every image is inside and opens."""
    assert not re.search(r"https?://|<script|<link|url\(", page)
    sources = re.findall(r'<img src="data:image/(?:png|jpeg);base64,([^"]+)"', page)
    assert page.count("<img") == len(sources) > 10
    for source in sources:
        with Image.open(io.BytesIO(base64.b64decode(source, validate=True))) as image:
            assert min(image.size) > 20


def test_the_page_says_what_the_run_recorded(run: Run, page: str) -> None:
    """Figures, layers, options and the share of parameters."""
    result = run.read_result()
    assert f"mAP {result['ap']:.3f}" in page
    assert all(layer in page for layer in result["trained_layers"])
    assert f"{result['parameters']['trained']:,} of {result['parameters']['total']:,}" in page
    assert all(f"<td>{name}</td>" in page for name in run.read_config().to_json())
    assert f"{metrics_of(run)[-1]['ap']:.3f}" in page


def test_what_comes_from_outside_is_escaped(run: Run, tmp_path: Path) -> None:
    """A class name that is HTML stays text."""
    evil = Run(tmp_path / "run")
    shutil.copytree(run.folder, evil.folder)
    result = evil.read_result()
    evil.result_file.write_text(json.dumps({**result, "classes": ["<script>alert(1)</script>"]}))
    assert "<script>" not in write_run_report(evil).read_text("utf-8")


def test_layers_that_trained_have_moved_and_frozen_ones_have_not(run: Run) -> None:
    """The drift of every layer is recorded: zero exactly for the frozen ones."""
    result = run.read_result()
    for layer, value in result["drift"].items():
        assert (value > 0) == (layer in result["trained_layers"]), layer
    assert 0 < result["peak_memory_mb"]


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="Linux only")
def test_the_peak_of_one_run_is_not_that_of_another() -> None:
    """What was used and given back before does not count."""
    cpu = torch.device("cpu")
    # Mapped, because an allocator may find the room in what earlier tests left, and keep it.
    with mmap.mmap(-1, 400_000_000) as block:
        block[::4096] = b"x" * len(range(0, len(block), 4096))
        before = peak_memory(cpu)
    forget_peak_memory(cpu)
    assert peak_memory(cpu) < before - 200_000_000


def test_drift_is_one_minus_the_cosine() -> None:
    """0 for the same direction, 1 for a right angle, 0 for the opposite (the paper takes |cos|), against numpy."""
    old = {"a": torch.tensor([[1.0, 2.0]]), "b": torch.tensor([3.0])}
    assert 0.0 == drift(old, old)
    assert pytest.approx(0.0, abs=1e-12) == drift(old, {name: -3 * value for name, value in old.items()})
    assert pytest.approx(1.0) == drift(old, {"a": torch.tensor([[-2.0, 1.0]]), "b": torch.tensor([0.0])})
    new = {"a": torch.tensor([[1.5, 2.0]]), "b": torch.tensor([2.0])}
    u, v = np.array([1.0, 2.0, 3.0]), np.array([1.5, 2.0, 2.0])
    assert pytest.approx(1 - abs(u @ v) / np.linalg.norm(u) / np.linalg.norm(v)) == drift(old, new)


def image_of(*boxes: tuple[float, float, float, float], crowd: bool = False) -> ImageRecord:
    count = len(boxes)
    return ImageRecord(
        id=1,
        path=Path("x.jpg"),
        width=100,
        height=100,
        boxes=np.array(boxes, dtype=np.float32).reshape(-1, 4),
        labels=np.zeros(count, dtype=np.int64),
        crowd=np.full(count, crowd),
    )


def found(x: float, y: float, width: float, height: float, score: float = 0.9, category: int = 1) -> dict:
    return {"image_id": 1, "category_id": category, "bbox": [x, y, width, height], "score": score}


A, B = (10.0, 10.0, 30.0, 30.0), (50.0, 50.0, 90.0, 80.0)


def test_an_image_is_judged_by_f1() -> None:
    """An object counts once; a second detection of it is wrong; crowds do not count."""
    for image, results, f1 in [
        (image_of(), [], 1.0),
        (image_of(A), [], 0.0),
        (image_of(), [found(0, 0, 5, 5)], 0.0),
        (image_of(A), [found(10, 10, 20, 20)], 1.0),
        (image_of(A), [found(10, 10, 20, 20, category=2)], 0.0),
        (image_of(A), [found(10, 10, 20, 20), found(11, 10, 20, 20, 0.5)], 2 / 3),
        (image_of(A, B), [found(50, 50, 40, 30)], 2 / 3),
        (image_of(A), [found(20, 10, 20, 20)], 0.0),
        (image_of(A, crowd=True), [], 1.0),
    ]:
        assert f1 == pytest.approx(f1_of(image, results, (1,))), (image, results)


def test_finetune_writes_the_page_unless_told_not_to(shapes: Path, tmp_path: Path) -> None:
    """`--no-report` leaves it out; --resume of the finished run adds it."""
    words = ["--data", shapes, "--weights", "none", "--image-size", "64", "--budget", "2", "--iterations", "1"]
    call = ["finetune", *words, "--copies", "1", "--runs", tmp_path, "--name", "run"]
    assert 0 == fsod(*call, "--no-report").exit_code
    page = tmp_path / "run" / "report.html"
    assert not page.exists()
    result = fsod("finetune", "--resume", tmp_path / "run")
    assert (0, True) == (result.exit_code, page.exists())
    assert str(page) in result.stdout


@needs_browser
def test_a_browser_shows_the_page(run: Run, tmp_path: Path) -> None:
    """Headless Chromium, without a network, draws it: the image of the page is neither empty nor cut short."""
    pixels = np.asarray(browse(run.report_file, tmp_path / "page.png", 1600).convert("L"))
    for top in range(0, 1600, 400):
        assert pixels[top : top + 400].std() > 5, top
