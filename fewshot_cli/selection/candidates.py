"""What policy `auto` compares: `none`, every policy at every budget that the head allows, `all`, and `full`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from fewshot_cli.detectors.chain import Detector
from fewshot_cli.errors import PolicyError
from fewshot_cli.policies import AUTO, head_setups, parse_budget
from fewshot_cli.runs.config import FinetuneConfig
from fewshot_cli.runs.trainable import implied_policy, select_layers
from fewshot_cli.training.plan import parameters_per_layer, plan_chain, planned_layers
from fewshot_cli.training.rates import BACKBONE_SHARE


@dataclass(frozen=True, slots=True)
class Candidate:
    """One setup that policy `auto` may choose.

    Attributes:
        policy, budget, backbone_lr: as in FinetuneConfig.
        layers: names of those that train, in chain order.
        cut: index of the first of them in the chain; the number of layers if none trains.
        parameters: how many train.
    """

    policy: str
    budget: int | None
    backbone_lr: float | None
    layers: tuple[str, ...]
    cut: int
    parameters: int

    def __str__(self) -> str:
        name = f"{self.policy} {self.budget}" if self.budget else self.policy
        return f"{name}, backbone rate {self.backbone_lr:g}" if self.policy == "full" else name

    @property
    def in_head(self) -> bool:
        """Whether its budget is spent on the head."""
        return self.policy not in ("none", "full")

    def configure(self, config: FinetuneConfig) -> FinetuneConfig:
        """The configuration with what this candidate trains."""
        chosen = replace(config, policy=self.policy, budget=self.budget, backbone_lr=self.backbone_lr)
        return replace(chosen, train_neck=False, backbone_stages=0) if self.policy == "none" else chosen


def list_candidates(config: FinetuneConfig, detector: Detector) -> list[Candidate]:
    """Everything that a configuration with policy `auto` allows, fewest parameters first.

    Args:
        config: its budget is an upper bound, its `candidates` name the policies to compare.
        detector: with the classes of the data set.

    Raises:
        PolicyError: nothing is left to choose from.
    """
    bound = parse_budget(AUTO if config.budget is None else config.budget)
    sizes = parameters_per_layer(detector)
    head = [layer.name for layer in detector.layers if layer.part == "head"]

    def fits(numbers: Sequence[int]) -> bool:
        return bound.allows(len(numbers), sum(sizes[head[n - 1]] for n in numbers), sum(sizes.values()))

    setups = [("none", None), *head_setups(detector.head_depth, fits)]
    found = [_candidate(config, detector, policy, budget, config.backbone_lr) for policy, budget in setups]
    # A budget in layers is one of head layers, which the whole detector exceeds.
    if bound.layers is None:
        rates = [config.backbone_lr] if config.backbone_lr else sorted(set(BACKBONE_SHARE.values()))
        whole = [_candidate(config, detector, "full", None, rate) for rate in rates]
        found += [one for one in whole if bound.allows(0, one.parameters, sum(sizes.values()))]
    named = [one for one in found if not config.candidates or one.policy in config.candidates]
    if len(named) < 2:
        raise PolicyError(
            f"policy auto has {len(named)} candidate{'' if len(named) == 1 else 's'}: nothing to choose from",
            hint="Name more policies with --candidates, or give a larger --budget.",
        )
    return sorted(named, key=lambda one: one.parameters)


def default_of(candidates: Sequence[Candidate], backbone_lr: float) -> Candidate:
    """What would be trained without a comparison, or where the bounds rule that out, what trains the most layers.

    Args:
        candidates: one or more.
        backbone_lr: the share of the learning rate for neck and backbone that follows from the classes.
    """
    whole = [one for one in candidates if one.policy == FinetuneConfig.policy]
    if whole:
        return min(whole, key=lambda one: abs((one.backbone_lr or backbone_lr) - backbone_lr))
    # Of as many layers symmetric, as where a budget is given without a policy.
    usual = implied_policy({"budget": 1})
    return max(candidates, key=lambda one: (len(one.layers), one.policy == usual))


def _candidate(
    config: FinetuneConfig, detector: Detector, policy: str, budget: int | None, backbone_lr: float | None
) -> Candidate:
    """A candidate with the layers that it trains, as the rest of the configuration has it."""
    setup = Candidate(policy, budget, backbone_lr, layers=(), cut=0, parameters=0)
    plan = plan_chain(detector, select_layers(setup.configure(config)))
    layers, sizes = planned_layers(detector, plan), parameters_per_layer(detector)
    return replace(setup, layers=layers, cut=plan.cut, parameters=sum(sizes[name] for name in layers))
