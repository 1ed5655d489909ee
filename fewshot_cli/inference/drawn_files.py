"""Drawn images and videos in a folder, under the names of their inputs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fewshot_cli.files import write_atomically
from fewshot_cli.inference.drawing import draw_prediction
from fewshot_cli.inference.inputs import Input
from fewshot_cli.inference.prediction import Prediction
from fewshot_cli.inference.video import VideoFile, frame_rate

FOLDER = "drawn"
"""Not `images`: beside labels, that is where formats keep the images themselves."""
_FORMATS: dict[str, tuple[str, dict[str, Any]]] = {
    ".jpg": ("JPEG", {"quality": 90}),
    ".jpeg": ("JPEG", {"quality": 90}),
    ".png": ("PNG", {"compress_level": 1}),
    ".webp": ("WEBP", {"quality": 90}),
}
"""Suffix → Pillow's format and options; what else comes in goes out as JPEG."""
_LONGEST = 16_383
"""Pixels of a side that WebP takes, the least of these formats; PNG takes what is longer."""


class Drawings:
    """Writes drawings below a folder that was empty: `drawn/NAME`, videos as `drawn/NAME.mp4`.

    `save` may be called from several threads; the frames of a video come in order, from one.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._video: VideoFile | None = None
        self._input: Input | None = None

    def path_of(self, input: Input, size: tuple[int, int]) -> Path:
        """Where the drawing of an input of (width, height) is, with the suffix of its format."""
        if input.is_video:
            return self._folder / FOLDER / Path(input.drawing).with_suffix(".mp4")
        path = self._folder / FOLDER / input.drawing
        if max(size) > _LONGEST:
            return path.with_suffix(".png")
        return path if path.suffix.lower() in _FORMATS else path.with_suffix(".jpg")

    def save(self, input: Input, pixels: NDArray[np.uint8], prediction: Prediction) -> None:
        """Draw an image and write it, whole or not at all; raises StorageError."""
        path = self.path_of(input, prediction.size)
        drawn = draw_prediction(pixels, prediction)
        write_atomically(path, lambda temporary: _write(drawn, temporary, path.suffix), sync=False)

    def append(self, input: Input, frame: NDArray[np.uint8]) -> None:
        """Write the next drawn frame, (H, W, 3) uint8 RGB, of a video; raises StorageError."""
        if self._video is None or self._input != input:
            self.close()
            path = self.path_of(input, (frame.shape[1], frame.shape[0]))
            self._video, self._input = VideoFile(path, frame_rate(input.path)), input
        self._video.add(frame)

    def close(self) -> None:
        """Finish the video that is being written; raises StorageError."""
        video, self._video = self._video, None
        if video is not None:
            video.close()


def _write(drawn: Image.Image, path: Path, suffix: str) -> None:
    form, options = _FORMATS[suffix.lower()]
    with path.open("wb") as file:
        drawn.save(file, form, **options)
