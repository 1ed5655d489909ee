"""Drawn detections: the box at its place, in its class's colour, with words that stay in the image."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fewshot_cli.colors import CLASSES, to_rgb
from fewshot_cli.inference.drawing import LEGIBLE, draw_prediction
from fewshot_cli.inference.drawn_files import Drawings
from fewshot_cli.inference.inputs import Input
from fewshot_cli.inference.prediction import Prediction

GREY = 128


def one_box(box: tuple[float, ...], size: tuple[int, int], label: int = 0) -> Prediction:
    return Prediction(
        boxes=np.array([box], dtype=np.float32),
        scores=np.array([0.87], dtype=np.float32),
        labels=np.array([label]),
        classes=tuple(f"class {number}" for number in range(9)),
        size=size,
    )


def plain(size: tuple[int, int]) -> np.ndarray:
    return np.full((size[1], size[0], 3), GREY, dtype=np.uint8)


@pytest.mark.parametrize("label", [0, 3, 8])
def test_a_box_is_drawn_where_it_is(label: int) -> None:
    """Its edges have the colour of its class, inside stays the image; the image that was given is left alone."""
    pixels = plain((640, 480))
    drawn = np.asarray(draw_prediction(pixels, one_box((100, 200, 300, 400), (640, 480), label)))
    colour = to_rgb(CLASSES[label % len(CLASSES)])
    assert colour == tuple(drawn[300, 100]) == tuple(drawn[400, 200]) == tuple(drawn[300, 300])
    assert (GREY,) * 3 == tuple(drawn[300, 200]) == tuple(drawn[450, 600])
    assert (pixels == GREY).all()


@pytest.mark.parametrize("box", [(0, 0, 30, 20), (600, 0, 640, 30), (620, 460, 640, 480), (0, 470, 20, 480)])
def test_the_words_stay_in_the_image(box: tuple[float, ...]) -> None:
    """At every border the whole plate is drawn: as many of its pixels as in the middle."""
    size = (640, 480)
    inside = np.asarray(draw_prediction(plain(size), one_box((300, 200, 320, 210), size)))
    at_border = np.asarray(draw_prediction(plain(size), one_box(box, size)))
    plates = [int((drawn == to_rgb(CLASSES[0])).all(axis=2).sum()) for drawn in (inside, at_border)]
    assert plates[1] > 0.8 * plates[0]


def test_small_images_are_enlarged_so_that_words_can_be_read() -> None:
    """By a whole number; a single pixel too."""
    assert (LEGIBLE, LEGIBLE) == draw_prediction(plain((1, 1)), one_box((0, 0, 1, 1), (1, 1))).size
    assert (5 * 64, 5 * 48) == draw_prediction(plain((64, 48)), one_box((0, 0, 9, 9), (64, 48))).size


def test_drawings_are_filed_under_the_names_of_the_inputs(tmp_path: Path) -> None:
    """In folders, in the same format; what is no format of photographs becomes a JPEG, as does what has no suffix."""
    drawings = Drawings(tmp_path)
    for name, drawn in {
        "a/1.PNG": "a/1.PNG",
        "2.webp": "2.webp",
        "3.gif": "3.jpg",
        "4": "4.jpg",
        "5.jpeg": "5.jpeg",
    }.items():
        drawings.save(Input(Path("x") / name, name, name), plain((400, 300)), one_box((9, 9, 50, 50), (400, 300)))
        with Image.open(tmp_path / "drawn" / drawn) as image:
            assert (400, 300) == image.size
            assert {".png": "PNG", ".webp": "WEBP"}.get(Path(drawn).suffix.lower(), "JPEG") == image.format
    assert 5 == sum(path.is_file() for path in tmp_path.rglob("*"))


def test_a_very_long_image_becomes_a_png(tmp_path: Path) -> None:
    """WebP and JPEG have a largest side."""
    size = (20_000, 2)
    Drawings(tmp_path).save(
        Input(Path("long.webp"), "long.webp", "long.webp"), plain(size), one_box((0, 0, 9, 2), size)
    )
    with Image.open(tmp_path / "drawn" / "long.png") as image:
        assert size == image.size
