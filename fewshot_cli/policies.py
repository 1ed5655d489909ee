"""Which layers train. Pure tables: no torch, no detector.

A head has M layers, numbered 1 … M from its input to the predictor (layer M, which a new class always
needs). A budget B is the number of head layers that may train, predictor included. It may also be given in parameters
(`Budget`); then a policy takes layers in its order as long as they fit.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import takewhile

from fewshot_cli.errors import PolicyError, closest

AUTO, CUSTOM = "auto", "custom"
"""Policies without a rule: `auto` is one that a search on the shots chooses, `custom` the layers that are named."""


@dataclass(frozen=True, slots=True)
class Policy:
    """A rule from (M, B) to the head layers that train.

    Attributes:
        summary: for lists.
        head_layers: the rule; None for AUTO and CUSTOM.
        takes_budget: whether B counts.
        smallest: the smallest B.
        whole_detector: neck and backbone train too.
    """

    summary: str
    head_layers: Callable[[int, int], list[int]] | None
    takes_budget: bool = True
    smallest: int = 1
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
    "symmetric": Policy("⌈B/2⌉ first layers and ⌊B/2⌋ last ones (the predictor at least)", _symmetric, smallest=2),
    "first": Policy("the first B−1 layers and the predictor", _first),
    "all": Policy("the whole head", _all, takes_budget=False),
    "full": Policy("the whole detector: the baseline", _all, takes_budget=False, whole_detector=True),
    "none": Policy("nothing: the control without training", _none, takes_budget=False),
    CUSTOM: Policy("the layers that --layers names", None, takes_budget=False),
    AUTO: Policy("the one that cross-validation on the shots finds best", None, takes_budget=False),
}
"""To add a policy, write its rule as a function of M and B, and add a line. A rule returns numbers of head layers, the
predictor M among them, at most B for every B from `smallest` to M, and those at B are among those at B + 1. The command
line, sweeps and policy `auto` then take it by its name."""


@dataclass(frozen=True, slots=True)
class Budget:
    """How much may train. At most one field is set; with none of them there is no bound (`auto`).

    Attributes:
        layers: of the head, predictor included.
        parameters: of the layers that train.
        share: of all parameters of the detector, 0 to 1.
    """

    layers: int | None = None
    parameters: int | None = None
    share: Decimal | None = None

    def allows(self, layers: int, parameters: int, total: int) -> bool:
        """Whether so many layers with so many of all `total` parameters are within the budget."""
        share = None if self.share is None else self.share * total
        spent = ((layers, self.layers), (parameters, self.parameters), (parameters, share))
        return all(bound is None or count <= bound for count, bound in spent)


_LAYERS = re.compile(r"[+-]?[0-9]{1,9}")
_PARAMETERS = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)([kKmM%])")
_UNITS = {"k": 1_000, "m": 1_000_000}


def parse_budget(given: int | str) -> Budget:
    """A budget as it is typed: `3` layers, `60k` or `1.5M` parameters, `5%` of all parameters, `auto`.

    Raises:
        ValueError: it is none of these, saying what would be right; whether a head has so many layers is not checked.
    """
    text = str(given).strip()
    if text == AUTO:
        return Budget()
    if isinstance(given, int) or _LAYERS.fullmatch(text):
        return Budget(layers=int(text))
    found = _PARAMETERS.fullmatch(text)
    number, unit = (Decimal(found[1]), found[2].casefold()) if found else (Decimal(0), "")
    if unit in _UNITS:
        return Budget(parameters=int(number * _UNITS[unit]))
    if unit == "%" and number <= 100:
        return Budget(share=number / 100)
    raise ValueError(
        f"give a number of head layers (3), of parameters (60k or 1.5M), a share of all parameters (5%), or {AUTO}"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """What trains in a detector.

    Attributes:
        head_layers: numbers of head layers, 1 … M.
        layers: names in the chain: exactly these train, whatever the other fields say; None: the other fields count.
        proposals: the layers that propose regions, in a two-stage detector.
        neck: the neck.
        backbone_stages: how many backbone stages, counted from the output side.
        freeze_first: how many convolutions, in input order, stay frozen with every parameter that the input meets
            before the next one; None: nothing is asked for. Policy `full` is narrowed to the rest; any other must train
            nothing of it.
        policy, budget: what this follows from; the budget is None if the policy takes none.
    """

    head_layers: frozenset[int] = frozenset()
    layers: frozenset[str] | None = None
    proposals: bool = False
    neck: bool = False
    backbone_stages: int = 0
    freeze_first: int | None = None
    policy: str
    budget: int | None


def get_policy(name: str) -> Policy:
    """The policy of that name; raises PolicyError with the valid ones."""
    if name not in POLICIES:
        raise PolicyError(f"unknown policy {name!r}", hint=closest(name, POLICIES))
    return POLICIES[name]


def select(
    policy: str,
    budget: int | str | None,
    depth: int,
    *,
    layers: Sequence[str] = (),
    stages: int,
    neck: bool = False,
    backbone_stages: int = 0,
    proposals: bool | None = None,
    freeze_first: int | None = None,
    depths: dict[str, int] | None = None,
) -> Selection:
    """Spend a budget on a head of `depth` layers.

    Args:
        policy: a name in POLICIES.
        budget: head layers that may train, 1 … depth; ignored by `all`, `full` and `none`.
        depth: M, the number of head layers, predictor included.
        layers: for `custom`: names of the layers that train.
        stages: the number of backbone stages that the detector has.
        neck: train the neck (FPN, PAFPN) too.
        backbone_stages: backbone stages to train, 0 … `stages`, counted from the output side.
        proposals: train the proposals of a two-stage detector; by default if the whole head trains.
        freeze_first: convolutions that stay frozen; how many there are is not checked.
        depths: M of every known detector, for the message when this head is too short.

    Returns:
        the selection; with budget = depth every policy that takes a budget is `all`.

    Raises:
        PolicyError: unknown policy, `auto` (it has to be found first), missing or impossible budget, a budget in
            parameters (`training.outline.resolve` makes layers of it), more backbone stages than there are, something
            to train beside policy `none`, layers with another policy than `custom`, or anything else with it.
    """
    rule = get_policy(policy)
    if (policy == CUSTOM) != bool(layers):
        raise _layers_misfit(policy)
    if policy == CUSTOM:
        if budget is not None or neck or backbone_stages or proposals:
            raise PolicyError(
                "--layers names everything that trains: --budget, --train-neck and --backbone-stages do not go with it",
                hint="Drop those options; --layers takes layers of the neck and the backbone too.",
            )
        return Selection(layers=frozenset(layers), freeze_first=freeze_first, policy=policy, budget=None)
    if policy == AUTO and freeze_first is not None:
        raise PolicyError(
            f"--freeze-first does not go with policy {AUTO}, which chooses what trains",
            hint=f"Drop one of them: --freeze-first {freeze_first} alone trains everything behind these convolutions.",
        )
    if rule.head_layers is None:
        raise PolicyError(
            f"what policy {policy} trains is found on the shots, not before",
            hint="Fine-tune with it, or name another policy here.",
        )
    if not 0 <= backbone_stages <= stages:
        raise PolicyError(
            f"--backbone-stages {backbone_stages} is not possible: this backbone has {stages} stages",
            hint=f"Give 0 (frozen) to {stages}.",
        )
    if budget == AUTO:
        raise PolicyError(f"--budget {AUTO} does not go with policy {policy}", hint=f"Give --policy {AUTO}.")
    spent = _spendable(policy, budget, depth, depths or {}) if rule.takes_budget else None
    if policy == "none" and (neck or backbone_stages or proposals):
        raise PolicyError("policy none trains nothing: no neck, backbone or proposals", hint="Drop those options.")
    head_layers = frozenset(rule.head_layers(depth, spent or 0))
    return Selection(
        head_layers=head_layers,
        proposals=len(head_layers) == depth if proposals is None else proposals,
        neck=neck or rule.whole_detector,
        backbone_stages=stages if rule.whole_detector else backbone_stages,
        freeze_first=freeze_first,
        policy=policy,
        budget=spent,
    )


def _layers_misfit(policy: str) -> PolicyError:
    if policy == CUSTOM:
        return PolicyError(
            f"policy {CUSTOM} needs layers",
            hint="Give --layers head.1,head.4, for example; `fsod inspect-layers DETECTOR` lists the names.",
        )
    return PolicyError(
        f"--layers does not go with policy {policy}", hint="Drop one of them: --layers alone trains exactly its layers."
    )


def _spendable(policy: str, budget: int | str | None, depth: int, depths: dict[str, int]) -> int:
    """The budget, if the policy can spend it on a head of that depth."""
    if isinstance(budget, str):
        raise PolicyError(f"a budget of {budget} is not in layers", hint="Give a number of head layers.")
    smallest = POLICIES[policy].smallest
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
    return budget


DEFAULT_BUDGET = 3


def default_budget(policy: str, depth: int) -> int | None:
    """The budget where none is given: DEFAULT_BUDGET, at most `depth`; None for policies that take no budget.

    Raises:
        PolicyError: unknown policy.
    """
    return min(DEFAULT_BUDGET, depth) if get_policy(policy).takes_budget else None


Fits = Callable[[Sequence[int]], bool]
"""Whether head layers, given by their numbers, are within a budget; if some layers are, so is each part of them."""


def most_layers(policy: str, depth: int, fits: Fits) -> int:
    """The largest budget, in layers, at which everything that a policy trains in the head fits; 0 if nothing does.

    Args:
        policy: one that takes a budget. Its layers at B are among those at B + 1.
        depth: M.
        fits: the bound.
    """
    rule = get_policy(policy)
    assert rule.head_layers is not None
    nested = (rule.head_layers(depth, budget) for budget in range(rule.smallest, depth + 1))
    fitting = sum(1 for _ in takewhile(fits, nested))
    return rule.smallest - 1 + fitting if fitting else 0


def head_setups(depth: int, fits: Fits) -> list[tuple[str, int | None]]:
    """Every policy at every budget within the bound that trains different head layers: what a search has to compare.

    Where several policies train the same layers, the first of them in POLICIES is listed; a budget of all M layers is
    `all`. What trains outside the head, or nothing, is not listed.

    Args:
        depth: M.
        fits: the bound.

    Returns:
        policies with budgets, policy by policy, then `all` with None.
    """
    found: dict[frozenset[int], tuple[str, int | None]] = {}
    for name, rule in POLICIES.items():
        if rule.takes_budget and rule.head_layers:
            for budget in range(rule.smallest, min(most_layers(name, depth, fits), depth - 1) + 1):
                found.setdefault(frozenset(rule.head_layers(depth, budget)), (name, budget))
    whole: list[tuple[str, int | None]] = [("all", None)] if fits(_all(depth, 0)) else []
    return [*found.values(), *whole]


LONGEST_NAME = 60
"""Characters of the layers in the name of a folder."""


def short_name(
    policy: str, budget: int | str | None, layers: Sequence[str] = (), freeze_first: int | None = None
) -> str:
    """For the name of a folder: `symmetric3`, `full-freeze10`, `custom-head.1+head.4`; what trains differently has
    another name."""
    if freeze_first is not None:
        return f"{short_name(policy, budget, layers)}-freeze{freeze_first}"
    if policy != CUSTOM:
        return f"{policy}{budget or ''}" if get_policy(policy).takes_budget else policy
    named = "+".join(layers)
    if len(named) > LONGEST_NAME:
        named = f"{layers[0]}+{len(layers) - 1}more-{hashlib.sha256(named.encode()).hexdigest()[:8]}"
    return f"{policy}-{named}"
