"""What every image encoder does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor


class Encoder(Protocol):
    """A frozen network on a device, which computes in float32."""

    def embed(self, pixels: Tensor, boxes: Tensor) -> Tensor:
        """The crops of an image's objects (`crops.crops_of`) as vectors.

        Args:
            pixels: (3, H, W) uint8 RGB.
            boxes: (N, 4), xyxy, pixels.

        Returns:
            (N, D) float32 of length 1, on the CPU; the same whatever other images are embedded.
        """


class TextEncoder(Encoder, Protocol):
    """An encoder whose vectors can be compared with those of texts."""

    @property
    def scale(self) -> float:
        """By which cosines are multiplied before the softmax over texts."""

    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        """(T, D) float32 of length 1, on the CPU."""
