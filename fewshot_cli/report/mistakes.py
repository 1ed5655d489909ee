"""The worst mistakes of a run: false positives and missed objects, each cut out of its image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from PIL import Image
from torchvision.ops import box_iou

from fewshot_cli.datasets.images import open_image
from fewshot_cli.datasets.types import Split
from fewshot_cli.evaluation.thresholds import MATCH_IOU
from fewshot_cli.inference.drawing import Mark, found_mark, marked, truth_marks
from fewshot_cli.report.judging import Box, Judged, area, class_names, corners, on_crowd, overlaps_of

CONTEXT = 2.5
"""Side of what is cut out, as a share of the box's longer side."""
SMALLEST = 64
"""The same at least, pixels: a box of a few pixels says nothing without what is around it."""
SIDE = 320
"""Of the drawing, pixels."""
NO_CLASSES: Mapping[int, str] = {}
NEAR = 0.1
"""IoU from which on a false positive is called badly placed rather than out of place."""


class Mistake(NamedTuple):
    """A false positive or a missed object.

    judged: its image, with everything that was found there.
    box: xyxy, pixels of the image.
    label: written at the box.
    color: of the box, as `draw_boxes` has it.
    title: class, with the score of a false positive.
    reason: in a few words.
    """

    judged: Judged
    box: Box
    label: str
    color: tuple[int, int, int]
    title: str
    reason: str


def false_positives(split: Split, judged: Sequence[Judged]) -> list[Mistake]:
    """Detections that found no object, the most confident first; those on a crowd count neither way."""
    names = class_names(split)
    wrong = [
        (found, one)
        for one in judged
        for found, i in zip(one.results, one.objects, strict=True)
        if i is None and not on_crowd(found, one)
    ]
    wrong.sort(key=lambda pair: -pair[0]["score"])
    return [
        Mistake(
            one,
            corners(found),
            f"{found['score']:.2f}",
            found_mark(found, names).color,
            f"{names[found['category_id']]} {found['score']:.2f}",
            _why_wrong(split, found, one),
        )
        for found, one in wrong
    ]


def missed_objects(split: Split, judged: Sequence[Judged], results: Sequence[Mapping[str, Any]]) -> list[Mistake]:
    """Objects that no detection found, the largest first.

    Args:
        results: all detections, also those whose score is too low to count.
    """
    of_image: dict[int, list[Mapping[str, Any]]] = {one.image.id: [] for one in judged}
    for found in results:
        of_image[found["image_id"]].append(found)
    mistakes = []
    for one in judged:
        for i in one.missed:
            x1, y1, x2, y2 = one.image.boxes[i].tolist()
            title = f"{split.classes[one.image.labels[i]]}, {x2 - x1:.0f} × {y2 - y1:.0f} pixels"
            reason = _why_missed(split, i, one, of_image[one.image.id])
            color = truth_marks(one.image, class_names(split))[i].color
            mistakes.append(Mistake(one, (x1, y1, x2, y2), "missed", color, title, reason))
    return sorted(mistakes, key=lambda mistake: -area(mistake.box))


def cut_out(mistake: Mistake, classes: Mapping[int, str] = NO_CLASSES) -> Image.Image:
    """The box and what is around it, in the colours of `draw_boxes`, the mistake on top.

    Args:
        mistake: where it is.
        classes: as of `draw_boxes`.

    Raises:
        DataError: the image cannot be read.
    """
    image = open_image(mistake.judged.image.path)
    found = [found_mark(result, classes)._replace(text="") for result in mistake.judged.results]
    truth = truth_marks(mistake.judged.image, classes)
    marks = [*truth, *found, Mark(mistake.box, mistake.color, mistake.label)]
    # Fewer pixels than the file's are decoded of a very large image.
    marks = [_scaled(mark, image.width / mistake.judged.image.width) for mark in marks]
    window = _window(marks[-1].box, image.size)
    return marked(image.crop(window), [_moved(mark, -window[0], -window[1]) for mark in marks], SIDE)


def _window(box: Box, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """A square around the box, moved and cut so that it lies in the image; xyxy, whole pixels."""
    x1, y1, x2, y2 = box
    side = max(SMALLEST, round(CONTEXT * max(x2 - x1, y2 - y1)))
    spans = [_span((x1 + x2) / 2, side, size[0]), _span((y1 + y2) / 2, side, size[1])]
    return spans[0][0], spans[1][0], spans[0][1], spans[1][1]


def _span(middle: float, side: int, length: int) -> tuple[int, int]:
    start = min(max(0, round(middle - side / 2)), max(0, length - side))
    return start, min(length, start + side)


def _scaled(mark: Mark, factor: float) -> Mark:
    x1, y1, x2, y2 = mark.box
    return mark._replace(box=(factor * x1, factor * y1, factor * x2, factor * y2))


def _moved(mark: Mark, x: float, y: float) -> Mark:
    x1, y1, x2, y2 = mark.box
    return mark._replace(box=(x1 + x, y1 + y, x2 + x, y2 + y))


def _why_wrong(split: Split, found: Mapping[str, Any], judged: Judged) -> str:
    """The object that a false positive overlaps most, and why it does not count as found."""
    overlaps = overlaps_of(found, judged.image)
    if not len(overlaps) or overlaps.max() < NEAR:
        return "no object there"
    nearest = int(overlaps.argmax())
    name = split.classes[judged.image.labels[nearest]]
    if split.category_ids[judged.image.labels[nearest]] != found["category_id"]:
        return f"on an object of class {name}"
    if overlaps[nearest] >= MATCH_IOU:
        return "an object found already"
    return f"overlaps an object by IoU {overlaps[nearest]:.2f} only"


def _why_missed(split: Split, i: int, judged: Judged, results: Sequence[Mapping[str, Any]]) -> str:
    """The best detection of the object's class that would find it if lower scores counted."""
    category = split.category_ids[judged.image.labels[i]]
    low = [found for found in results if found["category_id"] == category and found not in judged.results]
    if not low:
        return "not detected at any score"
    overlaps = box_iou(torch.tensor([corners(found) for found in low]), torch.from_numpy(judged.image.boxes[[i]]))
    scores = [found["score"] for found, overlap in zip(low, overlaps, strict=True) if overlap >= MATCH_IOU]
    return f"its best score is {max(scores):.2f}" if scores else "not detected at any score"
