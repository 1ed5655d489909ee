"""Which layers train: the paper's table, and what holds for every head and budget."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

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
SPENDABLE = [
    (policy, depth, budget)
    for policy in BUDGETED
    for depth in range(1, 9)
    for budget in range(2 if policy == "symmetric" else 1, depth + 1)
]
IMPOSSIBLE = [
    *((policy, depth, budget) for policy in BUDGETED for depth in (1, 4, 8) for budget in (-1, 0, depth + 1, 99)),
    *(("symmetric", depth, 1) for depth in range(1, 9)),
]


def select(policy: str, budget: int | None, depth: int, **more: Any) -> Selection:
    return select_from(policy, budget, depth, **{"stages": STAGES, **more})


@pytest.mark.parametrize(("depth", "policy", "budget", "layers"), TABLE)
def test_the_table_of_the_paper(depth: int, policy: str, budget: int, layers: set[int]) -> None:
    """A policy and a budget train the layers that the paper's table and the design say."""
    assert layers == select(policy, budget, depth).head_layers


@pytest.mark.parametrize(("policy", "depth", "budget"), SPENDABLE)
def test_a_budget_is_spent_in_full_on_existing_layers(policy: str, depth: int, budget: int) -> None:
    """As many layers train as the budget allows, the predictor among them, and a budget of M trains all."""
    chosen = select(policy, budget, depth).head_layers
    assert budget == len(chosen)
    assert depth in chosen
    assert chosen <= set(range(1, depth + 1))
    if budget == depth:
        assert select("all", None, depth).head_layers == chosen


@pytest.mark.parametrize(("policy", "depth", "budget"), [case for case in SPENDABLE if case[0] == "symmetric"])
def test_symmetric_favours_the_front(policy: str, depth: int, budget: int) -> None:
    """⌈B/2⌉ layers train from the input side, never more than leave the predictor; the rest ends at the predictor."""
    chosen = select(policy, budget, depth).head_layers
    front = min(-(-budget // 2), depth - 1)
    assert set(range(1, front + 1)) | set(range(depth - (budget - front) + 1, depth + 1)) == chosen


@pytest.mark.parametrize(("policy", "depth", "budget"), IMPOSSIBLE)
def test_an_impossible_budget_names_the_depth(policy: str, depth: int, budget: int) -> None:
    """Zero, negative, more than M, or one for both ends: the error names the policy, the budget and M."""
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


@pytest.mark.parametrize("policy", BUDGETED)
def test_a_missing_budget_is_asked_for(policy: str) -> None:
    """A policy that spends a budget says so when there is none."""
    with pytest.raises(PolicyError, match=f"policy {policy} needs a budget"):
        select(policy, None, 5)


def test_an_unknown_policy_lists_the_valid_ones() -> None:
    """A misspelt policy gets the closest name and the whole list."""
    with pytest.raises(PolicyError, match="unknown policy 'symetric'") as caught:
        get_policy("symetric")
    assert caught.value.hint == "Did you mean symmetric? Valid: last, symmetric, first, all, full, none."


@pytest.mark.parametrize("budget", [None, 0, 3, 99])
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


@pytest.mark.parametrize("stages", [1, 3, 5])
def test_the_stages_are_the_detectors_own(stages: int) -> None:
    """`full` trains all stages that the detector has; more, or fewer than none, is an error with their number."""
    assert stages == select("full", None, 5, stages=stages).backbone_stages
    assert stages == select("last", 1, 5, stages=stages, backbone_stages=stages).backbone_stages
    for wrong in (-1, stages + 1):
        with pytest.raises(PolicyError, match=f"--backbone-stages {wrong} .* this backbone has {stages} ") as caught:
            select("last", 1, 5, stages=stages, backbone_stages=wrong)
        assert f"Give 0 (frozen) to {stages}." == caught.value.hint


@pytest.mark.parametrize(
    ("policy", "budget", "proposals"),
    [("last", 1, False), ("last", 4, False), ("symmetric", 3, False), ("last", 5, True), ("all", None, True),
     ("full", None, True), ("none", None, False)],
)  # fmt: skip
def test_proposals_train_with_the_whole_head(policy: str, budget: int | None, proposals: bool) -> None:
    """The proposals of a two-stage detector train when every head layer does, unless told otherwise."""
    assert proposals == select(policy, budget, 5).proposals
    if policy != "none":
        assert select(policy, budget, 5, proposals=True).proposals
        assert not select(policy, budget, 5, proposals=False).proposals


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
