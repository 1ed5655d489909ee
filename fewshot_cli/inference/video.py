"""Videos by OpenCV: upright RGB frames in order, and frames written as MP4."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewshot_cli.errors import DataError, StorageError
from fewshot_cli.files import make_folder, storage_errors
from fewshot_cli.paths import file_fault
from fewshot_cli.temporary import temporary_file

# The decoder's remarks on a broken file are not for the user; it reads this when the first video is opened.
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")

CODEC = "mp4v"
"""MPEG-4 part 2: OpenCV's wheels hold no H.264 encoder. Players play it, most browsers do not."""
USUAL_RATE = 25.0
"""Frames a second of a video that does not say."""
_HINT = "Convert it, e.g. with: ffmpeg -i VIDEO -c:v libx264 converted.mp4"


def _opencv() -> Any:
    """OpenCV, imported when it is needed, and silent: what it says of a broken file is not for the user."""
    import cv2

    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    return cv2


def frame_count(path: Path) -> int:
    """How many frames a video says it has; 0 if it does not say or cannot be opened."""
    try:
        with _opened(path) as video:
            return _declared(video)
    except DataError:
        return 0


def frame_rate(path: Path) -> float:
    """Frames a second; USUAL_RATE where it is not said."""
    cv2 = _opencv()
    with _opened(path) as video:
        rate = float(video.get(cv2.CAP_PROP_FPS))
    return rate if math.isfinite(rate) and 0 < rate <= 1000 else USUAL_RATE


def read_frames(path: Path) -> Iterator[NDArray[np.uint8]]:
    """The frames of a video, (H, W, 3) uint8 RGB, upright.

    Raises:
        DataError: the file cannot be opened as a video, or none of its frames decoded; after the last frame that could
            be decoded, if there should be more.
    """
    cv2 = _opencv()
    with _opened(path) as video:
        declared, count = _declared(video), 0
        while True:
            more, frame = video.read()
            if not more:
                break
            count += 1
            yield cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
    if count == 0:
        raise DataError(f"{path}: no frame can be decoded: an empty or damaged video, or an unknown codec", hint=_HINT)
    # Containers without a count estimate it from the duration.
    if declared - count > max(2, declared // 50):
        raise DataError(f"{path}: ends after {count} of {declared} frames: cut or damaged", hint="Copy it again.")


def _declared(video: Any) -> int:
    cv2 = _opencv()
    count = video.get(cv2.CAP_PROP_FRAME_COUNT)
    return int(count) if math.isfinite(count) and 0 < count < 1e9 else 0


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    cv2 = _opencv()
    if fault := file_fault(path):
        raise DataError(f"{path}: {fault}", hint="Check the path, or leave the video out.")
    # An absolute path is taken for nothing else, such as an address or a numbered series of images.
    video = cv2.VideoCapture(str(path.resolve()), cv2.CAP_FFMPEG)
    try:
        if not video.isOpened():
            raise DataError(f"{path}: not readable as a video: damaged, cut, empty or an unknown format", hint=_HINT)
        yield video
    finally:
        video.release()


class VideoFile:
    """An MP4 that is written frame by frame; it is at its place, whole, after `close`.

    Args:
        path: ends in .mp4.
        rate: frames a second.
    """

    def __init__(self, path: Path, rate: float) -> None:
        self._path = path
        self._rate = rate
        self._writer: Any = None
        make_folder(path.parent)
        self._held = ExitStack()
        with storage_errors(path):
            self._temporary = self._held.enter_context(temporary_file(path.parent, ".mp4"))

    def add(self, frame: NDArray[np.uint8]) -> None:
        """Append a frame, (H, W, 3) uint8 RGB, all of one size; raises StorageError."""
        cv2 = _opencv()
        if self._writer is None:
            size = frame.shape[1], frame.shape[0]
            codec = cv2.VideoWriter.fourcc(*CODEC)
            self._writer = cv2.VideoWriter(str(self._temporary), cv2.CAP_FFMPEG, codec, self._rate, size)
            if not self._writer.isOpened():
                raise StorageError(
                    f"cannot write {self._path}: OpenCV opens no {CODEC} encoder for {size[0]}×{size[1]} pixels",
                    hint="Give --no-draw to keep the detections alone.",
                )
        self._writer.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))

    def close(self) -> None:
        """Put the video at its place; nothing stays if it has no frame. Raises StorageError if the disk was full."""
        try:
            if self._writer is not None:
                self._writer.release()
                self._check()
                # The temporary file is the user's alone.
                umask = os.umask(0)
                os.umask(umask)
                self._temporary.chmod(0o666 & ~umask)
                self._temporary.replace(self._path)
        finally:
            self._held.close()

    def _check(self) -> None:
        """OpenCV does not say when the disk is full, but then the file's end is missing, and it cannot be opened."""
        try:
            with _opened(self._temporary):
                pass
        except DataError as error:
            raise StorageError(
                f"cannot write {self._path}: what was written cannot be read: is the disk full?",
                hint="Free some space or choose another folder; files written earlier are intact.",
            ) from error
