"""A tiny two-stage detector: what a Faster R-CNN (arXiv 1506.01497) needs of the contract, with random weights.

Legend: B images, H × W cells of stride 8, N = PROPOSALS at most per image, K classes. Offsets are of the corners, in
units of the stride. The head sees padded regions with their count; what it trains on is sampled with the targets.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import batched_nms, box_iou, nms, roi_align

from fewshot_cli.detectors.chain import Activations, Detections, Detector, Layer, Target
from fewshot_cli.detectors.predictors import ClassPredictor, numbered
from fewshot_cli.detectors.ragged import pad_ragged, unpad
from fewshot_cli.detectors.registry import DetectorSpec
from fewshot_cli.detectors.weights import load_exactly, read_weights
from fewshot_cli.progress import Reporter

STRIDE, ANCHOR, PROPOSALS, SAMPLED, CHANNELS, POOLED = 8, 28.0, 32, 8, 16, 4
MATCH_IOU = 0.4
HEAD = 3
"""Index of the first layer of the head."""

SPEC = DetectorSpec("stub_two_stage", "two stages, random weights", __name__, 2, 2, 64)


def build(name: str, *, image_size: int, weights: str, reporter: Reporter) -> TwoStage:
    detector = TwoStage(name, numbered(3), image_size)
    if weights != "none":
        load_exactly(detector.network, read_weights(weights), what=f"{name} from {weights}")
        detector.pretrained = True
    return detector


def recognise(state: dict[str, Tensor]) -> str | None:
    return SPEC.name if "rpn.weight" in state else None


class Network(nn.Module):
    def __init__(self, classes: int) -> None:
        super().__init__()
        self.backbone = nn.ModuleList([nn.Conv2d(3, CHANNELS, 4, 4), nn.Conv2d(CHANNELS, CHANNELS, 2, 2)])
        self.rpn = nn.Conv2d(CHANNELS, 5, 3, padding=1)
        self.box_head = nn.Linear(CHANNELS * POOLED**2, 32)
        self.class_predictor = nn.Linear(32, 1 + classes)
        self.box_predictor = nn.Linear(32, 4)


class TwoStage(Detector):
    network: Network

    def __init__(self, name: str, classes: Sequence[str], image_size: int) -> None:
        super().__init__(name, classes, image_size)
        self.network = Network(len(classes))
        self.layers = self.make_layers()

    def make_layers(self) -> tuple[Layer, ...]:
        return (
            self.make_layer("backbone.1", "backbone", ["backbone.0"], partial(self._run_stage, 0)),
            self.make_layer("backbone.2", "backbone", ["backbone.1"], partial(self._run_stage, 1)),
            self.make_layer("proposals", "proposals", ["rpn"], self._propose),
            self.make_layer("head.1", "head", ["box_head"], self._run_box_head),
            self.make_layer("head.2", "head", ["class_predictor", "box_predictor"], self._run_predictors),
        )

    @property
    def predictors(self) -> list[ClassPredictor]:
        return [ClassPredictor("class_predictor", background=True)]

    def normalize(self, pixels: Tensor) -> Tensor:
        return pixels.float() / 128 - 1

    def _run_stage(self, index: int, x: Activations) -> Activations:
        return (F.relu(self.network.backbone[index](x[0])),)

    def _propose(self, x: Activations) -> Activations:
        """→ regions (B, N, C, 4, 4), boxes (B, N, 4), counts (B,), objectness (B, H·W), offsets (B, H·W, 4)."""
        objectness, offsets = self.network.rpn(x[0]).float().flatten(2).transpose(1, 2).split([1, 4], dim=2)
        objectness = objectness[..., 0]
        boxes = (self._anchors(x[0].device) + STRIDE * offsets).detach().clamp(0, self.image_size)
        kept = [nms(b, scores, 0.5)[:PROPOSALS] for b, scores in zip(boxes, objectness.detach(), strict=True)]
        found = [b[rows] for b, rows in zip(boxes, kept, strict=True)]
        regions = roi_align(x[0], found, POOLED, 1 / STRIDE).split([len(rows) for rows in kept])
        return pad_ragged(regions, PROPOSALS)[0], *pad_ragged(found, PROPOSALS), objectness, offsets

    def _run_box_head(self, x: Activations) -> Activations:
        return F.relu(self.network.box_head(x[0].flatten(2))), *x[1:]

    def _run_predictors(self, x: Activations) -> Activations:
        """→ class logits (B, N, 1 + K), box offsets (B, N, 4), then boxes and counts and what follows, as they came."""
        return self.network.class_predictor(x[0]), self.network.box_predictor(x[0]), *x[1:]

    def losses(self, activations: Activations, start: int, targets: Sequence[Target]) -> dict[str, Tensor]:
        """The head learns from SAMPLED proposals per image; whatever it is given of a proposal is sampled alike."""
        entry = max(start, HEAD)
        values, boxes, counts, objectness, offsets = self.run(activations, start, entry)
        rows = [_sample(found, target) for found, target in zip(unpad(boxes, counts), targets, strict=True)]
        (values, _), (boxes, counts) = (
            pad_ragged([part[chosen] for part, chosen in zip(padded, rows, strict=True)], SAMPLED)
            for padded in (values, boxes)
        )
        logits, moves, *_ = self.run((values, boxes, counts, objectness, offsets), entry)
        with torch.autocast(logits.device.type, enabled=False):
            stages = zip(unpad(boxes, counts), unpad(logits.float(), counts), unpad(moves.float(), counts), strict=True)
            head = [_head_loss(*image, target) for image, target in zip(stages, targets, strict=True)]
            anchors = self._anchors(boxes.device)
            first = [_proposal_loss(anchors, *image) for image in zip(objectness, offsets, targets, strict=True)]
        return {"head": torch.stack(head).mean(), "proposals": torch.stack(first).mean()}

    def decode(self, outputs: Activations) -> list[Detections]:
        logits, moves, boxes, counts, *_ = outputs
        boxes = (boxes + STRIDE * moves.float()).clamp(0, self.image_size)
        scores = logits.float().softmax(dim=2)[..., 1:]
        return [_suppress(*image) for image in zip(unpad(boxes, counts), unpad(scores, counts), strict=True)]

    def _anchors(self, device: torch.device) -> Tensor:
        """(H·W, 4) squares around the cells' centres, row by row."""
        centers = torch.arange(STRIDE / 2, self.image_size, STRIDE, device=device)
        rows, columns = torch.meshgrid(centers, centers, indexing="ij")
        middles = torch.stack([columns, rows], dim=-1).reshape(-1, 2)
        return torch.cat([middles - ANCHOR / 2, middles + ANCHOR / 2], dim=1)


