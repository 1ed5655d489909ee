"""The embedded detector: torchvision's RetinaNet on a slim ResNet, pretrained on the miniature world.

Same towers and predictor as in the large one (M = 5), so that a policy selects the same layers in both. Its weights
ship with the package: see `retinanet_mini.md` beside them for data, recipe and figures.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn
from torchvision.models.detection import RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.retinanet import RetinaNetHead
from torchvision.models.resnet import BasicBlock, ResNet
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from fewshot_cli.detectors.predictors import class_names
from fewshot_cli.detectors.retinanet import RetinaNetDetector, is_retinanet
from fewshot_cli.detectors.torchvision_weights import count_classes
from fewshot_cli.detectors.weights import load_exactly, read_weights
from fewshot_cli.progress import Reporter
from fewshot_cli.sources.miniature.classes import BASE

WEIGHTS = Path(__file__).with_suffix(".safetensors")
WIDTHS, BLOCKS = (32, 64, 128, 256), (1, 2, 2, 1)
"""Channels and residual blocks of the four stages."""
CHANNELS = 64
"""Of neck and towers."""
ANCHOR_SIDES = (16, 32, 64, 128, 256)
"""Pixels, one a level: half of RetinaNet's, for images of half the size."""


def build(name: str, *, image_size: int, weights: str, reporter: Reporter) -> RetinaNetDetector:
    """Build the embedded detector with its base classes.

    Args:
        name: `retinanet_mini`.
        image_size: side of the canvas, a multiple of 32, pixels.
        weights: `default` (those of the package), `none` (random), or a file.
        reporter: unused, nothing is downloaded.

    Raises:
        CheckpointError: a file that does not fit.
    """
    if weights == "none":
        return RetinaNetDetector(name, make_network(len(BASE)), tuple(BASE), image_size)
    path = WEIGHTS if weights == "default" else Path(weights)
    state = read_weights(path)
    count = count_classes("head.classification_head.cls_logits.bias", 9)(state) or len(BASE)
    detector = RetinaNetDetector(name, make_network(count), class_names(tuple(BASE), count), image_size)
    load_exactly(detector.network, state, what=f"{name} from {path}")
    detector.pretrained = True
    return detector


def recognise(state: Mapping[str, Tensor]) -> str | None:
    """`retinanet_mini` if these are its weights, by the width of the head; otherwise None."""
    return "retinanet_mini" if is_retinanet(state, CHANNELS) else None


def make_network(num_classes: int) -> RetinaNet:
    """torchvision's RetinaNet with the slim body, group norm in the towers and GIoU loss, as its v2."""
    backbone = BackboneWithFPN(
        _slim_resnet(),
        return_layers={"layer2": "0", "layer3": "1", "layer4": "2"},
        in_channels_list=list(WIDTHS[1:]),
        out_channels=CHANNELS,
        extra_blocks=LastLevelP6P7(CHANNELS, CHANNELS),
    )
    sides = tuple((side, round(side * 2 ** (1 / 3)), round(side * 2 ** (2 / 3))) for side in ANCHOR_SIDES)
    anchors = AnchorGenerator(sides, ((0.5, 1.0, 2.0),) * len(sides))
    head = RetinaNetHead(
        CHANNELS,
        anchors.num_anchors_per_location()[0],
        num_classes,
        norm_layer=lambda channels: nn.GroupNorm(16, channels),
    )
    head.regression_head._loss_type = "giou"
    return RetinaNet(
        backbone,
        num_classes,
        anchor_generator=anchors,
        head=head,
    )


def _slim_resnet() -> ResNet:
    """torchvision's ResNet of basic blocks with other widths, which its constructor does not offer."""
    body = ResNet(BasicBlock, list(BLOCKS))
    body.inplanes = WIDTHS[0]
    body.conv1 = nn.Conv2d(3, WIDTHS[0], 7, stride=2, padding=3, bias=False)
    body.bn1 = nn.BatchNorm2d(WIDTHS[0])
    for number, (width, blocks) in enumerate(zip(WIDTHS, BLOCKS, strict=True), start=1):
        stride = 1 if number == 1 else 2
        setattr(body, f"layer{number}", body._make_layer(BasicBlock, width, blocks, stride=stride))
    for module in body.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return body
