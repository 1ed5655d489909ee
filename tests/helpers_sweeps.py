"""Tiny sweeps: drawn classes, and a grid of fine-tunes of a fraction of a second."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from helpers_data import draw_coco

from fewshot_cli.sweeps.config import SweepConfig
from fewshot_cli.sweeps.folder import SweepFolder

TINY = {"iterations": 2, "copies": 2, "image_size": 64, "batch_size": 2}
"""Options of every fine-tune."""

GRID: dict[str, Any] = {
    "budgets": (2,),
    "shots": (2,),
    "seeds": 1,
    "test_images": 3,
    "weights": "none",
    "eval_every": 1,
    "options": TINY,
}
"""Five setups, one seed."""


def draw_classes(folder: Path) -> str:
    """Draw eight images of a cat and of a dog each; returns the source."""
    for name in ("cat", "dog"):
        draw_coco(folder / name, [[name]] * 8, classes=(name,))
    return f"coco:{folder}/{{class}}"


def sweep_config(source: str = "coco:x", **changes: Any) -> SweepConfig:
    return SweepConfig(**{"classes": ("cat", "dog"), "source": source, **GRID, **changes})


def losses(folder: SweepFolder) -> dict[str, Any]:
    """Cell → the losses of each evaluation of its run."""
    return {
        str(cell): [json.loads(line)["losses"] for line in folder.run(cell).metrics_file.read_text().splitlines()]
        for cell, _ in folder.results()
    }
