"""SSD and SSDLite as chains: the same numbers as torchvision's own forward."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest
import torch
from helpers_torchvision import (
    assert_equal_detections,
    canvases,
    norms_of_noise,
    their_detections,
    their_losses,
    theirs_of,
)
from torch import Tensor, nn
from torchvision.models import detection, vgg16
from torchvision.models.detection.image_list import ImageList

from fewshot_cli.detectors.chain import Target
from fewshot_cli.detectors.registry import build_detector, select_in
from fewshot_cli.detectors.ssd_torchvision import SsdDetector, vgg_anchors
from fewshot_cli.errors import PolicyError

LITE, VGG = "ssdlite320_mobilenet_v3_large", "ssd300_vgg16"
SIZES = {LITE: 128, VGG: 288}
TARGETS = [
    Target(torch.tensor([[10.0, 12.0, 60.0, 90.0], [70.0, 5.0, 120.0, 40.0]]), torch.tensor([0, 1])),
    Target(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64)),
]


@pytest.fixture(scope="module", params=[LITE, pytest.param(VGG, marks=pytest.mark.slow)])
def detector(request: pytest.FixtureRequest) -> SsdDetector:
    """With random weights and two classes; tests read it and do not change it."""
    found = build_detector(request.param, weights="none", image_size=SIZES[request.param])
    found.replace_classes(["helmet", "bird"], [(), ()])
    return spread_scores(cast(SsdDetector, norms_of_noise(found) if request.param == LITE else found))


@torch.no_grad()
def spread_scores(found: SsdDetector) -> SsdDetector:
    """Give the class logits of each level a deviation of 1, so that scores are neither all equal nor all 0 or 1."""
    for predictor in found.predictors:
        found.network.get_parameter(f"{predictor.name}.weight").normal_(0, 0.02)
        found.network.get_parameter(f"{predictor.name}.bias").zero_()
    logits = found.run(canvases(found.image_size, 1), 0)
    for predictor, level in zip(found.predictors, logits, strict=False):
        found.network.get_parameter(f"{predictor.name}.weight").div_(level.std())
    return found


def torchvisions(found: SsdDetector) -> nn.Module:
    """torchvision's network of that name with the same weights and the anchors of the canvas."""
    with torch.device("meta"):
        network = getattr(detection, found.name)(weights=None, weights_backbone=None, num_classes=3)
    state = {name.replace("rescale.weight", "scale_weight"): each for name, each in found.network.state_dict().items()}
    network.load_state_dict(state, assign=True)
    network.anchor_generator = found.anchor_generator
    network.transform.fixed_size = (found.image_size, found.image_size)
    network.score_thresh, network.topk_candidates, network.detections_per_img = 0.001, 100_000, 100
    return theirs_of(network, found.image_size)


def test_losses_and_detections_are_torchvisions(detector: SsdDetector, monkeypatch: pytest.MonkeyPatch) -> None:
    """Losses bit for bit, with the hardest negatives, an image without boxes included; detections to the last digits.

    The input is normalised as torchvision does, which differs between the two.
    """
    targets = TARGETS[: 1 if detector.name == VGG else 2]  # one image: it is large
    images, network = canvases(detector.image_size, len(targets)), torchvisions(detector)
    monkeypatch.setattr(type(detector), "suppression", replace(detector.suppression, candidates=100_000))
    with torch.no_grad():
        wanted = their_losses(network, images, targets, first=1)
        outputs = detector.run(images, 0)
        found = detector.loss(outputs, targets)
        detections = detector.decode(outputs)
    assert {name: loss.item() for name, loss in wanted.items()} == {name: loss.item() for name, loss in found.items()}
    assert all(loss > 0 for loss in found.values())
    assert_equal_detections(their_detections(network, images, first=1), detections)


@pytest.mark.parametrize("name", [LITE, VGG])
def test_the_layers_are_stages_extra_blocks_and_a_predictor(name: str) -> None:
    """Five stages by stride; the neck makes the coarser maps; every level's predictor is the only head layer."""
    with torch.device("meta"):
        layers = build_detector(name, weights="none").layers
    assert [f"backbone.stage{i}" for i in range(1, 6)] + ["neck", "head.1"] == [layer.name for layer in layers]
    neck = [module.removeprefix("backbone.") for module, _ in layers[5].modules]
    extra = {LITE: [f"extra.{i}" for i in range(4)], VGG: ["rescale", *(f"extra.{i}" for i in range(1, 5))]}
    assert extra[name] == neck
    assert ["head.classification_head", "head.regression_head"] == [module for module, _ in layers[6].modules]


def test_symmetric_needs_more_than_one_layer() -> None:
    """With M = 1 there is no first layer besides the last; the error names heads that have more."""
    with pytest.raises(PolicyError, match="this head has M = 1 layers") as caught:
        select_in(VGG, "symmetric", 2)
    assert "It would work with: retinanet_resnet50_fpn" in str(caught.value.hint)


def test_anchors_share_the_canvas_as_at_300_pixels() -> None:
    """At 300 pixels the anchors are torchvision's, at any other size those of 300 as far as the cells are the same."""
    with torch.device("meta"):
        theirs = detection.ssd300_vgg16(weights=None, weights_backbone=None).anchor_generator

    def boxes(generator: nn.Module, size: int, cells: tuple[int, ...]) -> Tensor:
        maps = [torch.zeros(1, 1, n, n) for n in cells]
        return cast(Tensor, generator(ImageList(torch.zeros(1, 3, size, size), [(size, size)]), maps)[0])

    cells = (38, 19, 10, 5, 3, 1)
    assert torch.equal(boxes(theirs, 300, cells), boxes(vgg_anchors(300), 300, cells))
    coarse = (3, 1)
    ours = boxes(vgg_anchors(320), 320, (40, 20, 10, 5, *coarse)) / 320
    expected = boxes(theirs, 300, cells) / 300
    count = sum(4 * n * n for n in coarse)
    torch.testing.assert_close(expected[-count:], ours[-count:])


def test_vgg_of_imagenet_goes_into_the_first_stages(tmp_path: Path) -> None:
    """Its convolutions are the detector's up to conv5_3; the classifier, NaN in torchvision's file, is not looked at."""
    with torch.device("meta"):
        shapes = {name: tensor.shape for name, tensor in vgg16(weights=None).features.state_dict().items()}
    torch.manual_seed(4)
    state = {f"features.{name}": torch.randn(shape) for name, shape in shapes.items()}
    torch.save({**state, "classifier.0.weight": torch.full((3, 3), torch.nan)}, tmp_path / "vgg.pth")
    found = build_detector(VGG, weights=tmp_path / "vgg.pth")
    own = found.network.state_dict()
    assert not found.pretrained
    assert torch.equal(state["features.0.weight"], own["backbone.features.0.weight"])
    assert torch.equal(state["features.21.bias"], own["backbone.features.21.bias"])
    assert torch.equal(state["features.24.weight"], own["backbone.extra.0.1.weight"])
    assert torch.equal(state["features.28.weight"], own["backbone.extra.0.5.weight"])
