"""Do the image files hold what the annotations say?"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fewshot_cli.datasets.images import size_and_thumbnail
from fewshot_cli.datasets.types import ImageRecord
from fewshot_cli.errors import DataError, Problem

THUMBNAIL = 16
"""Side of a thumbnail, pixels: enough to tell photographs apart."""

Thumbnails = dict[Path, NDArray[np.uint8]]
"""Image file → (THUMBNAIL, THUMBNAIL, 3), RGB."""


def check_images(images: Iterable[ImageRecord], thumbnails: Thumbnails | None = None) -> dict[int, Problem]:
    """Decode images and compare sizes; image id → its problem, for those that have one.

    Args:
        images: what to decode.
        thumbnails: receives one of each image that decodes.
    """
    kept: Thumbnails = {} if thumbnails is None else thumbnails
    return {
        image.id: Problem(str(image.path), f"image {image.id}", reason)
        for image in images
        if (reason := _image_reason(image, kept))
    }


def size_reason(stated: tuple[int, int], actual: tuple[int, int]) -> str | None:
    """Why the stated (width, height) cannot be right, or None; pixels."""
    if stated == actual:
        return None
    turned = " (EXIF orientation applied)" if stated == actual[::-1] else ""
    return f"the annotations say {stated[0]}×{stated[1]} pixels, the image has {actual[0]}×{actual[1]}{turned}"


def _image_reason(image: ImageRecord, thumbnails: Thumbnails) -> str | None:
    try:
        size, thumbnails[image.path] = size_and_thumbnail(image.path, THUMBNAIL)
    except DataError as error:
        return error.message.removeprefix(f"{image.path}: ")
    return size_reason((image.width, image.height), size)
