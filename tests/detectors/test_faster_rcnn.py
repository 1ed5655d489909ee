"""Faster R-CNN as a chain: the same numbers as torchvision's own forward, wherever it is cut."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import cast

import pytest
import torch
from helpers_torchvision import assert_equal_detections, canvases, some_norms, their_detections, their_losses, theirs_of
from torch import Tensor
from torchvision.models.detection import fasterrcnn_mobilenet_v3_large_fpn

from fewshot_cli.detectors.chain import Target
from fewshot_cli.detectors.faster_rcnn import APPENDED, FasterRcnnDetector
from fewshot_cli.detectors.ragged import from_bits, unpad
from fewshot_cli.detectors.registry import build_detector
from fewshot_cli.errors import CheckpointError
from fewshot_cli.policies import select
from fewshot_cli.training.cache import FeatureCache
from fewshot_cli.training.plan import plan_chain, planned_layers

SMALL, V1, V2 = "fasterrcnn_mobilenet_v3_large_fpn", "fasterrcnn_resnet50_fpn", "fasterrcnn_resnet50_fpn_v2"
SIZE = 96
TARGETS = [
    Target(torch.tensor([[10.0, 12.0, 60.0, 90.0], [50.0, 5.0, 90.0, 40.0]]), torch.tensor([3, 89])),
    Target(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64)),
]
PROPOSALS, SAMPLED = 40, 16
"""Instead of 1,000 and 512, so that both are drawn from more, and in less time."""


def build(name: str) -> FasterRcnnDetector:
    detector = cast(FasterRcnnDetector, some_norms(build_detector(name, weights="none", image_size=SIZE)))
    detector.network.rpn._post_nms_top_n = {"training": PROPOSALS, "testing": PROPOSALS}
    detector.network.rpn._pre_nms_top_n = {"training": 100, "testing": 100}
    for part in (detector.network.rpn, detector.network.roi_heads):
        part.fg_bg_sampler.batch_size_per_image = SAMPLED
    return detector


@pytest.fixture(scope="module")
def small() -> FasterRcnnDetector:
    """With random weights; tests read it, and change copies."""
    return build(SMALL)


@pytest.fixture(params=[SMALL, V1, V2])
def detector(request: pytest.FixtureRequest, small: FasterRcnnDetector) -> FasterRcnnDetector:
    return small if request.param == SMALL else build(request.param)


def losses_of(detector: FasterRcnnDetector, start: int = 0, targets: list[Target] = TARGETS) -> dict[str, Tensor]:
    """From the input of a layer on, always with the same draws."""
    with torch.no_grad():
        stored = detector.prefix(canvases(SIZE), start, targets)
    torch.manual_seed(7)
    return detector.losses(stored, start, targets)


def test_losses_and_detections_are_torchvisions(detector: FasterRcnnDetector) -> None:
    """In train mode with the same draws, norms in eval, an image without objects included; and in eval.

    But for the last digits: we compute the box head image by image, torchvision all images at once.
    """
    network = theirs_of(detector.network, SIZE)
    torch.manual_seed(7)
    wanted = their_losses(network, canvases(SIZE), TARGETS, first=1)
    names = {"objectness": "loss_objectness", "rpn_regression": "loss_rpn_box_reg"}
    names |= {"classification": "loss_classifier", "bbox_regression": "loss_box_reg"}
    found = losses_of(detector)
    expected = {ours: pytest.approx(wanted[theirs].item(), rel=1e-5) for ours, theirs in names.items()}
    assert expected == {name: loss.item() for name, loss in found.items()}
    with torch.no_grad():
        detections = detector.decode(detector.run(canvases(SIZE), 0))
    assert_equal_detections(their_detections(network, canvases(SIZE), first=1), detections)


def test_losses_are_the_same_from_any_cut(small: FasterRcnnDetector) -> None:
    """With the same draws, and whatever is frozen; behind the pooling the objects' features come from the prefix."""
    whole = losses_of(small)
    for cut in range(1, len(small.layers)):
        detector = copy.deepcopy(small)
        for layer in detector.layers[:cut]:
            for parameter in layer.parameters().values():
                parameter.requires_grad_(False)
        expected = losses_of(detector) if cut > 6 else whole
        found = losses_of(detector, cut)
        assert {name: loss.item() for name, loss in expected.items()} == {
            name: loss.item() for name, loss in found.items()
        }
        assert {"classification", "bbox_regression"} | ({"objectness", "rpn_regression"} if cut <= 6 else set()) == set(
            found
        )


