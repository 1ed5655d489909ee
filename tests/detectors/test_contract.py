"""The contract of a detector, held by a two-stage and a query-based one that use all of it.

The stubs are tiny and random; what is tested is that training, the cache and the library need to know nothing of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import stub_queries
import stub_two_stage
import torch
from helpers_runs import SIDE, config_of, fine_tune

from fewshot_cli.datasets.store import open_dataset
from fewshot_cli.detectors.chain import Activations, Detector, Target, batch_of
from fewshot_cli.detectors.registry import DETECTORS, build_detector
from fewshot_cli.detectors.weights import guess_detector
from fewshot_cli.policies import select
from fewshot_cli.runs.checkpoint import restore
from fewshot_cli.training.cache import FeatureCache
from fewshot_cli.training.loop import StepOptions, make_optimizer, train
from fewshot_cli.training.objectives import DetectorLosses
from fewshot_cli.training.plan import freeze, plan_chain
from fewshot_cli.training.rates import learning_rates
from fewshot_cli.training.variants import Example, Examples

STUBS = [stub_two_stage, stub_queries]
SSD = SimpleNamespace(SPEC=DETECTORS["ssd_mobilenet_v2_fpnlite"])
"""Its predictors have a background and several anchors, and its levels share no weights."""
CPU = torch.device("cpu")
PLENTY = 1 << 30


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """The line that the docstring of the registry asks for; the modules are the files beside this one."""
    for stub in STUBS:
        monkeypatch.setitem(DETECTORS, stub.SPEC.name, stub.SPEC)


def detector_of(stub: ModuleType, seed: int = 0) -> Detector:
    return build_detector(stub.SPEC.name, weights="none", image_size=SIDE, seed=seed)


def noise(detector: Detector, *sizes: tuple[int, int]) -> Activations:
    """The input of the chain for images of noise, of these heights and widths."""
    generator = torch.Generator().manual_seed(1)
    images = [torch.randint(0, 256, (3, *size), dtype=torch.uint8, generator=generator) for size in sizes]
    return batch_of([detector.make_canvas(image) for image in images])


def cache_of(detector: Detector, data: Path, cut: int, folder: Path, memory: int) -> FeatureCache[Example]:
    """The shots and a variant of each, up to the cut; with `memory` 0 they are computed at each use."""
    examples = Examples(detector, open_dataset(data).train.images, copies=2)
    prefix = examples.prefix(cut, CPU, bf16=False)
    return FeatureCache(prefix, len(examples), memory=memory, disk=0, folder=folder).fill()


def batch(cache: FeatureCache[Example], items: Sequence[int]) -> tuple[Activations, list[Target]]:
    activations, examples = cache.batch(items)
    return activations, [example.target for example in examples]


def equal(first: Activations, second: Activations) -> bool:
    return len(first) == len(second) and all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("stub", [*STUBS, SSD])
def test_every_parameter_is_in_one_layer_and_one_group(stub: ModuleType) -> None:
    """Neither the chain nor the parameter groups leave a parameter out or have it twice, with new classes too."""
    detector = detector_of(stub)
    for _ in range(2):
        every = sorted(name for name, _ in detector.network.named_parameters())
        assert every == sorted(name for layer in detector.layers for name in layer.parameters())
        assert every == sorted(name for group in detector.parameter_groups() for name in group.parameters)
        detector.replace_classes(["helmet"], [()])


@pytest.mark.parametrize("stub", STUBS)
def test_the_proposals_learn_with_the_head(stub: ModuleType) -> None:
    """Backbone and neck are the group that learns at a rate of its own; all else is the head's."""
    groups = {group.role: set(group.parameters) for group in detector_of(stub).parameter_groups()}
    assert {"head", "backbone"} == set(groups)
    assert {name.partition(".")[0] for name in groups["backbone"]} <= {"backbone", "neck"}
    assert not {name.partition(".")[0] for name in groups["head"]} & {"backbone", "neck"}


@torch.no_grad()
@pytest.mark.parametrize("stub", [*STUBS, SSD])
def test_a_run_in_parts_is_the_run(stub: ModuleType) -> None:
    """Cut before any layer, ragged parts included, the outputs are those of an uncut run, bit for bit."""
    detector = detector_of(stub)
    pixels = noise(detector, (SIDE, SIDE), (40, 64), (30, 17))
    whole = detector.run(pixels, 0)
    for cut in range(len(detector.layers) + 1):
        assert equal(whole, detector.run(detector.run(pixels, 0, cut), cut)), cut


@torch.no_grad()
def test_ragged_parts_have_different_counts() -> None:
    """Images have different numbers of proposals, and those that are not there are zeros."""
    detector = detector_of(stub_two_stage)
    _, boxes, counts, *_ = detector.run(noise(detector, (SIDE, SIDE), (40, 64), (30, 17)), 0, stub_two_stage.HEAD)
    assert 1 < len(set(counts.tolist()))
    assert (3, stub_two_stage.PROPOSALS, 4) == tuple(boxes.shape)
    for image, count in zip(boxes, counts, strict=True):
        assert not image[count:].any() and image[:count].any(dim=1).all()


