"""A detector's chain without weights, for what a configuration says in names of layers and in parameters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import NamedTuple

import torch

from fewshot_cli.detectors.architecture import OWN, Architecture
from fewshot_cli.detectors.chain import Detector
from fewshot_cli.detectors.predictors import numbered
from fewshot_cli.detectors.registry import build_detector, select_in
from fewshot_cli.errors import PolicyError
from fewshot_cli.policies import get_policy, most_layers, parse_budget
from fewshot_cli.progress import Reporter
from fewshot_cli.runs.config import FinetuneConfig
from fewshot_cli.runs.trainable import in_parameters, needs_chain, select_layers
from fewshot_cli.training.plan import parameters_per_layer, plan_chain, planned_layers


@lru_cache
def outline(name: str, classes: int, architecture: Architecture = OWN) -> Detector:
    """The chain of a detector with a predictor for that many classes, without memory for weights.

    The detector is shared by all callers: do not change it.

    Raises:
        ModelError: an unknown detector, or one whose size cannot be chosen.
    """
    # On the meta device nothing is drawn, stored or computed.
    with torch.device("meta"):
        detector = build_detector(name, weights="none", architecture=architecture)
        detector.replace_classes(numbered(classes), [()] * classes)
    return detector


def resolve(config: FinetuneConfig, classes: int, reporter: Reporter) -> FinetuneConfig:
    """The configuration with its budget in layers, and with named layers in the order of the chain, checked against it.

    Args:
        config: its budget is filled in (`with_budget`).
        classes: of the data set; the predictor's parameters depend on it.
        reporter: receives how many layers a budget in parameters is.

    Raises:
        PolicyError: no layer fits in the budget, or the chain cannot train what is asked for (`plan_chain`).
        ModelError: an unknown detector.
    """
    if not needs_chain(config):
        return config
    if in_parameters(config):
        config = replace(config, budget=_in_layers(config, classes, reporter))
    plan = plan_chain(detector := outline(config.detector, classes, config.architecture), select_layers(config))
    return replace(config, layers=planned_layers(detector, plan)) if config.layers else config


def _in_layers(config: FinetuneConfig, classes: int, reporter: Reporter) -> int:
    """A budget in parameters as one in layers, which is said."""
    budget = str(config.budget)
    spent = spend(config.detector, config.policy, budget, classes, config.architecture)
    amount = f"{budget} of the" if budget.endswith("%") else budget
    what = "1 layer" if spent.layers == 1 else f"{spent.layers} layers"
    reporter.say(f"Budget: {amount} parameters are {what} here ({spent.parameters:,} parameters).")
    return spent.layers


class Spent(NamedTuple):
    """Head layers that train, and their parameters."""

    layers: int
    parameters: int


def spend(name: str, policy: str, budget: str, classes: int, architecture: Architecture = OWN) -> Spent:
    """The most head layers, in the order of a policy, that are within a budget.

    Neck and backbone are not counted, as they are not in a budget of layers.

    Args:
        name: of a detector.
        policy: one that takes a budget.
        budget: in parameters, as `parse_budget` takes it.
        classes: number of classes of the predictor.
        architecture: size of neck and head.

    Raises:
        PolicyError: not even the smallest budget of the policy fits; the message names it.
        ModelError: an unknown detector.
    """
    detector, bound = outline(name, classes, architecture), parse_budget(budget)
    sizes = parameters_per_layer(detector)
    total = sum(sizes.values())

    def parameters(layers: int) -> int:
        plan = plan_chain(detector, select_in(name, policy, layers, architecture=architecture))
        return sum(sizes[layer] for layer in planned_layers(detector, plan))

    def fits(numbers: Sequence[int]) -> bool:
        return bound.allows(len(numbers), parameters(len(numbers)), total)

    most = most_layers(policy, detector.head_depth, fits)
    if most:
        return Spent(most, parameters(most))
    smallest = get_policy(policy).smallest
    least = parameters(smallest)
    raise PolicyError(
        f"a budget of {budget} is too small for policy {policy} on {name}: its smallest takes {least:,} parameters",
        hint=f"Give --budget {_in_thousands(least)} or more, or --budget {smallest} for layers.",
    )


def _in_thousands(parameters: int) -> str:
    """The smallest budget in whole thousands that allows so many."""
    return f"{-(-parameters // 1000)}k"
