"""Variants of an image: what moves, moves with its box, and what is gone takes its box along."""

from __future__ import annotations

import itertools
import re
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F
from torchvision.tv_tensors import BoundingBoxes, Image

from fewshot_cli.augmentation.config import Augmentation
from fewshot_cli.augmentation.operations import (
    GREY,
    MIN_SIDE,
    MIN_VISIBLE,
    OPERATIONS,
    PositiveExtraction,
    Rotate,
    Sample,
    Scale,
    Stretch,
    make_variant,
)
from fewshot_cli.errors import ConfigError

ALL = tuple(OPERATIONS)
UPRIGHT = tuple(name for name in ALL if name not in ("color", "rotate"))
COLOURS = torch.tensor([[250, 20, 20], [20, 250, 20], [20, 20, 250], [250, 250, 20]], dtype=torch.uint8)
BACKGROUND = 0
examples = settings(max_examples=40)
few = settings(max_examples=15)
seeds = st.integers(0, 2**31)


def painted(height: int, width: int, boxes: list[tuple[int, int, int, int]]) -> Sample:
    """A black image with a rectangle of its own colour in every box; the label is the colour's number."""
    image = torch.full((3, height, width), BACKGROUND, dtype=torch.uint8)
    for (x1, y1, x2, y2), colour in zip(boxes, COLOURS, strict=False):
        image[:, y1:y2, x1:x2] = colour[:, None, None]
    return Sample(image, torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4), torch.arange(len(boxes)))


def paint(image: Tensor, colour: int) -> Tensor:
    """(H, W) bool: where the image shows that colour, within a third of its contrast."""
    return (image.int() - COLOURS[colour].int()[:, None, None]).abs().amax(dim=0) < 80


def extent(mask: Tensor) -> Tensor:
    """(4,) xyxy of the true pixels."""
    rows, columns = mask.any(dim=1).nonzero().flatten(), mask.any(dim=0).nonzero().flatten()
    return torch.stack([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]).float()


def apply(operation: v2.Transform, sample: Sample, seed: int) -> Sample:
    """One operation for certain, boxes as it leaves them."""
    boxes = BoundingBoxes(sample.boxes, format="XYXY", canvas_size=sample.image.shape[-2:], clamping_mode=None)
    torch.manual_seed(seed)
    image, moved = operation(Image(sample.image), boxes)
    return Sample(image.as_subclass(Tensor), moved.as_subclass(Tensor), sample.labels)


@st.composite
def samples(draw: st.DrawFn) -> Sample:
    """Images from 1×1 pixel, with no box, tiny ones, or some that cover everything."""
    height, width = draw(st.integers(1, 90)), draw(st.integers(1, 90))
    random = torch.Generator().manual_seed(draw(st.integers(0, 1000)))
    image = torch.randint(256, (3, height, width), dtype=torch.uint8, generator=random)
    boxes = [(0.0, 0.0, float(width), float(height))] if draw(st.booleans()) else []
    for _ in range(draw(st.integers(0, 4))):
        x1, x2 = sorted(draw(st.floats(0, width, width=32)) for _ in range(2))
        y1, y2 = sorted(draw(st.floats(0, height, width=32)) for _ in range(2))
        boxes.append((x1, y1, x2, y2))
    return Sample(image, torch.tensor(boxes).reshape(-1, 4), torch.arange(len(boxes)) + 5)


@examples
@given(sample=samples(), operations=st.sets(st.sampled_from(ALL)), key=st.tuples(st.integers(), st.integers()))
def test_what_holds_for_every_variant(sample: Sample, operations: set[str], key: tuple[int, int]) -> None:
    """No box is outside, inverted, empty or NaN; labels stay with boxes, in order; the original is untouched."""
    before = Sample(*(part.clone() for part in sample))
    image, boxes, labels = make_variant(sample, Augmentation(ops=tuple(operations)), key)
    height, width = image.shape[-2:]
    assert (torch.uint8, torch.float32, torch.int64) == (image.dtype, boxes.dtype, labels.dtype)
    assert {Tensor} == {type(image), type(boxes), type(labels)}
    assert (3, len(labels), 4) == (image.shape[0], *boxes.shape)
    assert torch.isfinite(boxes).all()
    assert ((boxes >= 0) & (boxes <= torch.tensor([width, height, width, height]))).all()
    assert ((boxes[:, 2:] - boxes[:, :2]) >= MIN_SIDE).all()
    assert sorted(set(labels.tolist())) == labels.tolist()
    assert set(labels.tolist()) <= set(sample.labels.tolist())
    assert all(torch.equal(old, new) for old, new in zip(before, sample, strict=True))


