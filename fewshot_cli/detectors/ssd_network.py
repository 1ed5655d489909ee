"""The modules of the SSD on MobileNetV2 and FPN: backbone, neck, towers, predictor.

Shapes: K classes, A = ANCHORS anchors a cell; levels P3 … P7 with strides 8 … 128.
Liu et al. (SSD, arXiv 1512.02325), Sandler et al. (MobileNetV2, arXiv 1801.04381), Lin et al. (FPN, arXiv 1612.03144).
"""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import mobilenet_v2

STRIDES = (8, 16, 32, 64, 128)
LEVELS = len(STRIDES)
CHANNELS = 128
"""Of the neck's maps and of the towers, as pretrained."""
DEPTH = 4
"""Convolutions of a tower before the predictor, as pretrained."""
ANCHORS = 5
STAGES = ((0, 2), (2, 4), (4, 7), (7, 14), (14, 19))
"""First and last + 1 of MobileNetV2's blocks at the strides 2, 4, …, 32; the last block is a convolution."""
STAGE_CHANNELS = (32, 96, 1280)
"""Of C3, C4 and C5."""


class SameConv2d(nn.Conv2d):
    """A 3×3 convolution of stride 2, padded right and below only; ⌈size / 2⌉ outputs.

    For maps of an even size that is what TensorFlow calls `SAME`. For odd ones TensorFlow pads on both sides, and each
    cell would see a place one cell further up and left than in the pretraining.
    """

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        return self._conv_forward(F.pad(x, (0, 1 + width % 2, 0, 1 + height % 2)), self.weight, self.bias)


class SeparableConv2d(nn.Sequential):
    """A depthwise 3×3 and a 1×1 convolution, both with bias, and nothing between them; ReLU6 behind them if `relu`.

    Batch norms of the pretraining are folded into the convolutions.
    """

    def __init__(self, channels: int, outputs: int, *, stride: int = 1, relu: bool = True) -> None:
        kind = SameConv2d if stride > 1 else nn.Conv2d
        padding = 0 if stride > 1 else 1
        super().__init__()
        self.depthwise = kind(channels, channels, 3, stride, padding, groups=channels)
        self.pointwise = nn.Conv2d(channels, outputs, 1)
        if relu:
            self.relu = nn.ReLU6(inplace=True)


class Neck(nn.Module):
    """C3, C4, C5 → P3 … P7: top-down by bilinear resizing; P6 and P7 by convolutions of stride 2 on P5."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(nn.Conv2d(stage, channels, 1) for stage in STAGE_CHANNELS)
        self.smooth = nn.ModuleList(SeparableConv2d(channels, channels) for _ in range(2))
        self.extra = nn.ModuleList(SeparableConv2d(channels, channels, stride=2) for _ in range(2))

    def forward(self, c3: Tensor, c4: Tensor, c5: Tensor) -> tuple[Tensor, ...]:
        p5 = self.lateral[2](c5)
        p4 = self.smooth[1](self.lateral[1](c4) + _twice_as_large(p5))
        p3 = self.smooth[0](self.lateral[0](c3) + _twice_as_large(p4))
        p6 = self.extra[0](p5)
        return p3, p4, p5, p6, self.extra[1](p6)


class Head(nn.Module):
    """Per level, a tower common to classes and boxes, and two predictors; levels share no weights.

    towers: level, then `depth` convolutions; classes: A · (1 + K) outputs, the background first; boxes: A · 4 outputs.
    """

    def __init__(self, num_classes: int, channels: int, depth: int) -> None:
        super().__init__()
        self.depth = depth
        outputs = ANCHORS * (1 + num_classes)
        self.towers = nn.ModuleList(
            nn.ModuleList(SeparableConv2d(channels, channels) for _ in range(depth)) for _ in range(LEVELS)
        )
        self.classes = nn.ModuleList(SeparableConv2d(channels, outputs, relu=False) for _ in range(LEVELS))
        self.boxes = nn.ModuleList(SeparableConv2d(channels, ANCHORS * 4, relu=False) for _ in range(LEVELS))


class SsdNetwork(nn.Module):
    """MobileNetV2's features with torchvision's names, the neck and the head.

    Args:
        channels: of the neck's maps and of the towers; depth: convolutions of a tower before the predictor.
    """

    features: nn.Sequential

    def __init__(self, num_classes: int, *, channels: int = CHANNELS, depth: int = DEPTH) -> None:
        super().__init__()
        self.features = _same_padding(mobilenet_v2().features)
        self.neck = Neck(channels)
        self.head = Head(num_classes, channels, depth)
        for module in (*self.neck.modules(), *self.head.modules()):
            if isinstance(module, nn.Conv2d):
                _start_convolution(module)


def _start_convolution(convolution: nn.Conv2d) -> None:
    """Random weights that keep the size of the activations, and no bias."""
    nn.init.kaiming_normal_(convolution.weight)
    nn.init.zeros_(cast(Tensor, convolution.bias))


def _same_padding(features: nn.Sequential) -> nn.Sequential:
    """The features with TensorFlow's padding where torchvision pads convolutions of stride 2 on both sides.

    Sizes of maps are the same; what a cell sees is shifted by a pixel of the convolution's input.
    """
    for name, old in list(features.named_modules()):
        if isinstance(old, nn.Conv2d) and old.stride[0] > 1:
            new = SameConv2d(old.in_channels, old.out_channels, 3, old.stride[0], groups=old.groups, bias=False)
            new.weight = old.weight
            features.set_submodule(name, new)
    return features


def _twice_as_large(maps: Tensor) -> Tensor:
    return F.interpolate(maps, scale_factor=2.0, mode="bilinear", align_corners=False)
