"""RetinaNet on torchvision's own modules (Lin et al., arXiv 1708.02002), as a chain of layers.

Shapes: B images, S side of the canvas, A = 9 anchors a cell, K classes; levels P3 … P7 with strides 8 … 128.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torchvision.models import MobileNet_V2_Weights, ResNet50_Weights, mobilenet_v2
from torchvision.models.detection import (
    RetinaNet,
    RetinaNet_ResNet50_FPN_V2_Weights,
    RetinaNet_ResNet50_FPN_Weights,
    retinanet_resnet50_fpn,
    retinanet_resnet50_fpn_v2,
)
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.retinanet import RetinaNetHead
from torchvision.ops import clip_boxes_to_image
from torchvision.ops.feature_pyramid_network import FeaturePyramidNetwork, LastLevelP6P7
from torchvision.ops.misc import Conv2dNormActivation

from fewshot_cli.detectors.architecture import OWN, Architecture
from fewshot_cli.detectors.bifpn import BiFpn, group_norm
from fewshot_cli.detectors.chain import Activations, Target
from fewshot_cli.detectors.predictors import WEIGHT_STD, class_names
from fewshot_cli.detectors.suppression import Candidates, Suppression
from fewshot_cli.detectors.torchvision_base import by_anchor
from fewshot_cli.detectors.torchvision_fpn import (
    CHANNELS,
    TowerDetector,
    mobilenet_source,
    resnet_source,
)
from fewshot_cli.detectors.torchvision_weights import (
    CATEGORIES,
    Published,
    build_published,
    count_classes,
    recognise_other,
    with_modern_neck,
)
from fewshot_cli.errors import ModelError, closest
from fewshot_cli.progress import Reporter

# torchvision's own, but for the floor: AP ranks all detections, and 0.05 would cut the tail of the recall curve.
SUPPRESSION = Suppression(min_score=0.001, candidates=1000, iou=0.5, detections=100)


def build(
    name: str, *, image_size: int, weights: str, reporter: Reporter, architecture: Architecture = OWN
) -> RetinaNetDetector:
    """Build a RetinaNet with its base classes.

    Args:
        name: `retinanet_resnet50_fpn`, `retinanet_resnet50_fpn_v2` or `retinanet_mobilenet_v2_fpn`.
        image_size: side of the canvas, a multiple of 32, pixels.
        weights: `default` (COCO; ImageNet with MobileNetV2), `imagenet` (backbone), `none` (random), or a file.
        reporter: shows the progress of downloads.
        architecture: size of neck and head, for weights of the backbone alone or none.

    Raises:
        ModelError: no such variant.
        CheckpointError: a file that does not fit.
        ConfigError: a size was chosen, and the weights are of the whole detector.
        NetworkError: the download failed.
    """
    if name not in _VARIANTS:
        raise ModelError(f"{name!r} is not a RetinaNet", hint=closest(name, _VARIANTS))
    construct, published = _VARIANTS[name]

    def make(count: int | None) -> RetinaNetDetector:
        classes = class_names(CATEGORIES, count or len(CATEGORIES))
        network = construct(num_classes=len(classes))
        if architecture.chosen:
            _resize(network, architecture)
        return RetinaNetDetector(name, network, classes, image_size)

    return build_published(make, published, weights, reporter, architecture)


def recognise(state: Mapping[str, Tensor]) -> str | None:
    """The RetinaNet, or the classifier of torchvision, whose weights these are; None if they are of neither."""
    other = recognise_other(state)
    if other or not is_retinanet(state, CHANNELS):
        return other
    if "backbone.body.layer1.0.conv1.weight" not in state:
        return "retinanet_mobilenet_v2_fpn"
    has_norms = "head.regression_head.conv.0.1.weight" in state
    return "retinanet_resnet50_fpn_v2" if has_norms else "retinanet_resnet50_fpn"


def is_retinanet(state: Mapping[str, Tensor], channels: int) -> bool:
    """Whether these are weights of a RetinaNet with so many channels in its head."""
    predictor = state.get("head.regression_head.bbox_reg.weight")
    centerness = "head.regression_head.bbox_ctrness.weight" in state  # as FCOS has
    return predictor is not None and predictor.shape[1:] == (channels, 3, 3) and not centerness


def with_modern_names(name: str) -> str:
    """A tensor's name as torchvision has it now: in the COCO v1 file, `conv.1.0.weight` is `conv.2.weight`."""
    block, _, kind = name.rpartition(".")
    owner, _, index = block.rpartition(".")
    if owner.endswith(("classification_head.conv", "regression_head.conv")) and index.isdecimal():
        return f"{owner}.{int(index) // 2}.0.{kind}"  # an activation stood at every odd place
    return with_modern_neck(name)


def mobilenet_v2_fpn(num_classes: int) -> RetinaNet:
    """torchvision's RetinaNet on a MobileNetV2, which torchvision does not publish itself.

    C3 and C4 are the last maps of their strides, C5 the output of the last layer, as in SSDLite (arXiv 1801.04381,
    section 6.2); so the whole backbone of the classifier is used.
    """
    body = mobilenet_v2(weights=None).features
    backbone = BackboneWithFPN(
        body,
        return_layers={"6": "0", "13": "1", "18": "2"},
        in_channels_list=[32, 96, 1280],
        out_channels=CHANNELS,
        extra_blocks=LastLevelP6P7(CHANNELS, CHANNELS),
    )
    return RetinaNet(backbone, num_classes)


