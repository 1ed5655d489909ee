"""The positives that losses hand over: scores and overlaps against an independent computation for each family."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

import pytest
import torch
from helpers_torchvision import canvases, some_norms
from torch import Tensor

from fewshot_cli.detectors import simota
from fewshot_cli.detectors.chain import Activations, Detector, Target
from fewshot_cli.detectors.positives import Positives
from fewshot_cli.detectors.ragged import from_bits
from fewshot_cli.detectors.registry import build_detector
from fewshot_cli.detectors.ssd_mobilenet import anchors_of

SIDE = 64
TARGETS = [
    Target(torch.tensor([[4.0, 6.0, 30.0, 34.0], [28.0, 20.0, 62.0, 60.0]]), torch.tensor([2, 0])),
    Target(torch.tensor([[10.0, 8.0, 44.0, 40.0]]), torch.tensor([1])),
    Target(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64)),
]
Pair = tuple[float, float]
"""Score and IoU of a positive."""

MINI, FCOS = "retinanet_mini", "fcos_resnet50_fpn"
SSD, SSD_FPN = "ssdlite320_mobilenet_v3_large", "ssd_mobilenet_v2_fpnlite"
YOLOX, FASTER = "yolox_nano", "fasterrcnn_mobilenet_v3_large_fpn"
FAMILIES = [YOLOX, MINI, FCOS, SSD, SSD_FPN, FASTER]
SIDES = {FCOS: 128}


@lru_cache
def built(name: str) -> Detector:
    return some_norms(build_detector(name, weights="none", image_size=SIDES.get(name, SIDE), seed=3))


def collected(detector: Detector, targets: Sequence[Target] = TARGETS) -> Positives:
    with detector.collecting() as found:
        torch.manual_seed(0)
        detector.losses(canvases(detector.image_size, len(targets)), 0, targets)
    return found[0]


def iou(first: Sequence[float], second: Sequence[float]) -> float:
    (a, b, c, d), (e, f, g, h) = first, second
    shared = max(0.0, min(c, g) - max(a, e)) * max(0.0, min(d, h) - max(b, f))
    return shared / ((c - a) * (d - b) + (g - e) * (h - f) - shared)


def sigmoid(logit: float) -> float:
    return 1 / (1 + math.exp(-logit))


def softmax(logits: Sequence[float], row: int) -> float:
    return math.exp(logits[row]) / sum(math.exp(each) for each in logits)


def moved(anchor: Sequence[float], offsets: Sequence[float], weights: tuple[float, float]) -> list[float]:
    """The box of offsets of centre and size (Faster R-CNN, equation 2), divided by these weights."""
    x, y, width, height = (anchor[0] + anchor[2]) / 2, (anchor[1] + anchor[3]) / 2, *sides(anchor)
    x, y = x + offsets[0] / weights[0] * width, y + offsets[1] / weights[0] * height
    width, height = width * math.exp(offsets[2] / weights[1]), height * math.exp(offsets[3] / weights[1])
    return [x - width / 2, y - height / 2, x + width / 2, y + height / 2]


def sides(box: Sequence[float]) -> tuple[float, float]:
    return box[2] - box[0], box[3] - box[1]


def overlapping(
    target: Target, anchors: list[list[float]], least: float, own: bool = True
) -> Iterator[tuple[int, int]]:
    """Anchor and object: of IoU `least` or more with the object that it overlaps most, or an object's best ones."""
    table = [[iou(anchor, box) for box in target.boxes.tolist()] for anchor in anchors]
    best = [max(column) for column in zip(*table, strict=True)]
    for number, row in enumerate(table):
        chosen = row.index(max(row)) if row else 0
        if row and (max(row) >= least or (own and any(a == b for a, b in zip(row, best, strict=True)))):
            yield number, chosen


