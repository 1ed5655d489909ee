"""SSD and SSDLite on torchvision's own modules (Liu et al., arXiv 1512.02325; arXiv 1801.04381, section 6.2).

Shapes: B images, S side of the canvas, A anchors a cell, differently many on each of six levels, K classes.
"""

from __future__ import annotations

import math
import re
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import VGG16_Weights
from torchvision.models.detection import (
    SSD300_VGG16_Weights,
    SSDLite320_MobileNet_V3_Large_Weights,
    ssdlite320_mobilenet_v3_large,
)
from torchvision.models.detection.anchor_utils import DefaultBoxGenerator
from torchvision.models.detection.ssd import SSD, SSDFeatureExtractorVGG
from torchvision.models.vgg import cfgs, make_layers
from torchvision.ops import box_iou, clip_boxes_to_image

from fewshot_cli.detectors.chain import Activations, Layer, Target
from fewshot_cli.detectors.predictors import ClassInit, ClassPredictor, class_names
from fewshot_cli.detectors.suppression import Candidates, Suppression
from fewshot_cli.detectors.torchvision_base import TorchvisionDetector, by_anchor
from fewshot_cli.detectors.torchvision_weights import FOREGROUND, Published, build_published, count_classes
from fewshot_cli.errors import ModelError, closest
from fewshot_cli.progress import Reporter

# torchvision's own, but for the floor and the number of candidates: here it is of all classes together.
SUPPRESSION = Suppression(min_score=0.001, candidates=1000, iou=0.45, detections=100)
VGG_MAPS = (512, 1024, 512, 256, 256, 256)
"""Channels of the maps of VGG-16's SSD."""


def build(name: str, *, image_size: int, weights: str, reporter: Reporter) -> SsdDetector:
    """Build an SSD with its base classes.

    Args:
        name: `ssd300_vgg16` or `ssdlite320_mobilenet_v3_large`.
        image_size: side of the canvas, a multiple of 32, pixels; with VGG-16 at least 288.
        weights: `default` (COCO), `imagenet` (backbone, with VGG-16 alone), `none` (random), or a file.
        reporter: shows the progress of downloads.

    Raises:
        ModelError: no such variant.
        CheckpointError: a file that does not fit.
        NetworkError: the download failed.
    """
    if name not in _VARIANTS:
        raise ModelError(f"{name!r} is not an SSD", hint=closest(name, _VARIANTS))
    kind, published = _VARIANTS[name]

    def make(count: int | None) -> SsdDetector:
        classes = class_names(FOREGROUND, count or len(FOREGROUND))
        return kind(name, kind.make_network(1 + len(classes), image_size), classes, image_size)

    return build_published(make, published, weights, reporter)


def recognise(state: Mapping[str, Tensor]) -> str | None:
    """The SSD whose weights these are, by its predictor: one convolution, or two; None if they are of neither."""
    if "head.classification_head.module_list.0.weight" in state:
        return "ssd300_vgg16"
    separable = "head.classification_head.module_list.0.1.weight" in state
    return "ssdlite320_mobilenet_v3_large" if separable else None


