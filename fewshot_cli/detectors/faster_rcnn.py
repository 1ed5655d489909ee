"""Faster R-CNN on torchvision's own modules (Ren et al., arXiv 1506.01497, on an FPN), as a chain of layers.

Shapes: B images, S side of the canvas, A anchors of all levels, L = `rows` rows for proposals, K classes.

    maps of the pyramid ─► proposals ─► maps, boxes (B, L, 4), counts (B,), added (B,)
                                             │ RoI pooling, first layer of the box head
                                             ▼
                           head.1 … head.M: values (B, L, …), boxes, counts, added

The first `counts` rows of an image are its proposals. Training appends the boxes of its objects to them, as torchvision
does, so that there are good boxes to learn from at first: the next `added` rows, at most APPENDED. Detecting never
looks at those. All other rows are zeros.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import MobileNet_V3_Large_Weights, ResNet50_Weights
from torchvision.models.detection import (
    FasterRCNN,
    FasterRCNN_MobileNet_V3_Large_FPN_Weights,
    FasterRCNN_ResNet50_FPN_V2_Weights,
    FasterRCNN_ResNet50_FPN_Weights,
    fasterrcnn_mobilenet_v3_large_fpn,
    fasterrcnn_resnet50_fpn,
    fasterrcnn_resnet50_fpn_v2,
)
from torchvision.models.detection._utils import BalancedPositiveNegativeSampler
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.roi_heads import fastrcnn_loss
from torchvision.models.detection.rpn import concat_box_prediction_layers

from fewshot_cli.detectors.chain import Activations, Detections, Layer, Target
from fewshot_cli.detectors.objects import ObjectFeatures
from fewshot_cli.detectors.positives import Matched, of_class
from fewshot_cli.detectors.predictors import ClassPredictor, class_names
from fewshot_cli.detectors.ragged import from_bits, pad_ragged, to_bits, unpad
from fewshot_cli.detectors.torchvision_fpn import FpnDetector, mobilenet_source, resnet_source
from fewshot_cli.detectors.torchvision_weights import (
    FOREGROUND,
    Published,
    build_published,
    count_classes,
    with_modern_neck,
)
from fewshot_cli.errors import ModelError, closest
from fewshot_cli.progress import Reporter

APPENDED = 100
"""Objects of an image, at most, whose boxes training appends to its proposals: as many as it may have detections."""
MIN_SCORE = 0.001
"""Below torchvision's 0.05: AP ranks all detections, and that would cut the tail of the recall curve."""


def build(name: str, *, image_size: int, weights: str, reporter: Reporter) -> FasterRcnnDetector:
    """Build a Faster R-CNN with its base classes.

    Args:
        name: `fasterrcnn_resnet50_fpn`, `fasterrcnn_resnet50_fpn_v2` or `fasterrcnn_mobilenet_v3_large_fpn`.
        image_size: side of the canvas, a multiple of 32, pixels.
        weights: `default` (COCO), `imagenet` (backbone), `none` (random), or a file.
        reporter: shows the progress of downloads.

    Raises:
        ModelError: no such variant.
        CheckpointError: a file that does not fit.
        NetworkError: the download failed.
    """
    if name not in _VARIANTS:
        raise ModelError(f"{name!r} is not a Faster R-CNN", hint=closest(name, _VARIANTS))
    construct, published = _VARIANTS[name]

    def make(count: int | None) -> FasterRcnnDetector:
        classes = class_names(FOREGROUND, count or len(FOREGROUND))
        network = construct(weights=None, weights_backbone=None, num_classes=1 + len(classes))
        detector = FasterRcnnDetector(name, network, classes, image_size)
        detector.fast_in_bf16 = "resnet50" in name  # depthwise convolutions gain nothing from it
        return detector

    return build_published(make, published, weights, reporter)


