"""BiFPN, a deeper neck than an FPN: Tan, Pang and Le, EfficientDet (arXiv 1911.09070), section 3.

Shapes: B images, C channels of the pyramid. Levels go from fine to coarse, each half as large as the one before.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

EXTRA = 2
"""Levels beyond those of the backbone: P6 and P7."""
REPEATS = 3
EPSILON = 1e-4
NORM_GROUP = 8
"""Channels that a group norm normalises together, as in torchvision's RetinaNet v2."""


def group_norm(channels: int) -> nn.GroupNorm:
    """Over groups of NORM_GROUP channels (arXiv 1803.08494).

    Where the paper has batch norms: those of a neck that nobody pretrained have no statistics to hold.
    """
    return nn.GroupNorm(channels // NORM_GROUP, channels)


class BiFpn(nn.Module):
    """Maps of the backbone's last stages → as many levels and two coarser ones, all with C channels.

    Every stage goes through a 1×1 convolution and a norm; P6 is the last stage's, pooled, P7 is P6 pooled. REPEATS
    layers follow, each of which passes information from coarse to fine and back.

    Args:
        stages: channels of the stages, from fine to coarse.
        channels: C, a multiple of NORM_GROUP.
    """

    def __init__(self, stages: Sequence[int], channels: int) -> None:
        super().__init__()
        # P6 has a projection of its own, as each level has.
        self.lateral = nn.ModuleList(
            nn.Sequential(nn.Conv2d(width, channels, 1, bias=False), group_norm(channels))
            for width in (*stages, stages[-1])
        )
        self.repeats = nn.ModuleList(_Layer(len(stages) + EXTRA, channels) for _ in range(REPEATS))

    def forward(self, maps: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Maps of the stages by name, from fine to coarse → levels, as torchvision's FeaturePyramidNetwork gives them.

        Args:
            maps: (B, stage's channels, H, W) each.

        Returns:
            (B, C, H, W) each, the two coarser ones last.
        """
        stages = list(maps.values())
        levels = [lateral(stage) for lateral, stage in zip(self.lateral, (*stages, stages[-1]), strict=True)]
        levels[-1] = _halved(levels[-1])
        levels.append(_halved(levels[-1]))
        for layer in self.repeats:
            levels = layer(levels)
        return OrderedDict((str(number), level) for number, level in enumerate(levels))


class _Layer(nn.Module):
    """One pass from coarse to fine and one back (figure 2d and the equations of section 3.3)."""

    def __init__(self, levels: int, channels: int) -> None:
        super().__init__()
        # The coarsest level has no node on the way down, and the finest none on the way up.
        self.down = nn.ModuleList(_Node(2, channels) for _ in range(levels - 1))
        self.up = nn.ModuleList(_Node(2 if level == levels - 1 else 3, channels) for level in range(1, levels))

    def forward(self, levels: Sequence[Tensor]) -> list[Tensor]:
        """Levels → levels of the same shapes."""
        passed = [levels[-1]]
        for node, level in zip(self.down, levels[-2::-1], strict=True):
            passed.append(node(level, F.interpolate(passed[-1], size=level.shape[-2:], mode="nearest")))
        found = [passed.pop()]
        for node, level in zip(self.up, levels[1:], strict=True):
            # What was passed at the coarsest level is the level itself.
            between = [passed.pop()] if len(passed) > 1 else []
            found.append(node(level, *between, _halved(found[-1])))
        return found


class _Node(nn.Module):
    """Fast normalised fusion of maps of one shape, Σ wᵢ·Iᵢ / (ε + Σ wᵢ) with wᵢ ≥ 0, and a separable convolution."""

    def __init__(self, inputs: int, channels: int) -> None:
        super().__init__()
        self.fusion = nn.Parameter(torch.ones(inputs))
        self.convolution = nn.Sequential(
            nn.SiLU(),
            nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False),
            nn.Conv2d(channels, channels, 1, bias=False),
            group_norm(channels),
        )

    def forward(self, *maps: Tensor) -> Tensor:
        """(B, C, H, W) each → (B, C, H, W)."""
        weights = F.relu(self.fusion)
        weights = weights / (EPSILON + weights.sum())
        fused = weights[0] * maps[0]
        for weight, each in zip(weights[1:], maps[1:], strict=True):
            fused = fused + weight * each
        output: Tensor = self.convolution(fused)
        return output


def _halved(maps: Tensor) -> Tensor:
    """(B, C, H, W) → (B, C, ⌈H / 2⌉, ⌈W / 2⌉)."""
    return F.max_pool2d(maps, 3, stride=2, padding=1)
