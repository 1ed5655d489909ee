"""Images to look at: boxes drawn on them, several on a sheet, or inside an HTML page."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont, ImageOps

from fewshot_cli import colors
from fewshot_cli.colors import class_color, to_rgb
from fewshot_cli.datasets.types import ImageRecord
from fewshot_cli.inference.filtering import SCORE_THRESHOLD
from fewshot_cli.inference.prediction import Prediction

TRUTH, FOUND = to_rgb(colors.TRUTH), to_rgb(colors.FOUND)
PAPER, INK = (255, 255, 255), (20, 20, 20)


class Mark(NamedTuple):
    """A box to draw: (x1, y1, x2, y2) in pixels of the image, its colour, a few words, and whether it is dashed."""

    box: tuple[float, float, float, float]
    color: tuple[int, int, int] = TRUTH
    text: str = ""
    dashed: bool = False


LEGIBLE = 320
"""Longer side, pixels, from which letters on a drawing of an image can be read."""


def draw_boxes(
    image: ImageRecord,
    results: Iterable[Mapping[str, Any]] = (),
    *,
    classes: Mapping[int, str] | None = None,
    threshold: float = SCORE_THRESHOLD,
    side: int = 256,
) -> Image.Image:
    """An image with its ground truth and detections, the best on top.

    Ground truth is green and detections orange; among several classes each has its own colour, and ground truth is
    dashed.

    Args:
        image: the file and its ground truth.
        results: detections in COCO's results format, of any image; those of this one are drawn.
        classes: category id → class name, in label order; the name is written if there are several.
        threshold: detections with a lower score are left out.
        side: longer side of the drawing, pixels.
    """
    own = [found for found in results if found["image_id"] == image.id and found["score"] >= threshold]
    ordered = sorted(own, key=lambda found: found["score"])
    names = classes or {}
    return marked(image.path, [*truth_marks(image, names), *(found_mark(found, names) for found in ordered)], side)


def truth_marks(image: ImageRecord, classes: Mapping[int, str]) -> list[Mark]:
    """The ground truth of an image; `classes` as of `draw_boxes`."""
    boxes, labels = image.boxes.tolist(), image.labels.tolist()
    if len(classes) < 2:
        return [Mark(tuple(box)) for box in boxes]
    return [Mark(tuple(box), to_rgb(class_color(label)), dashed=True) for box, label in zip(boxes, labels, strict=True)]


def found_mark(found: Mapping[str, Any], classes: Mapping[int, str]) -> Mark:
    """A detection in COCO's results format; `classes` as of `draw_boxes`."""
    x, y, width, height = found["bbox"]
    box, score, category = (x, y, x + width, y + height), f"{found['score']:.2f}", found["category_id"]
    if len(classes) < 2:
        return Mark(box, FOUND, score)
    return Mark(box, to_rgb(class_color(list(classes).index(category))), f"{classes[category]} {score}")


def marked(source: Path | Image.Image, marks: Sequence[Mark], side: int = 256) -> Image.Image:
    """The image with boxes, upright, its longer side `side` pixels."""
    image = source if isinstance(source, Image.Image) else _upright(source)
    scale = side / max(image.size)
    image = image.resize([max(1, round(scale * length)) for length in image.size])
    draw = ImageDraw.Draw(image)
    width = max(3, round(side / 160))
    for mark in marks:
        box = [scale * value for value in mark.box]
        # A thin white rim, so that the box is seen on any background.
        draw.rectangle([box[0] - 1, box[1] - 1, box[2] + 1, box[3] + 1], outline=PAPER, width=1)
        _outline(draw, box, mark, width)
        if mark.text:
            _write(draw, box, mark, max(12, side / 36))
    return image


DASH = 2.5
"""Length of a dash, as a multiple of its width; half as much lies between two."""


def _outline(draw: ImageDraw.ImageDraw, box: list[float], mark: Mark, width: int) -> None:
    if not mark.dashed:
        draw.rectangle(box, outline=mark.color, width=width)
        return
    x1, y1, x2, y2 = box
    dash = DASH * width
    for x in np.arange(x1, x2, 1.5 * dash).tolist():
        for y in (y1, y2):
            draw.line((x, y, min(x + dash, x2), y), fill=mark.color, width=width)
    for y in np.arange(y1, y2, 1.5 * dash).tolist():
        for x in (x1, x2):
            draw.line((x, y, x, min(y + dash, y2)), fill=mark.color, width=width)


