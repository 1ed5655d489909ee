"""YOLOX's modules (Ge et al. 2021, arXiv 2107.08430), named so that the released checkpoints load.

Shapes: B batch, C channels, H × W a feature map. Sizes differ by two factors, `depth` and `width`;
`nano` also makes every 3×3 convolution depthwise separable.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

STRIDES = (8, 16, 32)
"""Pixels of the canvas per cell of the three feature maps."""


@dataclass(frozen=True, slots=True)
class Size:
    """How deep and wide a YOLOX is, against YOLOX-L."""

    depth: float
    width: float
    depthwise: bool = False

    def channels(self, full: int) -> int:
        return int(full * self.width)

    @property
    def blocks(self) -> int:
        """Bottlenecks in a short CSP stage."""
        return max(round(3 * self.depth), 1)


class ConvBlock(nn.Module):
    """Convolution → batch norm → SiLU, same padding.

    While the norm's statistics are held it is a fixed scale and shift of the convolution's output, so it is multiplied
    into the weights: the same function and gradients, one pass over the feature map less, forward and back.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, (kernel - 1) // 2, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(outputs, eps=1e-3, momentum=0.03)
        self.folded: tuple[Tensor, Tensor] | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self.bn.training:
            return _silu(self.bn(self.conv(x)))
        weight, bias = self.folded or self.fold()
        conv = self.conv
        return _silu(F.conv2d(x, weight, bias, conv.stride, conv.padding, groups=conv.groups))

    def finish_training(self) -> None:
        """Fold once instead of for every image."""
        self.folded = self.fold()

    def fold(self) -> tuple[Tensor, Tensor]:
        """Weight and bias of the convolution with the norm multiplied into them."""
        mean, variance = self.bn.running_mean, self.bn.running_var
        assert mean is not None and variance is not None  # only a norm without statistics has none
        scale = self.bn.weight * (variance + self.bn.eps).rsqrt()
        return self.conv.weight * scale[:, None, None, None], self.bn.bias - mean * scale


def _silu(x: Tensor) -> Tensor:
    # The gradient needs the input: in place, it would have to be copied first.
    return F.silu(x, inplace=not x.requires_grad)


class SeparableBlock(nn.Module):
    """A 3×3 convolution split into a depthwise and a pointwise one, each with norm and SiLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1) -> None:
        super().__init__()
        self.dconv = ConvBlock(inputs, inputs, kernel, stride, groups=inputs)
        self.pconv = ConvBlock(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.pconv(self.dconv(x))


def spatial_block(size: Size, inputs: int, outputs: int, stride: int = 1) -> nn.Module:
    """The 3×3 block of this size: plain or depthwise separable."""
    block = SeparableBlock if size.depthwise else ConvBlock
    return block(inputs, outputs, 3, stride)


class Focus(nn.Module):
    """Stem: every 2×2 patch becomes 4× the channels at half the resolution, then a convolution."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.conv = ConvBlock(12, outputs, 3)

    def forward(self, x: Tensor) -> Tensor:
        columns = [x[..., row::2, column::2] for column in (0, 1) for row in (0, 1)]
        return self.conv(torch.cat(columns, dim=1))


class Bottleneck(nn.Module):
    """1×1 then 3×3 block, with a shortcut around both if `shortcut`."""

    def __init__(self, size: Size, channels: int, shortcut: bool) -> None:
        super().__init__()
        self.conv1 = ConvBlock(channels, channels, 1)
        self.conv2 = spatial_block(size, channels, channels)
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv2(self.conv1(x))
        return x + y if self.shortcut else y


class CSPStage(nn.Module):
    """Cross-stage-partial stage: half the channels go through the bottlenecks, half around them."""

    def __init__(self, size: Size, inputs: int, outputs: int, blocks: int, shortcut: bool) -> None:
        super().__init__()
        hidden = outputs // 2
        self.conv1 = ConvBlock(inputs, hidden, 1)
        self.conv2 = ConvBlock(inputs, hidden, 1)
        self.conv3 = ConvBlock(2 * hidden, outputs, 1)
        self.m = nn.Sequential(*(Bottleneck(size, hidden, shortcut) for _ in range(blocks)))

    def forward(self, x: Tensor) -> Tensor:
        return self.conv3(torch.cat([self.m(self.conv1(x)), self.conv2(x)], dim=1))


