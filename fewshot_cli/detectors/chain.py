"""The contract: a detector is an ordered chain of named layers.

    image ─► canvas ─► layer 1 ─► … ─► layer n ─► outputs ─► loss
                          ▲ activations between layers         └──► detections
                            can be stored and gone on from

The chain can be cut before any layer. What lies before the cut is a pure function of the canvas, so
its result can be cached; that is the whole speed of this project. Norm layers always use their
stored statistics, in layers that train too: ten images make no statistics.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torchvision.transforms.v2 import functional as transforms

Activations = tuple[Tensor, ...]
"""What flows between layers: a flat tuple of (B, …) tensors, all that the rest of the chain needs."""


@dataclass(frozen=True, slots=True)
class Layer:
    """One link of the chain.

    Attributes:
        name: unique and readable, e.g. `head.2`.
        part: `backbone`, `neck` or `head`.
        modules: (qualified name, module) of everything at this depth, both towers together.
        forward: activations in, activations out; uses only `modules`.
    """

    name: str
    part: str
    modules: tuple[tuple[str, nn.Module], ...]
    forward: Callable[[Activations], Activations]

    def parameters(self) -> dict[str, nn.Parameter]:
        """Every parameter of the layer by its qualified name."""
        return {
            f"{prefix}.{name}" if name else prefix: parameter
            for prefix, module in self.modules
            for name, parameter in module.named_parameters()
        }


ClassInit = tuple[int, ...]
"""A new class's predictor starts from the mean of these base classes' weights, or from fresh ones if there are none."""


class Target(NamedTuple):
    """Ground truth of one canvas.

    boxes: (N, 4) float32, xyxy, canvas pixels; labels: (N,) int64, index into the detector's classes.
    """

    boxes: Tensor
    labels: Tensor


class Detections(NamedTuple):
    """What a detector says about one image, best first.

    boxes: (N, 4) float32, xyxy, pixels of the original image; scores: (N,) in 0 … 1; labels: (N,) int64.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor


class Canvas(NamedTuple):
    """An image resized into the detector's fixed square, top-left, padded.

    pixels: (3, S, S) uint8 RGB; scale: canvas pixels per image pixel; size: (height, width) of the image.
    """

    pixels: Tensor
    scale: float
    size: tuple[int, int]


class Detector(nn.Module, ABC):
    """A detector that can be run in parts.

    Subclasses keep the real modules under `network` and list them in `layers`: backbone stages, neck,
    head 1 … M, in order.
    """

    layers: tuple[Layer, ...]
    network: nn.Module
    pretrained: bool = True
    """Whether the predictor knows its classes: false while its weights are random."""
    pad_value: int | list[int] = 114
    fast_in_bf16: bool = False
    """Whether bf16 measures faster than fp32 on a CPU that has bf16 arithmetic."""

    def __init__(self, name: str, classes: Sequence[str], image_size: int) -> None:
        super().__init__()
        self.name = name
        self.classes = tuple(classes)
        self.image_size = image_size

    @property
    def head_depth(self) -> int:
        """M, the number of head layers, predictor included."""
        return sum(layer.part == "head" for layer in self.layers)

    def make_canvas(self, image: Tensor) -> Canvas:
        """Resize (3, H, W) uint8 RGB to fit the square, keeping its proportions, and pad right and below."""
        height, width = image.shape[-2:]
        scale = min(self.image_size / height, self.image_size / width)
        resized = [max(1, round(height * scale)), max(1, round(width * scale))]
        if resized != [height, width]:
            image = transforms.resize(image, resized, antialias=True)
        padding = [0, 0, self.image_size - resized[1], self.image_size - resized[0]]
        return Canvas(transforms.pad(image, padding, fill=self.pad_value), scale, (height, width))

    def run(self, activations: Activations, start: int, stop: int | None = None) -> Activations:
        """Go from the input of layer `start` to the input of layer `stop` (default: the outputs).

        The input of layer 0 is one (B, 3, S, S) uint8 batch of canvases.
        """
        if start == 0:
            activations = (self.normalize(activations[0]),)
        for layer in self.layers[start:stop]:
            activations = layer.forward(activations)
        return activations

    def place(self, device: torch.device) -> None:
        """Move to a device, channels last: convolutions are up to twice as fast there, on CPUs and GPUs alike."""
        self.to(device)
        self.to(memory_format=torch.channels_last)

    def hold_statistics(self) -> None:
        """Put every module in eval: norm layers keep the statistics they were pretrained with."""
        self.eval()

    def is_finest(self, parameter: str) -> bool:
        """Whether a parameter of the head, by its qualified name, is the finest level's own; levels may share all."""
        return False

    @abstractmethod
    def normalize(self, canvases: Tensor) -> Tensor:
        """(B, 3, S, S) uint8 RGB → what the first layer was trained on."""

    def losses(self, activations: Activations, start: int, targets: Sequence[Target]) -> dict[str, Tensor]:
        """The losses of a batch from the input of layer `start`."""
        outputs = self.run(activations, start)
        with torch.autocast(outputs[0].device.type, enabled=False):
            return self.loss(tuple(output.float() for output in outputs), targets)

    @abstractmethod
    def loss(self, outputs: Activations, targets: Sequence[Target]) -> dict[str, Tensor]:
        """Named scalar losses of a batch; their sum is what training minimises."""

    @abstractmethod
    def decode(self, outputs: Activations) -> list[Detections]:
        """Outputs → detections per canvas, in **canvas** pixels, after NMS, at most 100 each, best first."""

    @abstractmethod
    def replace_classes(self, classes: Sequence[str], inits: Sequence[ClassInit]) -> None:
        """Give the predictor new classes; box regression is kept.

        Args:
            classes: the new class names, in label order.
            inits: where the predictor weights of each come from.
        """

    @torch.no_grad()
    def detect(self, activations: Activations, start: int, canvases: Sequence[Canvas]) -> list[Detections]:
        """Go on from the input of layer `start` to detections in the pixels of the original images."""
        found = self.decode(self.run(activations, start))
        return [to_image(detections, canvas) for detections, canvas in zip(found, canvases, strict=True)]


def to_image(detections: Detections, canvas: Canvas) -> Detections:
    """Detections in canvas pixels → in the original image's pixels, clipped to it."""
    height, width = canvas.size
    boxes = detections.boxes.float().cpu() / canvas.scale
    boxes[:, 0::2] = boxes[:, 0::2].clamp(0, width)
    boxes[:, 1::2] = boxes[:, 1::2].clamp(0, height)
    return Detections(boxes, detections.scores.float().cpu(), detections.labels.cpu())
