"""Images and their variants as canvases with targets: what the frozen prefix is computed on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from fewshot_cli.augmentation.config import Augmentation
from fewshot_cli.augmentation.operations import Sample, load_sample, make_variant
from fewshot_cli.datasets.types import ImageRecord
from fewshot_cli.detectors.canvas import Canvas, batch_of
from fewshot_cli.detectors.chain import Activations, Detector, Target
from fewshot_cli.encoders.contract import Encoder

DECODED, DECODED_BYTES = 32, 500_000_000
"""Images kept decoded, because the variants of one are made one after the other, and bytes that they may take."""


class Example(NamedTuple):
    """What goes with a canvas. The canvas's own pixels are dropped once the prefix has seen them."""

    canvas: Canvas
    target: Target


Teacher = Callable[[], Encoder]
"""Opens an encoder, or gives the one that is open."""


class Examples:
    """`copies` variants of each image; copy 0 is the image as it is.

    Item i is copy i mod `copies` of image i div `copies`, a pure function of `seed`. With a teacher, targets hold what
    it makes of each object, seen in the pixels of the canvas, as the detector sees it.
    """

    def __init__(
        self,
        detector: Detector,
        images: Sequence[ImageRecord],
        *,
        copies: int = 1,
        augmentation: Augmentation | None = None,
        seed: int = 0,
        teacher: Teacher | None = None,
    ) -> None:
        self._detector = detector
        self._images = images
        self._copies = copies
        self._augmentation = augmentation or Augmentation()
        self._seed = seed
        self._teacher = teacher
        self._decoded = lru_cache(maxsize=_kept(images) if copies > 1 else 0)(_decoded)

    def __len__(self) -> int:
        return len(self._images) * self._copies

    def load(self, item: int) -> tuple[Tensor, Example]:
        """Canvas pixels (3, S, S) uint8 and what goes with them."""
        number, copy = divmod(item, self._copies)
        sample = self._decoded(_Hashed(self._images[number]))
        if copy:
            key = (self._seed, self._images[number].id, copy)
            sample = make_variant(sample, self._augmentation, key, canvas=self._detector.image_size)
        canvas = self._detector.make_canvas(sample.image)
        target = Target(sample.boxes * canvas.box_scale, sample.labels)
        if self._teacher:
            height, width = canvas.valid
            target = target._replace(embeddings=self._teacher().embed(canvas.pixels[:, :height, :width], target.boxes))
        if not copy:
            # Detections in it are measured in the pixels of the file.
            canvas = canvas.of_size((self._images[number].height, self._images[number].width))
        return canvas.pixels, Example(canvas._replace(pixels=torch.empty(0)), target)

    def batch(self, items: Sequence[int]) -> tuple[Activations, list[Example]]:
        """The input of layer 0 for some items, and what goes with their canvases."""
        loaded = [self.load(item) for item in items]
        canvases = batch_of([example.canvas._replace(pixels=pixels) for pixels, example in loaded])
        return canvases, [example for _, example in loaded]

    def prefix(self, cut: int, device: torch.device, bf16: bool, *, training: bool = False) -> Prefix:
        """The frozen layers before `cut` as a function of item numbers; with `training` they see the targets."""
        return Prefix(self.batch, 0, self._detector, cut, device, bf16, training)


def _kept(images: Sequence[ImageRecord]) -> int:
    """How many of the images may be kept decoded, three bytes a pixel; one is needed in any case."""
    largest = max((image.width * image.height * 3 for image in images), default=1)
    return max(1, min(DECODED, DECODED_BYTES // largest))


Source = Callable[[Sequence[int]], tuple[Activations, list[Example]]]
"""Item numbers → activations of those items at one cut, and the examples."""


@dataclass(frozen=True, slots=True)
class Prefix:
    """Item numbers → activations at the cut, without gradients, and the examples.

    Attributes:
        source: activations before layer `start`: of the canvases (0), or at an earlier cut.
        cut: index of the layer whose input is wanted, not before `start`.
        training: whether the layers see the targets.
    """

    source: Source
    start: int
    detector: Detector
    cut: int
    device: torch.device
    bf16: bool
    training: bool

    def __call__(self, items: Sequence[int]) -> tuple[Activations, list[Example]]:
        before, examples = self.source(items)
        before = tuple(part.to(self.device) for part in before)
        targets = [example.target.to(self.device) for example in examples] if self.training else None
        with torch.no_grad(), torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            return self.detector.prefix(before, self.cut, targets, self.start), examples

    def continued(self, source: Source, start: int) -> Prefix:
        """The same from the activations at an earlier cut."""
        return replace(self, source=source, start=start)


class _Hashed:
    """An image as a key: images hold arrays, which cannot be hashed."""

    def __init__(self, image: ImageRecord) -> None:
        self.image = image

    def __hash__(self) -> int:
        return hash(self.image.path)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Hashed) and other.image.path == self.image.path


def _decoded(key: _Hashed) -> Sample:
    return load_sample(key.image)
