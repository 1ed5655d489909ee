"""Boxes as annotation files state them, checked against their image; pixels, xyxy."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

Corners = tuple[float, float, float, float]
"""xyxy, pixels."""

Point = tuple[float, float]
"""x, y; the unit is that of the caller."""

TOLERANCE = 1.0
"""Pixels by which a box may leave its image: annotation tools round. It is then clipped."""


def clip(
    corners: Corners, size: tuple[int, int] | None, text: str, order: str = ""
) -> tuple[Corners | None, str | None]:
    """(box inside the image in float32, None), or (None, reason).

    Args:
        corners: finite numbers.
        size: (width, height) of the image; None: not known, and then nothing is clipped.
        text: the box as its file has it, for the reason.
        order: what its numbers are, for a reason in which that matters.
    """
    x1, y1, x2, y2 = corners
    if x2 < x1 or y2 < y1:
        return None, f"{text} has its corners in the wrong order"
    if size is None:
        return corners, None
    width, height = size
    if min(x1, y1) < -TOLERANCE or x2 > width + TOLERANCE or y2 > height + TOLERANCE:
        return None, f"{text}{order} leaves the image of {width}×{height} pixels"
    inside = np.array([max(x1, 0), max(y1, 0), min(x2, width), min(y2, height)], dtype=np.float32)
    if inside[2] <= inside[0] or inside[3] <= inside[1]:
        return None, f"{text} has no area inside the image of {width}×{height} pixels"
    return (float(inside[0]), float(inside[1]), float(inside[2]), float(inside[3])), None


def hull(points: Iterable[Point]) -> Corners:
    """The box around points, of which there is at least one."""
    xs, ys = zip(*points, strict=True)
    return min(xs), min(ys), max(xs), max(ys)


def ellipse_hull(center: Point, radii: Point, degrees: float = 0.0) -> Corners:
    """The box around an ellipse that is turned about its centre."""
    (x, y), (a, b), angle = center, radii, math.radians(degrees)
    dx = math.hypot(a * math.cos(angle), b * math.sin(angle))
    dy = math.hypot(a * math.sin(angle), b * math.cos(angle))
    return x - dx, y - dy, x + dx, y + dy


def turned(corners: Corners, degrees: float, about: Point) -> Corners:
    """The axis-aligned box around a box that is turned clockwise (y points down) about a point."""
    if not degrees:
        return corners
    x1, y1, x2, y2 = corners
    angle = math.radians(degrees)
    cos, sin = math.cos(angle), math.sin(angle)
    moved = [(x - about[0], y - about[1]) for x in (x1, x2) for y in (y1, y2)]
    return hull((about[0] + dx * cos - dy * sin, about[1] + dx * sin + dy * cos) for dx, dy in moved)
