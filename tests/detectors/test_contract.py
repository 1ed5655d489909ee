"""The contract of a detector, held by tiny stubs that use all of it, and by real detectors of each kind.

The stubs, a two-stage and a query-based one, are random; so are the real ones, at 64 pixels. What is tested is that
training, the cache and the library need to know nothing of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from functools import lru_cache
from pathlib import Path

import pytest
import stub_queries
import stub_two_stage
import torch
from helpers_runs import SIDE, config_of, fine_tune
from helpers_torchvision import norms_of_noise
from torch import Tensor

from fewshot_cli.datasets.store import open_dataset
from fewshot_cli.detectors.canvas import batch_of
from fewshot_cli.detectors.chain import Activations, Detector, Target
from fewshot_cli.detectors.predictors import ClassPredictor
from fewshot_cli.detectors.registry import DETECTORS, build_detector
from fewshot_cli.detectors.weights import guess_detector
from fewshot_cli.policies import select
from fewshot_cli.runs.checkpoint import restore
from fewshot_cli.training.cache import FeatureCache
from fewshot_cli.training.loop import StepOptions, make_optimizer, train
from fewshot_cli.training.objectives import DetectorLosses
from fewshot_cli.training.plan import freeze, plan_chain
from fewshot_cli.training.rates import learning_rates
from fewshot_cli.training.schedule import Rates
from fewshot_cli.training.variants import Example, Examples

TWO_STAGE, QUERIES = stub_two_stage.SPEC.name, stub_queries.SPEC.name
STUBS = [TWO_STAGE, QUERIES]
FASTER, RETINANET = "fasterrcnn_mobilenet_v3_large_fpn", "retinanet_mobilenet_v2_fpn"
SSD, SSD_FPN = "ssdlite320_mobilenet_v3_large", "ssd_mobilenet_v2_fpnlite"
NAMES = [*STUBS, FASTER, RETINANET, SSD, SSD_FPN]
CPU = torch.device("cpu")
PLENTY = 1 << 30
# On CPUs with bf16 arithmetic, PyTorch's gradient of a convolution with stride over a single place is not defined there.
OPTIONS = {"lr": 0.02, "precision": "fp32"}


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """The line that the docstring of the registry asks for; the modules are the files beside this one."""
    for stub in (stub_two_stage, stub_queries):
        monkeypatch.setitem(DETECTORS, stub.SPEC.name, stub.SPEC)


@lru_cache
def built(name: str) -> Detector:
    return norms_of_noise(build_detector(name, weights="none", image_size=SIDE))


def detector_of(name: str) -> Detector:
    """One that a test may change; a real two-stage one draws so few regions that the draw matters."""
    detector = deepcopy(built(name))
    if name == FASTER:
        detector.network.roi_heads.fg_bg_sampler.batch_size_per_image = 16
    return detector


def noise(detector: Detector, *sizes: tuple[int, int]) -> Activations:
    """The input of the chain for images of noise, of these heights and widths."""
    generator = torch.Generator().manual_seed(1)
    images = [torch.randint(0, 256, (3, *size), dtype=torch.uint8, generator=generator) for size in sizes]
    return batch_of([detector.make_canvas(image) for image in images])


def cache_of(detector: Detector, data: Path, cut: int, folder: Path, memory: int) -> FeatureCache[Example]:
    """The shots and a variant of each, up to the cut; with `memory` 0 they are computed at each use."""
    examples = Examples(detector, open_dataset(data).train.images, copies=2)
    prefix = examples.prefix(cut, CPU, bf16=False, training=True)
    return FeatureCache(prefix, len(examples), memory=memory, disk=0, folder=folder).fill()


def batch(cache: FeatureCache[Example], items: Sequence[int]) -> tuple[Activations, list[Target]]:
    activations, examples = cache.batch(items)
    return activations, [example.target for example in examples]


def equal(first: Sequence[Tensor], second: Sequence[Tensor]) -> bool:
    return len(first) == len(second) and all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("name", STUBS)
def test_every_parameter_is_in_one_layer_and_one_group(name: str) -> None:
    """Neither the chain nor the parameter groups leave a parameter out or have it twice, with new classes too."""
    detector = detector_of(name)
    for _ in range(2):
        every = sorted(name for name, _ in detector.network.named_parameters())
        assert every == sorted(name for layer in detector.layers for name in layer.parameters())
        assert every == sorted(name for group in detector.parameter_groups() for name in group.parameters)
        detector.replace_classes(["helmet"], [()])


@pytest.mark.parametrize("name", [*STUBS, FASTER])
def test_the_proposals_learn_with_the_head(name: str) -> None:
    """Pretrained backbone and neck are the group that learns at a rate of its own; all else is the head's."""
    detector = detector_of(name)
    detector.pretrained = True
    groups = {group.role: set(group.parameters) for group in detector.parameter_groups()}
    assert {"head", "backbone"} == set(groups)
    assert {name.partition(".")[0] for name in groups["backbone"]} <= {"backbone", "neck"}
    assert not {name.partition(".")[0] for name in groups["head"]} & {"backbone", "neck"}


