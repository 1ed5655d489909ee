"""Which layers train: the paper's table, and what holds for every head and budget."""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from fewshot_cli.errors import PolicyError
from fewshot_cli.policies import (
    POLICIES,
    Budget,
    Selection,
    get_policy,
    head_setups,
    most_layers,
    parse_budget,
    short_name,
)
from fewshot_cli.policies import select as select_from

STAGES = 5
"""Stages of the backbone, where their number does not matter."""
DEPTHS = {"deep": 5, "middle": 4, "shallow": 2, "single": 1}

NO_BUDGET_HERE = "Policy symmetric takes no budget on this head. It would work with: deep, middle, shallow."

TABLE = [
    # (M, policy, budget, layers that train); M = 5 is RetinaNet's head, M = 4 YOLOX's; M is the predictor.
    (5, "last", 1, {5}),
    (5, "last", 2, {4, 5}),
    (5, "last", 3, {3, 4, 5}),
    (5, "last", 4, {2, 3, 4, 5}),
    (5, "symmetric", 2, {1, 5}),
    (5, "symmetric", 3, {1, 2, 5}),
    (5, "symmetric", 4, {1, 2, 4, 5}),
    (5, "symmetric", 5, {1, 2, 3, 4, 5}),
    (5, "first", 1, {5}),
    (5, "first", 3, {1, 2, 5}),
    (4, "last", 1, {4}),
    (4, "last", 2, {3, 4}),
    (4, "last", 3, {2, 3, 4}),
    (4, "symmetric", 2, {1, 4}),
    (4, "symmetric", 3, {1, 2, 4}),
    (4, "symmetric", 4, {1, 2, 3, 4}),
    (4, "first", 2, {1, 4}),
    (4, "first", 4, {1, 2, 3, 4}),
]
BUDGETED = [name for name, policy in POLICIES.items() if policy.takes_budget]
policies, depths, budgets = st.sampled_from(BUDGETED), st.integers(1, 12), st.integers(-3, 99)


def can_spend(policy: str, depth: int, budget: int) -> bool:
    return (2 if policy == "symmetric" else 1) <= budget <= depth


def select(policy: str, budget: int | None, depth: int, **more: Any) -> Selection:
    return select_from(policy, budget, depth, **{"stages": STAGES, **more})


def test_the_table_of_the_paper() -> None:
    """A policy and a budget train the layers that the paper's table and the design say."""
    for depth, policy, budget, layers in TABLE:
        assert layers == select(policy, budget, depth).head_layers, (policy, budget, depth)


@given(policies, depths, st.integers(1, 12))
def test_a_budget_is_spent_in_full_on_existing_layers(policy: str, depth: int, budget: int) -> None:
    """As many layers train as the budget allows, the predictor among them, and a budget of M trains all."""
    assume(can_spend(policy, depth, budget))
    chosen = select(policy, budget, depth).head_layers
    assert budget == len(chosen)
    assert depth in chosen
    assert chosen <= set(range(1, depth + 1))
    if budget == depth:
        assert select("all", None, depth).head_layers == chosen


