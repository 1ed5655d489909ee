"""Criteria of a detector's layers, measured on the shots of a data set before anything trains."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any

from fewshot_cli.progress import Reporter
from fewshot_cli.runs.trainable import select_layers
from fewshot_cli.selection.criteria import check_criteria
from fewshot_cli.selection.gradients import measure_layers
from fewshot_cli.threads import use_threads
from fewshot_cli.training.features import FeatureStore, cache_features
from fewshot_cli.training.finetune import open_shots
from fewshot_cli.training.prepare import prepare
from fewshot_cli.verbs.finetune import configure
from fewshot_cli.verbs.inspect import inspect_selection


def inspect_data(
    data: str | PathLike[str], detector: str | None, criteria: Sequence[str], *, reporter: Reporter, **options: Any
) -> dict[str, Any]:
    """The chain as `inspect_selection` describes it, and criteria of every layer, measured on a data set's shots.

    They are measured at the initial weights, whatever the policy trains; nothing trains.

    Args:
        data: a data set or its folder.
        detector: a name in the registry; default: as in `finetune`.
        criteria: names in CRITERIA.
        reporter: receives progress and remarks.
        options: fields of FinetuneConfig: policy, budget, weights, init_class, copies, seed, ….

    Returns:
        the chain, each of its `layers` with `criteria` by name; `data`, and `gradients`, how many were measured.

    Raises:
        ConfigError: unknown criterion or option.
        FsodError: as `finetune`.
    """
    check_criteria(criteria)
    config = configure(data, detector, options, reporter)
    selection = select_layers(config)
    if config.threads:
        use_threads(config.threads)
    shots = replace(open_shots(config), test=None)
    whole = replace(config, policy="full", budget=None, layers=(), freeze_first=None, keep_base_classes=False)
    prepared = prepare(whole, shots, reporter)
    with tempfile.TemporaryDirectory() as folder:
        features = cache_features(prepared, whole, shots, folder=Path(folder), store=FeatureStore(), reporter=reporter)
        found = measure_layers(prepared, features, reporter=reporter)
    report = inspect_selection(
        config.detector,
        selection,
        classes=prepared.info.classes,
        image_size=prepared.info.image_size,
        keep_base_classes=config.keep_base_classes,
        architecture=config.architecture,
    )
    values = found.values
    for row in report["layers"]:
        row["criteria"] = {name: values.get(row["name"], {}).get(name) for name in criteria}
    return {**report, "data": config.data, "gradients": found.count}
