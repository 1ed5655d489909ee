"""What the predictor gets of each object, beside losses that are the detector's own to the bit."""

from __future__ import annotations

from functools import lru_cache

import pytest
import stub_queries
import torch
from helpers_runs import SIDE
from helpers_torchvision import norms_of_noise
from torch import Tensor
from torch.nn import functional as F

from fewshot_cli.detectors.canvas import batch_of
from fewshot_cli.detectors.chain import Detector, Target
from fewshot_cli.detectors.faster_rcnn import FasterRcnnDetector
from fewshot_cli.detectors.objects import SAMPLES, pool_objects
from fewshot_cli.detectors.registry import DETECTORS, build_detector
from fewshot_cli.errors import ModelError
from fewshot_cli.policies import select
from fewshot_cli.training.loop import drawing
from fewshot_cli.training.plan import freeze

FASTER = "fasterrcnn_mobilenet_v3_large_fpn"
ONE_STAGE = ["yolox_nano", "retinanet_mini", "ssd_mobilenet_v2_fpnlite", "ssdlite320_mobilenet_v3_large"]
TARGETS = [
    Target(torch.tensor([[4.0, 6.0, 20.0, 30.0], [10.0, 8.0, 62.0, 60.0]]), torch.tensor([0, 1])),
    Target(torch.empty(0, 4), torch.empty(0, dtype=torch.int64)),
    Target(torch.tensor([[30.0, 30.0, 50.0, 44.0]]), torch.tensor([1])),
]
OBJECTS = 3


@lru_cache
def detector_of(name: str) -> Detector:
    detector = norms_of_noise(build_detector(name, weights="none", image_size=SIDE))
    detector.replace_classes(["square", "disc"], [(), ()])
    if isinstance(detector, FasterRcnnDetector):
        detector.network.roi_heads.fg_bg_sampler.batch_size_per_image = 16
    return detector


def noise(detector: Detector) -> tuple[Tensor, ...]:
    images = torch.randint(0, 256, (3, 3, SIDE, SIDE), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    return batch_of([detector.make_canvas(image) for image in images])


def plan(detector: Detector, policy: str) -> int:
    """Freeze what the policy does not train; returns the cut."""
    return freeze(detector, select(policy, None, detector.head_depth, stages=detector.backbone_stages)).cut


def test_an_object_is_the_mean_of_the_coarsest_map_that_shows_it() -> None:
    """On a map whose values are the x of their cells, that is the middle of the box; each object is on one level."""
    maps = [(torch.arange(side).float() + 0.5).expand(2, 1, side, side) * (64 / side) for side in (16, 8, 4)]
    boxes = [torch.tensor([[8.0, 8.0, 20.0, 16.0], [4.0, 4.0, 40.0, 20.0]]), torch.tensor([[10.0, 6.0, 54.0, 70.0]])]
    fine, middle, coarse = pool_objects(maps, boxes, 64)
    assert ([0], [1], [2]) == tuple(found.rows.tolist() for found in (fine, middle, coarse))
    assert [14.0] == pytest.approx(fine.values[0].tolist(), abs=1e-4)
    assert [22.0] == pytest.approx(middle.values[0].tolist(), abs=1e-4)
    assert [32.0] == pytest.approx(coarse.values[0].tolist(), abs=1e-4)


def test_pooling_samples_the_box_bilinearly() -> None:
    """Against grid_sample at the SAMPLES × SAMPLES places in the middle of equal parts of the box."""
    level = torch.randn(1, 5, 8, 8)
    x1, y1, x2, y2 = 10.0, 20.0, 36.0, 50.0
    parts = (torch.arange(SAMPLES) + 0.5) / SAMPLES
    ys, xs = torch.meshgrid(y1 + parts * (y2 - y1), x1 + parts * (x2 - x1), indexing="ij")
    places = torch.stack([xs, ys], dim=-1) / 64 * 2 - 1
    expected = F.grid_sample(level, places[None], align_corners=False, padding_mode="border").mean(dim=(2, 3))
    (found,) = pool_objects([level], [torch.tensor([[x1, y1, x2, y2]])], 64)
    torch.testing.assert_close(found.values, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", [*ONE_STAGE, FASTER])
def test_losses_are_the_detectors_own_to_the_bit(name: str) -> None:
    """From every cut that a plan may have, with an image without objects; gradients too."""
    detector = detector_of(name)
    for policy in ("full", "all"):
        cut = plan(detector, policy)
        with torch.no_grad():
            activations = detector.prefix(noise(detector), cut, TARGETS)
        found = []
        for objects in (False, True):
            with drawing(0, 1):
                losses = detector.losses(activations, cut, TARGETS)
                if objects:
                    torch.random.default_generator.manual_seed(1)
                    losses, _ = detector.losses_and_objects(activations, cut, TARGETS)
            parameters = [p for p in detector.network.parameters() if p.requires_grad]
            gradients = torch.autograd.grad(sum(losses.values()), parameters, allow_unused=True)  # type: ignore[arg-type]
            found.append(([*losses], [*losses.values()], gradients))
        assert found[0][0] == found[1][0]
        assert all(torch.equal(*pair) for pair in zip(found[0][1], found[1][1], strict=True))
        for first, second in zip(found[0][2], found[1][2], strict=True):
            assert (first is None) == (second is None) and (first is None or torch.equal(first, second))


@pytest.mark.parametrize("name", [*ONE_STAGE, FASTER])
def test_every_object_has_features_of_one_width_a_map(name: str) -> None:
    """Each object once, finite, with a gradient to what lies before the predictor."""
    detector = detector_of(name)
    plan(detector, "full")
    _, objects = detector.losses_and_objects(noise(detector), 0, TARGETS)
    assert list(range(OBJECTS)) == sorted(torch.cat([found.rows for found in objects]).tolist())
    assert all(bool(torch.isfinite(found.values).all()) for found in objects)
    before = [p for layer in detector.layers[:-1] for p in layer.parameters().values()]
    total = torch.cat([found.values.flatten() for found in objects]).square().sum()
    gradients = torch.autograd.grad(total, before, allow_unused=True)
    assert any(each is not None and float(each.abs().sum()) > 0 for each in gradients)


@torch.no_grad()
def test_faster_rcnn_gives_the_box_heads_features_of_the_objects_own_boxes() -> None:
    """As its box head gives them for regions that are the boxes, from any cut, though the cache rounds nothing."""
    detector = detector_of(FASTER)
    assert isinstance(detector, FasterRcnnDetector)
    pooling = detector._pooling
    maps = detector.run(noise(detector), 0, pooling - 1)[:-1]
    named = {str(i): level for i, level in enumerate(maps)}
    heads = detector.network.roi_heads
    pooled = heads.box_roi_pool(named, [target.boxes for target in TARGETS], [(SIDE, SIDE)] * len(TARGETS))
    expected = heads.box_head(pooled)
    for cut in (0, pooling - 1, pooling, pooling + 1, len(detector.layers) - 1):
        activations = detector.prefix(noise(detector), cut, TARGETS)
        _, (found,) = detector.losses_and_objects(activations, cut, TARGETS)
        torch.testing.assert_close(found.values, expected, atol=1e-4, rtol=1e-4)


def test_a_detector_without_maps_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(DETECTORS, stub_queries.SPEC.name, stub_queries.SPEC)
    detector = build_detector(stub_queries.SPEC.name, weights="none", image_size=SIDE)
    with pytest.raises(ModelError, match="cannot be distilled into") as caught:
        detector.losses_and_objects(noise(detector), 0, TARGETS)
    assert caught.value.hint