class SsdDetector(TorchvisionDetector):
    """SSD: five backbone stages, the extra blocks that make the coarser maps as the neck, and the predictor (M = 1).

    Images are stretched to the canvas, as in the training of torchvision's weights.
    """

    network: SSD
    stretches = True
    body: ClassVar[tuple[str, str]]
    """What the backbone consists of: two sequences, whose outputs are the first two maps."""
    extra: ClassVar[tuple[str, ...]]
    """The blocks that make each of the other maps from the one before it."""
    suppression: ClassVar[Suppression]

    @staticmethod
    @abstractmethod
    def make_network(rows: int, image_size: int) -> SSD:
        """torchvision's network with random weights; `rows` are the classes and the background."""

    @property
    def anchor_generator(self) -> DefaultBoxGenerator:
        return cast(DefaultBoxGenerator, self.network.anchor_generator)

    @property
    def predictors(self) -> list[ClassPredictor]:
        """One a level: its last convolution."""
        head = "head.classification_head.module_list"
        levels = zip(self.network.get_submodule(head), self.anchor_generator.num_anchors_per_location(), strict=True)
        return [
            ClassPredictor(f"{head}.{i}{'' if isinstance(level, nn.Conv2d) else '.1'}", anchors, background=True)
            for i, (level, anchors) in enumerate(levels)
        ]

    def replace_classes(self, classes: Sequence[str], inits: Sequence[ClassInit]) -> None:
        """As in any detector; torchvision's head also stores the number of rows."""
        super().replace_classes(classes, inits)
        self.network.head.classification_head.num_columns = 1 + len(classes)

    def make_layers(self) -> tuple[Layer, ...]:
        parts = [[f"backbone.{part}.{i}" for i in range(len(self._in_backbone(part)))] for part in self.body]
        return (
            *self.make_stages([*parts[0], *parts[1]], [part[-1] for part in parts]),
            self.make_layer("neck", "neck", [f"backbone.{name}" for name in self.neck], self._run_neck),
            self.make_layer("head.1", "head", ["head.classification_head", "head.regression_head"], self._run_head),
        )

    @property
    def neck(self) -> tuple[str, ...]:
        """What the neck consists of."""
        return self.extra

    def _in_backbone(self, name: str) -> Any:
        return self.network.backbone.get_submodule(name)

    def _run_neck(self, x: Activations) -> Activations:
        """The maps of the backbone → those of all levels."""
        maps = list(x)
        for name in self.extra:
            maps.append(self._in_backbone(name)(maps[-1]))
        return tuple(maps)

    def _run_head(self, x: Activations) -> Activations:
        """→ maps of class logits (B, A·(1 + K), H, W), one a level, then those of box offsets (B, A·4, H, W)."""
        head = self.network.head
        return tuple(
            module(features)
            for part in (head.classification_head, head.regression_head)
            for module, features in zip(part.module_list, x, strict=True)
        )

    def loss(self, outputs: Activations, targets: Sequence[Target]) -> dict[str, Tensor]:
        """`classification`: cross entropy with three times as many negatives as positives, the hardest; smooth L1
        `bbox_regression`; both per matched anchor."""
        logits, offsets = self._flat(outputs)
        anchors = torch.cat(self._anchors(outputs))
        matched = [self._match(anchors, target) for target in targets]
        wanted = [{"boxes": target.boxes, "labels": target.labels + 1} for target in targets]
        found = {"cls_logits": logits, "bbox_regression": offsets}
        losses = self.network.compute_loss(wanted, found, [anchors] * len(targets), matched)
        self.collect(lambda: self.matched(found, anchors, matched, targets))
        return cast("dict[str, Tensor]", losses)

    def class_scores(self, logits: Tensor) -> Tensor:
        return logits.softmax(dim=-1)[..., 1:]

    def _match(self, anchors: Tensor, target: Target) -> Tensor:
        """(A,) the object of each anchor, -1 for none."""
        if not len(target.boxes):
            return torch.full((len(anchors),), -1, device=anchors.device)
        return cast(Tensor, self.network.proposal_matcher(box_iou(target.boxes, anchors)))

    def candidates(self, outputs: Activations) -> tuple[Candidates, ...]:
        """The boxes of all anchors, clipped to the canvas, with their scores but the background's; one group."""
        logits, offsets = self._flat(outputs)
        anchors = torch.cat(self._anchors(outputs))
        flat = self.network.box_coder.decode_single(offsets.flatten(0, 1), anchors.repeat(offsets.shape[0], 1))
        boxes = clip_boxes_to_image(flat, self.canvas_size).unflatten(0, (-1, len(anchors)))
        return (Candidates(boxes, logits.softmax(dim=2)[..., 1:], [len(anchors)], self.suppression),)

    def _anchors(self, outputs: Activations) -> list[Tensor]:
        return self.anchors(outputs[: len(outputs) // 2])

    def _flat(self, outputs: Activations) -> tuple[Tensor, Tensor]:
        """Class logits (B, anchors, 1 + K) and box offsets (B, anchors, 4), in float32 whatever came."""
        levels = len(outputs) // 2
        logits = [by_anchor(level, 1 + len(self.classes)) for level in outputs[:levels]]
        return torch.cat(logits, dim=1), torch.cat([by_anchor(level, 4) for level in outputs[levels:]], dim=1)


class SsdLite(SsdDetector):
    """SSDLite on MobileNetV3: a stage is all blocks of one stride, and the neck the four extra blocks.

    The predictor of a level is a depthwise 3 × 3 convolution and a 1 × 1 one: one separable layer, as in YOLOX-Nano. So
    there is no layer before it (M = 1). The backbone's tail has half of the channels of ImageNet's classifier, whose
    weights therefore do not fit.
    """

    body = ("features.0", "features.1")
    extra = ("extra.0", "extra.1", "extra.2", "extra.3")
    suppression = replace(SUPPRESSION, iou=0.55)

    @staticmethod
    def make_network(rows: int, image_size: int) -> SSD:
        return ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=rows)


class Ssd300(SsdDetector):
    """SSD on VGG-16: a stage begins with each pooling, the last one has the former fully connected layers fc6 and fc7.

    The neck is the normalised and rescaled map of the fourth stage and the four extra blocks. The predictor of a level
    is a 3 × 3 convolution for classes and one for boxes, and there is no layer before it (M = 1).

    The canvas is 320 pixels by default, not 300: every detector here takes multiples of 32. Anchors are shares of the
    canvas, so they are the same in it, and the coarse maps have as many cells (10, 5, 3, 1) as at 300.
    """

    body = ("features", "extra.0")
    extra = ("extra.1", "extra.2", "extra.3", "extra.4")
    suppression = SUPPRESSION
    fast_in_bf16 = True

    @staticmethod
    def make_network(rows: int, image_size: int) -> SSD:
        size = (image_size, image_size)
        # The mean and the scale of 0 … 255 that the published backbone was trained with.
        mean, deviation = [0.48235, 0.45882, 0.40784], [1 / 255] * 3
        return SSD(VggBackbone(), vgg_anchors(image_size), size, rows, image_mean=mean, image_std=deviation)

    @property
    def neck(self) -> tuple[str, ...]:
        return ("rescale", *self.extra)

    def _run_neck(self, x: Activations) -> Activations:
        first, *others = super()._run_neck(x)
        return self._in_backbone("rescale")(first), *others


class Rescale(nn.Module):
    """Each place's features normalised to length 1, times a learned scale of each channel (section 3.1)."""

    def __init__(self, weight: nn.Parameter) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, features: Tensor) -> Tensor:
        return self.weight.view(1, -1, 1, 1) * F.normalize(features)


