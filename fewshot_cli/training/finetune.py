"""One fine-tune, from a data set to a measured run on disk."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

from fewshot_cli.datasets.store import Dataset, open_dataset
from fewshot_cli.detectors.device import choose_device, forget_peak_memory
from fewshot_cli.errors import DataError
from fewshot_cli.progress import Reporter, SilentReporter
from fewshot_cli.runs.config import FinetuneConfig
from fewshot_cli.runs.folder import Run
from fewshot_cli.runs.trainable import select_layers
from fewshot_cli.tracking import tracking
from fewshot_cli.training.averaging import Average, Averaging, given_average
from fewshot_cli.training.clock import Clock
from fewshot_cli.training.distillation import objective_of
from fewshot_cli.training.features import Features, FeatureStore, cache_features
from fewshot_cli.training.fit import fit
from fewshot_cli.training.prepare import Prepared, announce, prepare
from fewshot_cli.training.record import Before, record
from fewshot_cli.training.samples import sample_images


class Validated(NamedTuple):
    """What the shots say of a fine-tune before it begins.

    average: with the weights before training; facts: further keys of result.json.
    """

    average: Average
    facts: dict[str, Any]


Validate = Callable[[FinetuneConfig, Dataset, Prepared, Features], Validated]
"""The configuration, the data, the detector and its cached features → what the shots say."""


def not_validated(config: FinetuneConfig, data: Dataset, prepared: Prepared, features: Features) -> Validated:
    """Nothing is measured: α is the given one, or that of the classes."""
    return Validated(given_average(config, prepared), {})


def finetune(
    config: FinetuneConfig,
    run: Run,
    reporter: Reporter | None = None,
    *,
    features: FeatureStore | None = None,
    validate: Validate = not_validated,
    facts: Mapping[str, Any] | None = None,
    clock: Clock | None = None,
) -> dict[str, Any]:
    """Fine-tune, measure and record; continues from the run's saved state if it has one.

    Args:
        config: what to do.
        run: where it is recorded.
        features: shared with fine-tunes before and after this one.
        validate: called before the training: a cross-validation, for example.
        facts: further keys of result.json, of what was chosen earlier.
        clock: counts the steps, and has counted those before this call; default: a new one.

    Returns:
        the content of the run's result.json.

    Raises:
        FsodError: any of its kinds; what was saved before stays.
    """
    reporter, clock = reporter or SilentReporter(), clock or Clock()
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
        with clock.measures("cross_validation" if validate is not not_validated else None):
            average, validated = validate(config, data, prepared, cached)
        averaging = Averaging(prepared.detector)
        if average.alpha < 1 and config.policy != "none":
            reporter.say(f"Averaging: {average.describe()}.")
        with clock.measures("training" if config.policy != "none" else None):
            objective = objective_of(prepared, cached, config)
            progress = fit(
                prepared,
                cached,
                objective,
                config,
                averaged=partial(averaging.applied, average.alpha),
                train=data.train if config.measure_train else None,
                test=data.test,
                run=run,
                trackers=trackers,
                clock=clock,
                reporter=reporter,
            )
        averaging.apply(average.alpha)
        facts = {"average": average.to_json(), **(facts or {}), **validated}
        result = record(run, config, data, prepared, cached, progress, before, facts, clock)
        trackers.show(partial(sample_images, prepared, cached, data), progress.iteration)
    return result


def open_shots(config: FinetuneConfig) -> Dataset:
    """The data set of a configuration; raises DataError if no training image has a box."""
    data = open_dataset(config.data_folder)
    if not any(len(image.boxes) for image in data.train.images):
        raise DataError(f"{config.data}: no training image has a box", hint="Fetch again, or check the annotations.")
    return data
