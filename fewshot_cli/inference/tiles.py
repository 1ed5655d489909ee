"""Large images in overlapping tiles, so that small objects keep their pixels.

Every tile and the image as a whole are detected, and non-maximum suppression by class merges what they found: the tiles
find the small objects, the whole image those that are larger than a tile. A detection that ends where its tile was cut
is a part of an object that a neighbour, or the whole image, shows in full, and is left out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from fewshot_cli.bounds import TILE
from fewshot_cli.errors import UsageError
from fewshot_cli.inference.prediction import Prediction

OVERLAP = 0.2
"""Of neighbouring tiles by default, as a share of their side."""
LARGEST_OVERLAP = 0.9
MERGE_IOU = 0.5
"""Two detections of a class are one object if they overlap more."""
CUT = 2.0
"""A detection ends at a cut if it comes so near, pixels; boxes are clipped to their tile."""
_HINT = "Give SIZE or SIZE:OVERLAP, e.g. 640, 640:0.25 (a share of SIZE) or 640:160 (pixels)."

Window = tuple[int, int, int, int]
"""x1, y1, x2, y2 in pixels of the image; x2 and y2 are the first column and row outside."""


class Tiles(NamedTuple):
    """Square tiles: their side and the least overlap of neighbours, pixels."""

    size: int
    overlap: int


def parse_tiles(text: str) -> Tiles:
    """`SIZE[:OVERLAP]`; an overlap below 1 is a share of SIZE. Raises UsageError."""
    first, colon, second = text.partition(":")
    try:
        size, overlap = int(first), float(second) if colon else OVERLAP
    except ValueError:
        raise UsageError(f"--tiles {text!r} is no size", hint=_HINT) from None
    pixels = overlap * size if overlap < 1 else overlap
    if not TILE.least <= size <= TILE.most or not 0 <= pixels <= LARGEST_OVERLAP * size:
        raise UsageError(
            f"--tiles {text!r} is not possible: SIZE is {TILE}, OVERLAP at most {LARGEST_OVERLAP:.0%} of it",
            hint=_HINT,
        )
    return Tiles(size, math.ceil(pixels))


def windows(width: int, height: int, tiles: Tiles | None) -> list[Window]:
    """The parts of an image that are detected: all of it, then its tiles, if it is larger than one."""
    whole = (0, 0, width, height)
    if tiles is None or max(width, height) <= tiles.size:
        return [whole]
    columns, rows = (_starts(length, tiles) for length in (width, height))
    size = tiles.size
    return [whole, *((x, y, min(x + size, width), min(y + size, height)) for y in rows for x in columns)]


def _starts(length: int, tiles: Tiles) -> list[int]:
    """Where tiles begin along one side: as few as cover it with the overlap, at even distances."""
    count = max(1, math.ceil((length - tiles.overlap) / (tiles.size - tiles.overlap)))
    if count == 1:
        return [0]
    return [step * (length - tiles.size) // (count - 1) for step in range(count)]


def merge(found: Sequence[Prediction], places: Sequence[Window], size: tuple[int, int]) -> Prediction:
    """The detections of all windows as those of the image, whatever the order of the windows.

    Args:
        found: one prediction a window, in the window's pixels.
        places: the windows.
        size: (width, height) of the image, pixels.
    """
    found = [_uncut(each, place, size) for each, place in zip(found, places, strict=True)]
    offsets = np.array([[x, y, x, y] for x, y, _, _ in places], dtype=np.float32)
    boxes = np.concatenate([each.boxes + offset for each, offset in zip(found, offsets, strict=True)])
    together = Prediction(
        boxes=boxes,
        scores=np.concatenate([each.scores for each in found]),
        labels=np.concatenate([each.labels for each in found]),
        classes=found[0].classes,
        size=size,
    )
    return suppress(together) if len(found) > 1 else together


def _uncut(prediction: Prediction, place: Window, size: tuple[int, int]) -> Prediction:
    """The detections in a window that do not end where the window, but not the image, ends."""
    x1, y1, x2, y2 = place
    inner = np.array([x1 > 0, y1 > 0, x2 < size[0], y2 < size[1]])
    near = np.column_stack([prediction.boxes[:, :2], (x2 - x1, y2 - y1) - prediction.boxes[:, 2:]]) < CUT
    return prediction.take(~(near & inner).any(axis=1))


def suppress(prediction: Prediction, iou: float = MERGE_IOU) -> Prediction:
    """Non-maximum suppression by class, best first; without torch, by OpenCV."""
    import cv2

    # Sorted by all that tells detections apart, so that equal scores do not depend on the order they came in.
    keys = (*prediction.boxes.T[::-1], prediction.labels, -prediction.scores)
    ordered = prediction.take(np.lexsort(keys))
    if not len(ordered):
        return ordered
    corners = ordered.boxes.astype(np.float64)
    boxes = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)
    # A threshold below every score: which scores count is decided elsewhere.
    suppress_batched: Any = cv2.dnn.NMSBoxesBatched  # its stub knows lists only
    kept = suppress_batched(boxes, ordered.scores + 1.0, ordered.labels.astype(np.int32), 0.5, iou)
    return ordered.take(np.sort(np.asarray(kept, dtype=np.int64).reshape(-1)))