@pytest.mark.parametrize(
    ("trained", "expected"), [("head.3", False), ("head.1", False), ("proposals", True), ("neck", True)]
)
def test_the_proposals_learn_if_they_or_what_is_before_them_trains(
    small: FasterRcnnDetector, trained: str, expected: bool
) -> None:
    """Otherwise their losses would only be noise in the sum, and draws that a cached run does not make."""
    detector = copy.deepcopy(small).requires_grad_(False)
    for layer in detector.layers:
        if layer.name == trained:
            for parameter in layer.parameters().values():
                parameter.requires_grad_(True)
    losses = losses_of(detector)
    assert expected == ("objectness" in losses)
    torch.stack(list(losses.values())).sum().backward()
    assert any(p.grad is not None for p in detector.parameters()) and all(torch.isfinite(v) for v in losses.values())


def layers_of(name: str, policy: str, budget: int | None, **also: int) -> tuple[str, ...]:
    with torch.device("meta"):
        detector = build_detector(name, weights="none", image_size=SIZE)
    chosen = select(policy, budget, detector.head_depth, stages=detector.backbone_stages, **also)  # type: ignore[arg-type]
    return planned_layers(detector, plan_chain(detector, chosen))


def test_last_1_is_tfa_and_all_with_neck_and_stages_the_thesis() -> None:
    """The predictor alone; or everything but the first stages."""
    assert ("head.3",) == layers_of(V1, "last", 1)
    assert ("head.6",) == layers_of(V2, "last", 1)
    chosen = layers_of(V1, "all", None, neck=True, backbone_stages=2)
    assert ("backbone.layer3", "backbone.layer4", "neck", "proposals", "head.1", "head.2", "head.3") == chosen


def test_a_head_layer_is_a_layer_of_the_box_head() -> None:
    """fc6, fc7 and the predictor; in v2 four convolutions and a fully connected layer before it."""
    heads = {}
    for name in (V1, V2):
        with torch.device("meta"):
            detector = build_detector(name, weights="none")
        heads[name] = [[module for module, _ in layer.modules] for layer in detector.layers if layer.part == "head"]
    box, last = "roi_heads.box_head", ["roi_heads.box_predictor"]
    assert [[f"{box}.fc6"], [f"{box}.fc7"], last] == heads[V1]
    assert [*([f"{box}.{place}"] for place in (0, 1, 2, 3, 5)), last] == heads[V2]


@torch.no_grad()
def test_boxes_of_the_objects_are_counted_apart(small: FasterRcnnDetector) -> None:
    """They stand behind the proposals, the first APPENDED of an image, and only where targets are given."""
    crowd = Target(torch.rand(APPENDED + 5, 4).cumsum(dim=1) * 20, torch.zeros(APPENDED + 5, dtype=torch.int64))
    values, bits, counts, added = small.prefix(canvases(SIZE), 8, [crowd, TARGETS[0]])
    assert [APPENDED, 2] == added.tolist() and (counts > 0).all()
    rows = unpad(from_bits(bits), counts + added)
    assert torch.equal(crowd.boxes[:APPENDED], rows[0][counts[0] :])
    assert torch.equal(TARGETS[0].boxes, rows[1][counts[1] :])
    assert values.shape[1] == bits.shape[1] == PROPOSALS + APPENDED
    assert [0, 0] == small.run(canvases(SIZE), 0, 8)[-1].tolist()


@torch.no_grad()
def test_a_cache_in_half_precision_does_not_round_boxes(small: FasterRcnnDetector, tmp_path: Path) -> None:
    """Features are rounded to bf16; a box by pixels would be another box."""
    expected = small.prefix(canvases(SIZE), 8, TARGETS)

    def prefix(items: object) -> tuple[tuple[Tensor, ...], list[None]]:
        return expected, [None, None]

    cache = FeatureCache(prefix, 2, memory=1 << 30, disk=0, folder=tmp_path, dtype=torch.bfloat16).fill()
    found, _ = cache.batch([0, 1])
    assert all(torch.equal(*pair) for pair in zip(expected[1:], found[1:], strict=True))
    assert not torch.equal(expected[0], found[0])


def test_half_precision_is_for_convolutions_and_matrices_alone(small: FasterRcnnDetector) -> None:
    """Under autocast, features and logits are bf16; boxes, losses and detections stay float32 and finite."""
    with torch.autocast("cpu", torch.bfloat16):
        values, bits, *_ = small.prefix(canvases(SIZE), 8, TARGETS)
        losses = losses_of(small)
        with torch.no_grad():
            found = small.decode(small.run(canvases(SIZE), 0))
    assert (torch.bfloat16, torch.int32) == (values.dtype, bits.dtype)
    assert {torch.float32} == {loss.dtype for loss in losses.values()}
    assert all(torch.isfinite(loss) for loss in losses.values())
    assert all(torch.float32 == each.boxes.dtype == each.scores.dtype for each in found)


