"""A detector written as an ONNX graph: pixels in, detections or raw candidates out.

PyTorch traces the detector and the choice of the best candidates; non-maximum suppression becomes ONNX's own operator,
once for the whole batch. What the graph computes is what `detectors/suppression.py` does.
"""

from __future__ import annotations

import io
import json
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn

from fewshot_cli import __version__
from fewshot_cli.bounds import OPSET
from fewshot_cli.detectors.chain import Detector
from fewshot_cli.detectors.suppression import Candidates, Suppression
from fewshot_cli.inference.onnx_model import (
    INPUT,
    METADATA,
    OUTPUTS,
    RAW_OUTPUTS,
    SCHEMA,
    STRETCHED,
    TOP_LEFT,
    need,
)


def build_graph(detector: Detector, thresholds: Mapping[str, float], *, nms: bool, opset: int) -> Any:
    """The detector as an `onnx.ModelProto` that holds its weights and describes itself.

    Input: `images` (B, 3, S, S) uint8 RGB, any B. Outputs with `nms`, image by image and best first: `boxes` (N, 4) in
    xyxy canvas pixels, `scores` (N,), `labels` (N,) int64, `image_index` (N,) int64; before them, for verification,
    those of `candidate_outputs`, which `without_candidates` takes off. Without `nms`: `boxes` (B, A, 4), `scores`
    (B, A, K).

    Args:
        detector: in eval, on the CPU, in float32.
        thresholds: class → score, for the metadata.
        nms: whether non-maximum suppression is part of the graph.
        opset: version of ONNX's operators.

    Raises:
        ConfigError: an opset that cannot be written, or the package onnx is missing.
        ModelError: the detector has no fixed number of candidates.
    """
    onnx = need("onnx")
    OPSET.check("opset", opset)
    graph, pixels = _Graph(detector, nms).eval(), torch.zeros(2, 3, *[detector.image_size] * 2, dtype=torch.uint8)
    with torch.no_grad():
        heads = graph.candidates(pixels)
        outputs = _outputs(heads, len(detector.classes), nms)
        model = onnx.load_from_string(_traced(graph, pixels, list(outputs), opset))
    _name_axes(model, outputs)
    model.producer_name, model.producer_version = "fsod", __version__
    described = description(detector, thresholds, [head.suppression for head in heads] if nms else None)
    onnx.helper.set_model_props(model, {METADATA: json.dumps(described)})
    return model


def _outputs(heads: Sequence[Candidates], classes: int, nms: bool) -> dict[str, tuple[str | int, ...]]:
    """Names of the outputs, in order, and their axes: a number, or the name of one that varies."""
    if not nms:
        boxes = sum(head.boxes.shape[1] for head in heads)
        return dict(zip(RAW_OUTPUTS, (("batch", boxes, 4), ("batch", boxes, classes)), strict=True))
    parts = [part for head in heads for part in (head.boxes, head.scores)]
    raw = {name: ("batch", *part.shape[1:]) for name, part in zip(candidate_outputs(len(heads)), parts, strict=True)}
    return {**raw, **{name: ("detections", 4) if name == "boxes" else ("detections",) for name in OUTPUTS}}


def _traced(graph: nn.Module, pixels: Tensor, outputs: Sequence[str], opset: int) -> bytes:
    content = io.BytesIO()
    with _quiet():
        torch.onnx.export(
            graph,
            (pixels,),
            content,  # type: ignore[arg-type]  # a file, as its documentation says
            dynamo=False,  # the other exporter does not know suppression of a batch of any size
            opset_version=opset,
            input_names=[INPUT],
            output_names=list(outputs),
            dynamic_axes={name: {0: "batch"} for name in (INPUT, *outputs)},
        )
    return content.getvalue()


def candidate_outputs(heads: int) -> list[str]:
    """Of a graph with non-maximum suppression: the boxes (B, A, 4) and the scores (B, A, K) that each head proposes."""
    return [f"{what}_of_head_{head}" for head in range(heads) for what in ("boxes", "scores")]


def without_candidates(model: Any) -> Any:
    """A copy of a graph with non-maximum suppression that has only the outputs of an exported file."""
    copy = type(model)()
    copy.CopyFrom(model)
    kept = [output for output in copy.graph.output if output.name in OUTPUTS]
    del copy.graph.output[:]
    copy.graph.output.extend(kept)
    return copy


def description(
    detector: Detector, thresholds: Mapping[str, float], suppressions: list[Suppression] | None
) -> dict[str, Any]:
    """What a file says of itself under the key `fsod` of its metadata."""
    pad = detector.pad_value
    return {
        "schema": SCHEMA,
        "fsod": __version__,
        "detector": detector.name,
        "classes": list(detector.classes),
        "image_size": detector.image_size,
        "resize": {
            "place": STRETCHED if detector.stretches else TOP_LEFT,
            "filter": "bilinear",
            "antialias": True,
            "pad": list(pad) if isinstance(pad, list) else [pad] * 3,
        },
        "thresholds": dict(thresholds),
        "nms": None if suppressions is None else [asdict(rule) for rule in suppressions],
    }


