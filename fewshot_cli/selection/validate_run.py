"""The cross-validation of a run: kept in its folder fold by fold, put into words, and into its result; read again."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import asdict
from typing import Any

from fewshot_cli.datasets.splits import restrict, with_ids
from fewshot_cli.datasets.store import Dataset
from fewshot_cli.datasets.types import Split
from fewshot_cli.documents import check_document
from fewshot_cli.encoders import open_text_encoder
from fewshot_cli.errors import DataError, DivergedError
from fewshot_cli.inference.filtering import SCORE_THRESHOLD
from fewshot_cli.progress import Reporter, SilentReporter
from fewshot_cli.runs.config import FinetuneConfig
from fewshot_cli.runs.folder import Run
from fewshot_cli.runs.result import Detection, StoredFold
from fewshot_cli.selection.cross_validation import CrossValidation, cross_validate
from fewshot_cli.selection.left_out import Fold
from fewshot_cli.selection.refine import choose_refinement
from fewshot_cli.selection.unlabelled import unlabelled_objects
from fewshot_cli.training.averaging import given_average
from fewshot_cli.training.features import Features
from fewshot_cli.training.finetune import Validated
from fewshot_cli.training.prepare import Prepared

SHOWN = 3
"""Shots that look partly labelled, of which one warning each is shown."""


def validate_run(
    run: Run,
    folds: int,
    reporter: Reporter,
    config: FinetuneConfig,
    data: Dataset,
    prepared: Prepared,
    features: Features,
) -> Validated:
    """Cross-validate what a run does, with remarks and warnings; finished folds in its folder are used again.

    A fold that diverges costs the estimate, not the run.

    Args:
        run: where finished folds are kept.
        folds: as in `cross_validate`.
        config, data, prepared, features: of the run.

    Returns:
        how to average, with `cross_validation`, `thresholds` and, if asked for, `refine` of result.json; without them
        if the shots do not allow it.

    Raises:
        StorageError: the disk cannot be written.
        ModelError, CheckpointError, NetworkError: the encoder of --refine cannot be had.
    """
    average = given_average(config, prepared)
    if config.refine:
        # Weights that do not load are reported before the folds are trained, not after.
        open_text_encoder(config.refine, prepared.placed.device, SilentReporter())
    try:
        found = cross_validate(
            config,
            data,
            features,
            average,
            folds=folds,
            done=read_folds(run),
            keep=lambda finished: run.write_folds([asdict(fold) for fold in finished]),
            reporter=reporter,
        )
    except DivergedError as error:
        reporter.warn(f"Not cross-validated, because a fold diverged: {error.message}")
        return Validated(average, {})
    if found is None:
        return Validated(average, {})
    _report(found, reporter)
    facts = {"cross_validation": found.to_json(), "thresholds": found.thresholds}
    if config.refine:
        device = str(prepared.placed.device)
        facts["refine"] = choose_refinement(found, prepared.detector.classes, config, device, reporter)
    return Validated(found.average, facts)


def read_folds(run: Run) -> list[Fold]:
    """The folds that a run finished; none if the file holds something else."""
    with suppress(DataError):
        folds = check_document(run.read_folds(), list[StoredFold], run.folds_file, "")
        return [Fold(tuple(fold["images"]), _by_alpha(fold["results"]), fold["seconds"]) for fold in folds]
    return []


def _by_alpha(results: dict[str, list[Detection]]) -> dict[float, list[dict[str, Any]]]:
    return {float(alpha): [dict(each) for each in found] for alpha, found in results.items()}


def left_out_shots(run: Run, shots: Split) -> tuple[Split, list[dict[str, Any]]]:
    """The shots with the classes that were cross-validated, and what was detected in each by the detector of its fold.

    Args:
        run: a finished one.
        shots: the originals of its data set.

    Returns:
        the shots that a fold left out, none without a cross-validation, and the detections in COCO's results format.
    """
    result = run.read_result()
    validated = (result.get("cross_validation") or {}).get("per_class", {})
    classes = [name for name in shots.classes if name in validated]
    folds = read_folds(run) if classes else []
    ids = {number for fold in folds for number in fold.images}
    split = with_ids(restrict(shots, classes) if classes else shots, ids)
    known, categories = {image.id for image in split.images}, set(split.category_ids)
    alpha = (result.get("average") or {}).get("alpha", 1.0)
    found = [each for fold in folds for each in fold.results.get(alpha, [])]
    return split, [each for each in found if each["image_id"] in known and each["category_id"] in categories]


def _report(found: CrossValidation, reporter: Reporter) -> None:
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
