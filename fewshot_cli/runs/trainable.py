"""What of the detector trains: policy, budget, layers and architecture where options leave them open."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from fewshot_cli.detectors.exported import read_info
from fewshot_cli.detectors.registry import WEIGHT_NAMES, select_in
from fewshot_cli.policies import AUTO, CUSTOM, DEFAULT_BUDGET, Selection, default_budget, get_policy
from fewshot_cli.progress import Reporter
from fewshot_cli.runs.config import FinetuneConfig


def implied_policy(options: Mapping[str, Any], default: str = FinetuneConfig.policy) -> str:
    """The policy of options that may leave it open.

    `custom` if they name layers; `auto` if they name candidates; `symmetric` if they say how much of the detector
    trains, as a budget does; `full` if they say how much of it is frozen; else the default.
    """
    if options.get("policy") is not None:
        return str(options["policy"])
    if options.get("layers"):
        return CUSTOM
    if options.get("candidates"):
        return AUTO
    spends = options.get("budget") is not None or options.get("train_neck") or options.get("backbone_stages")
    if spends:
        return "symmetric"
    return default if options.get("freeze_first") is None else "full"


def needs_chain(config: FinetuneConfig) -> bool:
    """Whether it takes the detector's chain to tell what trains: for named layers, frozen convolutions, and budgets in
    parameters."""
    return bool(config.layers) or config.freeze_first is not None or in_parameters(config)


def in_parameters(config: FinetuneConfig) -> bool:
    """Whether its budget is one of parameters, and counts."""
    typed = isinstance(config.budget, str) and config.budget != AUTO
    return typed and get_policy(config.policy).takes_budget


def with_architecture(config: FinetuneConfig) -> FinetuneConfig:
    """The configuration with the size of neck and head that a file of `fsod export` has, unless one is given.

    Raises:
        CheckpointError: the file is damaged, or of another version of fsod.
    """
    info = None if config.weights in WEIGHT_NAMES else read_info(config.weights)
    if info is None or config.architecture.chosen:
        return config
    return replace(config, **asdict(info.architecture))


def with_budget(config: FinetuneConfig, depth: int, reporter: Reporter) -> FinetuneConfig:
    """The configuration with its budget filled in, for a head of `depth` layers; says so if the head limits it.

    With policy `auto` it is `auto`, no bound.

    Raises:
        PolicyError: unknown policy.
    """
    if config.budget is not None:
        return config
    if config.policy == AUTO:
        return replace(config, budget=AUTO)
    budget = default_budget(config.policy, depth)
    if budget is not None and budget < DEFAULT_BUDGET:
        reporter.say(f"Budget: {budget} instead of {DEFAULT_BUDGET}, because the head has no more layers.")
    return replace(config, budget=budget)


def select_layers(config: FinetuneConfig) -> Selection:
    """What the configuration trains, checked against the detector's head; raises PolicyError, ModelError."""
    return select_in(
        config.detector,
        config.policy,
        config.budget,
        layers=config.layers,
        neck=config.train_neck,
        backbone_stages=config.backbone_stages,
        freeze_first=config.freeze_first,
        architecture=config.architecture,
    )
