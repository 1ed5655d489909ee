"""Which layers train. Pure tables: no torch, no detector.

A head has M layers, numbered 1 … M from its input to the predictor (layer M, which a new class always
needs). A budget B is the number of head layers that may train, predictor included.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from fewshot_cli.errors import PolicyError, closest


@dataclass(frozen=True, slots=True)
class Policy:
    """A rule from (M, B) to the head layers that train."""

    summary: str
    head_layers: Callable[[int, int], range | list[int]]
    takes_budget: bool = True
    whole_detector: bool = False


def _last(depth: int, budget: int) -> list[int]:
    return list(range(depth - budget + 1, depth + 1))


def _symmetric(depth: int, budget: int) -> list[int]:
    back = max(1, budget // 2)
    front = budget - back
    return [*range(1, front + 1), *range(depth - back + 1, depth + 1)]


def _first(depth: int, budget: int) -> list[int]:
    return [*range(1, budget), depth]


def _all(depth: int, _budget: int) -> list[int]:
    return list(range(1, depth + 1))


def _none(_depth: int, _budget: int) -> list[int]:
    return []


POLICIES: dict[str, Policy] = {
    "last": Policy("the last B layers: common practice", _last),
    "symmetric": Policy("⌈B/2⌉ first layers and ⌊B/2⌋ last ones (the predictor at least)", _symmetric),
    "first": Policy("the first B−1 layers and the predictor", _first),
    "all": Policy("the whole head", _all, takes_budget=False),
    "full": Policy("the whole detector: the baseline", _all, takes_budget=False, whole_detector=True),
    "none": Policy("nothing: the zero-shot control", _none, takes_budget=False),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """What trains in a detector.

    Attributes:
        head_layers: numbers of head layers, 1 … M.
        proposals: the layers that propose regions, in a two-stage detector.
        neck: the neck.
        backbone_stages: how many backbone stages, counted from the output side.
        policy, budget: what this follows from; the budget is None if the policy takes none.
    """

    head_layers: frozenset[int]
    proposals: bool = False
    neck: bool = False
    backbone_stages: int = 0
    policy: str
    budget: int | None


def get_policy(name: str) -> Policy:
    """The policy of that name; raises PolicyError with the valid ones."""
    if name not in POLICIES:
        raise PolicyError(f"unknown policy {name!r}", hint=closest(name, POLICIES))
    return POLICIES[name]


def select(
    policy: str,
    budget: int | None,
    depth: int,
    *,
    stages: int,
    neck: bool = False,
    backbone_stages: int = 0,
    proposals: bool | None = None,
    depths: dict[str, int] | None = None,
) -> Selection:
    """Spend a budget on a head of `depth` layers.

    Args:
        policy: a name in POLICIES.
        budget: head layers that may train, 1 … depth; ignored by `all`, `full` and `none`.
        depth: M, the number of head layers, predictor included.
        stages: the number of backbone stages that the detector has.
        neck: train the neck (FPN, PAFPN) too.
        backbone_stages: backbone stages to train, 0 … `stages`, counted from the output side.
        proposals: train the proposals of a two-stage detector; by default if the whole head trains.
        depths: M of every known detector, for the message when this head is too short.

    Returns:
        the selection; with budget = depth every policy that takes a budget is `all`.

    Raises:
        PolicyError: unknown policy, missing or impossible budget, more backbone stages than there are, or something
            to train beside policy `none`.
    """
    rule = get_policy(policy)
    if not 0 <= backbone_stages <= stages:
        raise PolicyError(
            f"--backbone-stages {backbone_stages} is not possible: this backbone has {stages} stages",
            hint=f"Give 0 (frozen) to {stages}.",
        )
    if rule.takes_budget:
        _check_budget(policy, budget, depth, depths or {})
    if policy == "none" and (neck or backbone_stages or proposals):
        raise PolicyError("policy none trains nothing: no neck, backbone or proposals", hint="Drop those options.")
    head_layers = frozenset(rule.head_layers(depth, budget or 0))
    return Selection(
        head_layers=head_layers,
        proposals=len(head_layers) == depth if proposals is None else proposals,
        neck=neck or rule.whole_detector,
        backbone_stages=stages if rule.whole_detector else backbone_stages,
        policy=policy,
        budget=budget if rule.takes_budget else None,
    )


def _check_budget(policy: str, budget: int | None, depth: int, depths: dict[str, int]) -> None:
    smallest = 2 if policy == "symmetric" else 1
    needed = max(smallest, budget or 0)
    able = [name for name, layers in depths.items() if layers >= needed]
    elsewhere = f" It would work with: {', '.join(able)}." if able and needed > depth else ""
    possible = f"--budget {smallest} to {depth} here" if smallest <= depth else "no budget on this head"
    hint = f"Policy {policy} takes {possible}.{elsewhere}"
    if budget is None:
        raise PolicyError(f"policy {policy} needs a budget", hint=hint)
    if budget < smallest or budget > depth:
        raise PolicyError(
            f"a budget of {budget} is not possible with policy {policy}: this head has M = {depth} layers",
            hint=hint,
        )


DEFAULT_BUDGET = 3


def default_budget(policy: str, depth: int) -> int | None:
    """The budget where none is given: DEFAULT_BUDGET, at most `depth`; None for policies that take no budget.

    Raises:
        PolicyError: unknown policy.
    """
    return min(DEFAULT_BUDGET, depth) if get_policy(policy).takes_budget else None
