"""How long a sweep will take, before any of its cells is done: a rehearsal of each setup on a few drawn images."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from fewshot_cli.progress import Reporter, SilentReporter
from fewshot_cli.runs.config import FinetuneConfig
from fewshot_cli.runs.folder import Run
from fewshot_cli.sources.fetch import FetchRequest, fetch
from fewshot_cli.sweeps.engine import Sweep, by_cut
from fewshot_cli.sweeps.grid import Cell, Setup

SHOTS, TESTS, COPIES, STEPS = 2, 8, 4, 3
"""Of a rehearsal: images, test images, variants of each image, iterations."""
MEASURED_AT_ONCE = 8
"""Test images that are measured in about the time of a step: the backward pass against NMS and COCO's matching."""


class Costs(NamedTuple):
    """Seconds: to cache the features of one image, for one step, and for what is done once (weights, checkpoint)."""

    image: float
    step: float
    once: float


def forecast(sweep: Sweep, *, device: str = "auto", reporter: Reporter | None = None) -> float:
    """Seconds that the missing cells take in one process, with shared features. Nothing is downloaded.

    The rehearsal has random weights and small images, so the answer is a rough one.

    Raises:
        StorageError: no room for the rehearsal.
    """
    missing = sweep.missing()
    kinds = {(cell.group.detector, cell.setup): cell for cell in missing}
    costs: dict[tuple[str, Setup], Costs] = {}
    with TemporaryDirectory() as name, (reporter or SilentReporter()).progress("Rehearsal", len(kinds)) as task:
        folder = Path(name)
        fetch(FetchRequest(source="miniature", classes=("helmet",), shots=SHOTS, test_images=TESTS, root=folder))
        for number, (kind, cell) in enumerate(kinds.items()):
            config = sweep.config.finetune_options(cell, data=str(folder / "helmet"), device=device)
            costs[kind] = _rehearse(config, folder / str(number))
            task.advance()
    cached: set[tuple[object, ...]] = set()
    return sum(seconds_of(sweep, cell, costs[cell.group.detector, cell.setup], cached) for cell in missing)


def _rehearse(config: FinetuneConfig, folder: Path) -> Costs:
    from fewshot_cli.training.finetune import finetune

    folder.mkdir()
    short = replace(config, weights="none", iterations=STEPS, copies=COPIES, eval_every=0)
    seconds = finetune(short, Run(folder))["seconds"]
    images = SHOTS * COPIES + TESTS if "training" in seconds else SHOTS + TESTS
    training = seconds.get("training", 0.0)
    return Costs(
        seconds["features"] / images,
        training / (STEPS + TESTS / MEASURED_AT_ONCE),
        seconds["total"] - seconds["features"] - training,
    )


def seconds_of(sweep: Sweep, cell: Cell, costs: Costs, cached: set[tuple[object, ...]]) -> float:
    """One cell, given what the cells before it have cached."""
    config = sweep.config.finetune_options(cell, data="")
    tests = sweep.config.test_images
    measurements = 1 + (config.iterations - 1) // config.eval_every if config.eval_every else 1
    steps = config.iterations + measurements * tests / MEASURED_AT_ONCE
    features = (cell.group, by_cut(cell))
    images = 0 if features in cached else cell.group.shots * config.copies + tests
    cached.add(features)
    return costs.once + costs.image * images + costs.step * steps
