"""The stream: order, batches, and files that cannot be read."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers_data import draw_image

from fewshot_cli.inference.inputs import Input, find_inputs
from fewshot_cli.inference.prediction import Prediction
from fewshot_cli.inference.stream import Item, detect_all, in_order
from fewshot_cli.inference.tiles import Tiles


class Colours:
    """Finds a box of 8 pixels at one place in every image, its mean colour as the score; counts its batches."""

    classes = ("image",)

    def __init__(self) -> None:
        self.thresholds: dict[str, float] = {}
        self.batches: list[int] = []

    def prepare(self, image: np.ndarray) -> np.ndarray:
        return image

    def detect(self, prepared: Sequence[Any]) -> list[Prediction]:
        self.batches.append(len(prepared))
        return [self._of(image) for image in prepared]

    def _of(self, image: np.ndarray) -> Prediction:
        height, width = image.shape[:2]
        return Prediction(
            boxes=np.array([[9, 2, 17, 10]], dtype=np.float32),
            scores=np.array([image.mean() / 255], dtype=np.float32),
            labels=np.array([0]),
            classes=self.classes,
            size=(width, height),
        )


@pytest.fixture
def photos(tmp_path: Path) -> list[Input]:
    """Nine images, the fifth of which is damaged."""
    for number in range(9):
        draw_image(tmp_path / "photos" / f"{number}.jpg", number)
    (tmp_path / "photos" / "4.jpg").write_bytes(b"\xff\xd8 no more")
    return find_inputs([tmp_path / "photos"])


def run(inputs: list[Input], model: Any, **options: Any) -> list[Item]:
    with closing(detect_all(inputs, model, lambda item: item, **{"batch_size": 4, "threads": 2, **options})) as items:
        return list(items)


def test_results_come_in_order_whatever_the_batch_and_the_threads(photos: list[Input]) -> None:
    """And batches are as large as asked."""
    scores = []
    for batch_size, threads in ((1, 1), (4, 2), (16, 3)):
        model = Colours()
        items = run(photos, model, batch_size=batch_size, threads=threads)
        assert [f"{number}.jpg" for number in range(9)] == [item.input.name for item in items]
        assert batch_size >= max(model.batches) and 8 == sum(model.batches)
        scores.append([float(item.prediction.scores[0]) for item in items if item.prediction])
    assert scores[0] == scores[1] == scores[2] and 8 == len(set(scores[0]))


def test_a_damaged_image_stops_nothing(photos: list[Input]) -> None:
    """It comes at its place with the reason instead of a prediction."""
    bad = [item for item in run(photos, Colours()) if item.problem]
    assert ["4.jpg"] == [item.input.name for item in bad]
    assert bad[0].prediction is None and str(bad[0].problem).startswith("not readable as an image")


def test_tiles_are_detected_with_the_whole(photos: list[Input]) -> None:
    """40 × 30 pixels in tiles of 32: the image and two tiles, merged by suppression in the image's pixels."""
    model = Colours()
    (item,) = run(photos[:1], model, tiles=Tiles(32, 0), batch_size=2)
    assert [2, 1] == model.batches
    assert item.prediction is not None and (40, 30) == item.prediction.size
    # In the whole and in the first tile it is the same box, in the second tile another.
    assert [[9, 2, 17, 10], [17, 2, 25, 10]] == sorted(item.prediction.boxes.tolist())


def test_an_error_of_the_model_ends_the_stream(photos: list[Input]) -> None:
    """It reaches the caller, and no thread is left."""

    class Broken(Colours):
        def detect(self, prepared: Sequence[Any]) -> list[Prediction]:
            raise RuntimeError("broken")

    before = threading.active_count()
    with pytest.raises(RuntimeError, match="broken"):
        run(photos, Broken())
    assert before == threading.active_count()


def test_no_more_is_computed_in_advance_than_asked() -> None:
    """Memory does not grow with the number of inputs."""
    started: list[int] = []
    with ThreadPoolExecutor(2) as pool, closing(in_order(pool, lambda each: each * each, _told(started), 3)) as squares:
        assert [0, 1, 4] == [next(squares) for _ in range(3)]
        assert 6 == len(started)


def _told(started: list[int]) -> Any:
    for number in range(100):
        started.append(number)
        yield number
