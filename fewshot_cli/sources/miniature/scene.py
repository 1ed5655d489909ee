"""Composing a scene: which objects, where, what hides what. A scene is a pure function of its key."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageDraw, ImageFilter

from fewshot_cli.sources.miniature.backdrop import backdrop
from fewshot_cli.sources.miniature.camera import photograph
from fewshot_cli.sources.miniature.classes import BASE, CLASSES, DISTRACTOR, NOVEL
from fewshot_cli.sources.miniature.pen import Pen, Pose, any_color

VERSION = 1
"""Of the world: another number, other images. Part of every key."""
SIZES = ((256, 256), (256, 192), (192, 256))
"""Width and height of an image, pixels."""
SMALLEST, LARGEST = 16, 0.85
"""Longer side of an object: pixels, and share of the image's longer side."""
OCCLUDED, TRUNCATED = 0.8, 0.95
"""An object is flagged when less than this share of it is unhidden (of what is in the image), in the image."""
SEEN = 0.25
"""An object of which less can be seen has no box."""
SMALLEST_BOX = 6
"""Pixels; nothing smaller has a box."""

UNNAMED = "distractor"
"""Stands in a scene for an object of no class."""

Mask = NDArray[np.bool_]


class Item(NamedTuple):
    """One annotated object.

    box: xyxy pixels, whole numbers, tight around what is visible; occluded, truncated, group: as in Open Images.
    """

    name: str
    box: tuple[int, int, int, int]
    occluded: bool
    truncated: bool
    group: bool


class Scene(NamedTuple):
    """An image, as the bytes of a JPEG file, and what is in it."""

    jpeg: bytes
    width: int
    height: int
    items: tuple[Item, ...]


@dataclass(slots=True)
class _Placed:
    """An object in the image: its whole area in pixels, and where it is visible so far."""

    name: str
    area: int
    inside: int
    visible: Mask
    group: bool


def draw_scene(key: str, focus: str | None = None, *, groups: float = 0.08) -> Scene:
    """Draw the scene of that key.

    Args:
        key: any text; with the same focus and groups it is always the same scene.
        focus: a class that is in the scene, among base classes, other novel ones and distractors. None: base
            classes and distractors.
        groups: share of the scenes with a group of one class, boxed as one.
    """
    rng = Random(f"miniature {VERSION}: {key}")
    size = rng.choice(SIZES)
    image = backdrop(size, rng)
    placed: list[_Placed] = []
    for name in _cast(rng, focus):
        if rng.random() < groups:
            _place_group(image, placed, name, rng)
        else:
            _place(image, placed, name, _object_size(size, rng), rng)
    if rng.random() < 0.25:
        _hide_behind(image, placed, rng)
    items = (_item(thing) for thing in placed)
    return Scene(photograph(image, rng), *size, tuple(item for item in items if item))


def _cast(rng: Random, focus: str | None) -> list[str]:
    """The classes of a scene's objects, farthest first.

    Distractors are everywhere, as in photographs: a detector learns not to report what has no box. Beside a focus there
    are novel classes too: if all that is unknown were of the class, telling known from unknown would find it.
    """
    if focus is None:
        names = [rng.choice(tuple(BASE)) for _ in range(rng.choice((1, 2, 3, 3, 4, 5)))]
        names += [UNNAMED] * rng.choice((0, 1, 1, 2, 3))
    else:
        others = [name for name in NOVEL if name != focus]
        kinds = (tuple(BASE), tuple(BASE), others, (UNNAMED,), (UNNAMED,))
        names = [rng.choice(rng.choice(kinds)) for _ in range(rng.choice((1, 2, 2, 3, 3, 4, 5)))]
        names += [focus] * rng.choice((1, 1, 1, 2, 2, 3))
    rng.shuffle(names)
    return names


def _object_size(size: tuple[int, int], rng: Random) -> int:
    """Longer side in pixels; about a third of the image's is the most frequent, on a logarithmic scale."""
    largest = LARGEST * max(size)
    return round(math.exp(rng.triangular(math.log(SMALLEST), math.log(largest), math.log(0.4 * largest))))


def _sprite(name: str, size: int, rng: Random) -> Image.Image:
    thing = CLASSES.get(name, DISTRACTOR)
    pen = Pen(size, rng, Pose.any(rng, thing.turn))
    thing.draw(pen)
    return pen.cut_out()


def _place(image: Image.Image, placed: list[_Placed], name: str, size: int, rng: Random) -> None:
    """Put one object down: mostly where it hides little of the others, sometimes half out of the image."""
    sprite = _sprite(name, size, rng)
    reach = 0.45 if rng.random() < 0.12 else 0.0
    spots = [_spot(image.size, sprite.size, reach, rng) for _ in range(1 if rng.random() < 0.25 else 6)]
    taken = np.zeros(image.size[::-1], dtype=bool)
    for other in placed:
        taken |= other.visible
    # The first of the least crowded: min keeps the earliest of equals.
    left, top = min(spots, key=lambda spot: int(_window(taken, spot, sprite.size).sum()))
    _put_down(image, placed, sprite, (left, top), rng)
    _record(image, placed, name, [(sprite, (left, top))], group=False)