class SpatialPyramidPooling(nn.Module):
    """Max-pools of three sizes beside the input, mixed by a 1×1 block."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = ConvBlock(channels, channels // 2, 1)
        self.m = nn.ModuleList(nn.MaxPool2d(kernel, 1, kernel // 2) for kernel in (5, 9, 13))
        self.conv2 = ConvBlock(channels * 2, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(x)
        return self.conv2(torch.cat([x, *(pool(x) for pool in self.m)], dim=1))


class Darknet(nn.Module):
    """The backbone: a stem and four stages at strides 4, 8, 16, 32."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        c1, c2, c3, c4, c5 = (size.channels(full) for full in (64, 128, 256, 512, 1024))
        n = size.blocks
        self.stem = Focus(c1)
        self.dark2 = nn.Sequential(spatial_block(size, c1, c2, 2), CSPStage(size, c2, c2, n, True))
        self.dark3 = nn.Sequential(spatial_block(size, c2, c3, 2), CSPStage(size, c3, c3, 3 * n, True))
        self.dark4 = nn.Sequential(spatial_block(size, c3, c4, 2), CSPStage(size, c4, c4, 3 * n, True))
        self.dark5 = nn.Sequential(
            spatial_block(size, c4, c5, 2), SpatialPyramidPooling(c5), CSPStage(size, c5, c5, n, False)
        )


class PathAggregation(nn.Module):
    """Backbone and neck: features flow down from C5 to C3, then up again (PAFPN)."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        c3, c4, c5 = (size.channels(full) for full in (256, 512, 1024))
        n = size.blocks
        self.backbone = Darknet(size)
        self.lateral_conv0 = ConvBlock(c5, c4, 1)
        self.C3_p4 = CSPStage(size, 2 * c4, c4, n, False)
        self.reduce_conv1 = ConvBlock(c4, c3, 1)
        self.C3_p3 = CSPStage(size, 2 * c3, c3, n, False)
        self.bu_conv2 = spatial_block(size, c3, c3, 2)
        self.C3_n3 = CSPStage(size, 2 * c3, c4, n, False)
        self.bu_conv1 = spatial_block(size, c4, c4, 2)
        self.C3_n4 = CSPStage(size, 2 * c4, c5, n, False)

    def aggregate(self, c3: Tensor, c4: Tensor, c5: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The neck alone: backbone maps → pyramid maps at the same strides and channels."""
        top = self.lateral_conv0(c5)
        middle = self.reduce_conv1(self.C3_p4(torch.cat([_double(top), c4], dim=1)))
        p3 = self.C3_p3(torch.cat([_double(middle), c3], dim=1))
        p4 = self.C3_n3(torch.cat([self.bu_conv2(p3), middle], dim=1))
        p5 = self.C3_n4(torch.cat([self.bu_conv1(p4), top], dim=1))
        return p3, p4, p5


def _double(x: Tensor) -> Tensor:
    return nn.functional.interpolate(x, scale_factor=2.0, mode="nearest")


class DecoupledHead(nn.Module):
    """Per level: a stem, two towers of two blocks, and a predictor of class, box and objectness."""

    def __init__(self, size: Size, num_classes: int) -> None:
        super().__init__()
        hidden = size.channels(256)
        inputs = [size.channels(full) for full in (256, 512, 1024)]
        self.stems = nn.ModuleList(ConvBlock(channels, hidden, 1) for channels in inputs)
        self.cls_convs = nn.ModuleList(_tower(size, hidden) for _ in STRIDES)
        self.reg_convs = nn.ModuleList(_tower(size, hidden) for _ in STRIDES)
        self.cls_preds = nn.ModuleList(nn.Conv2d(hidden, num_classes, 1) for _ in STRIDES)
        self.reg_preds = nn.ModuleList(nn.Conv2d(hidden, 4, 1) for _ in STRIDES)
        self.obj_preds = nn.ModuleList(nn.Conv2d(hidden, 1, 1) for _ in STRIDES)


def _tower(size: Size, hidden: int) -> nn.Sequential:
    return nn.Sequential(spatial_block(size, hidden, hidden), spatial_block(size, hidden, hidden))


class YoloxNetwork(nn.Module):
    """Backbone, neck and head under the names of the released checkpoints."""

    def __init__(self, size: Size, num_classes: int) -> None:
        super().__init__()
        self.backbone = PathAggregation(size)
        self.head = DecoupledHead(size, num_classes)