class _Graph(nn.Module):
    """What is traced."""

    def __init__(self, detector: Detector, nms: bool) -> None:
        super().__init__()
        self.detector = detector
        self.nms = nms

    def candidates(self, pixels: Tensor) -> tuple[Candidates, ...]:
        side = self.detector.image_size
        valid = torch.full((1, 2), side, dtype=torch.int64).expand(len(pixels), 2)
        return self.detector.candidates(self.detector.run((pixels, valid), 0))

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        heads = self.candidates(pixels)
        if not self.nms:
            return as_one(heads, len(self.detector.classes))
        raw = [part for head in heads for part in (head.boxes, head.scores)]
        return (*raw, *_detections(heads))


def as_one(heads: Sequence[Candidates], classes: int) -> tuple[Tensor, Tensor]:
    """All heads' boxes (B, ΣA, 4) and their scores (B, ΣA, classes), 0 where a head does not know the class."""
    scores = [head.scores if head.labels is None else _by_label(head, head.labels, classes) for head in heads]
    return torch.cat([head.boxes for head in heads], dim=1), torch.cat(scores, dim=1)


def _by_label(head: Candidates, labels: Tensor, classes: int) -> Tensor:
    """(B, A, K) scores → (B, A, classes): the columns in the order of their labels."""
    columns = torch.full((classes,), len(labels))
    columns[labels[labels >= 0]] = (labels >= 0).nonzero()[:, 0]
    return nn.functional.pad(head.scores, (0, 1)).index_select(2, columns)


def _detections(heads: Sequence[Candidates]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Of the whole batch in one list: boxes (N, 4), scores (N,), labels (N,), and the image of each (N,)."""
    boxes, scores, labels = (torch.cat(parts, dim=1) for parts in zip(*map(_suppressed, heads), strict=True))
    scores, order = scores.topk(scores.shape[1])
    image, place = (scores > 0).nonzero().unbind(1)
    chosen = order[image, place]
    return boxes[image, chosen], scores[image, place], labels[image, chosen], image


def _suppressed(head: Candidates) -> tuple[Tensor, Tensor, Tensor]:
    """Per image the D best boxes (B, D, 4), scores (B, D), which are 0 where fewer are left, and labels (B, D)."""
    boxes, scores, labels = _best(head)
    rule = head.suppression
    # A row a class, in which the other classes' boxes score 0: the operator treats each row alone.
    classes = torch.arange(head.scores.shape[2])[None, :, None]
    by_class = torch.where(labels[:, None] == classes, scores[:, None], torch.zeros(()))
    kept = _NonMaxSuppression.apply(boxes, by_class, rule.detections, rule.iou, rule.min_score)
    image, place = kept[:, 0], kept[:, 2]
    left = torch.zeros_like(scores).index_put((image, place), scores[image, place])
    scores, order = left.topk(min(rule.detections, left.shape[1]))
    boxes, labels = boxes.gather(1, order[..., None].expand(-1, -1, 4)), labels.gather(1, order)
    if head.labels is None:
        return boxes, scores, labels
    labels = head.labels[labels]
    return boxes, scores * (labels >= 0), labels


def _best(head: Candidates) -> tuple[Tensor, Tensor, Tensor]:
    """The best pairs of box and class of each group: boxes (B, M, 4), scores (B, M), labels (B, M)."""
    classes = head.scores.shape[2]
    best, start = [], 0
    for size in head.groups:
        scores = head.scores[:, start : start + size].flatten(1)
        top, pair = scores.topk(min(head.suppression.candidates, size * classes))
        row = pair.div(classes, rounding_mode="floor")
        best.append((start + row, top, pair - row * classes))
        start += size
    rows, scores, labels = (torch.cat(parts, dim=1) for parts in zip(*best, strict=True))
    return head.boxes.gather(1, rows[..., None].expand(-1, -1, 4)), scores, labels


class _NonMaxSuppression(torch.autograd.Function):
    """ONNX's operator of that name: boxes (B, M, 4), scores (B, K, M) → rows (image, class, box) of what is kept.

    https://onnx.ai/onnx/operators/onnx__NonMaxSuppression.html
    """

    @staticmethod
    def forward(ctx: Any, boxes: Tensor, scores: Tensor, most: int, iou: float, floor: float) -> Tensor:
        """Any result of the right type and shape: while a graph is traced, the values do not matter."""
        return torch.zeros(1, 3, dtype=torch.int64)

    @staticmethod
    def symbolic(g: Any, boxes: Any, scores: Any, most: int, iou: float, floor: float) -> Any:
        """The node, and its type, which the exporter cannot know."""
        limits = [
            g.op("Constant", value_t=value)
            for value in (torch.tensor([most]), torch.tensor([iou]), torch.tensor([floor]))
        ]
        kept = g.op("NonMaxSuppression", boxes, scores, *limits)
        return kept.setType(boxes.type().with_dtype(torch.int64).with_sizes([None, 3]))


def _name_axes(model: Any, shapes: Mapping[str, Sequence[str | int]]) -> None:
    """Write into the outputs' types what the exporter does not know: the names and lengths of their axes."""
    for output in model.graph.output:
        for axis, size in zip(output.type.tensor_type.shape.dim, shapes[output.name], strict=True):
            axis.Clear()
            setattr(axis, "dim_param" if isinstance(size, str) else "dim_value", size)


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter warns of its age and of sizes that become constants, which is what a fixed canvas needs."""
    log = logging.getLogger("torch.onnx")
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(before)