@given(st.integers(2, 12), st.data())
def test_symmetric_favours_the_front(depth: int, data: st.DataObject) -> None:
    """⌈B/2⌉ layers train from the input side, never more than leave the predictor; the rest ends at the predictor."""
    budget = data.draw(st.integers(2, depth))
    chosen = select("symmetric", budget, depth).head_layers
    front = min(-(-budget // 2), depth - 1)
    assert set(range(1, front + 1)) | set(range(depth - (budget - front) + 1, depth + 1)) == chosen


@given(policies, depths, budgets)
def test_an_impossible_budget_names_the_depth(policy: str, depth: int, budget: int) -> None:
    """Zero, negative, more than M, or one for both ends: the error names the policy, the budget and M."""
    assume(not can_spend(policy, depth, budget))
    with pytest.raises(PolicyError) as caught:
        select(policy, budget, depth)
    assert f"budget of {budget} " in caught.value.message
    assert f"policy {policy}" in caught.value.message
    assert f"M = {depth} " in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize(
    ("policy", "depth", "budget", "hint"),
    [
        ("last", 4, 5, "Policy last takes --budget 1 to 4 here. It would work with: deep."),
        ("last", 2, 4, "Policy last takes --budget 1 to 2 here. It would work with: deep, middle."),
        ("symmetric", 1, 2, NO_BUDGET_HERE),
        ("symmetric", 1, 1, NO_BUDGET_HERE),
        ("symmetric", 1, None, NO_BUDGET_HERE),
        ("symmetric", 4, 1, "Policy symmetric takes --budget 2 to 4 here."),
        ("last", 4, 0, "Policy last takes --budget 1 to 4 here."),
        ("last", 4, 6, "Policy last takes --budget 1 to 4 here."),
        ("first", 4, None, "Policy first takes --budget 1 to 4 here."),
    ],
)
def test_the_hint_names_what_would_work(policy: str, depth: int, budget: int | None, hint: str) -> None:
    """The hint says which budgets are possible here, and names other detectors only where this head is too short."""
    with pytest.raises(PolicyError) as caught:
        select(policy, budget, depth, depths=DEPTHS)
    assert hint == caught.value.hint


def test_a_missing_budget_is_asked_for() -> None:
    """A policy that spends a budget says so when there is none."""
    for policy in BUDGETED:
        with pytest.raises(PolicyError, match=f"policy {policy} needs a budget"):
            select(policy, None, 5)


def test_an_unknown_policy_lists_the_valid_ones() -> None:
    """A misspelt policy gets the closest name and the whole list."""
    with pytest.raises(PolicyError, match="unknown policy 'symetric'") as caught:
        get_policy("symetric")
    assert caught.value.hint == "Did you mean symmetric? Valid: last, symmetric, first, all, full, none, custom, auto."


@given(st.none() | budgets)
def test_policies_without_a_budget_ignore_it(budget: int | None) -> None:
    """`all`, `full` and `none` mean the same whatever the budget, and record none."""
    whole = select("all", budget, 4)
    assert ({1, 2, 3, 4}, False, 0, None) == (whole.head_layers, whole.neck, whole.backbone_stages, whole.budget)
    full = select("full", budget, 4)
    assert ({1, 2, 3, 4}, True, STAGES) == (full.head_layers, full.neck, full.backbone_stages)
    none = select("none", budget, 4)
    assert (set(), False, 0) == (none.head_layers, none.neck, none.backbone_stages)


def test_neck_and_backbone_are_chosen_beside_the_head() -> None:
    """Neck and backbone stages add to a policy and change nothing in the head."""
    selection = select("symmetric", 2, 5, neck=True, backbone_stages=2)
    assert ({1, 5}, True, 2) == (selection.head_layers, selection.neck, selection.backbone_stages)
    assert ("symmetric", 2) == (selection.policy, selection.budget)


@given(st.integers(1, 6))
def test_the_stages_are_the_detectors_own(stages: int) -> None:
    """`full` trains all stages that the detector has; more, or fewer than none, is an error with their number."""
    assert stages == select("full", None, 5, stages=stages).backbone_stages
    assert stages == select("last", 1, 5, stages=stages, backbone_stages=stages).backbone_stages
    for wrong in (-1, stages + 1):
        with pytest.raises(PolicyError, match=f"--backbone-stages {wrong} .* this backbone has {stages} ") as caught:
            select("last", 1, 5, stages=stages, backbone_stages=wrong)
        assert f"Give 0 (frozen) to {stages}." == caught.value.hint


def test_proposals_train_with_the_whole_head() -> None:
    """The proposals of a two-stage detector train when every head layer does, unless told otherwise."""
    whole = [("last", 5), ("all", None), ("full", None)]
    part = [("last", 1), ("last", 4), ("symmetric", 3), ("none", None)]
    assert [True] * 3 == [select(policy, budget, 5).proposals for policy, budget in whole]
    assert [False] * 4 == [select(policy, budget, 5).proposals for policy, budget in part]
    for policy, budget in whole + part[:3]:
        assert select(policy, budget, 5, proposals=True).proposals, policy
        assert not select(policy, budget, 5, proposals=False).proposals, policy


@pytest.mark.parametrize("extra", [{"neck": True}, {"backbone_stages": 1}, {"proposals": True}])
def test_nothing_trains_beside_none(extra: dict[str, Any]) -> None:
    """The zero-shot control has no neck, backbone or proposals to train."""
    with pytest.raises(PolicyError, match="policy none trains nothing"):
        select("none", None, 5, **extra)


# --- budgets in parameters ---

sizes = st.lists(st.integers(1, 1000), min_size=2, max_size=9)
"""Parameters of each head layer."""


def spent(policy: str, budget: int, of: Sequence[int]) -> int:
    """Parameters of what a policy trains in a head of such layers."""
    return sum(of[number - 1] for number in select(policy, budget, len(of)).head_layers)


@pytest.mark.parametrize(
    ("given", "budget"),
    [
        (3, Budget(layers=3)),
        ("3", Budget(layers=3)),
        (" -1 ", Budget(layers=-1)),
        ("60k", Budget(parameters=60_000)),
        ("60K", Budget(parameters=60_000)),
        ("1.5M", Budget(parameters=1_500_000)),
        ("0.0005k", Budget(parameters=0)),
        ("5%", Budget(share=Decimal("0.05"))),
        ("0.29%", Budget(share=Decimal("0.0029"))),
        ("auto", Budget()),
    ],
)
def test_a_budget_is_layers_parameters_a_share_or_no_bound(given: int | str, budget: Budget) -> None:
    """A bare number counts layers; k, M and % count parameters."""
    assert budget == parse_budget(given)


@pytest.mark.parametrize("given", ["", "k", "2.5", "60p", "60 k", "-60k", "101%", "1e3k", "١k", "9" * 5000, "Auto"])
def test_another_budget_is_wrong(given: str) -> None:
    """The message says what would be right."""
    with pytest.raises(ValueError, match=r"give a number of head layers \(3\), of parameters \(60k or 1.5M\), a share"):
        parse_budget(given)


@given(st.integers(0, 10_000), st.integers(1, 10_000), st.integers(0, 10_000))
def test_a_share_is_exact(hundredths: int, total: int, parameters: int) -> None:
    """So many parameters are within a percentage of the total exactly if the whole numbers say so."""
    budget = parse_budget(f"{hundredths // 100}.{hundredths % 100:02}%")
    assert (parameters * 10_000 <= hundredths * total) == budget.allows(1, parameters, total)


@given(policies, sizes, st.integers(0, 9000))
def test_a_budget_in_parameters_takes_as_many_layers_as_fit(policy: str, of: list[int], bound: int) -> None:
    """The layers are within the bound; one more layer, in the order of the policy, would not be."""
    depth, smallest = len(of), get_policy(policy).smallest
    most = most_layers(policy, depth, lambda numbers: sum(of[number - 1] for number in numbers) <= bound)
    assert 0 == most or spent(policy, most, of) <= bound
    if most < depth:
        assert spent(policy, max(most + 1, smallest), of) > bound


@given(policies, depths)
def test_layers_are_taken_in_a_fixed_order(policy: str, depth: int) -> None:
    """What trains at a budget trains at every larger one."""
    sets = [select(policy, budget, depth).head_layers for budget in range(get_policy(policy).smallest, depth + 1)]
    assert all(small < large for small, large in itertools.pairwise(sets))


def test_the_search_compares_each_set_of_layers_once() -> None:
    """On YOLOX's four layers and RetinaNet's five: named by the first policy that gives them; all M layers are `all`."""
    four = [("last", 1), ("last", 2), ("last", 3), ("symmetric", 2), ("symmetric", 3), ("all", None)]
    assert four == head_setups(4, lambda numbers: True)
    five = [*(("last", n) for n in range(1, 5)), *(("symmetric", n) for n in range(2, 5)), ("first", 4), ("all", None)]
    assert five == head_setups(5, lambda numbers: True)
    assert [("all", None)] == head_setups(1, lambda numbers: True)
    assert [("last", 1), ("last", 2), ("symmetric", 2)] == head_setups(4, lambda numbers: len(numbers) <= 2)
    assert [] == head_setups(4, lambda numbers: False)


@given(sizes, st.integers(0, 9000))
def test_the_search_leaves_nothing_out(of: list[int], bound: int) -> None:
    """Every set of layers that a policy gives within the bound is compared, and nothing beyond it."""
    depth = len(of)
    every = {
        select(policy, budget, depth).head_layers
        for policy in BUDGETED
        for budget in range(get_policy(policy).smallest, depth + 1)
    }
    within = {numbers for numbers in every if sum(of[number - 1] for number in numbers) <= bound}
    found = head_setups(depth, lambda numbers: sum(of[number - 1] for number in numbers) <= bound)
    chosen = [select(policy, budget, depth).head_layers for policy, budget in found]
    assert within == set(chosen)
    assert len(within) == len(chosen)


def test_a_budget_that_is_not_in_layers_cannot_be_spent() -> None:
    """`auto` is for policy auto; parameters have to be made layers first."""
    for policy in ("last", "all", "none"):
        with pytest.raises(PolicyError, match=f"--budget auto does not go with policy {policy}") as caught:
            select(policy, "auto", 4)
        assert "Give --policy auto." == caught.value.hint
    with pytest.raises(PolicyError, match="a budget of 60k is not in layers"):
        select("last", "60k", 4)


# --- layers by name, and a policy to be found ---


def test_named_layers_are_all_that_trains() -> None:
    """Policy custom keeps the names, and takes nothing beside them."""
    selection = select("custom", None, 4, layers=["head.1", "neck"])
    assert Selection(layers=frozenset({"head.1", "neck"}), policy="custom", budget=None) == selection
    for beside in ({"neck": True}, {"backbone_stages": 1}, {"proposals": True}):
        with pytest.raises(PolicyError, match="--layers names everything that trains"):
            select("custom", None, 4, layers=["head.1"], **beside)
    with pytest.raises(PolicyError, match="--layers names everything that trains"):
        select("custom", "60k", 4, layers=["head.1"])


def test_layers_go_with_policy_custom_alone() -> None:
    """Without layers it is nothing, and another policy chooses its own."""
    with pytest.raises(PolicyError, match="policy custom needs layers"):
        select("custom", None, 4)
    for policy in ("last", "none", "auto"):
        with pytest.raises(PolicyError, match=f"--layers does not go with policy {policy}"):
            select(policy, 1, 4, layers=["head.1"])


def test_what_auto_trains_is_not_known_before() -> None:
    """It is a name that is known, and no rule."""
    assert not get_policy("auto").takes_budget
    with pytest.raises(PolicyError, match="what policy auto trains is found on the shots"):
        select("auto", None, 4)


def test_names_of_folders_are_short_and_different() -> None:
    """Policy and budget; layers as they are, or the first of many with a hash of all."""
    assert "symmetric3" == short_name("symmetric", 3)
    assert ["full", "auto", "all"] == [short_name("full", None), short_name("auto", "60k"), short_name("all", 3)]
    assert "custom-head.1+head.4" == short_name("custom", None, ("head.1", "head.4"))
    many = [f"backbone.stage.{number}" for number in range(9)]
    long = {short_name("custom", None, many), short_name("custom", None, [*many[:-1], "neck"])}
    assert 2 == len(long)
    assert all(name.startswith("custom-backbone.stage.0+8more-") and len(name) < 60 for name in long)


def test_policies_are_pure() -> None:
    """Neither torch nor NumPy is imported with the table of policies, so that --help answers at once."""
    code = "import sys, fewshot_cli.policies; print({'torch', 'numpy', 'torchvision'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "set()" == done.stdout.strip()
