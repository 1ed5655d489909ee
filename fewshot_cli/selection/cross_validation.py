"""Cross-validation on the shots: what a configuration is worth, without a test set.

The shots are divided into folds. For each fold a detector is trained on the other shots, from the base weights, with
the same options and for as many iterations, and then measured on the shots that it was not trained on (`left_out`).
Only the originals are measured; their variants stay out of training with them.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from fewshot_cli.datasets.splits import images_per_class, with_ids
from fewshot_cli.datasets.store import Dataset
from fewshot_cli.datasets.types import Split
from fewshot_cli.evaluation.interval import half_interval
from fewshot_cli.evaluation.measure import ground_truth
from fewshot_cli.evaluation.thresholds import Quality, rank
from fewshot_cli.progress import Reporter, SilentReporter
from fewshot_cli.runs.config import FinetuneConfig
from fewshot_cli.selection.alpha import choose_average
from fewshot_cli.selection.folds import FOLDS, divided_classes, make_folds
from fewshot_cli.selection.left_out import Fold, ids_of, mean_ap, measure_on, shot_scores, train_fold
from fewshot_cli.training.averaging import ALPHAS, Average
from fewshot_cli.training.features import Features


@dataclass(frozen=True, slots=True, kw_only=True)
class CrossValidation:
    """An estimate from the shots.

    Attributes:
        shots: the originals, each of which one fold left out.
        classes: those that were validated: the ones with shots in at least two folds.
        folds: in order.
        average: with the weights before training; everything below is that of detectors averaged so.
        tried: α → mean score of the left-out shots (`left_out.shot_scores`), of all values that were compared.
        fold_ap: mAP@[.50:.95] on the shots that each fold left out; None where they show no validated class.
        pooled_ap: the same on all shots at once.
        pooled_ap_interval: its 95 % interval over samples of the shots (`evaluation.bootstrap`).
        quality: by class, the threshold of the best F1 (None if no detection is right), and what it gives. The scores
            come from as many detectors as there are folds, none of which is the one that is trained on all shots.
    """

    shots: Split
    classes: tuple[str, ...]
    folds: tuple[Fold, ...]
    average: Average
    tried: dict[float, float]
    fold_ap: tuple[float | None, ...]
    pooled_ap: float | None
    pooled_ap_interval: list[float] | None
    quality: dict[str, tuple[float | None, Quality]]

    @property
    def ap(self) -> float | None:
        """Mean of the mAP over folds: an estimate for detectors trained on so many shots less a fold."""
        measured = self._measured
        return statistics.mean(measured) if measured else None

    @property
    def interval(self) -> float | None:
        """Half its 95 % interval (Student's t); folds share shots, so the truth may well lie outside."""
        return half_interval(self._measured)

    @property
    def results(self) -> list[dict[str, Any]]:
        """Detections in all shots, each by the detector that did not see it, in COCO's results format."""
        return [result for fold in self.folds for result in fold.results[self.average.alpha]]

    @property
    def left_aside(self) -> dict[str, int]:
        """The classes that could not be validated, with their number of shots."""
        return {name: count for name, count in images_per_class(self.shots).items() if name not in self.classes}

    @property
    def thresholds(self) -> dict[str, float]:
        """Class → score from which on a detection counts; without the classes of which nothing was found."""
        return {name: _rounded(best) for name, (best, _) in self.quality.items() if best is not None}

    def to_json(self) -> dict[str, Any]:
        return {
            "folds": len(self.folds),
            "ap": self.ap,
            "ap_interval": self.interval,
            "fold_ap": list(self.fold_ap),
            "pooled_ap": self.pooled_ap,
            "pooled_ap_interval": self.pooled_ap_interval,
            "averages": {f"{alpha:g}": ap for alpha, ap in self.tried.items()},
            "per_class": {
                name: {"threshold": self.thresholds.get(name), **quality._asdict()}
                for name, (_, quality) in self.quality.items()
            },
            "not_validated": self.left_aside,
            "seconds": round(sum(fold.seconds for fold in self.folds), 2),
        }

    @property
    def _measured(self) -> list[float]:
        return [ap for ap in self.fold_ap if ap is not None]


def cross_validate(
    config: FinetuneConfig,
    data: Dataset,
    features: Features,
    average: Average,
    *,
    folds: int = FOLDS,
    done: Sequence[Fold] = (),
    keep: Callable[[Sequence[Fold]], None] = lambda folds: None,
    reporter: Reporter | None = None,
) -> CrossValidation | None:
    """Cross-validate a configuration on the shots of a data set.

        prepared = prepare(config, data, reporter)
        features = cache_features(prepared, config, data, folder=folder, store=store, reporter=reporter)
        found = cross_validate(config, data, features, given_average(config, prepared))

    Args:
        config: what is trained; `cross_validate` in it does not matter here.
        data: its test set is not looked at.
        features: of all shots and variants, for this configuration or one with the same cut, seed and variants.
        average: if it follows from the classes alone, other values of α are compared with it: see `choose_average`.
        folds: 2 or more; as many as there are shots if these are fewer, which leaves each out alone.
        done: folds of an earlier call that was stopped; those that leave out the same shots are not trained again.
        keep: receives all finished folds after each.
        reporter: receives progress and remarks.

    Returns:
        None if no class has shots in two folds, which is reported.

    Raises:
        DivergedError: a loss, a gradient or a parameter is not finite.
    """
    reporter = reporter or SilentReporter()
    divided = _divide(data.shots, folds, config.seed, reporter)
    classes = divided_classes(data.shots, divided)
    if not classes:
        reporter.say("Not cross-validated: no class has two shots to divide.")
        return None
    finished = _run(config, data, features, alphas_of(average), divided, done, keep, reporter)
    return measure(data.shots, classes, finished, average)


def alphas_of(average: Average) -> tuple[float, ...]:
    """The values of α to measure: several where it may still change."""
    return tuple(sorted({*ALPHAS, average.alpha})) if average.reason == "classes" else (average.alpha,)


def measure(shots: Split, classes: Sequence[str], folds: Sequence[Fold], average: Average) -> CrossValidation:
    """What the detections in left-out shots say.

    Args:
        shots: the originals.
        classes: those to measure.
        folds: each shot is in one of them.
        average: as in `cross_validate`.
    """
    scores = {alpha: shot_scores(shots, classes, folds, alpha) for alpha in alphas_of(average)}
    average = choose_average(average, scores)
    found = [fold.results[average.alpha] for fold in folds]
    results = [result for part in found for result in part]
    parts = [with_ids(shots, fold.images) for fold in folds]
    pooled = measure_on(shots, classes, results)
    rankings = rank(ground_truth(shots, classes), results)
    return CrossValidation(
        shots=shots,
        classes=tuple(classes),
        folds=tuple(folds),
        average=average,
        tried={alpha: statistics.mean(values) for alpha, values in scores.items()},
        fold_ap=tuple(mean_ap(part, classes, own) for part, own in zip(parts, found, strict=True)),
        pooled_ap=pooled.numbers["AP"],
        pooled_ap_interval=pooled.ap_interval(),
        quality={name: rankings[name].best() for name in classes},
    )


def _divide(shots: Split, folds: int, seed: int, reporter: Reporter) -> list[list[int]]:
    """The shots that each fold leaves out: fewer folds if there are not so many shots, none for a single shot."""
    count = min(folds, len(shots.images))
    if count < 2:
        return []
    if count < folds:
        reporter.say(f"Cross-validation: {count} folds instead of {folds}, because there are no more shots.")
    return make_folds(shots, count, seed)


def _run(
    config: FinetuneConfig,
    data: Dataset,
    features: Features,
    alphas: Sequence[float],
    divided: list[list[int]],
    done: Sequence[Fold],
    keep: Callable[[Sequence[Fold]], None],
    reporter: Reporter,
) -> list[Fold]:
    """Train and measure every fold that is not done."""
    earlier = {fold.images: fold for fold in done if set(alphas) <= fold.results.keys()}
    finished: list[Fold] = []
    with reporter.progress("Cross-validation", len(divided) * config.iterations) as task:
        for number, left_out in enumerate(divided, start=1):
            task.update(f"fold {number} of {len(divided)}")
            fold = earlier.get(ids_of(data.shots, left_out))
            if fold is None:
                fold = train_fold(config, data, features, alphas, left_out, task)
                keep([*finished, fold])
            else:
                task.advance(config.iterations)
            finished.append(fold)
    return finished


def _rounded(threshold: float) -> float:
    # Scores have five places, so six are enough for the middle of two.
    return round(threshold, 6)
