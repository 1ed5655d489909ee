"""The cross-validation of a run: kept in its folder fold by fold, put into words, and into its result."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import asdict
from typing import Any

from fewshot_cli.datasets.store import Dataset
from fewshot_cli.errors import DivergedError
from fewshot_cli.inference.filtering import SCORE_THRESHOLD
from fewshot_cli.progress import Reporter
from fewshot_cli.runs.config import FinetuneConfig
from fewshot_cli.runs.folder import Run
from fewshot_cli.selection.cross_validation import CrossValidation, Fold, cross_validate
from fewshot_cli.selection.unlabelled import unlabelled_objects
from fewshot_cli.training.features import Features

SHOWN = 3
"""Shots that look partly labelled, of which one warning each is shown."""


def validate_run(
    run: Run, folds: int, reporter: Reporter, config: FinetuneConfig, data: Dataset, features: Features
) -> dict[str, Any]:
    """Cross-validate what a run does, with remarks and warnings; finished folds in its folder are used again.

    A fold that diverges costs the estimate, not the run: the detector that is trained on all shots is there already.

    Args:
        run: where finished folds are kept.
        folds: as in `cross_validate`.
        config, data, features: of the run.

    Returns:
        `cross_validation` and `thresholds` of result.json; nothing if the shots do not allow it.

    Raises:
        StorageError: the disk cannot be written.
    """
    try:
        found = cross_validate(
            config,
            data,
            features,
            folds=folds,
            done=_read(run),
            keep=lambda finished: run.write_folds([asdict(fold) for fold in finished]),
            reporter=reporter,
        )
    except DivergedError as error:
        reporter.warn(f"Not cross-validated, because a fold diverged: {error.message}")
        return {}
    if found is None:
        return {}
    _tell(found, reporter)
    return {"cross_validation": found.to_json(), "thresholds": found.thresholds}


def _read(run: Run) -> list[Fold]:
    """Folds that a stopped run finished; none if the file holds something else."""
    with suppress(KeyError, TypeError):
        return [Fold(tuple(fold["images"]), fold["results"], fold["seconds"]) for fold in run.read_folds()]
    return []


def _tell(found: CrossValidation, reporter: Reporter) -> None:
    for name, count in found.left_aside.items():
        shots = f"{count} shot{'' if count == 1 else 's'}"
        reporter.say(f"{name}: {shots}, not cross-validated; its threshold stays {SCORE_THRESHOLD}.")
    for name in found.classes:
        if name not in found.thresholds:
            reporter.say(f"{name}: no object was found in left-out shots; its threshold stays {SCORE_THRESHOLD}.")
    _warn_of_missing_labels(found, reporter)


def _warn_of_missing_labels(found: CrossValidation, reporter: Reporter) -> None:
    seen = [one for one in unlabelled_objects(found.shots, found.results) if one.name in found.classes]
    for image, name, score, box in seen[:SHOWN]:
        corners = ", ".join(f"{value:.0f}" for value in box)
        reporter.warn(
            f"{image.path.name} looks partly labelled: a detector trained on the other shots finds {name!r} "
            f"(score {score:.2f}) at ({corners}), where no box is."
        )
    if len(seen) > SHOWN:
        reporter.warn(f"{len(seen) - SHOWN} more shots look partly labelled.")
