"""What a policy trains in every detector of the registry, and the check that the rest did not change."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers_runs import SIDE, argv_of, fsod
from hypothesis import given, settings
from hypothesis import strategies as st

from fewshot_cli.datasets.types import ImageRecord, Split
from fewshot_cli.detectors.chain import Detector, Target
from fewshot_cli.detectors.registry import DETECTORS, build_detector
from fewshot_cli.errors import FsodError, PolicyError
from fewshot_cli.policies import POLICIES, Policy, Selection, select
from fewshot_cli.training.loop import StepOptions, make_optimizer, train
from fewshot_cli.training.objectives import DetectorLosses
from fewshot_cli.training.plan import (
    FrozenCheck,
    freeze,
    parameters_per_layer,
    plan_chain,
    planned_layers,
    planned_parameters,
    planned_size,
    trained_parameters,
)
from fewshot_cli.training.rates import learning_rates, small_object_share
from fewshot_cli.training.schedule import Rates

RULES = [name for name, policy in POLICIES.items() if policy.head_layers]
"""Policies that say what trains: all but `custom` and `auto`."""
COMBINED = [
    (name, policy) for name in DETECTORS for policy in RULES if POLICIES[policy].smallest <= DETECTORS[name].head_depth
]
"""Detectors with the policies that their heads are deep enough for."""


@cache
def weightless(name: str, image_size: int = SIDE) -> Detector:
    """The real chain of a detector without memory for its weights; freezing never looks at them."""
    with torch.device("meta"):
        return build_detector(name, weights="none", image_size=max(image_size, DETECTORS[name].smallest))


def selection_in(name: str, policy: str, budget: int = 3, **more: int) -> Selection:
    spec = DETECTORS[name]
    return select(policy, min(budget, spec.head_depth), spec.head_depth, stages=spec.backbone_stages, **more)  # type: ignore[arg-type]


def tiny() -> Detector:
    return build_detector("yolox_nano", weights="none", image_size=SIDE)


def test_exactly_the_chosen_layers_train() -> None:
    """A parameter requires a gradient if and only if its layer was chosen; every parameter is in one layer."""
    for name, policy in COMBINED:
        detector = weightless(name)
        split = freeze(detector, selection_in(name, policy))
        chosen = {
            parameter
            for layer, trained in zip(detector.layers, split.trained, strict=True)
            for parameter in layer.parameters()
            if trained
        }
        flags = {parameter: value.requires_grad for parameter, value in detector.network.named_parameters()}
        assert {parameter: parameter in chosen for parameter in flags} == flags, (name, policy)
        assert len(flags) == sum(len(layer.parameters()) for layer in detector.layers), name
        assert chosen == set(trained_parameters(detector)), (name, policy)


def test_a_budget_lands_on_the_head_layers_of_the_table() -> None:
    """The numbers of the policy table are the layers `head.N` of the chain, and nothing else trains."""
    detector = weightless("retinanet_resnet50_fpn")
    table = {"last": [3, 4, 5], "symmetric": [1, 2, 5], "first": [1, 2, 5], "all": [1, 2, 3, 4, 5], "none": []}
    for policy, numbers in table.items():
        split = plan_chain(detector, selection_in(detector.name, policy))
        names = [layer.name for layer, trained in zip(detector.layers, split.trained, strict=True) if trained]
        assert [f"head.{number}" for number in numbers] == names, policy


def test_the_cut_is_the_first_layer_that_trains() -> None:
    """Everything before the cut is frozen and the layer at the cut trains; the end, if nothing does."""
    for name, policy in COMBINED:
        split = plan_chain(weightless(name), selection_in(name, policy))
        assert (*split.trained, True).index(True) == split.cut, (name, policy)
        assert (policy == "none") == (split.cut == len(split.trained)), (name, policy)


def test_neck_and_backbone_stages_come_from_the_output_side() -> None:
    """--train-neck frees the neck; --backbone-stages 2 the two stages nearest to it; 5 the whole backbone."""
    for name in DETECTORS:
        detector = weightless(name)
        assert ["backbone"] * 5 + ["neck"] == [layer.part for layer in detector.layers][:6], name
        neck = plan_chain(detector, selection_in(name, "last", 1, neck=True))
        assert (5, [True] + [False] * (len(detector.layers) - 7) + [True]) == (neck.cut, list(neck.trained[5:])), name
        two = plan_chain(detector, selection_in(name, "last", 1, backbone_stages=2))
        assert (False,) * 3 + (True,) * 2 == two.trained[:5], name
        assert 0 == plan_chain(detector, selection_in(name, "last", 1, backbone_stages=5)).cut, name


def test_named_layers_train_and_nothing_else() -> None:
    """Policy custom: layers of any part, in the order of the chain; the cut is before the first of them."""
    for name in DETECTORS:
        spec, detector = DETECTORS[name], weightless(name)
        names = [layer.name for layer in detector.layers]
        wanted = [names[-1], "neck", names[2]]
        plan = freeze(detector, select("custom", None, spec.head_depth, stages=spec.backbone_stages, layers=wanted))
        assert ((names[2], "neck", names[-1]), 2) == (planned_layers(detector, plan), plan.cut), name
        sizes = parameters_per_layer(detector)
        assert sum(sizes[layer] for layer in wanted) == sum(p.numel() for p in trained_parameters(detector).values())


@settings(max_examples=40)
@given(name=st.sampled_from(list(DETECTORS)), share=st.floats(0, 1, exclude_max=True))
def test_the_first_convolutions_stay_frozen_and_all_the_rest_trains(name: str, share: float) -> None:
    """Exactly the first N, for any N; nothing that the input meets after them, and the cut is before what trains."""
    detector = weightless(name)
    convolutions = detector.convolutions()
    count = int(share * len(convolutions))
    plan = freeze(detector, selection_in(name, "full", freeze_first=count))
    flags = {each: value.requires_grad for each, value in detector.network.named_parameters()}
    assert convolutions[:count] == tuple(each for each in convolutions if not flags[f"{each}.weight"])
    still, planned = {each for each, trains in flags.items() if not trains}, set(planned_parameters(detector, plan))
    assert (detector.parameters_before(count) if count else set()) == still
    assert planned == set(trained_parameters(detector))
    assert [any(flags[each] for each in layer.parameters()) for layer in detector.layers] == list(plan.trained)
    assert (*plan.trained, True).index(True) == plan.cut
    size = planned_size(detector, plan)
    assert size == sum(value.numel() for value in trained_parameters(detector).values())
    if count:
        fewer = plan_chain(detector, selection_in(name, "full", freeze_first=count - 1))
        assert size < planned_size(detector, fewer)


def test_freezing_no_convolution_is_the_whole_detector() -> None:
    """--freeze-first 0 is policy full."""
    for name in DETECTORS:
        plans = [plan_chain(weightless(name), selection_in(name, "full", freeze_first=n)) for n in (0, None)]  # type: ignore[arg-type]
        assert plans[0] == plans[1] and all(plans[0].trained), name


@pytest.mark.parametrize("name", DETECTORS)
def test_other_policies_must_train_nothing_of_the_first_convolutions(name: str) -> None:
    """With as many as there are before the first layer that trains they are as without; with one more it is named."""
    detector = weightless(name)
    placed = [*detector.layer_of_convolutions().values()]
    for stages in (0, 2):
        selection = selection_in(name, "last", 1, backbone_stages=stages)
        plan = plan_chain(detector, selection)
        first = planned_layers(detector, plan)[0]
        if first not in placed:  # the predictor of Faster R-CNN is no convolution
            continue
        before = placed.index(first)
        narrowed = plan_chain(detector, replace(selection, freeze_first=before))
        assert planned_parameters(detector, plan) == planned_parameters(detector, narrowed)
        with pytest.raises(PolicyError, match=rf"freezes convolutions of {first}, which policy last trains"):
            plan_chain(detector, replace(selection, freeze_first=before + 1))


@pytest.mark.parametrize("more", [0, 1, 7])
def test_a_convolution_must_be_left(more: int) -> None:
    """All of them or more: an error with the number there is."""
    detector = weightless("yolox_nano")
    total = len(detector.convolutions())
    with pytest.raises(PolicyError, match=rf"freeze-first {total + more} .* has {total} convolutions") as caught:
        plan_chain(detector, selection_in("yolox_nano", "full", freeze_first=total + more))
    assert f"Give 0 to {total - 1}" in str(caught.value.hint)


def test_the_proof_holds_inside_a_partly_trained_layer() -> None:
    """After two steps with the first 10 convolutions frozen, they are as they were in a stage that trains on."""
    detector = tiny()
    plan = freeze(detector, selection_in("yolox_nano", "full", freeze_first=10))
    proof, before = FrozenCheck(detector), trained_parameters(detector)
    layer = detector.layers[plan.cut].parameters()
    assert 0 < sum(name in before for name in layer) < len(layer)
    old = {name: value.detach().clone() for name, value in layer.items()}
    train_two_steps(detector)
    assert [] == proof.changed(detector)
    assert [name for name in layer if name not in before] == [
        name for name, value in layer.items() if torch.equal(value, old[name])
    ]
    state = detector.network.state_dict(keep_vars=True)
    with torch.no_grad():
        for name in layer:
            state[name].view(-1)[0].add_(1e-3)
    assert {name for name in layer if name not in before} == set(proof.changed(detector))


def test_an_unknown_layer_lists_the_chain() -> None:
    """With the closest name; `head.5` is a layer of RetinaNet's and not of YOLOX's."""
    detector = weightless("yolox_nano")
    with pytest.raises(PolicyError, match="yolox_nano has no layer 'head.5'") as caught:
        plan_chain(detector, Selection(layers=frozenset({"head.1", "head.5"}), policy="custom", budget=None))
    assert str(caught.value.hint).startswith("Did you mean head.")
    assert str(caught.value.hint).endswith(f"Valid: {', '.join(layer.name for layer in detector.layers)}.")


def test_full_trains_every_parameter() -> None:
    """Under `full` no parameter of any detector is frozen."""
    for name in DETECTORS:
        freeze(weightless(name), selection_in(name, "full"))
        assert all(parameter.requires_grad for parameter in weightless(name).network.parameters())


def test_a_layer_outside_the_chain_is_an_error() -> None:
    """A parameter that no layer, or more than one, accounts for stops everything: no third kind."""
    stray, twice = tiny(), tiny()
    stray.layers = stray.layers[1:]
    twice.layers = (twice.layers[0], *twice.layers)
    for detector in (stray, twice):
        with pytest.raises(FsodError, match="not in exactly one layer of the chain: backbone.backbone.stem"):
            freeze(detector, selection_in("yolox_nano", "all"))


def test_a_parameter_outside_the_groups_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a group a parameter would have no learning rate."""
    detector = tiny()
    groups = detector.parameter_groups()
    monkeypatch.setattr(type(detector), "parameter_groups", lambda _: groups[1:])
    with pytest.raises(FsodError, match="not in exactly one parameter group: head.stems.0"):
        freeze(detector, selection_in("yolox_nano", "all"))