def _resize(network: RetinaNet, architecture: Architecture) -> None:
    """Give the network a neck and a head of another size, with random weights as torchvision draws them."""
    fpn, old = network.backbone.fpn, network.head
    stages = [block[0].in_channels for block in fpn.inner_blocks]
    channels = architecture.head_channels or CHANNELS
    if architecture.neck == "bifpn":
        network.backbone.fpn = BiFpn(stages, channels)
    else:
        last = LastLevelP6P7(channels if fpn.extra_blocks.use_P5 else stages[-1], channels)
        network.backbone.fpn = FeaturePyramidNetwork(stages, channels, extra_blocks=last)
    network.backbone.out_channels = channels
    depth = architecture.head_depth or 1 + len(old.classification_head.conv)
    network.head = _make_head(old, channels, depth)


def _make_head(old: RetinaNetHead, channels: int, depth: int) -> RetinaNetHead:
    """A head with towers of `depth` − 1 convolutions; in all else it is like the old one."""
    norm = group_norm if any(isinstance(module, nn.GroupNorm) for module in old.modules()) else None
    classes = old.classification_head
    head = RetinaNetHead(channels, classes.num_anchors, classes.num_classes, norm_layer=norm)
    head.regression_head._loss_type = old.regression_head._loss_type
    for tower in (head.classification_head, head.regression_head):
        tower.conv = nn.Sequential(
            *(Conv2dNormActivation(channels, channels, norm_layer=norm) for _ in range(depth - 1))
        )
        for block in tower.conv:
            nn.init.normal_(block[0].weight, std=WEIGHT_STD)
            if block[0].bias is not None:
                nn.init.zeros_(block[0].bias)
    return head


class RetinaNetDetector(TowerDetector):
    """RetinaNet: five backbone stages, FPN, four tower layers and the predictor (M = 5), or another `Architecture`.

    A stage is the stem or one of four residual stages in a ResNet-50, and all blocks of one stride in a MobileNetV2.
    """

    network: RetinaNet
    fast_in_bf16 = True

    def loss(self, outputs: Activations, targets: Sequence[Target]) -> dict[str, Tensor]:
        """Focal loss `classification` and `bbox_regression` (L1; GIoU in v2), both per matched anchor."""
        classes, boxes = self._flat(outputs)
        found = {"cls_logits": torch.cat(classes, dim=1), "bbox_regression": torch.cat(boxes, dim=1)}
        return self.torchvision_losses(found, torch.cat(self._anchors(outputs)), targets)

    def candidates(self, outputs: Activations) -> tuple[Candidates, ...]:
        """The boxes of all anchors, clipped to the canvas; each level is a group."""
        classes, offsets = self._flat(outputs)
        anchors = self._anchors(outputs)
        boxes = [self._boxes(level, around) for level, around in zip(offsets, anchors, strict=True)]
        scores = torch.cat(classes, dim=1).sigmoid_()  # in place: a batch of them is large
        return (Candidates(torch.cat(boxes, dim=1), scores, [len(level) for level in anchors], SUPPRESSION),)

    def _boxes(self, offsets: Tensor, anchors: Tensor) -> Tensor:
        """(B, A, 4) offsets from (A, 4) anchors → (B, A, 4) boxes in canvas pixels."""
        coder = self.network.box_coder
        boxes = coder.decode_single(offsets.flatten(0, 1), anchors.repeat(offsets.shape[0], 1))
        return clip_boxes_to_image(boxes, self.canvas_size).unflatten(0, (-1, len(anchors)))

    def _anchors(self, outputs: Activations) -> list[Tensor]:
        return self.anchors(outputs[: len(outputs) // 2])

    def _flat(self, outputs: Activations) -> tuple[list[Tensor], list[Tensor]]:
        """Per level: class logits (B, H·W·A, K) and box offsets (B, H·W·A, 4), in float32 whatever came."""
        levels = len(outputs) // 2
        classes = [by_anchor(level, len(self.classes)) for level in outputs[:levels]]
        return classes, [by_anchor(level, 4) for level in outputs[levels:]]


_on_resnet = partial(
    Published,
    classifier=ResNet50_Weights.IMAGENET1K_V1,
    source=resnet_source,
    classes=count_classes("head.classification_head.cls_logits.bias", 9),
    rename=with_modern_names,
)
# Plain batch norm held in eval computes what FrozenBatchNorm2d does, in nearly half the time on a CPU.
_VARIANTS: dict[str, tuple[Callable[..., RetinaNet], Published]] = {
    "retinanet_resnet50_fpn": (
        partial(retinanet_resnet50_fpn, weights=None, weights_backbone=None),
        _on_resnet(coco=RetinaNet_ResNet50_FPN_Weights.COCO_V1, zero_eps=True),
    ),
    "retinanet_resnet50_fpn_v2": (
        partial(retinanet_resnet50_fpn_v2, weights=None, weights_backbone=None),
        _on_resnet(coco=RetinaNet_ResNet50_FPN_V2_Weights.COCO_V1),
    ),
    "retinanet_mobilenet_v2_fpn": (
        mobilenet_v2_fpn,
        Published(
            coco=None,
            classifier=MobileNet_V2_Weights.IMAGENET1K_V1,
            source=mobilenet_source,
            classes=count_classes("head.classification_head.cls_logits.bias", 9),
        ),
    ),
}
"""How each variant is constructed, and what is published for it."""