def _upright(path: Path) -> Image.Image:
    with Image.open(path) as file:
        return ImageOps.exif_transpose(file).convert("RGB")


def _write(draw: ImageDraw.ImageDraw, box: list[float], mark: Mark, size: float) -> None:
    """The words above the box, or inside it at the image's upper edge."""
    font = ImageFont.load_default(size=size)
    place = (box[0], max(0.0, box[1] - 1.25 * size))
    draw.rectangle(draw.textbbox(place, mark.text, font=font), fill=mark.color)
    draw.text(place, mark.text, fill=INK if _is_light(mark.color) else PAPER, font=font)


def draw_prediction(pixels: NDArray[np.uint8], prediction: Prediction) -> Image.Image:
    """An image with what was found in it, the best on top: boxes in their class's colour, with class and score.

    Lines and letters grow with the image, so that they are as legible in a photograph of 12 million pixels as in a
    small one. An image with fewer than LEGIBLE pixels on its longer side is enlarged by a whole number.

    Args:
        pixels: (H, W, 3) uint8 RGB.
        prediction: in the image's pixels.
    """
    image = Image.fromarray(pixels)
    scale = math.ceil(LEGIBLE / max(image.size))
    if scale > 1:
        image = image.resize([scale * length for length in image.size])
    draw = ImageDraw.Draw(image)
    width = max(2, round(max(image.size) / 250))
    font = ImageFont.load_default(size=max(11, max(image.size) / 55))
    for label, score, box in reversed(list(zip(prediction.labels, prediction.scores, prediction.boxes, strict=True))):
        colour = to_rgb(class_color(label))
        x1, y1, x2, y2 = (scale * box).tolist()
        # A thin dark rim, so that the box is seen on any background.
        rim = max(1, width // 3)
        draw.rectangle((x1 - rim, y1 - rim, x2 + rim, y2 + rim), outline=INK, width=width + 2 * rim)
        draw.rectangle((x1, y1, x2, y2), outline=colour, width=width)
        _label(draw, (x1, y1), f"{prediction.classes[label]} {score:.2f}", colour, font, image.size)
    return image


def _label(
    draw: ImageDraw.ImageDraw,
    corner: tuple[float, float],
    text: str,
    colour: tuple[int, int, int],
    font: ImageFont.ImageFont | ImageFont.FreeTypeFont,
    size: tuple[int, int],
) -> None:
    """Words on a plate above the corner of a box, moved into the image where they would leave it."""
    left, top, right, bottom = draw.textbbox((0, 0), text, font=font)
    margin = max(2.0, (bottom - top) / 5)
    width, height = right - left + 2 * margin, bottom - top + 2 * margin
    x = max(0.0, min(corner[0], size[0] - width))
    y = max(0.0, min(corner[1] - height, size[1] - height))
    draw.rectangle((x, y, x + width, y + height), fill=colour)
    draw.text((x + margin - left, y + margin - top), text, fill=INK if _is_light(colour) else PAPER, font=font)


def _is_light(colour: tuple[int, int, int]) -> bool:
    """Whether dark letters are easier to read on it than white ones (relative luminance, weights of ITU-R BT.709)."""
    red, green, blue = ((value / 255) ** 2.2 for value in colour)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.18


def sheet(rows: Sequence[tuple[str, Sequence[Image.Image]]], side: int = 256) -> Image.Image:
    """Images in rows, each row under its title, each image in a square of `side` pixels."""
    title, gap = 22, 6
    columns = max(len(images) for _, images in rows)
    page = Image.new("RGB", (columns * (side + gap) + gap, len(rows) * (side + title + gap) + gap), PAPER)
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(size=15)
    for row, (text, images) in enumerate(rows):
        top = gap + row * (side + title + gap)
        draw.text((gap, top), text, fill=INK, font=font)
        for column, image in enumerate(images):
            shown = ImageOps.contain(image, (side, side))
            page.paste(shown, (gap + column * (side + gap), top + title))
    return page


def as_data_url(image: Image.Image) -> str:
    """The image as text for `<img src>`, so that a page needs no other file."""
    file = io.BytesIO()
    image.save(file, "JPEG", quality=88)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"
