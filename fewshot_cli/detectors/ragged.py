"""Parts of activations whose length differs from image to image, as tensors that can be stacked and cached."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F


def pad_ragged(parts: Sequence[Tensor], length: int) -> tuple[Tensor, Tensor]:
    """Tensors of different lengths as one: the inverse of `unpad`.

    Args:
        parts: one (Nᵢ, …) tensor per image, Nᵢ ≤ `length`.
        length: the largest number that the detector ever has, so that batches can be stacked.

    Returns:
        values (B, length, …), zero where there are none, and counts (B,) int64.

    Raises:
        ValueError: a part is longer than `length`.
    """
    longest = max(len(part) for part in parts)
    if longest > length:
        raise ValueError(f"a part has {longest} rows, but the fixed length is {length}")
    values = torch.stack([F.pad(part, (0, 0) * (part.ndim - 1) + (0, length - len(part))) for part in parts])
    return values, torch.tensor([len(part) for part in parts], dtype=torch.int64, device=values.device)


def unpad(values: Tensor, counts: Tensor) -> list[Tensor]:
    """(B, L, …) values and their counts (B,) → one (Nᵢ, …) tensor per image: the inverse of `pad_ragged`.

    On the meta device, where counts have no values, every image has all L rows.
    """
    if counts.is_meta:
        return list(values)
    return [rows[:count] for rows, count in zip(values, counts.tolist(), strict=True)]


def to_bits(values: Tensor) -> Tensor:
    """float32 → int32 of the same bits, which a cache in half precision does not round: the inverse of `from_bits`."""
    return values.float().view(torch.int32)


def from_bits(bits: Tensor) -> Tensor:
    """int32 → the float32 values whose bits they are: the inverse of `to_bits`."""
    return bits.view(torch.float32)
