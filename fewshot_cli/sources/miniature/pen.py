"""Drawing one object: smooth outlines, patterns, roundness; then cut out at the size asked.

An object is drawn in coordinates of its own, x to the right and y down, within about −1 … 1. The pen's pose
(turn, mirror, foreshortening) is applied to every point, so that classes need not think of it.
"""

from __future__ import annotations

import colorsys
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from random import Random

from PIL import Image, ImageChops, ImageDraw, ImageFilter

Point = tuple[float, float]
Color = tuple[int, int, int]

OVERSAMPLING = 3
"""Objects are drawn so many times larger than they will be, which smooths their edges."""
LARGEST_CANVAS = 540
"""Pixels; large objects are drawn less oversampled."""
SUBPIXELS = 3
"""Points a side that are averaged into a pixel of the cut-out."""
REACH = 1.6
"""Coordinates that the canvas covers: −REACH … REACH, room for turned and stretched objects."""


def hsv(hue: float, saturation: float, value: float) -> Color:
    """All from 0 to 1; the hue wraps around."""
    red, green, blue = colorsys.hsv_to_rgb(hue % 1, min(max(saturation, 0), 1), min(max(value, 0), 1))
    return round(255 * red), round(255 * green), round(255 * blue)


def any_color(rng: Random) -> Color:
    """A colour of painted things: any hue, seldom pale, seldom dark."""
    return hsv(rng.random(), rng.betavariate(2, 1.5), 0.25 + 0.7 * rng.random())


def shade(color: Color, factor: float) -> Color:
    """Darker (below 1) or brighter (above)."""
    red, green, blue = (min(255, max(0, round(channel * factor))) for channel in color)
    return red, green, blue


@dataclass(frozen=True, slots=True)
class Paint:
    """A colour, or two in a pattern: `stripes`, `dots`, `checks` or `speckle`."""

    color: Color
    pattern: str = ""
    second: Color = (0, 0, 0)


def any_paint(rng: Random, plain: float = 0.55) -> Paint:
    """A random colour, with a pattern in the other cases than the share `plain`."""
    color = any_color(rng)
    if rng.random() < plain:
        return Paint(color)
    second = any_color(rng) if rng.random() < 0.5 else shade(color, rng.choice((0.55, 0.7, 1.4, 1.7)))
    return Paint(color, rng.choice(("stripes", "dots", "checks", "speckle")), second)


@dataclass(frozen=True, slots=True)
class Pose:
    """How an object is seen.

    turn: radians, clockwise; mirrored: left and right exchanged; squeeze: width over height; shear: sideways lean.
    """

    turn: float = 0.0
    mirrored: bool = False
    squeeze: float = 1.0
    shear: float = 0.0

    @classmethod
    def any(cls, rng: Random, turn: float) -> Pose:
        """A random pose turned by at most `turn`."""
        return cls(
            turn=rng.uniform(-turn, turn),
            mirrored=rng.random() < 0.5,
            squeeze=math.exp(rng.uniform(-0.28, 0.28)),
            shear=rng.uniform(-0.15, 0.15),
        )

    def place(self, point: Point) -> Point:
        x, y = point
        x = (-x if self.mirrored else x) * math.sqrt(self.squeeze) + self.shear * y
        y = y / math.sqrt(self.squeeze)
        cos, sin = math.cos(self.turn), math.sin(self.turn)
        return x * cos - y * sin, x * sin + y * cos