class VggBackbone(nn.Module):
    """The parts of torchvision's `SSDFeatureExtractorVGG`, with the scale as a module; VGG's classifier is not made."""

    out_channels = VGG_MAPS

    def __init__(self) -> None:
        super().__init__()
        layers = make_layers(cfgs["D"])
        for module in layers:
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                nn.init.zeros_(cast(Tensor, module.bias))
        parts = SSDFeatureExtractorVGG(layers, highres=False)
        self.features, self.rescale, self.extra = parts.features, Rescale(parts.scale_weight), parts.extra


def vgg_anchors(image_size: int) -> DefaultBoxGenerator:
    """The paper's anchors (section 2.2), those of a level spread evenly over the canvas.

    On the first four levels cells are 8 to 64 pixels apart; the last two levels have no padding, so that their few
    cells share the canvas. At 300 pixels this is torchvision's 100 and 300 pixels.
    """
    coarsest = math.ceil(image_size / 64)
    steps = [8, 16, 32, 64, image_size / (coarsest - 2), image_size / (coarsest - 4)]
    ratios = [[2], [2, 3], [2, 3], [2, 3], [2], [2]]
    scales = [0.07, 0.15, 0.33, 0.51, 0.69, 0.87, 1.05]
    return DefaultBoxGenerator(ratios, scales=scales, steps=steps)


def vgg_source(name: str) -> str | None:
    """The name in a VGG-16 classifier of a tensor that is named so in the detector; None if it is not of it."""
    second = re.fullmatch(r"backbone\.extra\.0\.(\d+)\.(weight|bias)", name)
    if second:  # the layers from the fourth pooling on
        return f"features.{23 + int(second[1])}.{second[2]}"
    return name.removeprefix("backbone.") if name.startswith("backbone.features.") else None


def with_rescale(name: str) -> str:
    """torchvision's name of a tensor → ours: its scale is no parameter of a module of its own."""
    return "backbone.rescale.weight" if name == "backbone.scale_weight" else name


_VARIANTS: dict[str, tuple[type[SsdDetector], Published]] = {
    "ssd300_vgg16": (
        Ssd300,
        Published(
            coco=SSD300_VGG16_Weights.COCO_V1,
            classifier=VGG16_Weights.IMAGENET1K_FEATURES,
            source=vgg_source,
            classes=count_classes("head.classification_head.module_list.0.bias", 4, background=True),
            rename=with_rescale,
        ),
    ),
    "ssdlite320_mobilenet_v3_large": (
        SsdLite,
        Published(
            coco=SSDLite320_MobileNet_V3_Large_Weights.COCO_V1,
            classifier=None,
            source=lambda name: None,
            classes=count_classes("head.classification_head.module_list.0.1.bias", 6, background=True),
        ),
    ),
}
"""What each variant is, and what is published for it."""
