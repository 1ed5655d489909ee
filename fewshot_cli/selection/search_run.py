"""The search of a run with policy `auto`: kept in its folder as it goes, put into words, and into its result."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import Any, NamedTuple

from fewshot_cli.datasets.store import open_dataset
from fewshot_cli.documents import check_document
from fewshot_cli.errors import DataError
from fewshot_cli.progress import Reporter
from fewshot_cli.runs.config import FinetuneConfig
from fewshot_cli.runs.folder import Run
from fewshot_cli.selection.candidates import Candidate, default_of, list_candidates
from fewshot_cli.selection.folds import FEWEST_SHOTS
from fewshot_cli.selection.search import Found, Scores, search
from fewshot_cli.training.features import FeatureStore
from fewshot_cli.training.outline import outline


class Searched(NamedTuple):
    """The configuration with a policy, the features to train it from, and further keys of result.json."""

    config: FinetuneConfig
    features: FeatureStore | None
    facts: dict[str, Any]


def search_run(run: Run, config: FinetuneConfig, features: FeatureStore | None, reporter: Reporter) -> Searched:
    """Choose what a run trains; what is in its folder already is not measured again.

    With too few shots it is the default policy, or the largest candidate where budget or candidates rule that out.

    Args:
        features: what to train from if nothing is compared.

    Raises:
        PolicyError: fewer than two candidates.
        DivergedError: of every candidate.
        StorageError: the disk cannot be written.
    """
    data = open_dataset(config.data_folder)
    found = search(
        config,
        data,
        folder=run.folder,
        done=_read(run),
        keep=lambda scores: run.write_search(dict(scores)),
        reporter=reporter,
    )
    if found is None:
        return Searched(_fall_back(config, len(data.train.classes), reporter), features, {})
    reporter.say(f"Policy auto: {found.chosen.candidate}, of {_outcome(found)}.")
    return Searched(found.config, found.store, {"search": found.to_json()})


def _outcome(found: Found) -> str:
    compared = [trial for trial in found.trials if trial.scores]
    return f"{len(found.trials)} candidates, {len(compared)} of them cross-validated in {found.seconds:.0f} s"


def _fall_back(config: FinetuneConfig, classes: int, reporter: Reporter) -> FinetuneConfig:
    """The default policy, if it is a candidate, else the candidate with the most layers."""
    allowed = list_candidates(config, outline(config.detector, classes, config.architecture))
    chosen = default_of(allowed, config.backbone_lr or 0.0)
    fixed = replace(chosen.configure(config), backbone_lr=config.backbone_lr)
    name = f"{fixed.policy} {fixed.budget}" if fixed.budget else fixed.policy
    reporter.say(
        f"Policy auto: {name}, the {_kind(chosen)}, because too few shots show each "
        f"class to compare candidates (at least {FEWEST_SHOTS})."
    )
    return fixed


def _kind(chosen: Candidate) -> str:
    return "default" if chosen.policy == FinetuneConfig.policy else "largest candidate"


def _read(run: Run) -> Scores:
    """The scores that a run kept; none if the file holds something else."""
    from pydantic import FiniteFloat

    with suppress(DataError):
        return check_document(run.read_search(), dict[str, list[list[FiniteFloat]]], run.search_file, "")
    return {}