def _spot(image: tuple[int, int], sprite: tuple[int, int], reach: float, rng: Random) -> tuple[int, int]:
    """Where the sprite's corner goes; up to the share `reach` of it may lie outside."""
    out = [round(reach * side) for side in sprite]
    highest = [max(-out[axis], image[axis] - sprite[axis] + out[axis]) for axis in (0, 1)]
    return rng.randint(-out[0], highest[0]), rng.randint(-out[1], highest[1])


def _place_group(image: Image.Image, placed: list[_Placed], name: str, rng: Random) -> None:
    """Six or more of a class, close together, boxed as one."""
    size = rng.randint(SMALLEST, max(image.size) // 5)
    left, top = _spot(image.size, (3 * size, 2 * size), 0.0, rng)
    members = []
    for _ in range(rng.randint(6, 10)):
        sprite = _sprite(name, size, rng)
        spot = left + rng.randint(0, 2 * size), top + rng.randint(0, size)
        _put_down(image, placed, sprite, spot, rng)
        members.append((sprite, spot))
    _record(image, placed, name, members, group=True)


def _put_down(
    image: Image.Image, placed: list[_Placed], sprite: Image.Image, spot: tuple[int, int], rng: Random
) -> None:
    """Paint a sprite with its shadow; what lies below is no longer visible there."""
    alpha = sprite.getchannel("A")
    if rng.random() < 0.6:
        reach = max(1, max(sprite.size) // 16)
        shadow = Image.new("L", image.size)
        shadow.paste(alpha, (spot[0] + rng.randint(-reach, reach), spot[1] + rng.randint(0, 2 * reach)))
        strength = rng.randint(60, 150)
        shadow = shadow.filter(ImageFilter.GaussianBlur(reach)).point([level * strength // 255 for level in range(256)])
        image.paste((0, 0, 0), (0, 0), shadow)
    image.paste(sprite, spot, sprite)
    covered = _mask(image.size, alpha, spot)
    for other in placed:
        other.visible &= ~covered


def _record(
    image: Image.Image,
    placed: list[_Placed],
    name: str,
    members: Sequence[tuple[Image.Image, tuple[int, int]]],
    *,
    group: bool,
) -> None:
    visible = np.zeros(image.size[::-1], dtype=bool)
    area = 0
    for sprite, spot in members:
        alpha = sprite.getchannel("A")
        visible |= _mask(image.size, alpha, spot)
        area += int(_solid(alpha).sum())
    inside = int(visible.sum())
    placed.append(_Placed(name, inside if group else area, inside, visible, group))


def _solid(alpha: Image.Image) -> Mask:
    return np.asarray(alpha) > 127


def _mask(size: tuple[int, int], alpha: Image.Image, spot: tuple[int, int]) -> Mask:
    """Where a sprite is, in the image."""
    canvas = Image.new("L", size)
    canvas.paste(alpha, spot)
    return _solid(canvas)


def _window(mask: Mask, spot: tuple[int, int], size: tuple[int, int]) -> Mask:
    left, top = spot
    return mask[max(0, top) : max(0, top + size[1]), max(0, left) : max(0, left + size[0])]


def _hide_behind(image: Image.Image, placed: list[_Placed], rng: Random) -> None:
    """A post, a wire or a bar before everything."""
    width, height = image.size
    mask = Image.new("L", image.size)
    draw = ImageDraw.Draw(mask)
    for _ in range(rng.randint(1, 3)):
        start = (rng.randint(0, width), rng.choice((0, height // 2, height)))
        end = (rng.randint(0, width), rng.randint(0, height))
        draw.line([start, end], fill=255, width=rng.randint(2, max(3, width // 14)))
    image.paste(
        ImageChops.multiply(Image.new("RGB", image.size, any_color(rng)), backdrop(image.size, rng)), (0, 0), mask
    )
    for thing in placed:
        thing.visible &= ~_solid(mask)


def _item(thing: _Placed) -> Item | None:
    """The annotation; None if it is a distractor, or there is too little to see."""
    if thing.name == UNNAMED:
        return None
    seen = int(thing.visible.sum())
    if seen < max(1, SEEN * thing.area):
        return None
    rows, columns = np.flatnonzero(thing.visible.any(axis=1)), np.flatnonzero(thing.visible.any(axis=0))
    box = int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
    if min(box[2] - box[0], box[3] - box[1]) < SMALLEST_BOX:
        return None
    return Item(
        thing.name,
        box,
        occluded=seen < OCCLUDED * thing.inside,
        truncated=thing.inside < TRUNCATED * thing.area,
        group=thing.group,
    )
