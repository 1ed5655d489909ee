"""Tiny fine-tunes: a data set that a random detector learns something from in a second, and calls of `fsod`."""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from helpers_data import write_document
from PIL import Image, ImageDraw
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from typer.testing import CliRunner, Result

from fewshot_cli.cli.app import app
from fewshot_cli.progress import SilentReporter
from fewshot_cli.runs.config import FinetuneConfig
from fewshot_cli.runs.folder import Run

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
needs_browser = pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine")
REPOSITORY = Path(__file__).parents[1]
SIDE = 64
"""Pixels of a drawn image, and of the canvas in most tests."""

TINY: dict[str, Any] = {
    "weights": "none",
    "image_size": SIDE,
    "policy": "symmetric",
    "budget": 3,
    "iterations": 6,
    "eval_every": 3,
    "batch_size": 4,
    "copies": 2,
    "device": "cpu",
}
"""A fine-tune of a fraction of a second that learns nothing."""

LEARNING: dict[str, Any] = {**TINY, "iterations": 60, "eval_every": 20, "copies": 4, "lr": 0.02}
"""A fine-tune of a second whose mAP is above zero, so that equal means something."""


class Listening(SilentReporter):
    """Remembers what was said, and of what it was warned."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.warned: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)

    def warn(self, text: str) -> None:
        self.warned.append(text)


def draw_shapes(folder: Path, count: int, seed: int) -> dict[str, Any]:
    """A split of dark images: each has a red square, every other one a green disc too; returns its document."""
    chance = random.Random(seed)
    images: list[dict[str, Any]] = []
    boxes: list[dict[str, Any]] = []
    (folder / "images").mkdir(parents=True)
    for number in range(1, count + 1):
        image = Image.new("RGB", (SIDE, SIDE), tuple(chance.randrange(90) for _ in range(3)))
        for category in range(1, 2 + number % 2):
            boxes.append({"id": len(boxes) + 1, "image_id": number, **_draw_shape(image, category, chance)})
        image.save(folder / "images" / f"{number:04}.png")
        images.append({"id": number, "file_name": f"{number:04}.png", "width": SIDE, "height": SIDE})
    names = [{"id": 1, "name": "square"}, {"id": 2, "name": "disc"}]
    document = {"images": images, "annotations": boxes, "categories": names}
    write_document(folder, document)
    return document


def _draw_shape(image: Image.Image, category: int, chance: random.Random) -> dict[str, Any]:
    side = chance.randrange(20, 32)
    x, y = chance.randrange(SIDE - side), chance.randrange(SIDE - side)
    place = (x, y, x + side - 1, y + side - 1)
    if category == 1:
        ImageDraw.Draw(image).rectangle(place, fill=(230, chance.randrange(60), 40))
    else:
        ImageDraw.Draw(image).ellipse(place, fill=(20, 220, chance.randrange(160, 250)))
    return {"category_id": category, "bbox": [x, y, side, side], "area": side * side, "iscrowd": 0}


def config_of(data: Path, base: dict[str, Any] = TINY, **changes: Any) -> FinetuneConfig:
    return FinetuneConfig(data=str(data), **{**base, **changes})


def argv_of(folder: Path | None, base: dict[str, Any] = TINY, **changes: Any) -> list[str]:
    """The same as a command line of `fsod finetune`."""
    options = {**({"data": folder} if folder else {}), **base, **changes}
    return [
        "finetune",
        *(word for key, value in options.items() for word in (f"--{key.replace('_', '-')}", str(value))),
    ]


def fine_tune(folder: Path, config: FinetuneConfig) -> Run:
    """Fine-tune into `folder`, by the library."""
    from fewshot_cli.training.finetune import finetune

    folder.mkdir(parents=True)
    run = Run(folder)
    run.write_config(config)
    finetune(config, run)
    return run


def metrics_of(run: Run) -> list[dict[str, Any]]:
    return [json.loads(line) for line in run.metrics_file.read_text("utf-8").splitlines()]


def score(truth_file: Path, results_file: Path) -> float:
    """mAP@[.50:.95] by pycocotools alone, from two files."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(truth_file))
        evaluation = COCOeval(truth, truth.loadRes(str(results_file)), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return float(evaluation.stats[0])


def fsod(*arguments: str | Path) -> Result:
    """Call the command line in this process."""
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def start_fsod(*arguments: str | Path, **settings: Any) -> subprocess.Popen[str]:
    """Start the command line as a process of its own."""
    command = [sys.executable, "-m", "fewshot_cli", *(str(argument) for argument in arguments)]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), **settings.pop("environment", {})}
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **settings
    )


def browse(page: Path, shot: Path, height: int, width: int = 1000) -> Image.Image:
    """What headless Chromium shows of the page in a window of that size, without a network."""
    command = [str(BROWSER), "--headless", "--no-sandbox", "--disable-gpu", "--host-resolver-rules=MAP * ~NOTFOUND"]
    command += [f"--window-size={width},{height}", f"--screenshot={shot}", page.resolve().as_uri()]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    with Image.open(shot) as image:
        assert (width, height) == image.size
        return image.convert("RGB")
