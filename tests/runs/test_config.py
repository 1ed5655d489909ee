"""The configuration of a fine-tune: what it takes, from whom, and how it is recorded."""

from __future__ import annotations

import json
from typing import Any

import pytest

from fewshot_cli.augmentation.config import OPERATIONS, Augmentation, Variants
from fewshot_cli.errors import ConfigError, PolicyError
from fewshot_cli.policies import default_budget
from fewshot_cli.progress import SilentReporter
from fewshot_cli.runs.config import FinetuneConfig
from fewshot_cli.runs.trainable import implied_policy, with_budget


class Heard(SilentReporter):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


def test_json_comes_back_to_the_same_configuration() -> None:
    """to_json and from_json are inverse, through real JSON, for the defaults and for odd values."""
    odd = FinetuneConfig(data="x", ops=(), budget=2, train_neck=True, lr=1e-4, scale=(1, 2), threads=3)
    named = FinetuneConfig(data="x", policy="custom", layers=("neck", "head.4"))
    for config in (FinetuneConfig(data="x"), odd, named, FinetuneConfig(data="x", budget="1.5M")):
        assert config == FinetuneConfig.from_json(json.loads(json.dumps(config.to_json())))


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "a word for a number": ({"iterations": "abc"}, "iterations is 'abc'"),
    "half a thread": ({"threads": 0.5}, "threads is 0.5"),
    "zoom the wrong way round": ({"scale": (2, 1)}, "scale is (2, 1): give the smallest and the largest zoom"),
    "zoom without end": ({"scale": (1, float("inf"))}, "scale is (1, inf)"),
    "half a layer": ({"budget": 2.5}, "budget is 2.5: give an integer or a text"),
    "parameters without a unit": (
        {"budget": "2.5"},
        "budget is '2.5': give a number of head layers (3), of parameters",
    ),
    "one fold": ({"cross_validate": 1}, "cross_validate is 1: give 2 folds or more, or 0 for no cross-validation"),
    "a schedule nearly": ({"schedule": "cosin"}, "schedule is 'cosin': Did you mean cosine?"),
    "steps in the wrong order": (
        {"schedule": "steps:0.8,0.6"},
        "give shares of the run between 0 and 1 in increasing order, as in steps:0.6,0.85",
    ),
    "a plateau of nothing": (
        {"schedule": "plateau", "eval_every": 0},
        "schedule plateau with eval_every 0: it follows the training loss between evaluations",
    ),
    "an operation nearly": (
        {"ops": "flip,rotato"},
        "unknown operation 'rotato'. Did you mean rotate? Valid: positive,",
    ),
}
"""What the fields are checked for is in tests/test_settings.py; these are this configuration's own rules."""


@pytest.mark.parametrize(("options", "said"), WRONG.values(), ids=list(WRONG))
def test_a_wrong_option_is_named(options: dict[str, Any], said: str) -> None:
    """From the API as from a file: a configuration error that names the option and shows the value."""
    for build in (lambda every: FinetuneConfig(**every), FinetuneConfig.from_json):
        with pytest.raises(ConfigError) as raised:
            build({"data": "x", **options})
        assert said in raised.value.message


def test_every_problem_is_told_at_once() -> None:
    """Unknown names, wrong types and wrong values of fields of its own and inherited ones, in one message."""
    with pytest.raises(ConfigError) as raised:
        FinetuneConfig.from_json({"data": "x", "itterations": 3, "flip": 2, "lr": "high", "ops": "turn"})
    assert all(word in raised.value.message for word in ("'itterations'", "flip is 2", "lr is 'high'", "'turn'"))
    assert str(raised.value.hint).startswith("Did you mean iterations?")
    with pytest.raises(ConfigError, match="data is missing"):
        FinetuneConfig.from_json({})


def test_operations_are_kept_once_and_in_order() -> None:
    """However they are given: the order of application is fixed."""
    for given in (("color", "flip"), ["flip", "color", "flip"], "color, flip"):
        assert ("flip", "color") == Augmentation(ops=given).ops  # type: ignore[arg-type]
    assert OPERATIONS == Augmentation(ops=reversed_operations()).ops


def reversed_operations() -> tuple[str, ...]:
    return tuple(reversed(OPERATIONS))


def test_the_augmentation_of_a_fine_tune_is_that_of_its_variants() -> None:
    """Its fields are declared once; `augmentation` hands on exactly them."""
    given: dict[str, Any] = {"flip": 0.25, "scale": (0.5, 1.5), "ops": ("flip", "scale")}
    expected = Augmentation(**given)
    assert (
        expected == FinetuneConfig(data="x", copies=2, **given).augmentation == Variants(copies=2, **given).augmentation
    )
    assert {"flip": 0.25, "scale": (0.5, 1.5)} == expected.to_json()


def test_the_default_budget() -> None:
    """Three layers, or as many as the head has; none for policies that take no budget; said if fewer than three."""
    for policy, depth, budget in [
        ("symmetric", 5, 3),
        ("last", 4, 3),
        ("first", 3, 3),
        ("last", 2, 2),
        ("symmetric", 1, 1),
        ("all", 5, None),
        ("none", 1, None),
    ]:
        heard = Heard()
        assert budget == default_budget(policy, depth), (policy, depth)
        assert budget == with_budget(FinetuneConfig(data="x", policy=policy), depth, heard).budget, (policy, depth)
        said = f"Budget: {budget} instead of 3, because the head has no more layers."
        assert ([said] if budget in (1, 2) else []) == heard.lines, (policy, depth)


def test_a_budget_is_kept_as_layers_or_as_typed() -> None:
    """From the command line and from files: "3" is 3; parameters and shares stay texts until the detector is known."""
    given = (3, "3", " 60k ", "5%", "auto", None)
    assert [3, 3, "60k", "5%", "auto", None] == [FinetuneConfig(data="x", budget=budget).budget for budget in given]


def test_policy_auto_has_no_bound_unless_one_is_given() -> None:
    """A bound in layers or parameters stays."""
    for given, kept in ((None, "auto"), ("auto", "auto"), (2, 2), ("60k", "60k")):
        config = FinetuneConfig(data="x", policy="auto", budget=given)  # type: ignore[arg-type]
        assert kept == with_budget(config, 4, Heard()).budget


def test_layers_imply_policy_custom() -> None:
    """Unless a policy is named; candidates imply auto, a budget symmetric, whatever it is, and nothing the default."""
    assert "custom" == implied_policy({"layers": "head.1"}) == implied_policy({"layers": ["head.1"], "policy": None})
    assert "last" == implied_policy({"layers": "head.1", "policy": "last"})
    assert "symmetric" == implied_policy({"budget": 2}) == implied_policy({"train_neck": True, "layers": ""})
    assert "full" == implied_policy({}) == implied_policy({"layers": "", "budget": None})
    assert "none" == implied_policy({}, default="none")
    assert "auto" == implied_policy({"candidates": "none,all", "budget": 2})
    assert "symmetric" == implied_policy({"budget": 0, "candidates": ""})


def test_a_given_budget_stays_and_an_unknown_policy_is_told() -> None:
    """Whether the head can spend a given budget is for the selection to check."""
    assert 9 == with_budget(FinetuneConfig(data="x", budget=9), 4, Heard()).budget
    with pytest.raises(PolicyError, match="unknown policy 'symetric'"):
        with_budget(FinetuneConfig(data="x", policy="symetric"), 4, Heard())