def by_anchor(maps: Sequence[Tensor], image: int, width: int) -> list[list[float]]:
    """Maps (B, A·width, H, W) → the `width` numbers of each anchor, level by level, cell by cell."""
    rows: list[list[float]] = []
    for level in maps:
        _, channels, height, columns = level.shape
        split = level[image].view(channels // width, width, height, columns)
        rows += split.permute(2, 3, 0, 1).reshape(-1, width).tolist()
    return rows


def expected_of(name: str, detector: Any, outputs: Activations) -> Iterator[Pair]:
    levels, classes = len(outputs) // (3 if name == FCOS else 2), len(detector.classes)
    rows = classes + (name in (SSD, SSD_FPN))
    for image, target in enumerate(TARGETS):
        logits, offsets = by_anchor(outputs[:levels], image, rows), by_anchor(outputs[levels : 2 * levels], image, 4)
        boxes, labels = target.boxes.tolist(), target.labels.tolist()
        if name == SSD_FPN:
            anchors = anchors_of(tuple((each.shape[2], each.shape[3]) for each in outputs[:levels])).tolist()
        else:
            anchors = torch.cat(detector.anchors(outputs[:levels])).tolist()
        for row, thing in within(target, anchors) if name == FCOS else overlapping(target, anchors, 0.5):
            score = sigmoid(logits[row][labels[thing]])
            if name in (SSD, SSD_FPN):
                score = softmax(logits[row], 1 + labels[thing])
            yield score, iou(box_of(name, anchors[row], offsets[row]), boxes[thing])


def box_of(name: str, anchor: Sequence[float], offsets: Sequence[float]) -> list[float]:
    if name == SSD_FPN:
        return [corner + each * side for corner, each, side in zip(anchor, offsets, sides(anchor) * 2, strict=True)]
    if name == FCOS:
        x, y, side = (anchor[0] + anchor[2]) / 2, (anchor[1] + anchor[3]) / 2, anchor[2] - anchor[0]
        left, top, right, bottom = (max(0.0, each) * side for each in offsets)
        return [x - left, y - top, x + right, y + bottom]
    return moved(anchor, offsets, (10.0, 5.0) if name == SSD else (1.0, 1.0))


def within(target: Target, anchors: list[list[float]]) -> Iterator[tuple[int, int]]:
    """Points and objects as FCOS matches them: near the centre and inside, the largest distance that of the level."""
    finest, coarsest = (of(sides(anchor)[0] for anchor in anchors) for of in (min, max))
    for number, anchor in enumerate(anchors):
        x, y, stride = (anchor[0] + anchor[2]) / 2, (anchor[1] + anchor[3]) / 2, anchor[2] - anchor[0]
        least, most = 0 if stride == finest else 4 * stride, math.inf if stride == coarsest else 8 * stride
        fitting = []
        for thing, (a, b, c, d) in enumerate(target.boxes.tolist()):
            near = max(abs(x - (a + c) / 2), abs(y - (b + d) / 2)) < 1.5 * stride
            reach = (x - a, y - b, c - x, d - y)
            if near and min(reach) > 0 and least < max(reach) < most:
                fitting.append(((c - a) * (d - b), thing))
        if fitting:
            yield number, min(fitting)[1]


def assert_same(wanted: Sequence[Pair], found: Positives) -> None:
    assert len(wanted) == len(found.scores) > 2
    wanted_scores, wanted_ious = zip(*wanted, strict=True)
    assert found.scores.tolist() == pytest.approx(wanted_scores, rel=1e-4)
    assert found.ious.tolist() == pytest.approx(wanted_ious, rel=1e-3, abs=1e-5)
    assert max(wanted_ious) > 0


@torch.no_grad()
@pytest.mark.parametrize("name", [MINI, FCOS, SSD, SSD_FPN])
def test_positives_of_anchors_and_points(name: str) -> None:
    """Score of the correct class alone and IoU of the decoded box, for every anchor that matches an object, in order."""
    detector = built(name)
    outputs = detector.run(canvases(detector.image_size, len(TARGETS)), 0)
    assert_same(list(expected_of(name, detector, outputs)), collected(detector))


@torch.no_grad()
def test_positives_of_yolox() -> None:
    """Those of SimOTA; the class's score is not multiplied by objectness."""
    detector: Any = built(YOLOX)
    cells = detector.predictions(detector.run(canvases(SIDE, len(TARGETS)), 0))
    wanted = []
    for i, target in enumerate(TARGETS):
        pairs = simota.assign(
            cells.boxes[i],
            cells.classes[i],
            cells.objectness[i],
            cells.centers,
            cells.strides,
            target.boxes,
            target.labels,
        )
        for cell, thing in zip(pairs.predictions.tolist(), pairs.objects.tolist(), strict=True):
            score = sigmoid(cells.classes[i, cell, target.labels[thing]].item())
            wanted.append((score, iou(cells.boxes[i, cell].tolist(), target.boxes[thing].tolist())))
    assert_same(wanted, collected(detector))


@torch.no_grad()
@pytest.mark.parametrize("start", [0, -1])
def test_positives_of_regions(start: int) -> None:
    """Every region on an object, as there are fewer than are drawn, its own class's box decoded; cached ones too."""
    detector: Any = built(FASTER)
    images, start = canvases(SIDE, len(TARGETS)), start % len(detector.layers)
    logits, offsets, bits, counts, added = detector.prefix(images, len(detector.layers), TARGETS)
    wanted = []
    for i, target in enumerate(TARGETS):
        regions = from_bits(bits)[i, : counts[i] + added[i]].tolist()
        for row, thing in overlapping(target, regions, 0.5, own=False):
            label = 1 + int(target.labels[thing])
            box = moved(regions[row], offsets[i, row, 4 * label : 4 * label + 4].tolist(), (10.0, 5.0))
            wanted.append((softmax(logits[i, row].tolist(), label), iou(box, target.boxes[thing].tolist())))
    with detector.collecting() as found:
        detector.losses(detector.prefix(images, start, TARGETS), start, TARGETS)
    assert_same(wanted, found[0])


@pytest.mark.parametrize("name", FAMILIES)
def test_collecting_changes_no_bit(name: str) -> None:
    """Losses and their gradients with positives are those without; outside the context, nothing is collected."""
    detector = built(name)
    results = []
    for collects in (False, True):
        detector.zero_grad()
        torch.manual_seed(0)
        arguments = canvases(detector.image_size, len(TARGETS)), 0, TARGETS
        if collects:
            with detector.collecting() as found:
                losses = detector.losses(*arguments)
        else:
            losses = detector.losses(*arguments)
        torch.stack(list(losses.values())).sum().backward()
        gradients = [p.grad.clone() for p in detector.parameters() if p.grad is not None]
        results.append([*(loss.detach() for loss in losses.values()), *gradients])
    detector.zero_grad()
    assert all(torch.equal(*pair) for pair in zip(*results, strict=True))
    assert 1 == len(found) and not any(each.requires_grad for each in found[0])
    detector.losses(*arguments)
    assert 1 == len(found)


@pytest.mark.parametrize("name", FAMILIES)
def test_every_loss_is_of_one_task(name: str) -> None:
    """No loss of these detectors is left out, none counts twice, and each task has one."""
    detector = built(name)
    tasks = detector.classification_losses, detector.localisation_losses
    losses = detector.losses(canvases(detector.image_size, len(TARGETS)), 0, TARGETS)
    assert sorted(losses) == sorted(set(losses) & {name for names in tasks for name in names})
    assert not set(tasks[0]) & set(tasks[1])
    assert all(set(names) <= set(losses) for names in tasks)


@pytest.mark.parametrize("name", [YOLOX, MINI, FCOS, SSD, SSD_FPN])
def test_a_batch_without_objects_has_no_positives(name: str) -> None:
    """Empty tensors, nothing undefined."""
    detector = built(name)
    found = collected(detector, [TARGETS[2], TARGETS[2]])
    assert (0,) == tuple(found.scores.shape) == tuple(found.ious.shape)