@examples
@given(sample=samples(), key=st.tuples(st.integers(), st.integers()))
def test_a_variant_is_a_pure_function_of_its_key(sample: Sample, key: tuple[int, int]) -> None:
    """The same key gives the same bits whatever torch's generator did before, and leaves that generator alone."""
    torch.manual_seed(1)
    first = make_variant(sample, Augmentation(ops=ALL), key)
    torch.manual_seed(2)
    torch.rand(7)
    state = torch.random.get_rng_state()
    second = make_variant(sample, Augmentation(ops=ALL), key)
    assert torch.equal(state, torch.random.get_rng_state())
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_other_keys_give_other_variants() -> None:
    """Seed, image and copy all count: hardly two of fifty keys give the same image, by chance the original."""
    sample = painted(60, 80, [(10, 10, 50, 40)])
    keys = itertools.product(range(2), range(5), range(1, 6))
    variants = {make_variant(sample, Augmentation(ops=ALL), key).image.numpy().tobytes() for key in keys}
    assert len(variants) >= 45


def test_no_operations_change_nothing() -> None:
    """Without operations the variant is the image."""
    sample = painted(20, 30, [(3, 4, 12, 15)])
    assert all(torch.equal(a, b) for a, b in zip(sample, make_variant(sample, Augmentation(ops=()), (0,)), strict=True))


