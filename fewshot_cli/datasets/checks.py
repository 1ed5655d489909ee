"""Do the image files hold what the annotations say?"""

from __future__ import annotations

from collections.abc import Iterable

from fewshot_cli.datasets.images import image_size
from fewshot_cli.datasets.types import ImageRecord
from fewshot_cli.errors import DataError, Problem


def check_images(images: Iterable[ImageRecord]) -> dict[int, Problem]:
    """Decode images and compare sizes; image id → its problem, for those that have one."""
    return {
        image.id: Problem(str(image.path), f"image {image.id}", reason)
        for image in images
        if (reason := _image_reason(image))
    }


def size_reason(stated: tuple[int, int], actual: tuple[int, int]) -> str | None:
    """Why the stated (width, height) cannot be right, or None; pixels."""
    if stated == actual:
        return None
    turned = " (EXIF orientation applied)" if stated == actual[::-1] else ""
    return f"the annotations say {stated[0]}×{stated[1]} pixels, the image has {actual[0]}×{actual[1]}{turned}"


def _image_reason(image: ImageRecord) -> str | None:
    try:
        return size_reason((image.width, image.height), image_size(image.path))
    except DataError as error:
        return error.message.removeprefix(f"{image.path}: ")
