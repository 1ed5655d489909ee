"""What has to be said beside a mAP: small test sets measure it badly."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

FEWEST_IMAGES = 30
FEWEST_BOXES = 50


def caveats(images: int, boxes: int) -> list[str]:
    """Sentences that belong beside a mAP, most often none.

    Args:
        images: that were tested on.
        boxes: in them, of the classes that were measured.
    """
    if images >= FEWEST_IMAGES and boxes >= FEWEST_BOXES:
        return []
    return [
        f"{_count(images, 'test image')} with {_count(boxes, 'box', 'boxes')}: too few for a reliable mAP, which takes "
        f"at least {FEWEST_IMAGES} images and {FEWEST_BOXES} boxes."
    ]


def caveats_of_several(test_sets: Iterable[tuple[int, int]]) -> list[str]:
    """The same for numbers that come from several test sets, given by images and boxes: one sentence for all."""
    small = sorted({(images, boxes) for images, boxes in test_sets if caveats(images, boxes)})
    if len(small) < 2:
        return [text for images, boxes in small for text in caveats(images, boxes)]
    images, boxes = (_range(counts) for counts in zip(*small, strict=True))
    return [
        f"Test sets of {images} images with {boxes} boxes: too few for a reliable mAP, which takes at least "
        f"{FEWEST_IMAGES} images and {FEWEST_BOXES} boxes."
    ]


def _range(counts: Sequence[int]) -> str:
    least, most = min(counts), max(counts)
    return f"{least} to {most}" if least < most else str(least)


def _count(number: int, one: str, more: str = "") -> str:
    return f"{number:,} {one if number == 1 else more or f'{one}s'}"
