"""Whether an exported graph computes what the detector computes: the same images through ONNX Runtime and PyTorch.

Two runtimes round differently, and where two boxes of one object score alike, rounding decides which of them
suppression keeps. So the two steps are compared one by one:

1. every candidate, box by box and class by class, before suppression;
2. the detections in the file's outputs with PyTorch's suppression of the file's own candidates, matched one to one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torchvision.ops import box_iou

from fewshot_cli.detectors.canvas import Canvas, batch_of
from fewshot_cli.detectors.chain import Detector
from fewshot_cli.detectors.suppression import Candidates, Detections, Suppression, suppress
from fewshot_cli.errors import ModelError
from fewshot_cli.inference.onnx_graph import as_one
from fewshot_cli.inference.onnx_model import open_session, run
from fewshot_cli.inference.placed import batches

LARGEST_BOX, LARGEST_SCORE = 0.5, 0.01
"""Differences that are still rounding: pixels of the canvas, and score."""
COMPARED_SCORE = 0.05
"""Detections below it are the tail, where hundreds of boxes of nothing compete for the last places."""
BORDER = 0.01
"""A box whose overlap with a better one is so close to the limit of suppression may be kept or not."""
TIE = 1e-6
"""Scores so close together have no order."""
BATCH = 4


@dataclass(frozen=True, slots=True)
class Agreement:
    """How far two runtimes are apart.

    Attributes:
        images: compared.
        boxes: pairs of box and class whose score reaches the floor of suppression.
        detections: of a score of at least COMPARED_SCORE.
        box: largest difference of a coordinate of those boxes, canvas pixels.
        score: largest difference of any score.
    """

    images: int = 0
    boxes: int = 0
    detections: int = 0
    box: float = 0.0
    score: float = 0.0

    def __add__(self, other: Agreement) -> Agreement:
        return Agreement(
            self.images + other.images,
            self.boxes + other.boxes,
            self.detections + other.detections,
            max(self.box, other.box),
            max(self.score, other.score),
        )


@torch.no_grad()
def check(detector: Detector, model: Any, canvases: Sequence[Canvas], *, nms: bool) -> Agreement:
    """Compare on some images.

    Args:
        detector: in eval, on the CPU.
        model: an `onnx.ModelProto` of `onnx_graph.build_graph`, from the same detector.
        canvases: of the images.
        nms: whether suppression is in the graph.

    Raises:
        ModelError: a box differs by more than LARGEST_BOX, a score by more than LARGEST_SCORE, or a detection of at
            least COMPARED_SCORE has no counterpart.
        CheckpointError: ONNX Runtime cannot run the graph.
    """
    name = Path("the exported graph")
    session = open_session(model.SerializeToString(), name)
    outputs = [output.name for output in model.graph.output]
    total = Agreement()
    for some in batches(canvases, BATCH):
        batch = batch_of(some)
        heads = detector.candidates(detector.run(batch, 0))
        exported = [torch.from_numpy(output) for output in run(session, name, batch[0].numpy(), outputs)]
        compared = _compare(heads, exported) if nms else _compare_raw(detector, heads, exported)
        total = total + compared + Agreement(images=len(some))
    return total


def _compare_raw(detector: Detector, heads: Sequence[Candidates], exported: Sequence[Tensor]) -> Agreement:
    boxes, scores = as_one(heads, len(detector.classes))
    return _apart(boxes, scores, exported[0], exported[1], min(head.suppression.min_score for head in heads))


def _compare(heads: Sequence[Candidates], exported: Sequence[Tensor]) -> Agreement:
    """Each head's candidates, then the detections that suppression leaves of them."""
    total, own = Agreement(), []
    for number, head in enumerate(heads):
        boxes, scores = exported[2 * number : 2 * number + 2]
        total += _apart(head.boxes, head.scores, boxes, scores, head.suppression.min_score)
        own.append(head._replace(boxes=boxes, scores=scores))
    rules = [head.suppression for head in heads]
    found = [_of_image(i, exported[2 * len(heads) :]) for i in range(len(heads[0].boxes))]
    counts = [_matched(*images, rules) for images in zip(suppress(own), found, strict=True)]
    return total + Agreement(detections=sum(counts))


def _apart(boxes: Tensor, scores: Tensor, other_boxes: Tensor, other_scores: Tensor, floor: float) -> Agreement:
    reached = scores > floor
    moved = (boxes - other_boxes)[reached.any(dim=2)].abs()
    box = moved.max().item() if len(moved) else 0.0
    score = (scores - other_scores).abs().max().item()
    # Not `>`: a difference that is no number is an error too.
    if not (box <= LARGEST_BOX and score <= LARGEST_SCORE):
        raise _differs(f"boxes by up to {box:.3g} pixels, scores by up to {score:.3g}")
    return Agreement(boxes=int(reached.sum()), box=box, score=score)


def _of_image(index: int, outputs: Sequence[Tensor]) -> Detections:
    boxes, scores, labels, image_index = outputs
    own = image_index == index
    return Detections(boxes[own], scores[own], labels[own])


def _matched(wanted: Detections, found: Detections, rules: Sequence[Suppression]) -> int:
    """The number of detections of at least COMPARED_SCORE; raises ModelError if one has no counterpart."""
    close = (
        ((wanted.boxes[:, None] - found.boxes).abs().amax(dim=2) <= LARGEST_BOX)
        & ((wanted.scores[:, None] - found.scores).abs() <= LARGEST_SCORE)
        & (wanted.labels[:, None] == found.labels)
    )
    free, alone = torch.ones(len(found.scores), dtype=torch.bool), []
    for i, row in enumerate(close):
        partners = (row & free).nonzero()
        if len(partners):
            free[partners[0]] = False
        else:
            alone.append(i)
    _check_alone(wanted, alone, found, rules, "is missing from")
    _check_alone(found, free.nonzero()[:, 0].tolist(), wanted, rules, "is only in")
    return int((wanted.scores >= COMPARED_SCORE).sum())


def _check_alone(
    own: Detections, alone: Sequence[int], other: Detections, rules: Sequence[Suppression], what: str
) -> None:
    """A detection without a counterpart must be in the tail, or one that either runtime may choose."""
    full = len(other.scores) >= min(rule.detections for rule in rules)
    last = other.scores.min().item() + TIE if full else 0.0  # up to it, others may have the last places of a full list
    for i in alone:
        box, score, label = (part[i] for part in own)
        same = other.labels == label
        if score < max(COMPARED_SCORE, last) or _is_open(box, score, other.boxes[same], other.scores[same], rules):
            continue
        place = [round(value) for value in box.tolist()]
        raise _differs(f"a detection at {place} of score {score:.2f} {what} the file")


def _is_open(box: Tensor, score: Tensor, boxes: Tensor, scores: Tensor, rules: Sequence[Suppression]) -> bool:
    """Whether suppression by one of these boxes hangs on rounding: on the border, or at the same score."""
    overlaps = box_iou(box[None], boxes)[0]
    tied = (scores - score).abs() <= TIE
    return any(bool((((overlaps - rule.iou).abs() <= BORDER) | ((overlaps > rule.iou) & tied)).any()) for rule in rules)


def _differs(how: str) -> ModelError:
    return ModelError(
        f"the exported graph does not compute what PyTorch computes: {how}. Nothing was written",
        hint="Another --opset or another version of onnxruntime may help; please report it.",
    )
