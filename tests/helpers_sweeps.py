"""Tiny sweeps: drawn classes, and a grid of fine-tunes of a fraction of a second."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from helpers_data import draw_coco

from fewshot_cli.sweeps.cells import Cell
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


def made_results(config: SweepConfig, ap: Callable[[Cell], float], **further: Callable[[Cell], Any]) -> dict[Cell, Any]:
    """What a finished sweep would have in its result.json files, as far as tables and studies read them.

    Args:
        ap: cell → mAP.
        further: key of result.json → its value for a cell.
    """
    return {
        cell: {
            "ap": ap(cell),
            "train_ap": 0.9,
            "best": {"ap": ap(cell), "iteration": 2},
            "seconds": {"training": 1.0, "total": 2.0},
            "peak_memory_mb": 100,
            "cached_mb": 5.0,
            "parameters": {"trained": 10, "total": 20},
            "known_classes": [],
            **{key: value(cell) for key, value in further.items()},
        }
        for cell in config.grid.cells()
    }
