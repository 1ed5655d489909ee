"""Candidates of policy `auto` and their scores on left-out shots: which are dropped early, and which one is chosen.

Scores are compared shot by shot, so that hard and easy shots cancel out. The best of many candidates on ten shots is
mostly chance, so the choice starts from the default, as that of α does, and leaves it only where that is sure.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from fewshot_cli.errors import DivergedError
from fewshot_cli.evaluation.interval import standard_error
from fewshot_cli.selection.candidates import Candidate

CLEAR = 0.95
"""Confidence (one-sided, Student's t) with which a candidate must be worse to be dropped before all folds are done."""
SURE = 0.99
"""The same for the default, against which every other candidate has a chance to look better."""


@dataclass(slots=True)
class Trial:
    """What is known of a candidate.

    Attributes:
        criterion: the mean of the ranking criterion over its layers; None where it was not ranked.
        scores: of each fold that was measured, the score of each shot that it left out (`left_out.shot_scores`).
        dropped: why it was not measured further: `ranked lower`, `clearly worse`, `diverged`; None if it was not.
    """

    candidate: Candidate
    criterion: float | None = None
    scores: list[list[float]] = field(default_factory=list)
    dropped: str | None = None

    @property
    def flat(self) -> list[float]:
        """The scores of all folds in one list."""
        return [score for fold in self.scores for score in fold]

    @property
    def mean(self) -> float:
        """Of the scores, of which there are some."""
        return statistics.fmean(self.flat)

    def to_json(self, best: Trial) -> dict[str, Any]:
        """What result.json holds of it.

        Args:
            best: `behind` is by how much its scores are higher, the mean over the shots that both left out, and
                `behind_error` the standard error.
        """
        candidate = self.candidate
        behind = differences(self, best)
        return {
            "name": str(candidate),
            "policy": candidate.policy,
            "budget": candidate.budget,
            "backbone_lr": candidate.backbone_lr,
            "layers": list(candidate.layers),
            "parameters": candidate.parameters,
            "criterion": self.criterion if math.isfinite(self.criterion or 0.0) else None,
            "score": self.mean if self.scores else None,
            "standard_error": standard_error(self.flat),
            "behind": statistics.fmean(behind) if behind else None,
            "behind_error": standard_error(behind),
            "shots": len(self.flat),
            "dropped": self.dropped,
        }


def choose(trials: Sequence[Trial], default: Trial) -> Trial:
    """The default if it was not dropped; else, within one standard error of the best, that with the fewest parameters.

    The one-standard-error rule (Hastie, Tibshirani and Friedman, The Elements of Statistical Learning, 2009, section
    7.10), except that the error is that of the difference to the best, shot by shot, instead of that of the best.

    Args:
        trials: one or more that were not dropped, with scores of the same shots.
        default: what would be trained without a comparison.
    """
    if not default.dropped:
        return default
    best = best_of(trials)
    close = [trial for trial in trials if deficit(trial, best) <= 1.0]
    return min(close, key=lambda trial: (trial.candidate.parameters, -trial.mean))


def drop_clearly_worse(trials: Sequence[Trial], default: Trial) -> list[Trial]:
    """Mark those that are worse than the best with a confidence of CLEAR as dropped, and return the others.

    Args:
        trials: with scores of the same shots, not dropped yet.
        default: for which the confidence must be SURE.

    Raises:
        DivergedError: there is none left.
    """
    if not trials:
        raise DivergedError("every candidate of policy auto diverged", hint="Lower --lr.")
    from scipy.stats import t

    best = best_of(trials)
    for trial in trials:
        if deficit(trial, best) > t.ppf(SURE if trial is default else CLEAR, len(best.flat) - 1):
            trial.dropped = "clearly worse"
    return [trial for trial in trials if not trial.dropped]


def best_of(trials: Sequence[Trial]) -> Trial:
    """The one with the highest mean score."""
    return max(trials, key=lambda trial: trial.mean)


def deficit(trial: Trial, best: Trial) -> float:
    """By how many standard errors it is worse, shot by shot: 0 where both are the same."""
    behind = differences(trial, best)
    mean, error = statistics.fmean(behind), standard_error(behind)
    if not mean:
        return 0.0
    return mean / error if error else math.inf


def differences(trial: Trial, best: Trial) -> list[float]:
    """How much higher the best one's score is, on each shot that both have left out."""
    return [higher - lower for higher, lower in zip(best.flat, trial.flat, strict=False)]