def recognise(state: Mapping[str, Tensor]) -> str | None:
    """The Faster R-CNN, or the model of torchvision that extends it, whose weights these are; otherwise None."""
    if "roi_heads.box_predictor.cls_score.weight" not in state:
        return None
    for part, name in (("mask", "Mask R-CNN"), ("keypoint", "Keypoint R-CNN")):
        if any(key.startswith(f"roi_heads.{part}_predictor.") for key in state):
            return name
    if "backbone.body.layer1.0.conv1.weight" not in state:
        return "fasterrcnn_mobilenet_v3_large_fpn"
    return "fasterrcnn_resnet50_fpn" if "roi_heads.box_head.fc6.weight" in state else "fasterrcnn_resnet50_fpn_v2"


class _Sampler(BalancedPositiveNegativeSampler):
    """torchvision's, but it draws with the CPU's generator on every device, as the contract asks."""

    def __call__(self, matched: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        drawn = super().__call__([each.cpu() for each in matched])
        objects, background = ([mask.to(matched[0].device) for mask in masks] for masks in drawn)
        return objects, background


class FasterRcnnDetector(FpnDetector):
    """Faster R-CNN: backbone stages, FPN, the region proposals, and the box head with the predictor.

    The RPN is the layer `proposals`, which trains when the whole head does. Layer `head.i` is the i-th layer of the box
    head that has weights, RoI pooling the beginning of the first; the predictor, class scores and boxes, is the last:

    - `fasterrcnn_resnet50_fpn`, `fasterrcnn_mobilenet_v3_large_fpn`: fc6, fc7, predictor (M = 3);
    - `fasterrcnn_resnet50_fpn_v2`: four convolutions, a fully connected layer, predictor (M = 6).

    `last 1` is what TFA trains (arXiv 2003.06957). Proposals are the same number in training and detecting, at most
    1,000 before non-maximum suppression of each level and 1,000 after it; torchvision trains with 2,000.
    """

    network: FasterRCNN
    classification_losses = ("classification", "objectness")
    localisation_losses = ("bbox_regression", "rpn_regression")

    def __init__(self, name: str, network: FasterRCNN, classes: Sequence[str], image_size: int) -> None:
        for owner in (network.rpn, network.roi_heads):
            sampler = owner.fg_bg_sampler
            owner.fg_bg_sampler = _Sampler(sampler.batch_size_per_image, sampler.positive_fraction)
        network.roi_heads.score_thresh = MIN_SCORE
        super().__init__(name, network, classes, image_size)

    @property
    def anchor_generator(self) -> AnchorGenerator:
        return cast(AnchorGenerator, self.network.rpn.anchor_generator)

    @property
    def predictors(self) -> list[ClassPredictor]:
        """Class scores, and boxes, which each class regresses for itself; both have a row for the background."""
        name = "roi_heads.box_predictor"
        return [
            ClassPredictor(f"{name}.cls_score", background=True),
            ClassPredictor(f"{name}.bbox_pred", background=True, width=4),
        ]

    @property
    def rows(self) -> int:
        """L."""
        return int(self.network.rpn.post_nms_top_n()) + APPENDED

    def make_head(self) -> tuple[Layer, ...]:
        head = self.network.roi_heads.box_head
        weighted = [name for name, module in head.named_children() if module.state_dict()]
        layers = [
            self.make_layer(f"head.{number}", "head", [f"roi_heads.box_head.{name}"], partial(self._run_box_head, name))
            for number, name in enumerate(weighted, start=1)
        ]
        first = layers[0]
        return (
            self.make_layer("proposals", "proposals", ["rpn.head"], self._run_proposals),
            Layer(first.name, first.part, first.modules, partial(self._run_first, weighted[0])),
            *layers[1:],
            self.make_layer(f"head.{len(layers) + 1}", "head", ["roi_heads.box_predictor"], self._run_predictor),
        )

    @property
    def _pooling(self) -> int:
        """Index of the layer that regions are pooled in."""
        return next(index for index, layer in enumerate(self.layers) if layer.part == "head")

    # The layers.

    def _run_proposals(self, x: Activations) -> Activations:
        """All maps → those that regions are pooled from, boxes, counts and added (none)."""
        return self._with_proposals(x, *self._rpn(x))

    def _rpn(self, maps: Activations) -> tuple[Tensor, Tensor]:
        """Maps → objectness logits (B · A, 1) and box offsets (B · A, 4), float32."""
        objectness, offsets = concat_box_prediction_layers(*self.network.rpn.head(list(maps)))
        return objectness.float(), offsets.float()

    def _with_proposals(self, maps: Activations, objectness: Tensor, offsets: Tensor) -> Activations:
        boxes, counts = pad_ragged(self._propose(maps, objectness.detach(), offsets.detach()), self.rows)
        return *maps[:-1], to_bits(boxes), counts, torch.zeros_like(counts)

    def _propose(self, maps: Activations, objectness: Tensor, offsets: Tensor) -> list[Tensor]:
        """The proposals (N, 4) of each image, canvas pixels, best first."""
        images = len(maps[0])
        if offsets.is_meta:  # only shapes are known, and they do not depend on the number
            return [offsets[:0]] * images
        rpn, anchors = self.network.rpn, self.anchors(maps)
        boxes = rpn.box_coder.decode(offsets, [torch.cat(anchors)] * images).reshape(images, -1, 4)
        found, _ = rpn.filter_proposals(
            boxes, objectness, [self.canvas_size] * images, [len(level) for level in anchors]
        )
        return cast("list[Tensor]", found)

    def _run_first(self, name: str, x: Activations) -> Activations:
        """Maps, boxes, counts, added → values of the pooled regions instead of the maps."""
        *maps, bits, counts, added = x
        boxes = unpad(from_bits(bits), counts + added)
        # Image by image: an image's values must not depend on the others, and all regions at once are large.
        pooled = [self._pool([level[i : i + 1] for level in maps], each) for i, each in enumerate(boxes)]
        values, _ = pad_ragged([self._through(name, rows) for rows in pooled], bits.shape[1])
        return values, bits, counts, added

    def _pool(self, maps: Sequence[Tensor], boxes: Tensor) -> Tensor:
        """Maps of one image and (N, 4) boxes → (N, C, 7, 7)."""
        pool = self.network.roi_heads.box_roi_pool
        if boxes.is_meta:
            return maps[0].new_empty(len(boxes), maps[0].shape[1], *pool.output_size)
        named = {str(i): level for i, level in enumerate(maps)}
        return cast(Tensor, pool(named, [boxes], [self.canvas_size]))

    def _through(self, name: str, rows: Tensor) -> Tensor:
        """Rows through one layer of the box head: a fully connected one, or a convolution with what follows it."""
        module = self.network.roi_heads.box_head.get_submodule(name)
        return F.relu(module(rows.flatten(1))) if isinstance(module, nn.Linear) else cast(Tensor, module(rows))

    def _run_box_head(self, name: str, x: Activations) -> Activations:
        values, bits, counts, added = x
        rows = [self._through(name, each) for each in unpad(values, counts + added)]
        return pad_ragged(rows, bits.shape[1])[0], bits, counts, added

    def _run_predictor(self, x: Activations) -> Activations:
        """→ class logits (B, L, 1 + K), box offsets (B, L, 4 · (1 + K)), boxes, counts, added."""
        values, bits, counts, added = x
        found = [self.network.roi_heads.box_predictor(each) for each in unpad(values, counts + added)]
        logits, offsets = (pad_ragged(part, bits.shape[1])[0] for part in zip(*found, strict=True))
        return logits, offsets, bits, counts, added

    # Detecting and training.

    def decode(self, outputs: Activations) -> list[Detections]:
        """Detections of the proposals alone, whatever was added to them."""
        logits, offsets, bits, counts, _ = outputs
        rows = [torch.cat(unpad(part.float(), counts)) for part in (logits, offsets)]
        boxes = unpad(from_bits(bits), counts)
        found = self.network.roi_heads.postprocess_detections(*rows, boxes, [self.canvas_size] * len(boxes))
        return [Detections(boxes, scores, labels - 1) for boxes, scores, labels in zip(*found, strict=True)]

    def prefix(
        self, activations: Activations, cut: int, targets: Sequence[Target] | None = None, start: int = 0
    ) -> Activations:
        """Behind the pooling, features of the objects' own boxes too: `losses` could not compute them any more."""
        if targets is None or cut <= self._pooling or start > self._pooling:
            return self.run(activations, start, cut)
        regions = self._with_objects(self.run(activations, start, self._pooling), targets)
        return self.run(regions, self._pooling, cut)

    def _with_objects(self, x: Activations, targets: Sequence[Target]) -> Activations:
        """The input of the pooling with the boxes of the objects appended."""
        *maps, bits, counts, _ = x
        pairs = zip(unpad(from_bits(bits), counts), targets, strict=True)
        boxes, rows = pad_ragged([torch.cat([found, target.boxes[:APPENDED]]) for found, target in pairs], self.rows)
        return *maps, to_bits(boxes), counts, rows - counts

    def losses(self, activations: Activations, start: int, targets: Sequence[Target]) -> dict[str, Tensor]:
        """Cross entropy `classification` and smooth L1 `bbox_regression` of sampled regions.

        Where the proposals, or something before them, train behind `start`: also `objectness` and `rpn_regression` of
        sampled anchors. All as in torchvision, which draws in the same order.
        """
        losses = {}
        if start < self._pooling:
            maps = self.run(activations, start, self._pooling - 1)
            found = self._rpn(maps)
            if any(p.requires_grad for layer in self.layers[: self._pooling] for p in layer.parameters().values()):
                losses = self._rpn_losses(maps, *found, targets)
            activations, start = self._with_proposals(maps, *found), self._pooling
        if start == self._pooling:
            activations = self._with_objects(activations, targets)
        sampled, labels, goals = self._sample(activations, start, targets)
        logits, offsets, bits, counts, _ = self.run(sampled, start)
        logits, offsets = (torch.cat(unpad(part.float(), counts)) for part in (logits, offsets))
        if not len(logits):
            return {**losses, "classification": logits.sum(), "bbox_regression": offsets.sum()}
        regions = torch.cat(unpad(from_bits(bits), counts))
        self.collect(lambda: self._matched(logits, offsets, regions, torch.cat(labels), torch.cat(goals)))
        classification, regression = fastrcnn_loss(logits, offsets, labels, goals)
        return {**losses, "classification": classification, "bbox_regression": regression}

    def _matched(self, logits: Tensor, offsets: Tensor, regions: Tensor, labels: Tensor, goals: Tensor) -> Matched:
        """The regions on objects, with the box of their class; arguments of all sampled regions, side by side."""
        rows = labels.nonzero()[:, 0]
        coder, labels = self.network.roi_heads.box_coder, labels[rows]
        own = offsets[rows].unflatten(1, (-1, 4))[torch.arange(len(rows), device=rows.device), labels]
        boxes, objects = (coder.decode_single(each, regions[rows]) for each in (own, goals[rows]))
        return Matched(of_class(logits[rows].softmax(dim=1), labels), boxes, objects)

    def losses_and_objects(
        self, activations: Activations, start: int, targets: Sequence[Target]
    ) -> tuple[dict[str, Tensor], tuple[ObjectFeatures, ...]]:
        """Of each object what the box head makes of its own box; of the first APPENDED of an image."""
        if start < self._pooling:
            start, activations = self._pooling - 1, self.run(activations, start, self._pooling - 1)
        losses = self.losses(activations, start, targets)
        counts = [len(target.boxes) for target in targets]
        numbers = torch.arange(sum(counts), device=activations[0].device).split(counts)
        regions, start = self._objects_alone(activations, start, targets)
        values, _, found, _ = self.run(regions, start, len(self.layers) - 1)
        rows = torch.cat([own[:APPENDED] for own in numbers])
        return losses, (ObjectFeatures(rows, torch.cat(unpad(values.float(), found))),)

    def _objects_alone(self, x: Activations, start: int, targets: Sequence[Target]) -> tuple[Activations, int]:
        """The input of the pooling, or of the layer `start` behind it, with the objects' boxes as the only regions."""
        boxes, counts = pad_ragged([target.boxes[:APPENDED] for target in targets], APPENDED)
        regions = to_bits(boxes), counts, torch.zeros_like(counts)
        if start <= self._pooling:
            return (*(x[:-1] if start < self._pooling else x[:-3]), *regions), self._pooling
        values, _, proposals, added = x
        rows = zip(unpad(values, proposals + added), proposals.tolist(), strict=True)
        return (pad_ragged([own[first:] for own, first in rows], APPENDED)[0], *regions), start

    def _rpn_losses(
        self, maps: Activations, objectness: Tensor, offsets: Tensor, targets: Sequence[Target]
    ) -> dict[str, Tensor]:
        rpn, anchors = self.network.rpn, [torch.cat(self.anchors(maps))] * len(targets)
        labels, matched = rpn.assign_targets_to_anchors(anchors, [{"boxes": target.boxes} for target in targets])
        goals = rpn.box_coder.encode(matched, anchors)
        losses = rpn.compute_loss(objectness, offsets, labels, list(goals))
        return dict(zip(("objectness", "rpn_regression"), losses, strict=True))

    def _sample(
        self, x: Activations, start: int, targets: Sequence[Target]
    ) -> tuple[Activations, list[Tensor], list[Tensor]]:
        """Regions drawn at random, of each image at most 512 and a quarter of them on objects.

        Returns:
            the input of layer `start` with these regions alone; the label of each region, an image a tensor, 0 for the
            background; and the box offsets (N, 4) that lead from each onto its object.
        """
        *features, bits, counts, added = x
        heads = self.network.roi_heads
        boxes = unpad(from_bits(bits), counts + added)
        objects = [target.boxes for target in targets]
        matched, labels = heads.assign_targets_to_proposals(boxes, objects, [target.labels + 1 for target in targets])
        drawn = heads.subsample(labels)
        boxes, matched, labels = (
            [part[rows] for part, rows in zip(parts, drawn, strict=True)] for parts in (boxes, matched, labels)
        )
        goals = [
            on[rows] if len(on) else torch.zeros_like(own)
            for on, rows, own in zip(objects, matched, boxes, strict=True)
        ]
        length = heads.fg_bg_sampler.batch_size_per_image
        if start > self._pooling:
            features = [
                pad_ragged([part[rows] for part, rows in zip(values, drawn, strict=True)], length)[0]
                for values in features
            ]
        padded, counts = pad_ragged(boxes, length)
        sampled = *features, to_bits(padded), counts, torch.zeros_like(counts)
        return sampled, labels, list(heads.box_coder.encode(goals, boxes))


def with_modern_names(name: str) -> str:
    """A tensor's name as torchvision has it now: in older files, `rpn.head.conv.0.0` is `rpn.head.conv`."""
    return with_modern_neck(re.sub(r"^rpn\.head\.conv\.(weight|bias)$", r"rpn.head.conv.0.0.\1", name))


_published = partial(
    Published,
    classifier=ResNet50_Weights.IMAGENET1K_V1,
    source=resnet_source,
    classes=count_classes("roi_heads.box_predictor.cls_score.bias", background=True),
    rename=with_modern_names,
)
_VARIANTS: dict[str, tuple[Callable[..., FasterRCNN], Published]] = {
    "fasterrcnn_resnet50_fpn": (
        fasterrcnn_resnet50_fpn,
        _published(coco=FasterRCNN_ResNet50_FPN_Weights.COCO_V1, zero_eps=True),
    ),
    "fasterrcnn_resnet50_fpn_v2": (
        fasterrcnn_resnet50_fpn_v2,
        _published(coco=FasterRCNN_ResNet50_FPN_V2_Weights.COCO_V1),
    ),
    "fasterrcnn_mobilenet_v3_large_fpn": (
        fasterrcnn_mobilenet_v3_large_fpn,
        _published(
            coco=FasterRCNN_MobileNet_V3_Large_FPN_Weights.COCO_V1,
            classifier=MobileNet_V3_Large_Weights.IMAGENET1K_V1,
            source=mobilenet_source,
            classifier_eps=1e-3,
        ),
    ),
}
"""How each variant is constructed, and what is published for it."""