def test_an_unknown_part_is_an_error() -> None:
    """A layer whose part no rule covers is neither trained nor frozen in silence."""
    detector = tiny()
    detector.layers = (*detector.layers[:-1], replace(detector.layers[-1], part="heads"))
    with pytest.raises(FsodError, match="layer head.4 is of an unknown part 'heads'") as caught:
        plan_chain(detector, selection_in("yolox_nano", "last", 1))
    assert "Did you mean head? Valid: backbone, neck, proposals, head." == caught.value.hint


def test_nothing_to_train_is_an_error() -> None:
    """A selection that chooses no layer, under any policy but `none`, is refused."""
    nothing = Selection(head_layers=frozenset(), policy="last", budget=1)
    with pytest.raises(PolicyError, match="policy last leaves nothing to train in yolox_nano") as caught:
        freeze(tiny(), nothing)
    assert "--budget" in str(caught.value.hint)


def canvases_and_targets(items: object) -> tuple[tuple[torch.Tensor, ...], list[Target]]:
    generator = torch.Generator().manual_seed(0)
    canvases = torch.randint(0, 256, (2, 3, SIDE, SIDE), dtype=torch.uint8, generator=generator)
    target = Target(torch.tensor([[8.0, 8.0, 40.0, 40.0]]), torch.tensor([0]))
    return (canvases, torch.full((2, 2), SIDE)), [target, target]


