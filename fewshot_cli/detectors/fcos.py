"""FCOS on torchvision's own modules (Tian et al., arXiv 2006.09214), as a chain of layers.

Shapes: B images, S side of the canvas, one point a cell, K classes; levels P3 … P7 with strides 8 … 128.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, cast

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.models import ResNet50_Weights
from torchvision.models.detection import FCOS, FCOS_ResNet50_FPN_Weights, fcos_resnet50_fpn
from torchvision.ops import clip_boxes_to_image

from fewshot_cli.detectors.chain import Activations, Target
from fewshot_cli.detectors.predictors import class_names
from fewshot_cli.detectors.suppression import Candidates, Suppression
from fewshot_cli.detectors.torchvision_base import by_anchor
from fewshot_cli.detectors.torchvision_fpn import TowerDetector, resnet_source
from fewshot_cli.detectors.torchvision_weights import (
    CATEGORIES,
    Published,
    build_published,
    count_classes,
    with_modern_neck,
)
from fewshot_cli.progress import Reporter

# torchvision's own, but for the floor: AP ranks all detections, and 0.2 would cut the tail of the recall curve.
SUPPRESSION = Suppression(min_score=0.001, candidates=1000, iou=0.6, detections=100)
_PUBLISHED = Published(
    coco=FCOS_ResNet50_FPN_Weights.COCO_V1,
    classifier=ResNet50_Weights.IMAGENET1K_V1,
    source=resnet_source,
    classes=count_classes("head.classification_head.cls_logits.bias"),
    rename=with_modern_neck,
)


def build(name: str, *, image_size: int, weights: str, reporter: Reporter) -> FcosDetector:
    """Build FCOS with its base classes.

    Args:
        name: `fcos_resnet50_fpn`.
        image_size: side of the canvas, a multiple of 32, pixels.
        weights: `default` (COCO), `imagenet` (backbone), `none` (random), or a file.
        reporter: shows the progress of downloads.

    Raises:
        CheckpointError: a file that does not fit.
        NetworkError: the download failed.
    """

    def make(count: int | None) -> FcosDetector:
        classes = class_names(CATEGORIES, count or len(CATEGORIES))
        network = fcos_resnet50_fpn(weights=None, weights_backbone=None, num_classes=len(classes))
        return FcosDetector(name, network, classes, image_size)

    return build_published(make, _PUBLISHED, weights, reporter)


def recognise(state: Mapping[str, Tensor]) -> str | None:
    """`fcos_resnet50_fpn` if these are its weights, by its centre-ness; otherwise None."""
    return "fcos_resnet50_fpn" if "head.regression_head.bbox_ctrness.weight" in state else None


class FcosDetector(TowerDetector):
    """FCOS: stem and four ResNet stages, FPN, four tower layers and the predictor (M = 5).

    The predictor is three convolutions: class logits, distances to the sides of the box, and centre-ness, which
    torchvision predicts behind the box tower.
    """

    network: FCOS
    fast_in_bf16 = True
    box_predictors: ClassVar = ("bbox_reg", "bbox_ctrness")
    localisation_losses = ("bbox_regression", "bbox_ctrness")

    def loss(self, outputs: Activations, targets: Sequence[Target]) -> dict[str, Tensor]:
        """Focal loss `classification`, `bbox_regression` (GIoU) and `bbox_ctrness`, each per matched point."""
        classes, distances, centerness = (torch.cat(levels, dim=1) for levels in self._flat(outputs))
        anchors = self._anchors(outputs)
        found = {"cls_logits": classes, "bbox_regression": distances, "bbox_ctrness": centerness}
        return self.torchvision_losses(found, torch.cat(anchors), targets, [len(level) for level in anchors])

    def decoded(self, offsets: Tensor, anchors: Tensor) -> Tensor:
        return cast(Tensor, self.network.box_coder.decode(offsets, anchors))

    def candidates(self, outputs: Activations) -> tuple[Candidates, ...]:
        """The boxes of all points, clipped to the canvas; each level is a group.

        The score is the geometric mean of the class's and of the centre-ness (section 3.4 of the paper).
        """
        classes, distances, centerness = (torch.cat(levels, dim=1) for levels in self._flat(outputs))
        anchors = self._anchors(outputs)
        boxes = self.network.box_coder.decode(distances, torch.cat(anchors))
        scores = (classes.sigmoid() * centerness.sigmoid()).sqrt()
        groups = [len(level) for level in anchors]
        return (Candidates(clip_boxes_to_image(boxes, self.canvas_size), scores, groups, SUPPRESSION),)

    def _anchors(self, outputs: Activations) -> list[Tensor]:
        return self.anchors(outputs[: len(outputs) // 3])

    def _flat(self, outputs: Activations) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """Per level, all float32: class logits (B, H·W, K), distances (B, H·W, 4), centre-ness logits (B, H·W, 1)."""
        levels = len(outputs) // 3
        return (
            [by_anchor(level, len(self.classes)) for level in outputs[:levels]],
            [F.relu(by_anchor(level, 4)) for level in outputs[levels : 2 * levels]],
            [by_anchor(level, 1) for level in outputs[2 * levels :]],
        )
