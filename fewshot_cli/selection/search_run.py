"""The search of a run with policy `auto`: kept in its folder as it goes, put into words, and into its result."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import Any, NamedTuple

from fewshot_cli.datasets.store import open_dataset
from fewshot_cli.detectors.registry import get_spec
from fewshot_cli.progress import Reporter
from fewshot_cli.runs.config import FinetuneConfig, with_budget
from fewshot_cli.runs.folder import Run
from fewshot_cli.selection.search import FEWEST_SHOTS, Found, Scores, search
from fewshot_cli.training.features import FeatureStore


class Searched(NamedTuple):
    """The configuration with a policy, the features to train it from, and further keys of result.json."""

    config: FinetuneConfig
    features: FeatureStore | None
    facts: dict[str, Any]


def search_run(run: Run, config: FinetuneConfig, features: FeatureStore | None, reporter: Reporter) -> Searched:
    """Choose what a run trains; what is in its folder already is not measured again.

    With too few shots it is what FinetuneConfig trains by default.

    Args:
        features: what to train from if nothing is compared.

    Raises:
        PolicyError: fewer than two candidates.
        DivergedError: of every candidate.
        StorageError: the disk cannot be written.
    """
    found = search(
        config,
        open_dataset(config.data_folder),
        folder=run.folder,
        done=_read(run),
        keep=lambda scores: run.write_search(dict(scores)),
        reporter=reporter,
    )
    if found is None:
        return Searched(_fall_back(config, reporter), features, {})
    reporter.say(f"Policy auto: {found.chosen.candidate}, of {_outcome(found)}.")
    return Searched(found.config, found.store, {"search": found.to_json()})


def _outcome(found: Found) -> str:
    compared = [trial for trial in found.trials if trial.scores]
    return f"{len(found.trials)} candidates, {len(compared)} of them cross-validated in {found.seconds:.0f} s"


def _fall_back(config: FinetuneConfig, reporter: Reporter) -> FinetuneConfig:
    fixed = replace(config, policy=FinetuneConfig.policy, budget=None)
    fixed = with_budget(fixed, get_spec(config.detector).head_depth, reporter)
    name = f"{fixed.policy} {fixed.budget}" if fixed.budget else fixed.policy
    reporter.say(
        f"Policy auto: {name}, the default, because too few shots show each class to compare candidates "
        f"(at least {FEWEST_SHOTS})."
    )
    return fixed


def _read(run: Run) -> Scores:
    """The scores that a run kept; none if the file holds something else."""
    with suppress(AttributeError, TypeError, ValueError):
        return {name: [[float(score) for score in fold] for fold in folds] for name, folds in run.read_search().items()}
    return {}