def train_two_steps(detector: Detector) -> None:
    optimizer = make_optimizer("adamw", learning_rates(detector), lr=0.01, weight_decay=0.0)
    rates, options = Rates(iterations=2, peak=0.01, warmup=0.0), StepOptions(clip=10.0, bf16=False)
    objective = DetectorLosses(detector, 0)
    train(
        objective, canvases_and_targets, [[0, 1]] * 2, optimizer, rates, options, after_step=lambda done, losses: None
    )


def test_each_parameter_has_its_share_of_the_rate() -> None:
    """Backbone and neck have theirs; in the head YOLOX has a level for small objects, while RetinaNet's levels share all."""
    yolox = tiny()
    yolox.pretrained = True
    freeze(yolox, selection_in("yolox_nano", "full"))
    names = {id(parameter): name for name, parameter in yolox.network.named_parameters()}
    shares = {
        names[id(parameter)]: share for parameter, share in learning_rates(yolox, backbone_lr=0.02, small_object_lr=2.0)
    }
    assert shares.keys() == set(names.values())
    finest = [f"head.{name}.0." for name in ("stems", "cls_convs", "reg_convs", "cls_preds", "reg_preds", "obj_preds")]
    for name, share in shares.items():
        assert share == (0.02 if name.startswith("backbone.") else 2.0 if name.startswith(tuple(finest)) else 1.0), name
    retinanet = weightless("retinanet_mini")
    freeze(retinanet, selection_in("retinanet_mini", "all"))
    assert {1.0} == {share for _, share in learning_rates(retinanet, small_object_lr=2.0)}


