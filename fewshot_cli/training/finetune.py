"""One fine-tune, from a data set to a measured run on disk."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from fewshot_cli.datasets.store import Dataset, open_dataset
from fewshot_cli.detectors.device import choose_device, forget_peak_memory
from fewshot_cli.errors import DataError
from fewshot_cli.progress import Reporter, SilentReporter
from fewshot_cli.runs.config import FinetuneConfig, select_layers
from fewshot_cli.runs.folder import Run
from fewshot_cli.tracking import tracking
from fewshot_cli.training.features import Features, FeatureStore, cache_features
from fewshot_cli.training.fit import fit
from fewshot_cli.training.objectives import DetectorLosses
from fewshot_cli.training.prepare import announce, prepare
from fewshot_cli.training.record import Before, record
from fewshot_cli.training.samples import sample_images

Validate = Callable[[FinetuneConfig, Dataset, Features], dict[str, Any]]
"""The configuration, the data and its cached features → further keys of result.json."""


def finetune(
    config: FinetuneConfig,
    run: Run,
    reporter: Reporter | None = None,
    *,
    features: FeatureStore | None = None,
    validate: Validate | None = None,
) -> dict[str, Any]:
    """Fine-tune, measure and record; continues from the run's saved state if it has one.

    Args:
        config: what to do.
        run: where it is recorded.
        features: shared with fine-tunes before and after this one.
        validate: called when training is over and its state is saved, before the run counts as finished.

    Returns:
        the content of the run's result.json.

    Raises:
        FsodError: any of its kinds; what was saved before stays.
    """
    reporter, clock = reporter or SilentReporter(), Clock()
    select_layers(config)
    forget_peak_memory(choose_device(config.device))
    data = open_shots(config)

    prepared = prepare(config, data, reporter)
    announce(prepared, config, data, reporter)
    before = Before(prepared.detector)
    with tracking(config.tracker, run.folder, config.to_json(), reporter) as trackers:
        with clock.measures("features"):
            cached = cache_features(
                prepared, config, data, folder=run.folder, store=features or FeatureStore(), reporter=reporter
            )
        with clock.measures("training" if config.policy != "none" else None):
            objective = DetectorLosses(prepared.detector, prepared.plan.cut)
            progress = fit(
                prepared,
                cached,
                objective,
                config,
                test=data.test,
                run=run,
                trackers=trackers,
                keep_state=validate is not None,
                reporter=reporter,
            )
        with clock.measures("cross_validation" if validate else None):
            validated = validate(config, data, cached) if validate else {}
        result = record(run, config, data, prepared, cached, progress, before, validated, clock.seconds())
        trackers.show(partial(sample_images, prepared, cached, data), progress.iteration)
    return result


class Clock:
    """Seconds that the steps of a run take."""

    def __init__(self) -> None:
        self._started = time.perf_counter()
        self._steps: dict[str, float] = {}

    @contextmanager
    def measures(self, step: str | None) -> Iterator[None]:
        """Count what happens meanwhile as a step of that name; None: only in the total."""
        started = time.perf_counter()
        yield
        if step:
            self._steps[step] = time.perf_counter() - started

    def seconds(self) -> dict[str, float]:
        """Of each step, and `total`: since the clock was made."""
        return {**self._steps, "total": time.perf_counter() - self._started}


def open_shots(config: FinetuneConfig) -> Dataset:
    """The data set that the configuration names; raises DataError if no training image has a box."""
    data = open_dataset(config.data_folder)
    if not any(len(image.boxes) for image in data.train.images):
        raise DataError(f"{config.data}: no training image has a box", hint="Fetch again, or check the annotations.")
    return data
