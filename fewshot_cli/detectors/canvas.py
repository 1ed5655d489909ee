"""The detector's input: images resized into a fixed square, and boxes back into the images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as transforms

from fewshot_cli.detectors.suppression import Detections


class Canvas(NamedTuple):
    """An image resized into the detector's fixed square, top-left, padded.

    pixels: (3, S, S) uint8 RGB; scale: canvas pixels per image pixel, along x and along y; size: (height, width) of the
    image, its pixels; valid: (height, width) of the resized image, canvas pixels; what lies below or right of it is
    padding.
    """

    pixels: Tensor
    scale: tuple[float, float]
    size: tuple[int, int]
    valid: tuple[int, int]

    @property
    def box_scale(self) -> Tensor:
        """(4,) float32, `scale` for each coordinate of an xyxy box."""
        return torch.tensor([*self.scale, *self.scale])

    def of_size(self, size: tuple[int, int]) -> Canvas:
        """The same canvas for an image of that (height, width), of which fewer pixels were decoded."""
        if size == self.size:
            return self
        (x, y), (height, width) = self.scale, self.size
        return self._replace(scale=(x * width / size[1], y * height / size[0]), size=size)


def fit(image: Tensor, side: int, *, stretches: bool, pad_value: int | list[int]) -> Canvas:
    """Resize (3, H, W) uint8 RGB to fit the square.

    Args:
        side: of the square, pixels.
        stretches: fill the square, each axis with a scale of its own; otherwise keep the aspect, pad right and below.
        pad_value: 0 to 255, one or one for each channel.
    """
    height, width = image.shape[-2:]
    scale = side / width, side / height
    if not stretches:
        scale = min(scale), min(scale)
    valid = max(1, round(height * scale[1])), max(1, round(width * scale[0]))
    if valid != (height, width):
        image = transforms.resize(image, list(valid), antialias=True)
    padding = [0, 0, side - valid[1], side - valid[0]]
    return Canvas(transforms.pad(image, padding, fill=pad_value), scale, (height, width), valid)


def batch_of(canvases: Sequence[Canvas]) -> tuple[Tensor, Tensor]:
    """The input of layer 0.

    Returns:
        pixels (B, 3, S, S) uint8 RGB, and valid (B, 2) int64, height and width in canvas pixels.
    """
    pixels = torch.stack([canvas.pixels for canvas in canvases])
    return pixels, torch.tensor([canvas.valid for canvas in canvases], dtype=torch.int64)


def blank_batch(side: int) -> tuple[Tensor, Tensor]:
    """The input of layer 0 for one black image that fills the canvas, e.g. to count what a chain computes."""
    black = torch.zeros(3, side, side, dtype=torch.uint8)
    return batch_of([Canvas(black, (1.0, 1.0), (side, side), (side, side))])


def to_image(detections: Detections, canvas: Canvas) -> Detections:
    """Detections in canvas pixels → in the original image's pixels, clipped to it."""
    height, width = canvas.size
    boxes = detections.boxes.float().cpu() / canvas.box_scale
    boxes[:, 0::2] = boxes[:, 0::2].clamp(0, width)
    boxes[:, 1::2] = boxes[:, 1::2].clamp(0, height)
    return Detections(boxes, detections.scores.float().cpu(), detections.labels.cpu())