def test_a_neck_that_is_new_learns_as_fast_as_the_head() -> None:
    """Behind a classifier's backbone both start from random weights."""
    for pretrained, share in ((True, 0.02), (False, 1.0)):
        detector = weightless("retinanet_mobilenet_v2_fpn")
        detector.pretrained = pretrained
        freeze(detector, selection_in("retinanet_mobilenet_v2_fpn", "full"))
        shares = {id(parameter): of for parameter, of in learning_rates(detector, backbone_lr=0.02)}
        found = {layer.part: {shares[id(p)] for p in layer.parameters().values()} for layer in detector.layers}
        assert found == {"backbone": {0.02}, "neck": {share}, "head": {1.0}}


def shots_with(*images: Sequence[float], crowd: int = 0) -> Split:
    """Images of 640 × 320 with square boxes of these sides, the first of them crowds."""
    return Split(
        annotations=Path("nowhere.json"),
        classes=("thing",),
        images=tuple(
            ImageRecord(
                id=number,
                path=Path("nowhere.jpg"),
                width=640,
                height=320,
                boxes=np.array([[1, 2, 1 + side, 2 + side] for side in sides], dtype=np.float32).reshape(-1, 4),
                labels=np.zeros(len(sides), dtype=np.int64),
                crowd=np.arange(len(sides)) < crowd,
            )
            for number, sides in enumerate(images)
        ),
    )


