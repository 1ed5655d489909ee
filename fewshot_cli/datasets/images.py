"""Images from disk: RGB, upright, whole, or an error that names the file.

What a person sees in a viewer is what the program sees: the EXIF orientation is applied before
anything else, so width, height and boxes always belong to the upright image.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fewshot_cli.errors import DataError
from fewshot_cli.files import storage_errors
from fewshot_cli.paths import file_fault

if TYPE_CHECKING:
    from torch import Tensor

# Only plain raster formats: some of Pillow's other readers start external programs.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")

LARGEST_PIXELS = 200_000_000
"""Pixels that an image may have; the largest sensors of telephones have this many."""
WHOLE_PIXELS = 89_478_485
"""Pixels up to which images are decoded in whole; what is larger is read at half its width and height, where it still
has more pixels than any canvas."""

# Pillow's own limit, so that nothing larger is decoded anywhere; beyond it Pillow warns, and at twice of it fails.
Image.MAX_IMAGE_PIXELS = LARGEST_PIXELS

_ORIENTATION_TAG = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SIDEWAYS = {5, 6, 7, 8}
_ON_UPRIGHT: dict[int, Callable[[float, float], tuple[float, float]]] = {
    1: lambda x, y: (x, y),
    2: lambda x, y: (1 - x, y),
    3: lambda x, y: (1 - x, 1 - y),
    4: lambda x, y: (x, 1 - y),
    5: lambda x, y: (y, x),
    6: lambda x, y: (1 - y, x),
    7: lambda x, y: (1 - y, 1 - x),
    8: lambda x, y: (y, 1 - x),
}
"""Orientation → where a stored point, in shares of width and height, lies on the upright image."""


def open_image(path: Path | str) -> Image.Image:
    """The image as RGB, EXIF orientation applied; one of more than WHOLE_PIXELS at half its width and height.

    Raises:
        DataError: the file is missing, empty, corrupt, truncated, not an image, or has more than LARGEST_PIXELS.
    """
    with _opened(Path(path)) as image:
        turn = _orientation(image)
        return _upright(_rgb(image), turn)


def read_image(path: Path | str) -> Tensor:
    """The image as a (3, H, W) uint8 tensor, RGB, 0 … 255, upright; raises DataError like `open_image`."""
    import torch

    # The memory keeps the decoder's order, channels last: torchvision resizes that faster.
    return torch.from_numpy(np.array(open_image(path))).permute(2, 0, 1)


def image_size(path: Path | str, *, decode: bool = True) -> tuple[int, int]:
    """(width, height) in pixels of the upright image.

    Args:
        path: the file.
        decode: read all of it, so that a truncated file is found; otherwise only the header is read.

    Raises:
        DataError: like `open_image`.
    """
    with _opened(Path(path)) as image:
        turn, (width, height) = _orientation(image), image.size
        if decode:
            _load(image)
        return (height, width) if turn in _SIDEWAYS else (width, height)


def size_and_thumbnail(path: Path | str, side: int) -> tuple[tuple[int, int], NDArray[np.uint8]]:
    """`image_size`, and the image squeezed into a square, (side, side, 3) RGB; one decoding serves both.

    Raises:
        DataError: like `open_image`.
    """
    with _opened(Path(path)) as image:
        turn, (width, height) = _orientation(image), image.size
        # The gap makes it twice as fast as without, and as good as the same at any size of the image.
        small = _rgb(image).resize((side, side), Image.Resampling.BILINEAR, reducing_gap=3.0)
        size = (height, width) if turn in _SIDEWAYS else (width, height)
        return size, np.array(_upright(small, turn))


def copy_upright(source: Path, target: Path) -> None:
    """Copy an image byte for byte, or turned upright if it carries an EXIF orientation.

    A turned image is written in the same format at quality 95, without its metadata.

    Raises:
        DataError: the source cannot be read.
        StorageError: the target cannot be written.
    """
    with _opened(source) as image:
        turn = _orientation(image)
        format_ = "JPEG" if image.format in (None, "MPO") else image.format
        upright = None if turn == 1 else _upright(_to_rgb(image), turn)
    with storage_errors(target):
        if upright is None:
            shutil.copyfile(source, target)
        else:
            upright.save(target, format=format_, quality=95)


def upright_corners(path: Path | str, corners: tuple[float, float, float, float]) -> tuple[float, float, float, float]:
    """A box of the pixels as they are stored, on the upright image.

    Args:
        path: the image.
        corners: xyxy, as shares of the stored width and height.

    Raises:
        DataError: like `open_image`.
    """
    with _opened(Path(path)) as image:
        turn = _ON_UPRIGHT[_orientation(image)]
    (x1, y1), (x2, y2) = turn(*corners[:2]), turn(*corners[2:])
    return min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """Open a file as an image; every way in which reading it can fail becomes a DataError."""
    _check_file(path)
    try:
        with Image.open(path, formats=FORMATS) as image:
            if _pixels(image) > LARGEST_PIXELS:
                raise Image.DecompressionBombError
            yield image
    except Image.DecompressionBombError as error:
        raise DataError(
            f"{path}: has more than {LARGEST_PIXELS // 1_000_000} million pixels (a decompression bomb?)",
            hint="Scale it down, or cut it into several images.",
        ) from error
    except DataError:
        raise
    except Exception as error:  # a damaged file makes decoders raise nearly anything
        raise DataError(
            f"{path}: not readable as an image: {_reason(error)}",
            hint="Replace the file or leave it out. Formats: " + ", ".join(FORMATS) + ".",
        ) from error


def _check_file(path: Path) -> None:
    fault = file_fault(path) or ("is empty" if path.stat().st_size == 0 else None)
    if fault:
        raise DataError(f"{path}: the file {fault}", hint="Check the path, or leave the image out.")


def _reason(error: Exception) -> str:
    if isinstance(error, Image.UnidentifiedImageError):
        return "unknown format or damaged header"
    return str(error) or type(error).__name__


def _to_rgb(image: Image.Image) -> Image.Image:
    """RGB in 8 bits; deep greyscale keeps its upper 8 bits, where Pillow alone would clip to white."""
    if image.mode.startswith("I"):
        deep = np.asarray(image)
        if deep.max(initial=0) > 255:
            image = Image.fromarray((deep.clip(0, 65535) >> 8).astype(np.uint8))
    if image.mode != "RGB":
        return image.convert("RGB")
    image.load()
    return image  # not converted, which would be a copy of all its pixels


def _rgb(image: Image.Image) -> Image.Image:
    """`_to_rgb`, at half the width and height if the image has more than WHOLE_PIXELS."""
    size = image.size
    if _pixels(image) <= WHOLE_PIXELS:
        return _to_rgb(image)
    _load(image)
    whole = _to_rgb(image)
    return whole.reduce(2) if whole.size == size else whole


def _load(image: Image.Image) -> None:
    """Decode; more than WHOLE_PIXELS at half the width and height, if the format can, as JPEG does."""
    if _pixels(image) > WHOLE_PIXELS:
        image.draft("RGB", (image.width // 2, image.height // 2))
    image.load()


def _pixels(image: Image.Image) -> int:
    return image.width * image.height


def _orientation(image: Image.Image) -> int:
    """EXIF orientation 1 … 8; 1 (upright) where it is absent, odd or unreadable."""
    try:
        value = image.getexif().get(_ORIENTATION_TAG, 1)
    except Exception:
        return 1
    return value if isinstance(value, int) and value in _UPRIGHT else 1


def _upright(image: Image.Image, orientation: int) -> Image.Image:
    return image.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else image
