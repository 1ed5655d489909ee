"""The part of an image that shows an object, as an encoder takes it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as transforms

BATCH = 32
"""Crops that go through an encoder together."""


def crops_of(pixels: Tensor, boxes: Tensor, side: int) -> Tensor:
    """Squares around boxes, as wide as the longer side of the box, so that nothing is distorted or cut off.

    Args:
        pixels: (3, H, W) uint8 RGB; what lies beyond is black.
        boxes: (N, 4), xyxy, pixels.
        side: of the crops, pixels.

    Returns:
        (N, 3, side, side) float32, 0 … 1.
    """
    crops = [_crop(pixels, box, side) for box in boxes.tolist()]
    return torch.stack(crops).float() / 255 if crops else torch.empty(0, 3, side, side)


def _crop(pixels: Tensor, box: list[float], side: int) -> Tensor:
    x1, y1, x2, y2 = box
    length = max(1, round(max(x2 - x1, y2 - y1)))
    left, top = round((x1 + x2 - length) / 2), round((y1 + y2 - length) / 2)
    crop = transforms.crop(pixels, top, left, length, length)
    return transforms.resize(crop, [side, side], InterpolationMode.BICUBIC, antialias=True)


@torch.no_grad()
def embed_in_batches(encode: Callable[[Tensor], Tensor], crops: Tensor, dimension: int, device: torch.device) -> Tensor:
    """Crops through an encoder, BATCH at a time.

    Args:
        encode: (N, 3, side, side) on the device → (N, dimension).

    Returns:
        (N, dimension) float32 of length 1, on the CPU.
    """
    with torch.autocast(device.type, enabled=False):
        parts = [encode(part.to(device)).float().cpu() for part in crops.split(BATCH) if len(part)]
    return F.normalize(torch.cat(parts)) if parts else torch.empty(0, dimension)