@torch.no_grad()
@pytest.mark.parametrize("stub", STUBS)
def test_new_classes_replace_every_predictor(stub: ModuleType) -> None:
    """Each predictor has the new rows, a base class's where it was given; background rows and boxes stay."""
    detector = detector_of(stub)
    before = {name: tensor.clone() for name, tensor in detector.network.state_dict().items()}
    detector.replace_classes(["helmet", "again"], [(), (2,)])
    after = detector.network.state_dict()
    rows = {f"{predictor.name}.{kind}" for predictor in detector.predictors for kind in ("weight", "bias")}
    assert rows == {name for name in before if not torch.equal(before[name], after[name])}
    for predictor in detector.predictors:
        first = int(predictor.background)
        for kind in ("weight", "bias"):
            old, new = before[f"{predictor.name}.{kind}"], after[f"{predictor.name}.{kind}"]
            assert first + 2 == len(new)
            assert torch.equal(old[:first], new[:first]) and torch.equal(old[first + 2], new[first + 1])
    last = detector.layers[-1].parameters()
    assert all(
        last[f"{p.name}.weight"] is detector.network.get_parameter(f"{p.name}.weight") for p in detector.predictors
    )
    assert ("helmet", "again") == detector.classes


@torch.no_grad()
def test_padding_takes_no_part() -> None:
    """Whatever the pixels of the padding are, and however much of it there is, the outputs are the same."""
    detector = detector_of(stub_queries)
    pixels, valid = noise(detector, (41, 64), (64, 22))
    expected = detector.run((pixels, valid), 0)
    changed = pixels.clone()
    for image, (height, width) in zip(changed, valid, strict=True):
        image[:, height:] = 7
        image[:, :, width:] = 200
    assert not torch.equal(pixels, changed)
    assert equal(expected, detector.run((changed, valid), 0))
    larger = torch.nn.functional.pad(changed, (0, 32, 0, 32), value=90)
    for found, wanted in zip(detector.run((larger, valid), 0), expected, strict=True):
        torch.testing.assert_close(found, wanted)
    assert not equal(expected, detector.run((changed, torch.full((2, 2), SIDE)), 0)), "the size makes the difference"


@pytest.mark.parametrize("stub", STUBS)
def test_the_loss_falls(shapes: Path, tmp_path: Path, stub: ModuleType) -> None:
    """Sixty steps of the training loop with everything free bring the loss to less than half."""
    detector = detector_of(stub)
    detector.replace_classes(open_dataset(shapes).train.classes, [(), ()])
    freeze(detector, select("full", None, detector.head_depth, stages=detector.backbone_stages))
    cache = cache_of(detector, shapes, 0, tmp_path, PLENTY)
    losses: list[float] = []
    train(
        DetectorLosses(detector, 0),
        lambda items: batch(cache, items),
        [[2 * i % 8, (2 * i + 1) % 8, (2 * i + 4) % 8, (2 * i + 5) % 8] for i in range(60)],
        make_optimizer("adamw", learning_rates(detector), lr=0.005, weight_decay=0.0),
        StepOptions(iterations=60, lr=0.005, warmup=0.1, clip=10.0, bf16=False),
        after_step=lambda done, found: losses.append(found["loss"]),
    )
    assert sum(losses[-5:]) < 0.5 * sum(losses[:5])


@pytest.mark.parametrize(
    ("stub", "cut"), [(stub, cut) for stub in [*STUBS, SSD] for cut in (0, 2, stub.SPEC.head_depth + 1)]
)
def test_cached_equals_uncached(shapes: Path, tmp_path: Path, stub: ModuleType, cut: int) -> None:
    """From the cache and computed anew, losses and gradients are the same to the last bit, wherever the chain is cut."""
    detector = detector_of(stub)
    results = []
    for memory in (PLENTY, 0):
        cache = cache_of(detector, shapes, cut, tmp_path, memory)
        activations, targets = batch(cache, [5, 0, 3, 6])
        torch.manual_seed(2)
        detector.zero_grad()
        losses = detector.losses(activations, cut, targets)
        torch.stack(list(losses.values())).sum().backward()
        gradients = {name: p.grad.clone() for name, p in detector.named_parameters() if p.grad is not None}
        results.append({**losses, **gradients})
    cached, uncached = results
    assert cached.keys() == uncached.keys()
    assert all(torch.equal(cached[name], uncached[name]) for name in cached)
    assert any(name.startswith("network.") for name in cached)


@pytest.mark.parametrize(
    ("policy", "budget", "cut"), [("last", 1, "head.2"), ("symmetric", 2, "proposals"), ("full", None, "backbone.1")]
)
def test_proposals_are_frozen_until_the_whole_head_trains(policy: str, budget: int | None, cut: str) -> None:
    """`last 1` caches what the box head makes of the proposals; a budget of M trains the proposals with the head."""
    detector = detector_of(stub_two_stage)
    plan = plan_chain(detector, select(policy, budget, detector.head_depth, stages=detector.backbone_stages))
    assert cut == detector.layers[plan.cut].name


@pytest.mark.parametrize("stub", [*STUBS, SSD])
@pytest.mark.parametrize(("policy", "budget"), [("last", 1), ("full", None)])
def test_a_module_and_a_line_add_a_detector(
    shapes: Path, tmp_path: Path, stub: ModuleType, policy: str, budget: int | None
) -> None:
    """With those two the library fine-tunes the detector by its name, and restores what it saved."""
    name = stub.SPEC.name
    run = fine_tune(tmp_path / "run", config_of(shapes, detector=name, policy=policy, budget=budget, lr=0.02))
    layers = [layer.name for layer in detector_of(stub).layers]
    assert (layers if policy == "full" else layers[-1:]) == run.read_result()["trained_layers"]
    detector, info = restore(run.checkpoint)
    assert (name, ("square", "disc")) == (info.detector, detector.classes)
    assert name == guess_detector(detector.network.state_dict())
    torch.save(detector_of(stub, seed=5).network.state_dict(), tmp_path / "base.pth")
    assert build_detector(name, weights=tmp_path / "base.pth").pretrained
