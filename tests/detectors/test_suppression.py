"""From candidates to detections, against a plain loop."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from fewshot_cli.detectors.suppression import Candidates, Suppression, suppress


def iou(first: NDArray, second: NDArray) -> float:
    low, high = np.maximum(first[:2], second[:2]), np.minimum(first[2:], second[2:])
    shared = np.prod(np.maximum(high - low, 0))
    area = [np.prod(box[2:] - box[:2]) for box in (first, second)]
    return float(shared / (sum(area) - shared))


def plain(boxes: NDArray, scores: NDArray, groups: list[int], rule: Suppression) -> list[tuple[int, int]]:
    """Pairs of box and class that stay, best first, by a loop over all of them."""
    ends = np.cumsum(groups)
    pairs = []
    for start, end in zip(ends - groups, ends, strict=True):
        own = [(row, k) for row in range(start, end) for k in range(scores.shape[1]) if scores[row, k] > rule.min_score]
        pairs += sorted(own, key=lambda pair: -scores[pair])[: rule.candidates]
    kept: list[tuple[int, int]] = []
    for row, k in sorted(pairs, key=lambda pair: -scores[pair]):
        if all(k != other or iou(boxes[row], boxes[better]) <= rule.iou for better, other in kept):
            kept.append((row, k))
    return kept[: rule.detections]


@given(
    seed=st.integers(0, 10_000),
    groups=st.lists(st.integers(1, 12), min_size=1, max_size=3),
    classes=st.integers(1, 4),
    candidates=st.integers(1, 30),
    detections=st.integers(1, 20),
)
def test_what_stays_is_what_a_plain_loop_keeps(
    seed: int, groups: list[int], classes: int, candidates: int, detections: int
) -> None:
    """Floor, best of each group, class-wise suppression and the limit, for any sizes."""
    chance = np.random.default_rng(seed)
    count = sum(groups)
    corners = chance.integers(0, 20, (count, 2))
    boxes = np.concatenate([corners, corners + chance.integers(5, 15, (count, 2))], axis=1).astype(np.float32)
    # No two scores are equal, so that there is one right answer.
    scores = (chance.permutation(count * classes).reshape(count, classes) / (count * classes)).astype(np.float32)
    rule = Suppression(min_score=0.2, candidates=candidates, iou=0.4, detections=detections)
    (found,) = suppress([Candidates(torch.tensor(boxes)[None], torch.tensor(scores)[None], groups, rule)])
    kept = plain(boxes, scores, groups, rule)
    assert [k for _, k in kept] == found.labels.tolist()
    assert [float(scores[pair]) for pair in kept] == found.scores.tolist()
    assert [boxes[row].tolist() for row, _ in kept] == found.boxes.tolist()


def head(scores: list[list[float]], labels: list[int] | None, **changes: Any) -> Candidates:
    """Boxes side by side, each of 10 pixels."""
    corners = torch.arange(len(scores)) * 20.0
    boxes = torch.stack([corners, corners, corners + 10, corners + 10], dim=1)
    rule = Suppression(**{"min_score": 0.001, "candidates": 10, "iou": 0.5, "detections": 2, **changes})
    return Candidates(
        boxes[None], torch.tensor(scores)[None], [len(scores)], rule, None if labels is None else torch.tensor(labels)
    )


def test_heads_are_suppressed_alone_and_joined_by_score() -> None:
    """Each head keeps its limit, its columns become the detector's labels, and those of label -1 are left out."""
    base = head([[0.9, 0.1], [0.2, 0.8], [0.3, 0.0]], [-1, 0])
    new = head([[0.85], [0.5], [0.4]], [1])
    (found,) = suppress([base, new])
    assert [1, 0, 1] == found.labels.tolist()
    assert [0.85, 0.8, 0.5] == pytest.approx(found.scores.tolist())


def test_a_single_head_has_its_columns_as_labels() -> None:
    """Without labels of its own a head's columns are the labels."""
    (found,) = suppress([head([[0.9, 0.1], [0.2, 0.8]], None)])
    assert [0, 1] == found.labels.tolist()
