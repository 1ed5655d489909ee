"""Budgets in parameters, against layers that are counted on a built detector, and named layers in order."""

from __future__ import annotations

import pytest

from fewshot_cli.detectors.registry import DETECTORS, build_detector
from fewshot_cli.errors import ModelError, PolicyError
from fewshot_cli.policies import POLICIES, select
from fewshot_cli.progress import SilentReporter
from fewshot_cli.runs.config import FinetuneConfig
from fewshot_cli.training.outline import outline, resolve, spend
from fewshot_cli.training.plan import freeze, trained_parameters

BUDGETED = [name for name, policy in POLICIES.items() if policy.takes_budget]


class Heard(SilentReporter):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


def counted(policy: str, layers: int, classes: int) -> tuple[int, int]:
    """Parameters of yolox_nano that train, and all of them."""
    detector = build_detector("yolox_nano", weights="none", image_size=64)
    detector.replace_classes([f"c{number}" for number in range(classes)], [()] * classes)
    freeze(detector, select(policy, layers, detector.head_depth, stages=detector.backbone_stages))
    total = sum(parameter.numel() for parameter in detector.network.parameters())
    return sum(parameter.numel() for parameter in trained_parameters(detector).values()), total


@pytest.mark.parametrize("classes", [1, pytest.param(80, marks=pytest.mark.slow)])
@pytest.mark.parametrize("policy", BUDGETED)
def test_parameters_become_the_layers_that_fit(policy: str, classes: int) -> None:
    """On a real detector: a budget of exactly what some layers take gives these, and one parameter less one layer less."""
    smallest = POLICIES[policy].smallest
    for layers in range(smallest, DETECTORS["yolox_nano"].head_depth + 1):
        parameters, total = counted(policy, layers, classes)
        assert (layers, parameters) == spend("yolox_nano", policy, f"{parameters / 1000}k", classes)
        share = f"{100 * parameters / total + 1e-6:.6f}%"
        assert (layers, parameters) == spend("yolox_nano", policy, share, classes)
        if layers > smallest:
            assert layers - 1 == spend("yolox_nano", policy, f"{(parameters - 1) / 1000}k", classes).layers
    with pytest.raises(PolicyError, match=f"its smallest takes {counted(policy, smallest, classes)[0]:,} parameters"):
        spend("yolox_nano", policy, f"{(counted(policy, smallest, classes)[0] - 1) / 1000}k", classes)


def test_the_hint_for_too_small_a_budget_works() -> None:
    """A budget that is given as the hint says is enough."""
    with pytest.raises(PolicyError, match="a budget of 0% is too small for policy symmetric on yolox_nano") as caught:
        spend("yolox_nano", "symmetric", "0%", 1)
    assert "Give --budget 31k or more, or --budget 2 for layers." == caught.value.hint
    assert 2 == spend("yolox_nano", "symmetric", "31k", 1).layers


def test_a_configuration_is_resolved_once() -> None:
    """Its budget becomes layers, with a remark; a second time nothing is left to do."""
    heard = Heard()
    config = FinetuneConfig(data="x", policy="symmetric", budget="60k")
    resolved = resolve(config, 1, heard)
    assert (3, ["Budget: 60k parameters are 3 layers here (59,794 parameters)."]) == (resolved.budget, heard.lines)
    assert resolved == resolve(resolved, 1, heard)
    assert 1 == resolve(FinetuneConfig(data="x", policy="last", budget="1%"), 1, heard).budget
    assert "Budget: 1% of the parameters are 1 layer here (1,170 parameters)." == heard.lines[-1]
    assert 2 == len(heard.lines)


def test_what_is_no_budget_in_parameters_stays() -> None:
    """Layers, none, policies that take none, and the bound of policy auto."""
    for options in ({"budget": 2}, {}, {"policy": "all", "budget": "60k"}, {"policy": "auto", "budget": "60k"}):
        config = FinetuneConfig(data="x", **options)  # type: ignore[arg-type]
        assert config == resolve(config, 1, Heard())


def test_named_layers_come_in_the_order_of_the_chain() -> None:
    """Each once, however they are given."""
    config = FinetuneConfig(data="x", policy="custom", layers="head.4, neck,head.1,neck")  # type: ignore[arg-type]
    assert ("neck", "head.1", "head.4") == resolve(config, 1, Heard()).layers
    with pytest.raises(PolicyError, match="yolox_nano has no layer 'head.9'"):
        resolve(FinetuneConfig(data="x", policy="custom", layers=("head.9",)), 1, Heard())
    with pytest.raises(PolicyError, match="--layers does not go with policy auto"):
        resolve(FinetuneConfig(data="x", policy="auto", layers=("head.1",)), 1, Heard())


def test_an_outline_has_no_weights() -> None:
    """The parameters have shapes and no memory; an unknown detector is named."""
    assert all(parameter.is_meta for parameter in outline("yolox_x", 3).network.parameters())
    with pytest.raises(ModelError, match="unknown detector 'yolo'"):
        outline("yolo", 1)
