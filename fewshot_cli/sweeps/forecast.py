"""How long a sweep will take, before any of its cells is finished: from a short trial run of each setup."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from fewshot_cli.detectors.registry import get_spec
from fewshot_cli.policies import AUTO
from fewshot_cli.progress import Reporter, SilentReporter
from fewshot_cli.runs.config import FinetuneConfig
from fewshot_cli.runs.schedules import COSINE
from fewshot_cli.selection.folds import SEARCH_FOLDS, SEARCH_SHARE
from fewshot_cli.sources.fetch import FetchRequest, fetch
from fewshot_cli.sweeps.axes import FEATURES, PLANNING
from fewshot_cli.sweeps.cells import Cell
from fewshot_cli.sweeps.config import SweepConfig
from fewshot_cli.sweeps.folder import SweepFolder
from fewshot_cli.sweeps.requests import features_key, finetune_config
from fewshot_cli.threads import choose_threads
from fewshot_cli.verbs.finetune import run_at

SHOTS, TESTS, COPIES, STEPS = 2, 8, 4, 3
"""Of a trial run: shots, test images, variants of each image, iterations."""
WHOLE = 100
"""Images that are assumed where a share of all of them is drawn, before it is drawn."""
SIDE, BATCH = 256, 8
"""Largest canvas, pixels, and batch of a trial run; the time of convolutions grows with the pixels."""
MEASURED_AT_ONCE = 8
"""Test images that are measured in about the time of a step: the backward pass against NMS and COCO's matching."""

SEARCHED = 2 * SEARCH_FOLDS * SEARCH_SHARE
"""Trainings of the whole detector in a search: at two rates in each fold, for a share of the iterations. What trains in
the head alone takes a fraction of that."""


class Costs(NamedTuple):
    """Seconds: to cache the features of one image, for one step, and for what is done once (weights, checkpoint)."""

    image: float
    step: float
    once: float


def forecast(
    folder: SweepFolder, *, device: str = "auto", threads: int | None = None, reporter: Reporter | None = None
) -> float:
    """Seconds that the missing cells take in one process, with shared features. Nothing is downloaded.

    The trial runs have random weights, a small canvas and a small batch, so the estimate is rough.

    Raises:
        StorageError: no room for the trial runs.
    """
    reporter = reporter or SilentReporter()
    threads = choose_threads(threads, reporter)
    missing = folder.missing()
    kinds = {_kind(cell): cell for cell in missing}
    costs: dict[Kind, Costs] = {}
    with TemporaryDirectory() as name, reporter.progress("Trial runs", len(kinds)) as task:
        root = Path(name)
        fetch(FetchRequest(source="miniature", classes=("helmet",), shots=SHOTS, test_images=TESTS, root=root))
        for number, (kind, cell) in enumerate(kinds.items()):
            config = finetune_config(folder.config, cell, data=str(root / "helmet"), device=device)
            costs[kind] = _try(replace(config, threads=threads), root / str(number))
            task.advance()
    cached: set[tuple[object, ...]] = set()
    return sum(seconds_of(folder.config, cell, costs[_kind(cell)], cached) for cell in missing)


Kind = tuple[object, ...]
"""What decides the time of a step and of an image."""


def _kind(cell: Cell) -> Kind:
    costly = tuple(choice for choice in cell.options if choice[0] in {*PLANNING, *FEATURES})
    return cell.group.detector, cell.setup, costly


def seconds_of(config: SweepConfig, cell: Cell, costs: Costs, cached: set[tuple[object, ...]]) -> float:
    """Seconds of one cell.

    Args:
        costs: of its detector and setup.
        cached: the features that earlier cells have cached; those of this cell are added.
    """
    options = finetune_config(config, cell, data="")
    tests = config.test_images
    measurements = 1 + (options.iterations - 1) // options.eval_every if options.eval_every else 1
    trained = options.iterations * (1 + SEARCHED if cell.setup.policy == AUTO else 1)
    steps = trained + measurements * tests / MEASURED_AT_ONCE
    features = (cell.group, features_key(config, cell))
    shots = cell.group.shots or WHOLE
    variants = min(shots * options.copies, shots + options.iterations * options.batch_size)
    images = 0 if features in cached else variants + tests
    cached.add(features)
    return costs.once + costs.image * images + costs.step * steps


def _try(config: FinetuneConfig, folder: Path) -> Costs:
    """Measure a short run on a small canvas, and scale what it takes to the canvas and the batch of the cells."""
    spec = get_spec(config.detector)
    side = config.image_size or spec.image_size
    tried, batch = min(side, max(SIDE, spec.smallest)), min(config.batch_size, BATCH)
    larger = (side / tried) ** 2
    short = replace(
        config,
        weights="none",
        iterations=STEPS,
        schedule=COSINE,  # Plateaus follow evaluations, of which a trial run has one.
        copies=COPIES,
        eval_every=0,
        image_size=tried,
        batch_size=batch,
    )
    seconds = run_at(folder, short).read_result()["seconds"]
    images = SHOTS * COPIES + TESTS if "training" in seconds else SHOTS + TESTS
    training = seconds["training"] + seconds["evaluation"] if "training" in seconds else 0.0
    return Costs(
        larger * seconds["features"] / images,
        larger * config.batch_size / batch * training / (STEPS + TESTS / MEASURED_AT_ONCE),
        seconds["total"] - seconds["features"] - training,
    )
