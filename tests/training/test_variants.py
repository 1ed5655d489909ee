"""Images and their variants as canvases with targets."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from helpers_data import draw_coco, draw_image, write_document

from fewshot_cli.augmentation.config import Augmentation
from fewshot_cli.augmentation.operations import load_sample, make_variant
from fewshot_cli.datasets.formats import read_split
from fewshot_cli.datasets.types import ImageRecord
from fewshot_cli.detectors.chain import Detector
from fewshot_cli.detectors.registry import build_detector
from fewshot_cli.training.variants import Examples, _kept

SIDE, WIDTH, HEIGHT = 64, 400, 300


@pytest.fixture(scope="module")
def detector() -> Detector:
    return build_detector("yolox_nano", weights="none", image_size=SIDE)


@pytest.fixture(scope="module")
def photograph(tmp_path_factory: pytest.TempPathFactory) -> ImageRecord:
    """Many times as large as the canvas, with one object."""
    folder = tmp_path_factory.mktemp("photograph")
    document = draw_coco(folder, [["cat"]])
    draw_image(folder / "images" / "0001.jpg", 1, (WIDTH, HEIGHT))
    document["images"][0].update(width=WIDTH, height=HEIGHT)
    document["annotations"][0]["bbox"] = [100, 75, 200, 150]
    write_document(folder, document)
    return read_split(folder).images[0]


def test_the_first_copy_is_the_image_as_it_is(detector: Detector, photograph: ImageRecord) -> None:
    """Its canvas is the detector's of the whole image, its target the box at the canvas's scale."""
    pixels, example = Examples(detector, [photograph], copies=3).load(0)
    assert torch.equal(detector.make_canvas(load_sample(photograph).image).pixels, pixels)
    torch.testing.assert_close(example.target.boxes, torch.tensor([[16.0, 12.0, 48.0, 36.0]]))


def test_a_variant_is_made_for_the_canvas(detector: Detector, photograph: ImageRecord) -> None:
    """It has no more pixels than the largest zoom can show, whatever the photograph has."""
    augmentation = Augmentation(positive=0.0)
    examples = Examples(detector, [photograph], copies=9, augmentation=augmentation, seed=5)
    for copy in range(1, 9):
        variant = make_variant(load_sample(photograph), augmentation, (5, photograph.id, copy), canvas=SIDE)
        canvas = detector.make_canvas(variant.image)
        pixels, example = examples.load(copy)
        assert torch.equal(canvas.pixels, pixels)
        assert max(example.canvas.size) < 1.2 * SIDE * augmentation.scale[1] < WIDTH
        torch.testing.assert_close(example.target.boxes, variant.boxes * canvas.box_scale)


@pytest.mark.parametrize(("side", "kept"), [(640, 32), (4_000, 10), (14_000, 1)])
def test_large_photographs_are_not_all_kept_decoded(side: int, kept: int, photograph: ImageRecord) -> None:
    """Ten of 48 megapixels would take over a gigabyte."""
    assert kept == _kept([replace(photograph, width=side, height=side)])
