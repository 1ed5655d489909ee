"""FCOS as a chain: the same numbers as torchvision's own forward."""

from __future__ import annotations

from typing import cast

import pytest
import torch
from helpers_torchvision import canvases, some_norms, their_detections, their_losses, theirs_of

from fewshot_cli.detectors.chain import Target
from fewshot_cli.detectors.fcos import SUPPRESSION, FcosDetector
from fewshot_cli.detectors.registry import build_detector

SIZE = 128
TARGETS = [
    Target(torch.tensor([[10.0, 12.0, 60.0, 90.0], [70.0, 5.0, 120.0, 40.0]]), torch.tensor([3, 90])),
    Target(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64)),
]


@pytest.fixture(scope="module")
def detector() -> FcosDetector:
    """With random weights; tests read it and do not change it."""
    return cast(FcosDetector, some_norms(build_detector("fcos_resnet50_fpn", weights="none", image_size=SIZE)))


def test_the_loss_is_torchvisions_bit_for_bit(detector: FcosDetector) -> None:
    """All three losses equal the network's own in train mode with norms in eval, an image without boxes included."""
    wanted = their_losses(theirs_of(detector.network, SIZE), canvases(SIZE), TARGETS, first=0)
    found = detector.losses(canvases(SIZE), 0, TARGETS)
    assert {name: loss.item() for name, loss in wanted.items()} == {name: loss.item() for name, loss in found.items()}
    assert all(loss > 0 for loss in found.values())


@torch.no_grad()
def test_detections_are_torchvisions_bit_for_bit(detector: FcosDetector) -> None:
    """Boxes, scores and labels equal the network's own in eval, down to 0.001."""
    network = theirs_of(detector.network, SIZE)
    network.score_thresh = SUPPRESSION.min_score
    found = detector.decode(detector.run(canvases(SIZE), 0))
    for theirs, ours in zip(their_detections(network, canvases(SIZE), first=0), found, strict=True):
        assert all(torch.equal(*pair) for pair in zip(theirs, ours, strict=True))
        assert 0 < len(ours.scores) <= 100


def test_a_head_layer_is_a_depth_of_both_towers(detector: FcosDetector) -> None:
    """A convolution and its norm in each tower; the predictor has classes, boxes and centre-ness."""
    modules = {layer.name: [name for name, _ in layer.modules] for layer in detector.layers if layer.part == "head"}
    towers = ("head.classification_head", "head.regression_head")
    for depth in range(4):
        expected = [f"{tower}.conv.{place}" for tower in towers for place in (3 * depth, 3 * depth + 1)]
        assert expected == modules[f"head.{depth + 1}"]
    predictors = [
        "head.classification_head.cls_logits",
        *(f"{towers[1]}.{name}" for name in ("bbox_reg", "bbox_ctrness")),
    ]
    assert predictors == modules["head.5"]