@torch.no_grad()
@pytest.mark.parametrize("name", NAMES)
def test_a_run_in_parts_is_the_run(name: str) -> None:
    """Cut before any layer, ragged parts included, the outputs are those of an uncut run, bit for bit."""
    detector = detector_of(name)
    pixels = noise(detector, (SIDE, SIDE), (40, 64), (30, 17))
    whole = detector.run(pixels, 0)
    stored = pixels
    for cut in range(1, len(detector.layers) + 1):
        stored = detector.run(stored, cut - 1, cut)
        kept = [part.clone() for part in stored]
        assert equal(whole, detector.run(stored, cut)), cut
        assert equal(kept, stored), "a layer wrote into its input"


@torch.no_grad()
@pytest.mark.parametrize("name", NAMES)
def test_detections_from_features_of_training_examples_are_those_in_the_image(name: str) -> None:
    """What training adds to the features, such as the objects' own boxes, is not detected from, wherever they are cut.

    Cross-validation detects in shots that were left out, from the features that training caches.
    """
    detector = detector_of(name)
    raise_scores(detector)
    images = noise(detector, (SIDE, SIDE), (40, 64))
    targets = [
        Target(torch.tensor([[5.0, 5.0, 40.0, 50.0], [20.0, 8.0, 60.0, 30.0]]), torch.tensor([0, 2])),
        Target(torch.tensor([[0.0, 0.0, 64.0, 40.0]]), torch.tensor([1])),
    ]
    expected = detector.decode(detector.run(images, 0))
    assert all(len(found.scores) for found in expected)
    for cut in range(len(detector.layers) + 1):
        found = detector.decode(detector.run(detector.prefix(images, cut, targets), cut))
        assert all(equal(*pair) for pair in zip(expected, found, strict=True)), cut


@torch.no_grad()
def raise_scores(detector: Detector) -> None:
    """Random weights score so low that nothing would be detected."""
    for predictor in detector.predictors:
        if predictor.width == 1:
            rows_of(detector.network.get_parameter(f"{predictor.name}.bias"), predictor)[:, 1:] += 4.0


def rows_of(parameter: Tensor, predictor: ClassPredictor) -> Tensor:
    return parameter.view(predictor.anchors, -1, predictor.width, *parameter.shape[1:])


@torch.no_grad()
def test_ragged_parts_have_different_counts() -> None:
    """Images have different numbers of proposals, and those that are not there are zeros."""
    detector = detector_of(TWO_STAGE)
    _, boxes, counts, *_ = detector.run(noise(detector, (SIDE, SIDE), (40, 64), (30, 17)), 0, stub_two_stage.HEAD)
    assert 1 < len(set(counts.tolist()))
    assert (3, stub_two_stage.PROPOSALS, 4) == tuple(boxes.shape)
    for image, count in zip(boxes, counts, strict=True):
        assert not image[count:].any() and image[:count].any(dim=1).all()


@torch.no_grad()
@pytest.mark.parametrize("name", NAMES)
def test_new_classes_replace_every_predictor(name: str) -> None:
    """Each predictor has the new rows, a base class's where it was given; all else, background rows too, stays."""
    detector = detector_of(name)
    before = {name: tensor.clone() for name, tensor in detector.network.state_dict().items()}
    detector.replace_classes(["helmet", "again"], [(), (2,)])
    after = detector.network.state_dict()
    rows = {f"{predictor.name}.{kind}" for predictor in detector.predictors for kind in ("weight", "bias")}
    assert rows == {name for name in before if not torch.equal(before[name], after[name])}
    for predictor in detector.predictors:
        first = int(predictor.background)
        for kind in ("weight", "bias"):
            old, new = (rows_of(state[f"{predictor.name}.{kind}"], predictor) for state in (before, after))
            assert first + 2 == new.shape[1]
            assert torch.equal(old[:, :first], new[:, :first])
            assert torch.equal(old[:, first + 2], new[:, first + 1])
    last = detector.layers[-1].parameters()
    assert all(
        last[f"{p.name}.weight"] is detector.network.get_parameter(f"{p.name}.weight") for p in detector.predictors
    )
    assert ("helmet", "again") == detector.classes


@torch.no_grad()
def test_padding_takes_no_part() -> None:
    """Whatever the pixels of the padding are, and however much of it there is, the outputs are the same."""
    detector = detector_of(QUERIES)
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