def test_nothing_to_learn_from_is_a_loss_of_zero(small: FasterRcnnDetector) -> None:
    """Neither proposals nor objects in a whole batch: torchvision's mean over no region would not be a number."""
    detector = copy.deepcopy(small).requires_grad_(False)
    detector.network.rpn.score_thresh = 2.0
    detector.layers[-1].modules[0][1].requires_grad_(True)
    losses = losses_of(detector, 0, [TARGETS[1], TARGETS[1]])
    assert {"classification": 0.0, "bbox_regression": 0.0} == {name: loss.item() for name, loss in losses.items()}
    torch.stack(list(losses.values())).sum().backward()
    assert [[], []] == [found.scores.tolist() for found in detector.decode(detector.run(canvases(SIZE), 0))]


@torch.no_grad()
def test_a_class_regresses_boxes_as_its_base_classes_do_or_as_all(small: FasterRcnnDetector) -> None:
    """Rows of boxes are the mean over its base classes, or over all real ones, holes in COCO's numbering left out."""
    detector = copy.deepcopy(small)
    old = detector.network.roi_heads.box_predictor.bbox_pred.weight.view(91, 4, -1).clone()
    detector.replace_classes(["helmet", "cat", "pet"], [(), (16,), (16, 17)])
    new = detector.network.roi_heads.box_predictor.bbox_pred.weight.view(4, 4, -1)
    real = [row for row, name in enumerate(small.classes, start=1) if name != "N/A"]
    assert 80 == len(real)
    torch.testing.assert_close(old[real].mean(dim=0), new[1])
    assert torch.equal(old[17], new[2]) and torch.equal(old[0], new[0])
    torch.testing.assert_close((old[17] + old[18]) / 2, new[3])


def old_name(name: str) -> str:
    """The name that a tensor has in torchvision's files, which are older than the present modules."""
    if name.startswith("rpn.head.conv."):
        return name.replace("conv.0.0.", "conv.")
    return re.sub(r"(blocks\.\d)\.0\.", r"\1.", name) if name.startswith("backbone.fpn.") else name


def test_the_old_names_of_the_releases_are_understood(tmp_path: Path, small: FasterRcnnDetector) -> None:
    """Files with the layer names of torchvision's releases load, as torchvision itself loads them."""
    own = small.network.state_dict()
    old = {old_name(name): tensor for name, tensor in own.items() if not name.endswith("batches_tracked")}
    assert {"rpn.head.conv.weight", "backbone.fpn.inner_blocks.1.bias"} <= set(old) - set(own)
    torch.save(old, tmp_path / "w.pth")
    with torch.device("meta"):
        theirs = fasterrcnn_mobilenet_v3_large_fpn(weights=None, weights_backbone=None)
    theirs.load_state_dict(torch.load(tmp_path / "w.pth", weights_only=True), assign=True)
    loaded = build_detector(SMALL, weights=tmp_path / "w.pth", image_size=SIZE)
    state = loaded.network.state_dict()
    assert all(
        torch.equal(tensor, state[name]) and torch.equal(tensor, own[name])
        for name, tensor in theirs.named_parameters()
    )
    assert loaded.pretrained and ("person", "bicycle") == loaded.classes[:2] and 90 == len(loaded.classes)


def cut_down(keys: list[str]) -> dict[str, Tensor]:
    return {key: torch.zeros(2, 2) for key in keys}


@pytest.mark.parametrize(
    ("given", "wanted", "also"), [(V1, V2, "roi_heads.box_head.fc6.weight"), (V2, V1, "roi_heads.box_head.5.weight")]
)
def test_weights_of_the_other_version_are_recognised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str, wanted: str, also: str
) -> None:
    """Weights of v1 given to v2, and the other way round, say whose they are."""
    keys = [also, "roi_heads.box_predictor.cls_score.weight", "backbone.body.layer1.0.conv1.weight"]
    torch.save(cut_down(keys), tmp_path / "w.pth")
    with torch.device("meta"), pytest.raises(CheckpointError, match="missing") as caught:
        build_detector(wanted, weights=tmp_path / "w.pth")
    assert f"These look like weights of {given};" in str(caught.value.hint)
