"""Variants of an image: the paper's six operations, on torchvision v2.

A variant is a pure function of (image, seed, copy): it can be made again at any time, in any order,
on any machine with the same torchvision. Copy 0 is the image as it is.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F
from torchvision.tv_tensors import BoundingBoxes, Image, wrap

from fewshot_cli.augmentation.config import Augmentation
from fewshot_cli.datasets.images import read_image
from fewshot_cli.datasets.types import ImageRecord

MIN_VISIBLE = 0.4
"""A box goes when less than this share of its area is still inside the image."""
MIN_SIDE = 2.0
"""A box goes when a side is shorter than this, in pixels."""
GREY = 114
"""What fills the places an image no longer covers."""


class Sample(NamedTuple):
    """One image with its boxes.

    image: (3, H, W) uint8 RGB; boxes: (N, 4) float32 xyxy pixels, inside the image; labels: (N,) int64.
    """

    image: Tensor
    boxes: Tensor
    labels: Tensor


def load_sample(image: ImageRecord) -> Sample:
    """Decode an image, with its single objects in the pixels that were decoded; raises DataError."""
    boxes, labels = map(torch.from_numpy, image.objects())
    pixels = read_image(image.path)
    # Of a very large image every second pixel is read.
    factors = pixels.shape[-1] / image.width, pixels.shape[-2] / image.height
    return Sample(pixels, boxes * boxes.new_tensor([*factors, *factors]), labels)


class Scale(v2.Transform):
    """Zoom by a factor in `factors` (log-uniform), the canvas unchanged, shifted so that it still overlaps well."""

    def __init__(self, factors: tuple[float, float] = (0.35, 1.8), shift: float = 0.2) -> None:
        super().__init__()
        self.factors, self.shift = factors, shift

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        height, width = F.get_size(flat_inputs[0])
        return {
            "angle": 0.0,
            "translate": [_uniform(-self.shift, self.shift) * width, _uniform(-self.shift, self.shift) * height],
            "scale": _log_uniform(*self.factors),
            "shear": [0.0, 0.0],
        }

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        return self._call_kernel(
            F.affine, inpt, **params, interpolation=v2.InterpolationMode.BILINEAR, fill=[float(GREY)]
        )


class Rotate(v2.Transform):
    """Turn by at most `degrees` to either side, the canvas unchanged.

    A turned box gets the box around the ellipse that fills it, turned along (Kalra et al., "Towards Rotation
    Invariance in Object Detection", ICCV 2021): exact for round objects, and much tighter than the box around the
    turned corners, which an object seldom reaches. A rectangular object sticks out at its corners.
    """

    def __init__(self, degrees: float = 15.0) -> None:
        super().__init__()
        self.degrees = degrees

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        return {"angle": _uniform(-self.degrees, self.degrees)}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        if isinstance(inpt, BoundingBoxes):
            return wrap(_turned(inpt.as_subclass(Tensor), inpt.canvas_size, params["angle"]), like=inpt)
        return self._call_kernel(
            F.rotate, inpt, **params, interpolation=v2.InterpolationMode.BILINEAR, fill=[float(GREY)]
        )


def _turned(boxes: Tensor, canvas: tuple[int, ...], degrees: float) -> Tensor:
    """(N, 4) xyxy, turned counter-clockwise around the middle of the canvas (height, width)."""
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    middle = boxes.new_tensor([canvas[1] / 2, canvas[0] / 2])
    x, y = ((boxes[:, :2] + boxes[:, 2:]) / 2 - middle).unbind(dim=1)
    width, height = ((boxes[:, 2:] - boxes[:, :2]) / 2).unbind(dim=1)
    # y points down, so counter-clockwise is (x cos + y sin, −x sin + y cos).
    centre = torch.stack([x * cos + y * sin, y * cos - x * sin], dim=1) + middle
    extent = torch.stack([torch.hypot(width * cos, height * sin), torch.hypot(width * sin, height * cos)], dim=1)
    return torch.cat([centre - extent, centre + extent], dim=1)


class _Resize(v2.Transform):
    """To the size that `make_params` gives, (height, width)."""

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        return self._call_kernel(F.resize, inpt, **params, antialias=True)


class Stretch(_Resize):
    """Change the ratio of width to height by a factor in `ratios` (log-uniform), the area unchanged."""

    def __init__(self, ratios: tuple[float, float] = (0.75, 4 / 3)) -> None:
        super().__init__()
        self.ratios = ratios

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        height, width = F.get_size(flat_inputs[0])
        root = math.sqrt(_log_uniform(*self.ratios))
        return {"size": [max(1, round(height / root)), max(1, round(width * root))]}


class Shrink(_Resize):
    """The longer side becomes `side` pixels, if it is more."""

    def __init__(self, side: int) -> None:
        super().__init__()
        self.side = side

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        height, width = F.get_size(flat_inputs[0])
        factor = min(1.0, self.side / max(height, width))
        return {"size": [max(1, round(height * factor)), max(1, round(width * factor))]}


class PositiveExtraction(v2.Transform):
    """Crop around a random positive instance, with context and jitter, so that training sees it large.

    The crop is a window of `context` times the box on each side (at least `min_side` pixels), placed so
    that the box stays inside. Boxes of other instances that it cuts are left to `make_variant`.
    """

    def __init__(self, context: tuple[float, float] = (1.5, 6.0), min_side: int = 64) -> None:
        super().__init__()
        self.context, self.min_side = context, min_side

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        height, width = F.get_size(flat_inputs[0])
        boxes = next(item for item in flat_inputs if isinstance(item, BoundingBoxes))
        if len(boxes) == 0:
            return {"top": 0, "left": 0, "height": height, "width": width}
        x1, y1, x2, y2 = boxes[int(torch.randint(len(boxes), ()))].tolist()
        # One factor for both sides, on the longer one: the crop shows context evenly.
        side = max(x2 - x1, y2 - y1) * _log_uniform(*self.context)
        left, crop_width = self._window(x1, x2, side, width)
        top, crop_height = self._window(y1, y2, side, height)
        return {"top": top, "left": left, "height": crop_height, "width": crop_width}

    def _window(self, low: float, high: float, side: float, limit: int) -> tuple[int, int]:
        """An interval of about `side` pixels within 0 … limit that holds [low, high]: (start, length)."""
        length = min(limit, max(math.ceil(side), math.ceil(high) - math.floor(low), self.min_side))
        earliest = max(0, math.ceil(high) - length)
        latest = min(limit - length, math.floor(low))
        return round(_uniform(earliest, max(earliest, latest))), length

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        return self._call_kernel(F.crop, inpt, **params)


OPERATIONS: dict[str, Callable[[Augmentation], v2.Transform]] = {
    "positive": lambda ranges: v2.RandomApply([PositiveExtraction()], p=ranges.positive),
    "flip": lambda ranges: v2.RandomHorizontalFlip(p=ranges.flip),
    "rotate": lambda ranges: v2.RandomApply([Rotate(ranges.rotate)], p=0.5),
    "stretch": lambda ranges: v2.RandomApply([Stretch((1 / ranges.stretch, ranges.stretch))], p=0.5),
    "scale": lambda ranges: v2.RandomApply([Scale(ranges.scale)], p=0.7),
    "color": lambda ranges: v2.RandomApply([_color_jitter(ranges.color)], p=0.8),
}
"""What a variant goes through, in this order; positive extraction first, while every pixel is there."""


def _color_jitter(strength: float) -> v2.Transform:
    return v2.ColorJitter(brightness=strength, contrast=strength, saturation=strength, hue=strength / 20)


def make_variant(
    sample: Sample, augmentation: Augmentation, key: tuple[Any, ...], *, canvas: int | None = None
) -> Sample:
    """The variant of a sample that belongs to `key`, e.g. (seed, image id, copy).

    The global random state is left as it was. Boxes are clipped to the image; those that lost too much are dropped.

    Args:
        canvas: side in pixels of the square that will show the variant. A larger image is shrunk, after positive
            extraction, to what the largest zoom can show: a photograph's millions of pixels would take a second a
            variant. None keeps them all.
    """
    image, boxes, visible = sample.image, sample.boxes, torch.ones(len(sample.boxes))
    # v2 draws from torch's global generator only, so that generator is borrowed.
    with torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(_seed_of(key))
        for operation in _pipeline(augmentation, canvas):
            image, moved = _apply(operation, image, boxes)
            # Clipped at once: what a crop cut off is grey, not object, where a later zoom out would show it.
            boxes = _clip(moved, image)
            visible = visible * _area(boxes) / _area(moved).clamp(min=1e-6)
    kept = (visible >= MIN_VISIBLE) & ((boxes[:, 2:] - boxes[:, :2]).amin(dim=1) >= MIN_SIDE)
    return Sample(image, boxes[kept], sample.labels[kept])


def _pipeline(augmentation: Augmentation, canvas: int | None) -> list[v2.Transform]:
    """The operations in their order, with the shrinking for a canvas among them."""
    operations = [operation(augmentation) for name, operation in OPERATIONS.items() if name in augmentation.ops]
    if canvas:
        zoom = augmentation.scale[1] if "scale" in augmentation.ops else 1.0
        # After positive extraction, which comes first and needs every pixel.
        operations.insert(int("positive" in augmentation.ops), Shrink(round(canvas * max(zoom, 1.0))))
    return operations


def _apply(operation: v2.Transform, image: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Image and boxes after one operation; the boxes may now reach out of the image."""
    framed = BoundingBoxes(boxes, format="XYXY", canvas_size=image.shape[-2:], clamping_mode=None)
    moved_image, moved_boxes = operation(Image(image), framed)
    return moved_image.as_subclass(Tensor), moved_boxes.as_subclass(Tensor)


def _clip(boxes: Tensor, image: Tensor) -> Tensor:
    height, width = image.shape[-2:]
    return torch.stack([boxes[:, i].clamp(0, (width, height)[i % 2]) for i in range(4)], dim=1)


def _area(boxes: Tensor) -> Tensor:
    return (boxes[:, 2:] - boxes[:, :2]).prod(dim=1)


def _seed_of(key: tuple[Any, ...]) -> int:
    digest = hashlib.sha256(repr(key).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def _uniform(low: float, high: float) -> float:
    return low + (high - low) * float(torch.rand(()))


def _log_uniform(low: float, high: float) -> float:
    return math.exp(_uniform(math.log(low), math.log(high)))
