"""A tiny query-based detector: what a DETR (arXiv 2005.12872, 2203.01305) needs of the contract, with random weights.

Legend: B images, H × W cells of stride 8, D channels, Q learned queries, K classes. Boxes of the network are xyxy in
parts of the canvas. Padding takes no part; every decoder layer has predictors of its own; in training, queries made
from noised boxes of the targets join the learned ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn
from torch.nn import functional as F

from fewshot_cli.detectors.chain import Activations, Detections, Detector, Layer, Target
from fewshot_cli.detectors.predictors import ClassPredictor, numbered, start_rare
from fewshot_cli.detectors.ragged import pad_ragged
from fewshot_cli.detectors.registry import DetectorSpec
from fewshot_cli.detectors.weights import load_exactly, read_weights
from fewshot_cli.progress import Reporter

STRIDE, CHANNELS, QUERIES, NOISED, DECODERS = 8, 32, 12, 8, 2
NOISE = 0.1
"""Largest shift of a noised corner, in parts of the canvas."""
DECODER = 3
"""Index of the first decoder layer."""

SPEC = DetectorSpec("stub_queries", "queries, random weights", __name__, 3, 2, 64)


def build(name: str, *, image_size: int, weights: str, reporter: Reporter) -> Queries:
    detector = Queries(name, numbered(3), image_size)
    if weights != "none":
        load_exactly(detector.network, read_weights(weights), what=f"{name} from {weights}")
        detector.pretrained = True
    return detector


def recognise(state: dict[str, Tensor]) -> str | None:
    return SPEC.name if "queries.weight" in state else None


class Decoder(nn.Module):
    """Attention of the queries to the cells, then a layer of their own; queries do not see each other."""

    def __init__(self) -> None:
        super().__init__()
        self.ask, self.answer = nn.Linear(CHANNELS, CHANNELS), nn.Linear(CHANNELS, 2 * CHANNELS)
        self.feed = nn.Sequential(nn.Linear(CHANNELS, CHANNELS), nn.ReLU(), nn.Linear(CHANNELS, CHANNELS))

    def forward(self, queries: Tensor, cells: Tensor, padding: Tensor) -> Tensor:
        """queries (B, Q, D), cells (B, H·W, D), padding (B, H·W) bool → queries (B, Q, D)."""
        keys, values = self.answer(cells).chunk(2, dim=2)
        scores = self.ask(queries) @ keys.transpose(1, 2) / CHANNELS**0.5
        queries = queries + scores.masked_fill(padding[:, None], -torch.inf).softmax(dim=2) @ values
        return queries + self.feed(queries)


class Network(nn.Module):
    def __init__(self, classes: int) -> None:
        super().__init__()
        self.backbone = nn.ModuleList([nn.Conv2d(3, CHANNELS, 4, 4), nn.Conv2d(CHANNELS, CHANNELS, 2, 2)])
        self.neck = nn.Conv2d(CHANNELS, CHANNELS, 1)
        self.queries = nn.Embedding(QUERIES, CHANNELS)
        self.noised = nn.Linear(4, CHANNELS)
        self.decoders = nn.ModuleList(Decoder() for _ in range(DECODERS))
        self.class_predictors = nn.ModuleList(nn.Linear(CHANNELS, classes) for _ in range(DECODERS))
        self.box_predictors = nn.ModuleList(nn.Linear(CHANNELS, 4) for _ in range(DECODERS))


class Queries(Detector):
    network: Network

    def __init__(self, name: str, classes: Sequence[str], image_size: int) -> None:
        super().__init__(name, classes, image_size)
        self.network = Network(len(classes))
        for predictor in self.network.class_predictors:
            start_rare(predictor)
        self.layers = self.make_layers()

    def make_layers(self) -> tuple[Layer, ...]:
        predictors = [f"{kind}_predictors.{i}" for i in range(DECODERS) for kind in ("class", "box")]
        return (
            self.make_layer("backbone.1", "backbone", ["backbone.0"], partial(self._run_stage, 0)),
            self.make_layer("backbone.2", "backbone", ["backbone.1"], partial(self._run_stage, 1)),
            self.make_layer("neck", "neck", ["neck"], self._run_neck),
            self.make_layer("head.1", "head", ["queries", "noised", "decoders.0"], self._decode_first),
            self.make_layer("head.2", "head", ["decoders.1"], self._decode_second),
            self.make_layer("head.3", "head", predictors, self._run_predictors),
        )

    @property
    def predictors(self) -> list[ClassPredictor]:
        return [ClassPredictor(f"class_predictors.{i}") for i in range(DECODERS)]

    def normalize(self, pixels: Tensor) -> Tensor:
        return pixels.float() / 128 - 1

    def prepare(self, pixels: Tensor, valid: Tensor) -> Activations:
        """→ normalised pixels, zero in the padding, and the valid size, which goes on to the decoder."""
        inside = torch.arange(pixels.shape[-1], device=pixels.device) < valid[..., None]
        return self.normalize(pixels) * (inside[:, 0, :, None] & inside[:, 1, None, :])[:, None], valid

    def _run_stage(self, index: int, x: Activations) -> Activations:
        return F.relu(self.network.backbone[index](x[0])), x[1]

    def _run_neck(self, x: Activations) -> Activations:
        """→ cells (B, D, H, W) with their place added, and the valid size."""
        features = self.network.neck(x[0])
        place = _waves(features.shape[-1]).to(features.device)
        rows, columns = place[:, :, None].expand(-1, -1, len(place[0])), place[:, None].expand(-1, len(place[0]), -1)
        return features + torch.cat([rows, columns]), x[1]

    def _decode_first(self, x: Activations) -> Activations:
        """Cells, valid size and perhaps noised boxes (B, n, 4) → the same with queries (B, Q + n, D) instead."""
        cells, valid, *noised = x
        queries = [self.network.queries.weight.expand(len(cells), -1, -1), *map(self.network.noised, noised)]
        return cells, valid, self._decode_layer(0, cells, valid, torch.cat(queries, dim=1))

    def _decode_second(self, x: Activations) -> Activations:
        """→ the queries that each decoder layer gives, (B, Q + n, D) twice."""
        return x[2], self._decode_layer(1, *x)

    def _decode_layer(self, index: int, cells: Tensor, valid: Tensor, queries: Tensor) -> Tensor:
        inside = torch.arange(0, STRIDE * cells.shape[-1], STRIDE, device=cells.device) < valid[..., None]
        padding = ~(inside[:, 0, :, None] & inside[:, 1, None, :])
        return self.network.decoders[index](queries, cells.flatten(2).transpose(1, 2), padding.flatten(1))

    def _run_predictors(self, x: Activations) -> Activations:
        """→ class logits (B, Q + n, K) of each decoder layer, then boxes (B, Q + n, 4) of each."""
        classes = [predictor(queries) for predictor, queries in zip(self.network.class_predictors, x, strict=True)]
        boxes = [predictor(queries) for predictor, queries in zip(self.network.box_predictors, x, strict=True)]
        return *classes, *map(_corners, boxes)

    def losses(self, activations: Activations, start: int, targets: Sequence[Target]) -> dict[str, Tensor]:
        """Matched queries; and noised ones, unless the chain starts behind the layer at which queries enter."""
        entry = max(start, DECODER)
        x = self.run(activations, start, entry)
        if entry == DECODER:
            boxes = [target.boxes / self.image_size for target in targets]
            noised = [box + NOISE * (2 * torch.rand(box.shape).to(box.device) - 1) for box in boxes]
            x = (*x, pad_ragged(noised, NOISED)[0])
        outputs = self.run(x, entry)
        with torch.autocast(outputs[0].device.type, enabled=False):
            return self.loss(tuple(output.float() for output in outputs), targets)

    def loss(self, outputs: Activations, targets: Sequence[Target]) -> dict[str, Tensor]:
        losses: dict[str, list[Tensor]] = {"matched": [], "noised": []}
        for logits, boxes in zip(outputs[:DECODERS], outputs[DECODERS:], strict=True):
            for i, target in enumerate(targets):
                wanted = target._replace(boxes=target.boxes / self.image_size)
                learned, extra = ((logits[i, part], boxes[i, part]) for part in (slice(QUERIES), slice(QUERIES, None)))
                losses["matched"].append(_set_loss(*learned, *_match(*learned, wanted), wanted))
                if len(extra[0]):
                    known = torch.arange(len(wanted.labels))
                    losses["noised"].append(_set_loss(*extra, known, known, wanted))
        return {name: torch.stack(values).mean() for name, values in losses.items() if values}

    def decode(self, outputs: Activations) -> list[Detections]:
        return [
            _best(logits.float().sigmoid(), boxes.float() * self.image_size)
            for logits, boxes in zip(outputs[DECODERS - 1], outputs[-1], strict=True)
        ]


def _waves(count: int) -> Tensor:
    """(D / 2, count) sine and cosine of a cell's number, at octaves."""
    angles = torch.arange(count) * 2.0 ** -torch.arange(CHANNELS // 4)[:, None]
    return torch.cat([angles.sin(), angles.cos()])


def _corners(raw: Tensor) -> Tensor:
    middle, size = raw.sigmoid().chunk(2, dim=-1)
    return torch.cat([middle - size / 2, middle + size / 2], dim=-1)


@torch.no_grad()
def _match(logits: Tensor, boxes: Tensor, target: Target) -> tuple[Tensor, Tensor]:
    """Rows and objects of the cheapest one-to-one matching."""
    cost = torch.cdist(boxes, target.boxes, p=1) - logits.sigmoid()[:, target.labels]
    rows, objects = linear_sum_assignment(cost.cpu())
    return torch.from_numpy(rows), torch.from_numpy(objects)


def _set_loss(logits: Tensor, boxes: Tensor, rows: Tensor, objects: Tensor, target: Target) -> Tensor:
    """Cross entropy of all rows and L1 of the matched ones, per object."""
    wanted = torch.zeros_like(logits)
    wanted[rows, target.labels[objects]] = 1.0
    classes = F.binary_cross_entropy_with_logits(logits, wanted, reduction="sum")
    return (classes + 5 * (boxes[rows] - target.boxes[objects]).abs().sum()) / max(1, len(rows))


def _best(scores: Tensor, boxes: Tensor) -> Detections:
    best = scores.flatten().topk(min(100, scores.numel()))
    rows, labels = best.indices // scores.shape[1], best.indices % scores.shape[1]
    return Detections(boxes[rows], best.values, labels)
