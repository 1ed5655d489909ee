"""BiFPN against the equations of its paper, written out level by level."""

from __future__ import annotations

from collections import OrderedDict
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fewshot_cli.detectors.bifpn import EPSILON, REPEATS, BiFpn

STAGES, CHANNELS = (8, 16, 24), 32


@pytest.fixture
def neck() -> BiFpn:
    """With fusion weights that differ, some of them negative."""
    made = BiFpn(STAGES, CHANNELS)
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if name.endswith("fusion"):
                parameter.uniform_(-0.5, 2)
    return made


def maps_of(side: int) -> OrderedDict[str, Tensor]:
    sides = (side, side // 2, side // 4)
    return OrderedDict(
        (str(i), torch.randn(2, width, s, s)) for i, (width, s) in enumerate(zip(STAGES, sides, strict=True))
    )


def fused(node: nn.Module, *maps: Tensor) -> Tensor:
    """Fast normalised fusion by the formula of section 3.3, then SiLU, 3×3 depthwise, 1×1, norm."""
    weights = [max(0.0, float(weight)) for weight in node.get_parameter("fusion")]
    total = sum((weight * each for weight, each in zip(weights, maps, strict=True)), torch.zeros(()))
    x = total / (EPSILON + sum(weights))
    _, depthwise, pointwise, norm = node.get_submodule("convolution").children()
    x = F.conv2d(x * torch.sigmoid(x), depthwise.weight, padding=1, groups=CHANNELS)  # type: ignore[arg-type]
    return F.group_norm(F.conv2d(x, pointwise.weight), CHANNELS // 8, norm.weight, norm.bias)  # type: ignore[arg-type]


def by_hand(neck: BiFpn, c3: Tensor, c4: Tensor, c5: Tensor) -> list[Tensor]:
    """The levels with the names of the paper's figure 3: P6 and P7 are pooled from C5."""

    def up(maps: Tensor, like: Tensor) -> Tensor:
        return F.interpolate(maps, size=like.shape[-2:])

    def down(maps: Tensor) -> Tensor:
        return F.max_pool2d(maps, 3, 2, 1)

    p3, p4, p5, p6 = (lateral(maps) for lateral, maps in zip(neck.lateral, (c3, c4, c5, c5), strict=True))
    p6 = down(p6)
    p7 = down(p6)
    for layer in neck.repeats:
        (td6, td5, td4, out3), (out4, out5, out6, out7) = layer.down, layer.up
        m6 = fused(td6, p6, up(p7, p6))
        m5 = fused(td5, p5, up(m6, p5))
        m4 = fused(td4, p4, up(m5, p4))
        p3 = fused(out3, p3, up(m4, p3))
        p4 = fused(out4, p4, m4, down(p3))
        p5 = fused(out5, p5, m5, down(p4))
        p6 = fused(out6, p6, m6, down(p5))
        p7 = fused(out7, p7, down(p6))
    return [p3, p4, p5, p6, p7]


@torch.no_grad()
@pytest.mark.parametrize("side", [16, 20, 12])
def test_the_levels_are_those_of_the_paper(neck: BiFpn, side: int) -> None:
    """Also where a level has an odd side, so that halving rounds up."""
    maps = maps_of(side)
    found, wanted = list(neck(maps).values()), by_hand(neck, *maps.values())
    assert REPEATS == len(neck.repeats) and 5 == len(found)
    for ours, theirs in zip(found, wanted, strict=True):
        torch.testing.assert_close(ours, theirs)
    sides = [level.shape[-1] for level in found]
    assert side == sides[0] and all(-(-fine // 2) == coarse for fine, coarse in pairwise(sides))
    assert {(2, CHANNELS)} == {tuple(level.shape[:2]) for level in found}


@torch.no_grad()
def test_an_input_with_a_negative_weight_is_left_out() -> None:
    """ReLU keeps the weights at 0 or above; without any, the sum is 0 and not infinite."""
    node = BiFpn(STAGES, CHANNELS).repeats[0].get_submodule("down.0")
    first, second = torch.randn(2, 1, CHANNELS, 4, 4).unbind()
    node.get_parameter("fusion").copy_(torch.tensor([2.0, -1.0]))
    torch.testing.assert_close(node(first, second), node(first, torch.zeros_like(second)))
    node.get_parameter("fusion").fill_(-1)
    assert bool(torch.isfinite(node(first, second)).all())


def test_every_parameter_gets_a_gradient() -> None:
    """From the five levels together, all of the neck learns, fusion weights included; its inputs stay as they are."""
    neck, maps = BiFpn(STAGES, CHANNELS), maps_of(16)
    before = [each.clone() for each in maps.values()]
    torch.stack([(level * torch.randn_like(level)).sum() for level in neck(maps).values()]).sum().backward()
    assert [] == [name for name, each in neck.named_parameters() if each.grad is None or not each.grad.abs().sum()]
    assert all(torch.equal(*pair) for pair in zip(before, maps.values(), strict=True))