@pytest.mark.parametrize(
    ("name", "policy", "rate"),
    [
        *((name, "full", 0.005) for name in STUBS),
        (SSD, "all", 0.001),
        pytest.param(RETINANET, "all", 0.0005, marks=pytest.mark.slow),
        pytest.param(FASTER, "all", 0.0001, marks=pytest.mark.slow),
    ],
)
def test_the_loss_falls(shapes: Path, tmp_path: Path, name: str, policy: str, rate: float) -> None:
    """Some steps of the training loop, from the cache, bring the loss to less than half."""
    detector, steps = detector_of(name), 60 if policy == "full" else 16
    detector.replace_classes(open_dataset(shapes).train.classes, [(), ()])
    plan = freeze(detector, select(policy, None, detector.head_depth, stages=detector.backbone_stages))
    cache = cache_of(detector, shapes, plan.cut, tmp_path, PLENTY)
    losses: list[float] = []
    train(
        DetectorLosses(detector, plan.cut),
        lambda items: batch(cache, items),
        [[2 * i % 8, (2 * i + 1) % 8, (2 * i + 4) % 8, (2 * i + 5) % 8] for i in range(steps)],
        make_optimizer("adamw", learning_rates(detector), lr=rate, weight_decay=0.0),
        Rates(iterations=steps, peak=rate, warmup=0.1),
        StepOptions(clip=10.0, bf16=False),
        after_step=lambda done, found: losses.append(found["loss"]),
    )
    assert sum(losses[-5:]) < 0.5 * sum(losses[:5])


CUTS: dict[str, tuple[int, ...]] = {
    TWO_STAGE: (0, 2, 3),
    QUERIES: (0, 2, 4),
    FASTER: (5, 6, 7, 9),  # before neck, proposals, pooling and predictor
    RETINANET: (8,),
    SSD: (5,),
    SSD_FPN: (6,),
}


@pytest.mark.parametrize("name", [TWO_STAGE, FASTER, SSD_FPN])
def test_features_continue_from_an_earlier_cut(shapes: Path, tmp_path: Path, name: str) -> None:
    """Computed from the features at any cut before, they are those computed from the image, bit for bit."""
    detector = detector_of(name)
    detector.place(CPU)
    examples = Examples(detector, open_dataset(shapes).train.images, copies=3)
    prefixes = [examples.prefix(cut, CPU, bf16=False, training=True) for cut in range(len(detector.layers) + 1)]
    items = range(5)
    before = FeatureCache(prefixes[0], len(examples), memory=PLENTY, disk=0, folder=tmp_path).fill()
    for cut, prefix in enumerate(prefixes[1:], start=1):
        again = prefix.continued(before.batch, cut - 1)
        before = FeatureCache(prefix, len(examples), memory=PLENTY, disk=0, folder=tmp_path).fill(compute=again)
        afresh = FeatureCache(prefix, len(examples), memory=PLENTY, disk=0, folder=tmp_path).fill()
        assert equal(afresh.batch(items)[0], before.batch(items)[0]), cut


@pytest.mark.parametrize(("name", "cut"), [(name, cut) for name, cuts in CUTS.items() for cut in cuts])
def test_cached_equals_uncached(shapes: Path, tmp_path: Path, name: str, cut: int) -> None:
    """From the cache and computed anew, losses and gradients are the same to the last bit, wherever the chain is cut."""
    detector = detector_of(name)
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
    ("name", "policy", "budget", "cut"),
    [
        (TWO_STAGE, "last", 1, "head.2"),
        (TWO_STAGE, "symmetric", 2, "proposals"),
        (TWO_STAGE, "full", None, "backbone.1"),
        (FASTER, "last", 1, "head.3"),
        (FASTER, "symmetric", 2, "head.1"),
        (FASTER, "all", None, "proposals"),
    ],
)
def test_proposals_are_frozen_until_the_whole_head_trains(name: str, policy: str, budget: int | None, cut: str) -> None:
    """`last 1` caches what the box head makes of the proposals; a budget of M trains the proposals with the head."""
    detector = built(name)
    plan = plan_chain(detector, select(policy, budget, detector.head_depth, stages=detector.backbone_stages))
    assert cut == detector.layers[plan.cut].name


@pytest.mark.parametrize(
    ("name", "policy", "budget"),
    [
        *((name, *chosen) for name in STUBS for chosen in (("last", 1), ("full", None))),
        (FASTER, "last", 1),
        *(pytest.param(name, "last", 1, marks=pytest.mark.slow) for name in (SSD, SSD_FPN)),
        *(pytest.param(name, "full", None, marks=pytest.mark.slow) for name in (FASTER, RETINANET, SSD, SSD_FPN)),
    ],
)
def test_a_module_and_a_line_add_a_detector(
    shapes: Path, tmp_path: Path, name: str, policy: str, budget: int | None
) -> None:
    """With those two the library fine-tunes the detector by its name, and restores what it saved."""
    run = fine_tune(tmp_path / "run", config_of(shapes, detector=name, policy=policy, budget=budget, **OPTIONS))
    layers = [layer.name for layer in built(name).layers]
    assert (layers if policy == "full" else layers[-1:]) == run.read_result()["trained_layers"]
    detector, info = restore(run.checkpoint)
    assert (name, ("square", "disc")) == (info.detector, detector.classes)
    assert name == guess_detector(detector.network.state_dict())
    torch.save(built(name).network.state_dict(), tmp_path / "base.pth")
    assert build_detector(name, weights=tmp_path / "base.pth", image_size=SIDE).pretrained
