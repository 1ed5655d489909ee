"""Which layers train: the paper's table, and what holds for every head and budget."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from fewshot_cli.errors import PolicyError
from fewshot_cli.policies import POLICIES, Selection, get_policy
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
    assert caught.value.hint == "Did you mean symmetric? Valid: last, symmetric, first, all, full, none."


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


def test_policies_are_pure() -> None:
    """Neither torch nor NumPy is imported with the table of policies, so that --help answers at once."""
    code = "import sys, fewshot_cli.policies; print({'torch', 'numpy', 'torchvision'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "set()" == done.stdout.strip()
