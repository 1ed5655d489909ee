"""Parts whose length differs from image to image come back from one stack as they went in."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fewshot_cli.detectors.ragged import from_bits, pad_ragged, to_bits, unpad

lengths = st.lists(st.integers(0, 6), min_size=1, max_size=5)
row_shapes = st.sampled_from([(), (4,), (2, 3)])
types = st.sampled_from([torch.float32, torch.bfloat16, torch.int64, torch.bool])


@given(counts=lengths, spare=st.integers(0, 3), shape=row_shapes, dtype=types)
def test_ragged_parts_come_back(counts: list[int], spare: int, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    """Unpadding gives what was padded, of any type and shape; between them is one stack, zero where nothing is."""
    parts = [(torch.ones(count, *shape) * (i + 1)).to(dtype) for i, count in enumerate(counts)]
    length = max(counts) + spare
    values, found = pad_ragged(parts, length)
    assert ((len(counts), length, *shape), dtype) == (tuple(values.shape), values.dtype)
    assert (counts, torch.int64) == (found.tolist(), found.dtype)
    assert all(torch.equal(part, again) for part, again in zip(parts, unpad(values, found), strict=True))
    assert not any(image[count:].any() for image, count in zip(values, counts, strict=True))


def test_gradients_pass_through_padding() -> None:
    """A part learns from its own rows of the padded values, and from nothing in the padding."""
    parts = [torch.zeros(count, 2, requires_grad=True) for count in (2, 0, 3)]
    pad_ragged(parts, 4)[0].sum().backward()
    assert all(torch.equal(torch.ones_like(part), part.grad) for part in parts)  # type: ignore[arg-type]


def test_without_values_every_image_has_all_rows() -> None:
    """On the meta device, where layers are only looked at, the shapes are those of the fullest image."""
    values, counts = pad_ragged([torch.zeros(count, 2, device="meta") for count in (2, 0)], 4)
    assert [(4, 2), (4, 2)] == [tuple(part.shape) for part in unpad(values, counts)]


def test_bits_are_the_number_itself() -> None:
    """A cache keeps integers as they are, so boxes that pass as bits come back unrounded, in the same order of bytes."""
    numbers = torch.tensor([[0.1, -639.987], [float("inf"), 1e-30]])
    bits = to_bits(numbers)
    assert (torch.int32, 0x3DCCCCCD) == (bits.dtype, bits[0, 0].item())
    assert torch.equal(numbers, from_bits(bits))


def test_a_part_longer_than_the_fixed_length_is_an_error() -> None:
    """Nothing is cut off in silence."""
    with pytest.raises(ValueError, match="a part has 5 rows, but the fixed length is 4"):
        pad_ragged([torch.zeros(2, 4), torch.zeros(5, 4)], 4)