@pytest.mark.parametrize(("operations", "longest"), [((), 40), (("flip", "color"), 40), (("scale",), 72)])
def test_a_photograph_is_shrunk_to_what_its_canvas_can_show(operations: tuple[str, ...], longest: int) -> None:
    """To the canvas's side, or 1.8 times that where a zoom of 1.8 may come; a box shrinks along."""
    photograph = painted(120, 160, [(0, 0, 160, 120)])
    everything = {"positive": 0.0, "flip": 1.0}
    image, boxes, _ = make_variant(photograph, Augmentation(ops=operations, **everything), (3,), canvas=40)
    assert (3, longest * 3 // 4, longest) == tuple(image.shape)
    if "scale" not in operations:
        torch.testing.assert_close(boxes, torch.tensor([[0.0, 0.0, 40.0, 30.0]]))
    if not operations:
        assert torch.equal(F.resize(photograph.image, [30, 40], antialias=True), image)


@examples
@given(sample=samples(), key=st.tuples(st.integers(), st.integers()))
def test_an_image_that_its_canvas_can_show_is_not_shrunk(sample: Sample, key: tuple[int, int]) -> None:
    """Up to 1.8 times the canvas's side, by default, the variant is the same to the last bit."""
    kept, shown = make_variant(sample, Augmentation(), key), make_variant(sample, Augmentation(), key, canvas=50)
    assert all(torch.equal(a, b) for a, b in zip(kept, shown, strict=True))


def test_a_positive_crop_is_taken_from_every_pixel() -> None:
    """What is shrunk is the crop, not the image: a small instance of a photograph keeps its pixels."""
    photograph = painted(1200, 1600, [(700, 500, 740, 530)])
    only = Augmentation(ops=("positive",), positive=1.0)
    for key in range(10):
        image, boxes, _ = make_variant(photograph, only, (key,), canvas=416)
        assert max(image.shape) <= 416
        torch.testing.assert_close(boxes[:, 2:] - boxes[:, :2], torch.tensor([[40.0, 30.0]]))


def test_the_order_of_the_names_does_not_matter() -> None:
    """Operations run in one fixed order, however they are listed."""
    sample = painted(60, 80, [(10, 10, 50, 40)])
    for key in range(10):
        assert torch.equal(
            make_variant(sample, Augmentation(ops=ALL), (key,)).image,
            make_variant(sample, Augmentation(ops=ALL[::-1]), (key,)).image,
        )


def test_a_flip_is_exact() -> None:
    """Each variant is the image or its mirror image, pixel for pixel, boxes included; both occur."""
    pixels = np.random.default_rng(0).integers(0, 256, (3, 31, 47), dtype=np.uint8)
    boxes = torch.tensor([[0.0, 0.0, 47.0, 31.0], [3.25, 4.5, 20.0, 30.0]])
    sample = Sample(torch.from_numpy(pixels), boxes, torch.tensor([1, 0]))
    mirrored = 0
    for key in range(20):
        image, moved, labels = make_variant(sample, Augmentation(ops=("flip",)), (key,))
        flipped = not np.array_equal(pixels, image.numpy())
        mirrored += flipped
        assert np.array_equal(pixels[:, :, ::-1] if flipped else pixels, image.numpy())
        wanted = np.stack([47 - boxes[:, 2], boxes[:, 1], 47 - boxes[:, 0], boxes[:, 3]], axis=1)
        assert np.array_equal(wanted if flipped else boxes.numpy(), moved.numpy())
        assert [1, 0] == labels.tolist()
    assert 0 < mirrored < 20


def test_colour_moves_nothing() -> None:
    """Colour changes pixels and neither size, boxes nor labels."""
    sample = painted(40, 50, [(10, 10, 30, 35), (35, 5, 48, 20)])
    variants = [make_variant(sample, Augmentation(ops=("color",)), (key,)) for key in range(8)]
    assert any(not torch.equal(sample.image, variant.image) for variant in variants)
    for image, boxes, labels in variants:
        assert sample.image.shape == image.shape
        assert torch.equal(sample.boxes, boxes)
        assert torch.equal(sample.labels, labels)


@settings(max_examples=30)
@given(operation=st.sampled_from([Scale(), Stretch(), PositiveExtraction()]), seed=seeds)
def test_boxes_move_with_their_pixels(operation: v2.Transform, seed: int) -> None:
    """After one operation the painted rectangle fills its box, to 2 pixels, where the image still shows it."""
    sample = painted(150, 220, [(90, 60, 130, 100), (150, 20, 200, 60)])
    image, boxes, _ = apply(operation, sample, seed)
    height, width = image.shape[-2:]
    limits = torch.tensor([width, height, width, height]).float()
    seen = 0
    for colour, box in enumerate(boxes):
        shown = box.clamp(min=0).minimum(limits)
        if (shown[2:] - shown[:2]).min() > 4:
            torch.testing.assert_close(extent(paint(image, colour)), shown, atol=2.0, rtol=0)
            seen += 1
    assert seen


@examples
@given(key=st.integers())
def test_a_kept_box_shows_its_object(key: int) -> None:
    """After all geometry the box of each label is filled with that label's colour, never with grey or background."""
    sample = painted(100, 300, [(10, 30, 40, 60), (60, 10, 100, 90), (200, 20, 290, 80), (120, 40, 180, 70)])
    image, boxes, labels = make_variant(sample, Augmentation(ops=UPRIGHT), (key,))
    for (x1, y1, x2, y2), label in zip(boxes.round().int().tolist(), labels.tolist(), strict=True):
        inner = paint(image, label)[y1 + 2 : y2 - 2, x1 + 2 : x2 - 2]
        assert inner.float().mean() > 0.95 or inner.numel() == 0


def test_what_a_crop_cut_off_stays_cut_off_when_zooming_out() -> None:
    """A box cut by the crop does not grow into the grey border that a zoom out shows in place of the rest."""
    sample = painted(100, 400, [(10, 30, 40, 60), (300, 30, 380, 90), (60, 5, 140, 95), (150, 5, 290, 95)])
    cut = 0
    for key in range(150):
        image, boxes, labels = make_variant(sample, Augmentation(ops=("positive", "scale")), (key,))
        cut += len(boxes) < 4 and bool((image[:, :2, :2] == GREY).all())
        for (x1, y1, x2, y2), label in zip(boxes.round().int().tolist(), labels.tolist(), strict=True):
            inner = paint(image, label)[y1 + 2 : y2 - 2, x1 + 2 : x2 - 2]
            assert inner.float().mean() > 0.95 or inner.numel() == 0, key
    assert cut > 5


@examples
@given(key=st.integers())
def test_a_box_goes_when_too_little_of_it_is_left(key: int) -> None:
    """A crop keeps exactly the boxes of which MIN_VISIBLE of the area, and MIN_SIDE on each side, is still there."""
    boxes = [(5, 5, 35, 95), (60, 10, 100, 90), (200, 20, 290, 80), (120, 40, 180, 70)]
    sample = painted(100, 300, boxes)
    image, _, labels = make_variant(sample, Augmentation(ops=("positive",)), (key,))
    for label, (x1, y1, x2, y2) in enumerate(boxes):
        left = paint(image, label)
        enough = int(left.sum()) >= MIN_VISIBLE * (x2 - x1) * (y2 - y1)
        wide = bool(left.any()) and bool((extent(left)[2:] - extent(left)[:2] >= MIN_SIDE).all())
        assert (enough and wide) == (label in labels.tolist())


class Window(v2.Transform):
    """The left part of an image, that many pixels wide; wider than the image, it is filled up."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        return F.crop(inpt, 0, 0, 20, self.width)


@pytest.mark.parametrize(
    ("widths", "right"), [((70, 49), 49), ((70, 100), 70), ((40, 100), 40), ((39, 100), None), ((60, 36), None)]
)
def test_losses_of_several_operations_add_up(
    widths: tuple[int, int], right: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The visible share is of the original object, through all operations, and what one cut off none brings back."""
    first, second = widths
    monkeypatch.setitem(OPERATIONS, "positive", lambda _: Window(first))
    monkeypatch.setitem(OPERATIONS, "scale", lambda _: Window(second))
    _, boxes, _ = make_variant(painted(20, 100, [(0, 0, 100, 20)]), Augmentation(ops=("positive", "scale")), (0,))
    assert ([] if right is None else [[0.0, 0.0, float(right), 20.0]]) == boxes.tolist()


@examples
@given(
    sample=samples().filter(lambda sample: len(sample.boxes) > 0),
    seed=st.integers(0, 2**31),
    min_side=st.sampled_from([1, 8, 64]),
)
def test_a_positive_crop_keeps_its_instance_whole(sample: Sample, seed: int, min_side: int) -> None:
    """The crop lies inside the image and holds its instance, here the only one, in full and in its own size."""
    alone = Sample(sample.image, sample.boxes[-1:], sample.labels[-1:])
    image, boxes, _ = apply(PositiveExtraction(min_side=min_side), alone, seed)
    (height, width), (old_height, old_width) = image.shape[-2:], sample.image.shape[-2:]
    assert min(min_side, old_height) <= height <= old_height
    assert min(min_side, old_width) <= width <= old_width
    old_sides, sides = (corners[:, 2:] - corners[:, :2] for corners in (alone.boxes, boxes))
    torch.testing.assert_close(sides, old_sides, atol=1e-4, rtol=0)
    assert (boxes >= -1e-4).all()
    assert (boxes[:, 2:] <= torch.tensor([width, height]) + 1e-4).all()


def test_a_positive_crop_shows_the_instance_larger() -> None:
    """A small object in a large image fills more of most crops than of the image, each instance in its turn."""
    sample = painted(400, 600, [(20, 30, 60, 70), (500, 300, 560, 360)])
    crops = [apply(PositiveExtraction(), sample, seed) for seed in range(40)]
    assert all(crop.image[0].numel() < sample.image[0].numel() for crop in crops)
    assert {(True, False), (False, True)} <= {tuple(bool(paint(c.image, k).any()) for k in (0, 1)) for c in crops}


def test_a_positive_crop_of_a_negative_is_the_image() -> None:
    """Without instances there is nothing to crop around."""
    sample = painted(30, 40, [])
    assert torch.equal(sample.image, apply(PositiveExtraction(), sample, 0).image)


@few
@given(seed=seeds)
def test_a_zoom_keeps_the_canvas_and_a_stretch_the_area(seed: int) -> None:
    """Scale fills with grey and leaves the size; Stretch changes the ratio and leaves the area, to the rounding."""
    sample = painted(100, 160, [(40, 30, 120, 70)])
    assert sample.image.shape == apply(Scale(), sample, seed).image.shape
    height, width = apply(Stretch((1.4, 1.6)), sample, seed).image.shape[-2:]
    assert 1.35 < width / height / 1.6 < 1.65
    assert 100 * 160 == pytest.approx(height * width, rel=0.02)


@few
@given(key=st.integers())
def test_an_image_of_one_pixel_survives(key: int) -> None:
    """One pixel, with a box around it, goes through everything; its box is too small to learn from."""
    sample = Sample(
        torch.full((3, 1, 1), 200, dtype=torch.uint8), torch.tensor([[0.0, 0.0, 1.0, 1.0]]), torch.tensor([0])
    )
    image, boxes, labels = make_variant(sample, Augmentation(ops=ALL), (key,))
    assert image.numel() > 0
    assert 0 == len(boxes) == len(labels)


def ellipse(height: int, width: int, box: tuple[int, int, int, int]) -> Sample:
    """A black image with a filled ellipse in the box."""
    sample = painted(height, width, [box])
    x1, y1, x2, y2 = box
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    inside = ((x - (x1 + x2) / 2) / ((x2 - x1) / 2)) ** 2 + ((y - (y1 + y2) / 2) / ((y2 - y1) / 2)) ** 2 <= 1
    return sample._replace(image=sample.image * inside)


@few
@given(seed=seeds)
def test_a_turned_box_is_tight_around_a_round_object(seed: int) -> None:
    """The box of a turned ellipse touches it on all four sides, to 2 pixels, at any angle."""
    image, boxes, _ = apply(Rotate(180), ellipse(240, 240, (80, 100, 170, 140)), seed)
    torch.testing.assert_close(extent(paint(image, 0)), boxes[0], atol=2.0, rtol=0)


@few
@given(seed=seeds)
def test_a_turned_box_is_never_larger_than_that_of_its_corners(seed: int) -> None:
    """torchvision's own rule, the box around the four turned corners, contains ours and has the same middle."""
    sample = painted(200, 300, [(60, 40, 160, 90), (200, 100, 220, 190)])
    _, boxes, _ = apply(Rotate(60), sample, seed)
    torch.manual_seed(seed)
    angle = Rotate(60).make_params([])["angle"]
    framed = BoundingBoxes(sample.boxes, format="XYXY", canvas_size=(200, 300), clamping_mode=None)
    loose = F.rotate(framed, angle).as_subclass(Tensor)
    torch.testing.assert_close(loose[:, :2] + loose[:, 2:], boxes[:, :2] + boxes[:, 2:], atol=1e-2, rtol=0)
    assert (loose[:, :2] <= boxes[:, :2] + 1e-2).all() and (loose[:, 2:] >= boxes[:, 2:] - 1e-2).all()


def test_no_rotation_changes_nothing() -> None:
    """At zero degrees boxes and pixels are what they were."""
    sample = painted(60, 80, [(10, 10, 50, 40)])
    turned = apply(Rotate(0), sample, 0)
    assert torch.equal(sample.image, turned.image)
    torch.testing.assert_close(sample.boxes, turned.boxes, atol=1e-4, rtol=0)


def test_a_range_of_nothing_changes_little() -> None:
    """Each range at its neutral end leaves size and boxes alone (a zoom may still shift)."""
    sample = painted(60, 80, [(30, 20, 50, 40)])
    neutral: dict[str, Any] = {
        "flip": 0.0,
        "positive": 0.0,
        "stretch": 1.0,
        "color": 0.0,
        "rotate": 0.0,
        "scale": (1.0, 1.0),
    }
    assert set(ALL) == set(neutral)
    for (operation, value), key in itertools.product(neutral.items(), range(10)):
        image, boxes, _ = make_variant(sample, Augmentation(ops=(operation,), **{operation: value}), (key,))
        assert sample.image.shape == image.shape, operation
        torch.testing.assert_close(boxes[:, 2:] - boxes[:, :2], torch.tensor([[20.0, 20.0]]), atol=1e-3, rtol=0)


def test_with_a_share_of_one_every_variant_is_a_crop() -> None:
    """`positive=1` leaves no variant that shows the whole image with its negatives."""
    sample = painted(200, 300, [(100, 100, 130, 120)])
    only = Augmentation(ops=("positive",), positive=1.0)
    assert all(make_variant(sample, only, (key,)).image.shape != sample.image.shape for key in range(30))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"ops": ("rotat",)}, "Did you mean rotate"),
        ({"flip": 1.5, "rotate": -3.0, "stretch": 0.5}, "flip is 1.5: "),
        ({"scale": (2.0, 1.0)}, "scale is (2.0, 1.0)"),
        ({"scale": (0.0, 1.0)}, "scale is (0.0, 1.0)"),
    ],
)
def test_an_impossible_range_is_told(changes: dict[str, Any], said: str) -> None:
    """What it is and what would be right."""
    with pytest.raises(ConfigError, match=re.escape(said)):
        Augmentation(**changes)
