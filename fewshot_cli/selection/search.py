"""Policy `auto`: what to train, chosen on the shots alone.

1. The gradients of all head layers, from one pass over cached features, rank candidates of the same budget; the best
   one of each budget stays (`criteria`). Of the rates of the backbone that stays which the classes suggest (`rates`).
2. Those, the whole head, the whole detector and the detector as it is are cross-validated with a quarter of the
   iterations. After each fold, candidates that are clearly worse than the best one are dropped (`trials`).
3. The default is chosen unless it was dropped; then, of the candidates within one standard error of the best, the one
   with the fewest parameters (`trials`).

A shot's score is what it contributes to the mAP of its fold (`left_out.shot_scores`). Features are computed once for
all candidates of the head and their folds, and once for those that train the backbone.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fewshot_cli.datasets.store import Dataset
from fewshot_cli.errors import DivergedError
from fewshot_cli.progress import Reporter, SilentReporter, Task
from fewshot_cli.runs.config import FinetuneConfig
from fewshot_cli.selection.candidates import Candidate, default_of, list_candidates
from fewshot_cli.selection.criteria import DEFAULT_CRITERION, rank
from fewshot_cli.selection.folds import (
    FEWEST_SHOTS,
    SEARCH_FOLDS,
    SEARCH_SHARE,
    divided_classes,
    folds_with,
    make_folds,
)
from fewshot_cli.selection.gradients import measure_layers
from fewshot_cli.selection.left_out import shot_scores, train_fold
from fewshot_cli.selection.trials import Trial, best_of, choose, drop_clearly_worse
from fewshot_cli.training.averaging import given_average
from fewshot_cli.training.features import Features, FeatureStore, cache_features
from fewshot_cli.training.prepare import prepare

Scores = Mapping[str, Sequence[Sequence[float]]]
"""Candidate → for each finished fold, the score of each shot that it left out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What a search ends with.

    Attributes:
        config: with a policy, a budget and a rate of the backbone.
        trials: one a candidate, fewest parameters first.
        chosen: one of them.
        default: what would be trained without a comparison; one of them.
        store: the features of the cut that it trains from.
        seconds: that it took.
    """

    config: FinetuneConfig
    trials: tuple[Trial, ...]
    chosen: Trial
    default: Trial
    store: FeatureStore
    seconds: float

    def to_json(self) -> dict[str, Any]:
        best = best_of([trial for trial in self.trials if not trial.dropped])
        return {
            "chosen": str(self.chosen.candidate),
            "default": str(self.default.candidate),
            "criterion": DEFAULT_CRITERION,
            "folds": max(len(trial.scores) for trial in self.trials),
            "iterations": iterations_of(self.config),
            "candidates": [trial.to_json(best) for trial in self.trials],
            "seconds": round(self.seconds, 2),
        }


def search(
    config: FinetuneConfig,
    data: Dataset,
    *,
    folder: Path,
    done: Scores,
    keep: Callable[[Scores], None],
    reporter: Reporter,
) -> Found | None:
    """Choose what to train.

    Args:
        config: with policy `auto`; its budget is an upper bound.
        data: its test set is not looked at.
        folder: where the part of the features that does not fit in memory goes.
        done: what an earlier call that was stopped has kept; it is not measured again.
        keep: receives all scores after each fold of a candidate.
        reporter: receives progress and remarks.

    Returns:
        None if there are fewer than FEWEST_SHOTS shots, or no class has shots in two folds.

    Raises:
        PolicyError: fewer than two candidates.
        DivergedError: of every candidate.
    """
    started = time.perf_counter()
    if len(data.shots.images) < FEWEST_SHOTS:
        return None
    folds = make_folds(data.shots, SEARCH_FOLDS, config.seed)
    classes = divided_classes(data.shots, folds)
    if not classes:
        return None
    folds = folds_with(data.shots, folds, classes)
    shots = _Shots(config, replace(data, test=None), classes, folder, reporter)
    trials = [Trial(candidate) for candidate in list_candidates(config, shots.prepared.detector)]
    usual = default_of([trial.candidate for trial in trials], shots.prepared.backbone_lr)
    default = next(trial for trial in trials if trial.candidate is usual)
    _drop_other_rates(trials, default)
    _drop_lower_ranked(trials, default, shots)
    _cross_validate(trials, default, folds, shots, done, keep)
    chosen = choose([trial for trial in trials if not trial.dropped], default)
    return Found(
        config=chosen.candidate.configure(config),
        trials=tuple(trials),
        chosen=chosen,
        default=default,
        store=shots.stores[shots.cut_of(chosen.candidate)],
        seconds=time.perf_counter() - started,
    )


def iterations_of(config: FinetuneConfig) -> int:
    """Of the training in each fold of a search."""
    return max(1, round(config.iterations * SEARCH_SHARE))


class _Shots:
    """What all candidates are measured with: the shots, their features at the cuts that candidates need, and α."""

    def __init__(
        self, config: FinetuneConfig, data: Dataset, classes: tuple[str, ...], folder: Path, reporter: Reporter
    ) -> None:
        self.config, self.data, self.classes = config, data, classes
        self.folder, self.reporter = folder, reporter
        self.prepared = prepare(replace(config, policy="all", budget=None), data, SilentReporter())
        self.alpha = given_average(config, self.prepared).alpha
        self.stores: defaultdict[int, FeatureStore] = defaultdict(FeatureStore)
        self._features: dict[int, Features] = {}

    def cut_of(self, candidate: Candidate) -> int:
        """Where its features are cached: before the head, or before all that it trains."""
        return min(candidate.cut, self.prepared.plan.cut)

    def features(self, cut: int) -> Features:
        """Computed at the first call."""
        if cut not in self._features:
            self._features[cut] = cache_features(
                self.prepared,
                self.config,
                self.data,
                folder=self.folder,
                store=self.stores[cut],
                reporter=self.reporter,
                cut=cut,
            )
        return self._features[cut]

    def count(self, left_out: Sequence[int]) -> int:
        """How many of the left-out shots have a score: those that show a class that is compared."""
        return sum(map(len, folds_with(self.data.shots, [[number] for number in left_out], self.classes)))

    def scores(self, candidate: Candidate, left_out: Sequence[int], task: Task) -> list[float]:
        """Of the left-out shots, by a detector that is trained on the others."""
        config = candidate.configure(replace(self.config, iterations=iterations_of(self.config)))
        features = self.features(self.cut_of(candidate))
        fold = train_fold(config, self.data, features, (self.alpha,), left_out, task)
        return shot_scores(self.data.shots, self.classes, [fold], self.alpha)


def _drop_other_rates(trials: Sequence[Trial], default: Trial) -> None:
    """Leave one rate of the backbone: left-out shots cannot tell two apart that the classes tell apart."""
    for trial in trials:
        if trial is not default and trial.candidate.policy == default.candidate.policy == "full":
            trial.dropped = "ranked lower"


def _drop_lower_ranked(trials: Sequence[Trial], default: Trial, shots: _Shots) -> None:
    """Rank the candidates of the head by the criterion; of those with the same budget, the first one is left."""
    ranked = [trial for trial in trials if trial.candidate.in_head]
    by_budget: dict[int | None, list[Trial]] = {}
    for trial in ranked:
        by_budget.setdefault(trial.candidate.budget, []).append(trial)
    if all(len(rivals) == 1 for rivals in by_budget.values()):
        return
    features = shots.features(shots.prepared.plan.cut)
    measured = measure_layers(shots.prepared, features, batch_size=shots.config.batch_size, reporter=shots.reporter)
    for trial in ranked:
        names = [name for name in trial.candidate.layers if name in measured.layers]
        trial.criterion = rank(measured, DEFAULT_CRITERION, names)
    for rivals in by_budget.values():
        first = max(rivals, key=lambda trial: trial.criterion or 0.0)
        for trial in rivals:
            trial.dropped = None if trial is first or trial is default else "ranked lower"


def _cross_validate(
    trials: Sequence[Trial],
    default: Trial,
    folds: Sequence[Sequence[int]],
    shots: _Shots,
    done: Scores,
    keep: Callable[[Scores], None],
) -> None:
    """Score every candidate on one fold after the other; drop those that are clearly worse after each fold."""
    alive = [trial for trial in trials if not trial.dropped]
    steps = sum(iterations_of(shots.config) for trial in alive if trial.candidate.layers) * len(folds)
    with shots.reporter.progress("Search", steps) as task:
        for number, left_out in enumerate(folds):
            for trial in alive:
                task.update(f"{trial.candidate}, fold {number + 1} of {len(folds)}")
                known = done.get(str(trial.candidate), ())
                fits = number < len(known) and len(known[number]) == shots.count(left_out)
                _score(trial, known[number] if fits else None, left_out, shots, task)
                keep({str(each.candidate): each.scores for each in trials if each.scores})
            alive = drop_clearly_worse([trial for trial in alive if not trial.dropped], default)


def _score(trial: Trial, known: Sequence[float] | None, left_out: Sequence[int], shots: _Shots, task: Task) -> None:
    """Add the scores of one fold: those that are known, or measured now."""
    if known is not None:
        trial.scores.append(list(known))
        return
    try:
        trial.scores.append(shots.scores(trial.candidate, left_out, task))
    except DivergedError:
        trial.dropped = "diverged"
