"""Many images through a model: reading, the detector and what follows overlap, and results come in order.

    inputs ─► read and prepare ─► batches ─► detector ─► finish (draw, write) ─► results
              N threads                      1 thread    N threads

Only as many images are under way as the threads need, so memory does not grow with the number of inputs. Which threads
there are changes no result.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from fewshot_cli.datasets.images import image_size, open_image
from fewshot_cli.errors import DataError
from fewshot_cli.inference.inputs import Input
from fewshot_cli.inference.prediction import Model, Prediction
from fewshot_cli.inference.tiles import Tiles, Window, merge, windows
from fewshot_cli.inference.video import read_frames

BATCH_PIXELS = 50_000_000
"""Pixels of the images that wait for the detector together: a batch of photographs of 12 million, one of 50."""

Given = TypeVar("Given")
Made = TypeVar("Made")


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """An image, or a frame of a video, on its way.

    Attributes:
        input: where it comes from.
        frame: number in its video, from 0; None for an image.
        pixels: (H, W, 3) uint8 RGB; None before it is read, and after it is finished.
        size: (width, height) of the file's image, of which `pixels` may hold fewer; None: those of `pixels`.
        places: the windows that are detected.
        prepared: what the model made of each window.
        prediction: what was found in it.
        problem: why it could not be read; then there is no prediction.
    """

    input: Input
    frame: int | None = None
    pixels: NDArray[np.uint8] | None = None
    size: tuple[int, int] | None = None
    places: Sequence[Window] = ()
    prepared: Sequence[Any] = ()
    prediction: Prediction | None = None
    problem: str | None = None


def detect_all(
    inputs: Iterable[Input],
    model: Model,
    finish: Callable[[Item], Item],
    *,
    tiles: Tiles | None = None,
    batch_size: int,
    threads: int,
) -> Generator[Item, None, None]:
    """Detect in every image and frame.

    Args:
        finish: called in several threads with each item that was detected in or could not be read.
        tiles: None: each image as a whole.
        batch_size: windows that go through the detector together.
        threads: that read and finish.

    Yields:
        what `finish` returns, in the order of the inputs. Close the iterator, so that its threads end.
    """
    with ThreadPoolExecutor(threads, "host") as host, ThreadPoolExecutor(1, "detector") as detector:
        try:
            read = in_order(host, lambda item: _read(item, model, tiles), _items(inputs), 2 * threads)
            found = in_order(detector, lambda group: _detect(group, model, batch_size), _groups(read, batch_size), 1)
            yield from in_order(host, finish, (item for group in found for item in group), 2 * threads)
        finally:
            for pool in (host, detector):
                pool.shutdown(wait=False, cancel_futures=True)


def in_order(pool: Executor, function: Callable[[Given], Made], items: Iterable[Given], ahead: int) -> Iterator[Made]:
    """`function` of each item, in their order, while at most `ahead` later ones are computed."""
    waiting: deque[Future[Made]] = deque()
    for item in items:
        waiting.append(pool.submit(function, item))
        if len(waiting) > ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _items(inputs: Iterable[Input]) -> Iterator[Item]:
    """Images still to be read, and the frames of videos."""
    for each in inputs:
        if not each.is_video:
            yield Item(input=each)
            continue
        try:
            for number, frame in enumerate(read_frames(each.path)):
                yield Item(input=each, frame=number, pixels=frame)
        except DataError as error:
            yield Item(input=each, problem=reason(error, each.path))


def _read(item: Item, model: Model, tiles: Tiles | None) -> Item:
    if item.problem is not None:
        return item
    pixels, size = item.pixels, None
    if pixels is None:
        try:
            pixels, size = np.array(open_image(item.input.path)), image_size(item.input.path, decode=False)
        except DataError as error:
            return replace(item, problem=reason(error, item.input.path))
    places = windows(pixels.shape[1], pixels.shape[0], tiles)
    prepared = [model.prepare(pixels[y1:y2, x1:x2]) for x1, y1, x2, y2 in places]
    return replace(item, pixels=pixels, size=size, places=places, prepared=prepared)


def _groups(items: Iterable[Item], batch_size: int) -> Iterator[list[Item]]:
    """Consecutive items with as many windows as a batch takes, unless their images are very large."""
    group: list[Item] = []
    taken = pixels = 0
    for item in items:
        group.append(item)
        taken += len(item.prepared)
        pixels += 0 if item.pixels is None else item.pixels.shape[0] * item.pixels.shape[1]
        if taken >= batch_size or pixels >= BATCH_PIXELS:
            yield group
            group, taken, pixels = [], 0, 0
    if group:
        yield group


def _detect(group: Sequence[Item], model: Model, batch_size: int) -> list[Item]:
    found = iter(detect(model, [part for item in group for part in item.prepared], batch_size))
    return [_with_prediction(item, [next(found) for _ in item.prepared]) for item in group]


def detect(model: Model, prepared: Sequence[Any], batch_size: int) -> list[Prediction]:
    """The predictions of prepared images, at most `batch_size` of them at a time."""
    batches = (prepared[start : start + batch_size] for start in range(0, len(prepared), batch_size))
    return [prediction for batch in batches for prediction in model.detect(batch)]


def _with_prediction(item: Item, found: Sequence[Prediction]) -> Item:
    if item.pixels is None:
        return item
    size = item.pixels.shape[1], item.pixels.shape[0]
    return replace(item, prepared=(), prediction=merge(found, item.places, size))


def reason(error: DataError, path: Path) -> str:
    """What an error says of a file, without the file's name."""
    return error.message.removeprefix(f"{path}: ")
