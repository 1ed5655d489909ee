"""`index.html` of a folder of detections: the drawn images, highest score first."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import quote

from PIL import Image, ImageOps

from fewshot_cli.inference.drawing import as_data_url
from fewshot_cli.report.page import write_page
from fewshot_cli.verbs.predict import PredictedImage, PredictResult

SHOWN = 200
"""Images of a page: more are slow to scroll on a phone."""
THUMBNAIL = 360
"""Longest side, pixels."""
NAME = "index.html"


def write_predict_page(result: PredictResult) -> Path:
    """Write `index.html` into the folder of the result; it needs the drawn images beside it for their full size.

    Raises:
        StorageError: the disk cannot be written.
    """
    assert result.folder is not None
    ranked = sorted(result.images, key=lambda image: -max(image.scores, default=0.0))
    page = result.folder / NAME
    write_page(
        page,
        "predict.html",
        result=result.to_json(),
        shown=[_shown(image, result.folder) for image in ranked[:SHOWN] if image.drawn is not None],
        videos=[_link(drawn, result.folder) for drawn in result.videos.values() if drawn is not None],
    )
    return page


def _shown(image: PredictedImage, folder: Path) -> dict[str, Any]:
    assert image.drawn is not None
    with Image.open(image.drawn) as drawn:
        width, height = drawn.size
        drawn.draft("RGB", (2 * THUMBNAIL, 2 * THUMBNAIL))
        small = ImageOps.contain(drawn.convert("RGB"), (THUMBNAIL, THUMBNAIL))
    counts = {name: image.names.count(name) for name in dict.fromkeys(image.names)}
    return {
        "thumbnail": as_data_url(small),
        "width": width,
        "height": height,
        "best": max(image.scores, default=None),
        "found": ", ".join(f"{count} {name}" for name, count in counts.items()) or "nothing found",
        **_link(image.drawn, folder),
    }


def _link(drawn: Path, folder: Path) -> dict[str, str]:
    """Its address for a browser, and its name for people."""
    name = drawn.relative_to(folder).as_posix()
    return {"address": quote(name, errors="surrogateescape"), "name": name.partition("/")[2]}