def test_the_level_for_small_objects_learns_faster_where_they_are_the_rule() -> None:
    """Twice as fast if more than half of the average image's objects are at most 64 canvas pixels wide and high."""
    yolox, retinanet = (weightless(name, 320) for name in ("yolox_nano", "retinanet_mini"))
    cases = [
        (shots_with([120], [128], [300]), 2.0),  # a canvas of 320 halves them: two of three are 64 pixels or less
        (shots_with([120], [132], [300]), 1.0),
        (shots_with([120], [300]), 1.0),
        (shots_with([10] * 50, [300], [300]), 1.0),  # one crowded image is one image
        (shots_with([10, 10, 300], [10, 10, 300], []), 2.0),
        (shots_with([300, 10], [300, 10], crowd=1), 2.0),
        (shots_with([10, 300], [10, 300], crowd=1), 1.0),
    ]
    for shots, share in cases:
        assert share == small_object_share(yolox, shots), shots
        assert 1.0 == small_object_share(retinanet, shots), "its levels share their weights"


def test_norm_statistics_do_not_move_in_layers_that_train() -> None:
    """`full` trains the norm layers' weights, while their running statistics stay as they were, bit for bit."""
    detector = tiny().train()
    freeze(detector, selection_in("yolox_nano", "full"))
    norms = [module for module in detector.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    before = [(norm.running_mean.clone(), norm.running_var.clone(), norm.weight.clone()) for norm in norms]  # type: ignore[union-attr]
    train_two_steps(detector)
    assert norms and not any(norm.training for norm in norms)
    for norm, (mean, variance, _weight) in zip(norms, before, strict=True):
        assert torch.equal(mean, norm.running_mean) and torch.equal(variance, norm.running_var)  # type: ignore[arg-type]
    # A level without a matched cell has no class loss, so a few of its norms rest.
    moved = [not torch.equal(weight, norm.weight) for norm, (_, _, weight) in zip(norms, before, strict=True)]
    assert sum(moved) > 0.8 * len(moved)


def test_the_proof_holds_through_real_training_steps() -> None:
    """After two steps of `symmetric 3` no frozen tensor has changed, while trained ones have."""
    detector = tiny()
    freeze(detector, selection_in("yolox_nano", "symmetric"))
    proof = FrozenCheck(detector)
    before = {name: value.clone() for name, value in trained_parameters(detector).items()}
    train_two_steps(detector)
    everything = len(dict(detector.network.named_parameters())) + len(dict(detector.network.named_buffers()))
    assert ([], everything - len(before)) == (proof.changed(detector), len(proof))
    assert any(not torch.equal(value, trained_parameters(detector)[name]) for name, value in before.items())


def test_the_proof_notices_a_changed_parameter_and_a_changed_buffer() -> None:
    """One bit in a frozen weight or in a norm's statistics, also a trained layer's, is named; a trained weight not."""
    detector = tiny()
    freeze(detector, selection_in("yolox_nano", "last", 1))
    proof = FrozenCheck(detector)
    state = detector.network.state_dict(keep_vars=True)
    frozen, buffer = "head.stems.0.conv.weight", "head.stems.0.bn.running_mean"
    with torch.no_grad():
        state["head.cls_preds.0.bias"].add_(1)
        assert [] == proof.changed(detector)
        state[frozen].view(-1)[0].add_(1e-6)
        state[buffer][0] += 1e-6
    assert {frozen, buffer} == set(proof.changed(detector))


def test_a_function_and_a_line_add_a_policy(shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With those two the command line takes the policy by its name, and a run trains the layers that it chooses."""
    # The help is written, from the policies that there are, when the command is first looked up.
    assert 0 == fsod("finetune", "--help").exit_code
    policy = Policy("the predictor and the layer in the middle", lambda depth, budget: [depth // 2, depth])
    monkeypatch.setitem(POLICIES, "middle", policy)
    done = fsod(*argv_of(shapes, policy="middle", budget=2), "--runs", tmp_path, "--json")
    assert 0 == done.exit_code, done.stderr
    assert ["head.2", "head.4"] == json.loads(done.stdout)["trained_layers"]