class Pen:
    """Draws one object; `cut_out` returns it.

    Args:
        size: longer side of the object in the end, pixels.
        rng: where every variation comes from.
        pose: how the object is seen.
    """

    def __init__(self, size: int, rng: Random, pose: Pose) -> None:
        self.rng, self.size = rng, size
        self._pose = pose
        self._side = min(max(OVERSAMPLING * size, 90), LARGEST_CANVAS)
        self._image = Image.new("RGBA", (self._side, self._side))
        self._draw = ImageDraw.Draw(self._image)
        self._wobble = rng.uniform(0.0, 0.022)
        # Some images show contours, most do not.
        self._contour = rng.uniform(0.3, 0.7) if rng.random() < 0.3 else 0.0

    def poly(self, points: Sequence[Point], paint: Paint | Color) -> None:
        """A polygon with straight sides."""
        self._fill([self._shaken(point) for point in points], paint)

    def box(self, left: float, top: float, right: float, bottom: float, paint: Paint | Color) -> None:
        """A rectangle."""
        self.poly([(left, top), (right, top), (right, bottom), (left, bottom)], paint)

    def blob(self, points: Sequence[Point], paint: Paint | Color) -> None:
        """A closed smooth outline through the points."""
        self._fill(smooth([self._shaken(point) for point in points], closed=True), paint)

    def oval(self, x: float, y: float, rx: float, ry: float, paint: Paint | Color, turn: float = 0.0) -> None:
        """An ellipse around (x, y), turned clockwise by radians."""
        cos, sin = math.cos(turn), math.sin(turn)
        ring = [(rx * math.cos(t), ry * math.sin(t)) for t in (2 * math.pi * i / 36 for i in range(36))]
        self._fill([(x + u * cos - v * sin, y + u * sin + v * cos) for u, v in ring], paint)

    def line(self, points: Sequence[Point], width: float, paint: Paint | Color, *, curved: bool = False) -> None:
        """A line of that width with round ends, through the points, smooth if `curved`."""
        path = [self._shaken(point) for point in points]
        path = smooth(path, closed=False) if curved and len(path) > 2 else path
        radius = width / 2
        for (x1, y1), (x2, y2) in pairwise(path):
            length = math.hypot(x2 - x1, y2 - y1) or 1e-6
            nx, ny = radius * (y2 - y1) / length, radius * (x1 - x2) / length
            self._fill([(x1 + nx, y1 + ny), (x2 + nx, y2 + ny), (x2 - nx, y2 - ny), (x1 - nx, y1 - ny)], paint, False)
        for x, y in path:
            ring = [(x + radius * math.cos(t), y + radius * math.sin(t)) for t in (math.pi * i / 6 for i in range(12))]
            self._fill(ring, paint, False)

    def cut_out(self) -> Image.Image:
        """The object as RGBA, cropped to itself, rounded by light, its longer side `size` pixels."""
        image = self._rounded()
        frame = image.getchannel("A").point(lambda alpha: 255 * (alpha > 40)).getbbox() or (0, 0, 1, 1)
        image = image.crop(frame)
        scale = self.size / max(image.size)
        width, height = (max(2, round(scale * side)) for side in image.size)
        # Colour is premultiplied while averaging, or transparent pixels would darken the rim. Every step is one that
        # all releases of Pillow compute alike: its other filters differ in their last bits, and the world would too.
        image = image.convert("RGBa").resize((SUBPIXELS * width, SUBPIXELS * height), Image.Resampling.NEAREST)
        return image.reduce(SUBPIXELS).convert("RGBA")

    def _rounded(self) -> Image.Image:
        """Brighter towards the light and darker at the rim away from it."""
        rng, alpha = self.rng, self._image.getchannel("A")
        reach = max(2, round(self._side * rng.uniform(0.02, 0.07)))
        angle = rng.uniform(0, 2 * math.pi)
        soft = alpha.reduce(4)
        soft = enlarged(soft.filter(ImageFilter.GaussianBlur(reach / 4)), alpha.size)
        soft = ImageChops.offset(soft, round(reach * math.cos(angle)), round(reach * math.sin(angle)))
        depth = rng.uniform(0.15, 0.6)
        light = soft.point([round(255 * (1 - depth + depth * level / 255)) for level in range(256)])
        lit = ImageChops.multiply(self._image.convert("RGB"), Image.merge("RGB", (light,) * 3))
        lit.putalpha(alpha)
        return lit

    def _fill(self, points: Sequence[Point], paint: Paint | Color, contour: bool = True) -> None:
        paint = paint if isinstance(paint, Paint) else Paint(paint)
        path = [self._pixel(self._pose.place(point)) for point in points]
        if paint.pattern:
            mask = Image.new("L", self._image.size)
            ImageDraw.Draw(mask).polygon(path, fill=255)
            self._image.paste(_pattern(paint, self._side, self.rng), (0, 0), mask)
        else:
            self._draw.polygon(path, fill=(*paint.color, 255))
        if self._contour and contour:
            width = max(1, self._side // 90)
            self._draw.line([*path, path[0]], fill=(*shade(paint.color, self._contour), 255), width=width)

    def _shaken(self, point: Point) -> Point:
        return point[0] + self.rng.gauss(0, self._wobble), point[1] + self.rng.gauss(0, self._wobble)

    def _pixel(self, point: Point) -> tuple[int, int]:
        """Whole pixels: what is drawn must not hang on the last digit of a sine, which machines compute differently."""
        half = self._side / 2
        return round(half + half * point[0] / REACH), round(half + half * point[1] / REACH)


def enlarged(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """A small grey image blown up smoothly, to the same bits by every release of Pillow."""
    cell = max(size) / max(image.size)
    return image.resize(size, Image.Resampling.NEAREST).filter(ImageFilter.GaussianBlur(0.45 * cell))


def smooth(points: Sequence[Point], *, closed: bool, steps: int = 6) -> list[Point]:
    """A Catmull-Rom curve through the points (Catmull and Rom 1974), `steps` pieces between two of them."""
    count = len(points)

    def at(index: int) -> Point:
        return points[index % count] if closed else points[min(max(index, 0), count - 1)]

    curve = []
    for index in range(count if closed else count - 1):
        before, start, end, after = (at(index + offset) for offset in (-1, 0, 1, 2))
        for step in range(steps):
            t = step / steps
            curve.append(
                (
                    _between(before[0], start[0], end[0], after[0], t),
                    _between(before[1], start[1], end[1], after[1], t),
                )
            )
    return curve if closed else [*curve, points[-1]]


def _between(before: float, start: float, end: float, after: float, t: float) -> float:
    linear, square = end - before, 2 * before - 5 * start + 4 * end - after
    return start + 0.5 * t * (linear + t * (square + t * (3 * (start - end) + after - before)))


def _pattern(paint: Paint, side: int, rng: Random) -> Image.Image:
    """A square of the paint's pattern."""
    if paint.pattern == "speckle":
        grains = max(4, round(rng.uniform(12, 40)))
        mask = Image.frombytes("L", (grains, grains), rng.randbytes(grains * grains))
        return Image.composite(
            Image.new("RGB", (side, side), paint.second), _plain(paint, side), enlarged(mask, (side, side))
        )
    image = _plain(paint, side)
    draw = ImageDraw.Draw(image)
    pitch = side * rng.uniform(0.035, 0.1)
    if paint.pattern == "stripes":
        angle = rng.uniform(0, math.pi)
        dx, dy = math.cos(angle), math.sin(angle)
        for i in range(-int(side / pitch), int(side / pitch) + 1):
            x, y = side / 2 - dy * i * pitch, side / 2 + dx * i * pitch
            ends = [(round(x - side * dx), round(y - side * dy)), (round(x + side * dx), round(y + side * dy))]
            draw.line(ends, fill=paint.second, width=max(1, round(pitch * 0.45)))
        return image
    for row in range(int(side / pitch) + 1):
        for column in range(int(side / pitch) + 1):
            left, top = round(column * pitch), round(row * pitch)
            if paint.pattern == "checks" and (row + column) % 2:
                draw.rectangle((left, top, round(left + pitch), round(top + pitch)), fill=paint.second)
            elif paint.pattern == "dots":
                draw.ellipse((left, top, left + round(pitch * 0.55), top + round(pitch * 0.55)), fill=paint.second)
    return image


def _plain(paint: Paint, side: int) -> Image.Image:
    return Image.new("RGB", (side, side), paint.color)
