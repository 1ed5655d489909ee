"""Tiles: they cover the image and overlap as asked; what they find is merged as torchvision would."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision.ops import batched_nms

from fewshot_cli.errors import UsageError
from fewshot_cli.inference.prediction import Prediction
from fewshot_cli.inference.tiles import MERGE_IOU, Tiles, merge, parse_tiles, suppress, windows

sides = st.integers(1, 400)


def predicted(boxes: np.ndarray, scores: np.ndarray, labels: np.ndarray, size: tuple[int, int]) -> Prediction:
    return Prediction(
        boxes=boxes.astype(np.float32),
        scores=scores.astype(np.float32),
        labels=labels.astype(np.int64),
        classes=("a", "b", "c"),
        size=size,
    )


def some(seed: int, count: int = 60) -> Prediction:
    """Boxes of a few pixels, so many that most overlap; some scores are equal."""
    chance = np.random.default_rng(seed)
    corners = chance.uniform(0, 60, (count, 2))
    boxes = np.concatenate([corners, corners + chance.uniform(2, 40, (count, 2))], axis=1)
    return predicted(boxes, chance.uniform(0, 1, count).round(2), chance.integers(0, 3, count), (100, 100))


@given(width=sides, height=sides, size=st.integers(32, 120), share=st.floats(0, 0.9))
def test_tiles_cover_the_image_and_overlap_as_asked(width: int, height: int, size: int, share: float) -> None:
    """Every pixel is in a tile, no tile leaves the image, and neighbours share at least the overlap."""
    tiles = parse_tiles(f"{size}:{share}")
    whole, *cut = windows(width, height, tiles)
    assert (0, 0, width, height) == whole
    assert (max(width, height) > size) == bool(cut)
    seen = np.zeros((height, width), dtype=bool)
    for x1, y1, x2, y2 in cut:
        assert 0 <= x1 < x2 <= width and 0 <= y1 < y2 <= height
        assert (min(size, width), min(size, height)) == (x2 - x1, y2 - y1)
        seen[y1:y2, x1:x2] = True
    assert not cut or seen.all()
    for first, second in ((0, 2), (1, 3)):
        places = sorted({(window[first], window[second]) for window in cut})
        for (_, end), (start, _) in itertools.pairwise(places):
            assert end - start >= tiles.overlap


def test_an_image_no_larger_than_a_tile_is_not_cut() -> None:
    """One window, as without tiles."""
    assert [(0, 0, 64, 40)] == windows(64, 40, Tiles(64, 10)) == windows(64, 40, None)


@pytest.mark.parametrize(
    ("text", "tiles"),
    [("640", (640, 128)), ("640:0.25", (640, 160)), ("640:100", (640, 100)), ("100:0", (100, 0))],
)
def test_the_overlap_is_a_share_or_pixels(text: str, tiles: tuple[int, int]) -> None:
    """Below 1 a share of the size; a fifth by default."""
    assert tiles == parse_tiles(text)


@pytest.mark.parametrize("text", ["", "big", "640:", "640:640", "640:-1", "640:nan", "8", "-640", "640:0.95", "6.5"])
def test_impossible_tiles_are_usage_errors(text: str) -> None:
    """The hint shows the form."""
    with pytest.raises(UsageError) as caught:
        parse_tiles(text)
    assert "SIZE:OVERLAP" in str(caught.value.hint)


@pytest.mark.parametrize("seed", range(10))
def test_suppression_is_that_of_torchvision(seed: int) -> None:
    """The same detections stay, best first."""
    given_ = some(seed)
    kept = suppress(given_)
    boxes, labels = torch.from_numpy(given_.boxes), torch.from_numpy(given_.labels)
    chosen = batched_nms(boxes.double(), torch.from_numpy(given_.scores).double(), labels, MERGE_IOU).numpy()
    expected = given_.take(chosen)
    assert sorted(map(tuple, expected.boxes.tolist())) == sorted(map(tuple, kept.boxes.tolist()))
    assert sorted(kept.scores, reverse=True) == kept.scores.tolist()


@given(order=st.permutations(range(4)))
def test_the_order_of_tiles_does_not_matter(order: list[int]) -> None:
    """Equal scores included."""
    found = [some(seed, 20) for seed in range(4)]
    places = [(0, 0, 100, 100), (50, 0, 150, 100), (0, 40, 100, 140), (50, 40, 150, 140)]
    first = merge(found, places, (150, 140))
    again = merge([found[i] for i in order], [places[i] for i in order], (150, 140))
    assert first.boxes.tolist() == again.boxes.tolist() and first.labels.tolist() == again.labels.tolist()


def test_an_object_in_two_tiles_is_found_once_at_its_place() -> None:
    """Boxes are moved by their tile's corner; the same object of another class stays."""
    here = predicted(np.array([[30, 0, 50, 20]]), np.array([0.9]), np.array([0]), (60, 60))
    there = predicted(np.array([[10, 0, 30, 20], [10, 0, 30, 20]]), np.array([0.8, 0.7]), np.array([0, 1]), (60, 60))
    merged = merge([here, there], [(0, 0, 60, 60), (20, 0, 80, 60)], (80, 60))
    assert [[30, 0, 50, 20], [30, 0, 50, 20]] == merged.boxes.tolist()
    assert ("a", "b") == merged.names and (80, 60) == merged.size


def test_what_a_tile_cuts_is_left_to_those_that_show_it_whole() -> None:
    """A box that ends at an inner border goes, one that ends at the image's border or just before a cut stays."""
    boxes = np.array([[0, 5, 20, 20], [40, 5, 60, 20], [30, 30, 50, 60], [10, 30, 20, 40], [38, 30, 57, 40]])
    count = len(boxes)
    here = predicted(boxes, np.full(count, 0.9), np.arange(count) % 3, (60, 60))
    whole = predicted(np.zeros((0, 4)), np.zeros(0), np.zeros(0), (100, 60))
    merged = merge([whole, here], [(0, 0, 100, 60), (0, 0, 60, 60)], (100, 60))
    assert sorted(boxes[[0, 2, 3, 4]].tolist()) == sorted(merged.boxes.tolist())


def test_nothing_found_anywhere_is_nothing() -> None:
    """Empty predictions merge to an empty one."""
    empty = predicted(np.zeros((0, 4)), np.zeros(0), np.zeros(0), (10, 10))
    assert 0 == len(merge([empty, empty], [(0, 0, 10, 10), (5, 0, 15, 10)], (15, 10)))
