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

from fewshot_cli.detectors.device import forget_peak_memory, peak_memory
from fewshot_cli.evaluation.drift import drift
from fewshot_cli.inference.drawing import as_data_url
from fewshot_cli.report.mistakes import SIDE
from fewshot_cli.report.run import LARGE, SHOWN_MISTAKES, SHOWN_SHOTS, SHOWN_TESTS, write_run_report
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


def rewritten(run: Run, folder: Path, **changes: object) -> str:
    """The page of a copy of the run whose result says something else."""
    copy = Run(folder / "rewritten")
    shutil.copytree(run.folder, copy.folder)
    copy.result_file.write_text(json.dumps({**run.read_result(), **changes}))
    return write_run_report(copy).read_text("utf-8")


def strip_of(page: str, title: str) -> str:
    """The part of the page under that heading, up to the next one; empty if there is none."""
    found = re.search(rf"<h2>{title} \(\d+\)</h2>(.*?)<h2>", page, flags=re.DOTALL)
    return found.group(1) if found else ""


def test_thresholds_decide_what_is_a_mistake(run: Run, tmp_path: Path) -> None:
    """At a threshold of 0 every wrong detection is shown, at most twelve; at 1 no detection counts, all is missed."""
    all_count = rewritten(run, tmp_path / "low", thresholds={"square": 0.0, "disc": 0.0})
    strip = strip_of(all_count, "False positives")
    assert (12, 12) == (strip.count("<img"), strip.count("<figcaption"))
    assert "the 12 with the highest scores" in strip and "score of at least 0.00" in strip
    scores = [float(score) for score in re.findall(r"<figcaption>\w+ ([\d.]+)<", strip)]
    assert sorted(scores, reverse=True) == scores
    none_count = rewritten(run, tmp_path / "high", thresholds={"square": 1.0, "disc": 0.99999})
    assert "" == strip_of(none_count, "False positives")
    missed = strip_of(none_count, "Missed objects")
    assert "<h2>Missed objects (9)</h2>" in none_count and 9 == missed.count("<img")  # six squares, three discs
    assert "score of at least 1.00 (square), 1.00 (disc)" in missed


def test_without_thresholds_the_usual_score_counts(run: Run, page: str, tmp_path: Path) -> None:
    """Runs from before cross-validation have none in their result."""
    assert "detections with a score of at least 0.30" in page
    assert page == rewritten(run, tmp_path, thresholds={"square": 0.3, "disc": 0.3})


def test_images_are_enlarged_without_a_script(page: str) -> None:
    """Every image is in a `summary`, which the keyboard opens too, and says what it is."""
    images = re.findall(
        r'<details class="zoom"><summary[^>]*><img src="data:[^"]+" alt="([^"]+)"></summary></details>', page
    )
    assert page.count("<img") == len(images)
    assert all(images)


def test_the_page_has_a_few_megabytes_at_most(page: str) -> None:
    """With all images that it may show; noise of their size, the worst case for JPEG, is three times a photograph."""
    images = SHOWN_SHOTS + 2 * SHOWN_TESTS
    noise = as_data_url(Image.effect_noise((LARGE, LARGE), 60).convert("RGB"))
    crop = as_data_url(Image.effect_noise((SIDE, SIDE), 60).convert("RGB"))
    assert len(noise) * images + len(crop) * 2 * SHOWN_MISTAKES < 20_000_000
    assert len(page) < 3_000_000


@needs_browser
def test_an_open_image_covers_the_page(run: Run, page: str, tmp_path: Path) -> None:
    """Dark around it, the image in the middle, as wide or as high as the window allows."""
    (tmp_path / "open.html").write_text(page.replace('class="zoom"', 'class="zoom" open', 1))
    pixels = np.asarray(browse(tmp_path / "open.html", tmp_path / "open.png", 600).convert("L"))
    assert pixels[:, 2].max() < 60
    assert pixels[100:500, 200:800].mean() > 100


@needs_browser
@pytest.mark.slow
def test_the_page_is_no_wider_than_a_phone(run: Run, page: str, tmp_path: Path) -> None:
    """At 390 pixels nothing sticks out: tables and strips scroll inside their boxes."""
    verdict = "<script>if (document.documentElement.scrollWidth <= innerWidth) document.body.textContent = ''</script>"
    wide = page.replace("</body>", "<div style='width: 600px'>too wide</div></body>")
    for name, text, blank in (("page", page, True), ("wide", wide, False)):
        (tmp_path / f"{name}.html").write_text(text.replace("</body>", f"{verdict}</body>"))
        pixels = np.asarray(browse(tmp_path / f"{name}.html", tmp_path / f"{name}.png", 700, 390).convert("L"))
        assert blank == (pixels.std() == 0), name