def _match(boxes: Tensor, target: Target) -> Tensor:
    """(N,) number of the object that each box is on, counted from 1; 0 for the background."""
    return F.pad(box_iou(boxes, target.boxes), (1, 0), value=MATCH_IOU).argmax(dim=1)


def _sample(boxes: Tensor, target: Target) -> Tensor:
    """Rows of at most SAMPLED boxes, drawn at random, at most half of them on objects."""
    order = torch.randperm(len(boxes)).to(boxes.device)
    matched = _match(boxes, target)[order] > 0
    objects = order[matched][: SAMPLED // 2]
    return torch.cat([objects, order[~matched][: SAMPLED - len(objects)]])


def _head_loss(boxes: Tensor, logits: Tensor, moves: Tensor, target: Target) -> Tensor:
    matched = _match(boxes, target)
    labels = F.pad(target.labels + 1, (1, 0))[matched]
    return F.cross_entropy(logits, labels) + _box_loss(boxes, moves, matched, target)


def _proposal_loss(anchors: Tensor, objectness: Tensor, offsets: Tensor, target: Target) -> Tensor:
    matched = _match(anchors, target)
    found = F.binary_cross_entropy_with_logits(objectness, (matched > 0).float())
    return found + _box_loss(anchors, offsets, matched, target)


def _box_loss(boxes: Tensor, moves: Tensor, matched: Tensor, target: Target) -> Tensor:
    """Smooth L1 of the offsets of boxes on objects."""
    on = matched > 0
    wanted = (target.boxes[matched[on] - 1] - boxes[on]) / STRIDE
    return F.smooth_l1_loss(moves[on], wanted, reduction="sum") / max(1, 4 * int(on.sum()))


def _suppress(boxes: Tensor, scores: Tensor) -> Detections:
    rows, labels = (scores > 0.01).nonzero(as_tuple=True)
    kept = batched_nms(boxes[rows], scores[rows, labels], labels, 0.5)[:100]
    rows, labels = rows[kept], labels[kept]
    return Detections(boxes[rows], scores[rows, labels], labels)
