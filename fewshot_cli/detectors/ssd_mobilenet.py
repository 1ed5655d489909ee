"""SSD on MobileNetV2 and FPN with a tower of four convolutions (Liu et al., arXiv 1512.02325): M = 5.

Shapes: B images, S side of the canvas, N anchors of all levels, K classes; levels P3 … P7 with strides 8 … 128.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import MobileNet_V2_Weights
from torchvision.ops import box_iou

from fewshot_cli.detectors.architecture import OWN, Architecture, loaded_whole
from fewshot_cli.detectors.chain import Activations, Detector, Layer, Target
from fewshot_cli.detectors.coco_classes import COCO_NAMES
from fewshot_cli.detectors.positives import Matched, of_class
from fewshot_cli.detectors.predictors import ClassPredictor, class_names, start_rare
from fewshot_cli.detectors.ssd_network import ANCHORS, CHANNELS, DEPTH, LEVELS, STAGES, STRIDES, SsdNetwork
from fewshot_cli.detectors.ssd_onnx import read_onnx
from fewshot_cli.detectors.suppression import Candidates, Suppression
from fewshot_cli.detectors.torchvision_weights import fetched
from fewshot_cli.detectors.weights import check_hash, load_exactly, read_weights
from fewshot_cli.download import cache_folder, download
from fewshot_cli.progress import Reporter

# mAP integrates over the whole precision–recall curve, so its low-score tail is kept.
SUPPRESSION = Suppression(min_score=0.001, candidates=1000, iou=0.6, detections=100)
SMALLEST, LARGEST = (26.67468, 36.61762), (230.4, 250.88)
"""Sides of the square anchors of P3 and of P7, pixels: those that the published weights were trained with.

The authors' rule for a canvas of 256 (https://github.com/STMicroelectronics/stm32ai-modelzoo-services,
`get_sizes_ratios_ssd_v2`). Their file has the same anchors, rounded to the steps of its int8 numbers.
"""
RATIOS = (1.0, 2.0, 1 / 2, 1 / 3)
"""Width to height of the anchors of the smaller side; the larger one is square."""
MATCH_IOU = 0.5
NEGATIVES = 3
"""Background anchors that count in the loss, for each one with an object."""


class PublishedFile(NamedTuple):
    """Where a file is, its bytes, and the first digits of its SHA-256."""

    url: str
    size: int
    sha256: str


PUBLISHED = PublishedFile(
    "https://raw.githubusercontent.com/STMicroelectronics/meta-st-x-linux-ai/"
    "6813080f1bb326793950c5a3ae02a3fd59a94f28/recipes-samples/object-detection/models/files/ssd_mobilenet_v2_fpnlite_10_256_int8.onnx",
    3_861_899,
    "18f7a27f0ebd2e21",
)
"""The authors' int8 weights, trained on COCO."""


def build(
    name: str, *, image_size: int, weights: str, reporter: Reporter, architecture: Architecture = OWN
) -> SsdMobilenet:
    """Build the SSD with its base classes.

    Args:
        name: `ssd_mobilenet_v2_fpnlite`.
        image_size: side of the canvas, a multiple of 32, pixels.
        weights: `default` (the authors' COCO weights, downloaded once), `imagenet` (backbone), `none` (random), or a
            file: the published ONNX file, or a state dict of this network or of its backbone alone.
        reporter: shows the progress of downloads.
        architecture: depth and channels of the head, for weights of the backbone alone or none.

    Raises:
        CheckpointError: a file that does not fit.
        ConfigError: the package onnx, which reads the published file, is missing; or a size was chosen, and the weights
            are of the whole detector.
        NetworkError: the download failed.
    """
    if weights == "none":
        return SsdMobilenet(name, base_classes(len(COCO_NAMES)), image_size, architecture)
    path = _path_of(weights, reporter)
    state = read_onnx(path) if path.suffix.lower() == ".onnx" else read_weights(path)
    if _is_backbone(state):
        return _from_backbone(name, image_size, state, path, architecture)
    if architecture.chosen:
        raise loaded_whole(architecture, path)
    detector = SsdMobilenet(name, base_classes(_count_classes(state)), image_size)
    load_exactly(detector.network, state, what=f"{name} from {path}")
    detector.pretrained = True
    return detector


def recognise(state: Mapping[str, Tensor]) -> str | None:
    """`ssd_mobilenet_v2_fpnlite`, a MobileNetV2 classifier, or None if the weights are of neither."""
    if "head.towers.0.0.depthwise.weight" in state:
        return "ssd_mobilenet_v2_fpnlite"
    return "a MobileNetV2 classifier" if _is_backbone(state) else None


def base_classes(count: int) -> list[str]:
    """COCO's 80 names; numbers if there are not 80 classes."""
    return class_names(COCO_NAMES, count)


def _is_backbone(state: Mapping[str, Tensor]) -> bool:
    return "features.18.0.weight" in state and all(name.startswith(("features.", "classifier.")) for name in state)


def _count_classes(state: Mapping[str, Tensor]) -> int:
    bias = state.get("head.classes.0.pointwise.bias")
    return len(COCO_NAMES) if bias is None else max(1, bias.numel() // ANCHORS - 1)


def _path_of(weights: str, reporter: Reporter) -> Path:
    """The file, downloaded if it is a published one that is absent."""
    if weights == "imagenet":
        return fetched(MobileNet_V2_Weights.IMAGENET1K_V1, reporter)
    return _published(reporter) if weights == "default" else _given(Path(weights))


def _given(path: Path) -> Path:
    """A file with the name and the size of the published one must be that."""
    same = path.name == PUBLISHED.url.rpartition("/")[2] and path.is_file() and path.stat().st_size == PUBLISHED.size
    return check_hash(path, PUBLISHED.sha256) if same else path


def _published(reporter: Reporter) -> Path:
    path = cache_folder() / "weights" / PUBLISHED.url.rpartition("/")[2]
    if path.exists():
        return check_hash(path, PUBLISHED.sha256)
    hint = f"Without a network give --weights FILE (a copy of {path.name}) or --weights none."
    return download(
        PUBLISHED.url, path, expected_size=PUBLISHED.size, sha256_prefix=PUBLISHED.sha256, reporter=reporter, hint=hint
    )


def _from_backbone(
    name: str, image_size: int, state: Mapping[str, Tensor], path: Path, architecture: Architecture
) -> SsdMobilenet:
    """A classifier's features under a random head."""
    detector = SsdMobilenet(name, base_classes(len(COCO_NAMES)), image_size, architecture)
    features = {key.removeprefix("features."): each for key, each in state.items() if key.startswith("features.")}
    load_exactly(detector.network.features, features, what=f"the backbone of {name} from {path}")
    _take_unit_range(detector.network.features[0])
    return detector


@torch.no_grad()
def _take_unit_range(first: nn.Module) -> None:
    """Let a classifier's first convolution and norm take pixels of −1 … 1, not normalised by ImageNet's statistics."""
    convolution, norm, _ = first.children()
    assert isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d) and norm.running_mean is not None
    transform = MobileNet_V2_Weights.IMAGENET1K_V1.transforms()
    mean, deviation = torch.tensor(transform.mean), torch.tensor(transform.std)
    shift = convolution.weight * ((0.5 - mean) / deviation)[:, None, None]
    norm.running_mean -= shift.sum(dim=(1, 2, 3))
    convolution.weight *= (0.5 / deviation)[:, None, None]


class SsdMobilenet(Detector):
    """SSD with MobileNetV2, FPN, a tower common to classes and boxes, and softmax over the classes and a background.

    The head has M = 5 layers, unless an `Architecture` says otherwise, each on all levels: `head.1` … `head.4` are the
    separable convolutions of the tower (3×3 depthwise and 1×1 together, as between two activations), `head.5` is the
    predictor, a separable convolution for the classes and one for the boxes. Levels share no weights. The backbone's
    stages are its blocks of one stride.

    Boxes are (x1, y1, x2, y2) offsets of an anchor's corners, in shares of its width and height.
    """

    network: SsdNetwork
    stretches = True
    classification_losses = ("class",)
    localisation_losses = ("box",)

    def __init__(self, name: str, classes: Sequence[str], image_size: int, architecture: Architecture = OWN) -> None:
        super().__init__(name, classes, image_size)
        depth = architecture.head_depth - 1 if architecture.head_depth else DEPTH
        channels = architecture.head_channels or CHANNELS
        self.network = SsdNetwork(len(self.classes), channels=channels, depth=depth)
        self.layers = self.make_layers()
        for predictor in self.predictors:
            start_rare(self.network.get_submodule(predictor.name), predictor)

    @property
    def predictors(self) -> list[ClassPredictor]:
        """One per level."""
        return [
            ClassPredictor(f"head.classes.{level}.pointwise", anchors=ANCHORS, background=True)
            for level in range(LEVELS)
        ]

    def make_layers(self) -> tuple[Layer, ...]:
        depth = self.network.head.depth
        return (
            *(self._stage(number) for number in range(len(STAGES))),
            self.make_layer("neck", "neck", ["neck"], self._run_neck),
            *(
                self.make_layer(
                    f"head.{place + 1}", "head", _per_level(f"towers.{{}}.{place}"), partial(self._run_tower, place)
                )
                for place in range(depth)
            ),
            self.make_layer(f"head.{depth + 1}", "head", _per_level("classes.{}", "boxes.{}"), self._run_predictor),
        )

    def _stage(self, number: int) -> Layer:
        blocks = [f"features.{block}" for block in range(*STAGES[number])]
        return self.make_layer(f"backbone.{number + 1}", "backbone", blocks, partial(self._run_stage, number))

    def _run_stage(self, number: int, x: Activations) -> Activations:
        """From the fourth on, the inputs are passed on beside the output, because the neck needs C3, C4 and C5."""
        kept = x if number > 2 else ()
        return (*kept, self.network.features[slice(*STAGES[number])](x[-1]))

    def _run_neck(self, x: Activations) -> Activations:
        """(C3, C4, C5) → (P3, …, P7), with the channels of the head."""
        return self.network.neck(*x)

    def _run_tower(self, depth: int, x: Activations) -> Activations:
        return tuple(
            tower.get_submodule(str(depth))(maps) for tower, maps in zip(self.network.head.towers, x, strict=True)
        )

    def _run_predictor(self, x: Activations) -> Activations:
        """→ 5 maps of class logits (B, ANCHORS·(1 + K), H, W), then 5 of box offsets (B, ANCHORS·4, H, W)."""
        head = self.network.head
        modules = (*head.classes, *head.boxes)
        return tuple(module(maps) for module, maps in zip(modules, (*x, *x), strict=True))

    def normalize(self, pixels: Tensor) -> Tensor:
        """(B, 3, S, S) uint8 RGB → float32 of −1 … 1."""
        return pixels.float() / 127.5 - 1

    def loss(self, outputs: Activations, targets: Sequence[Target]) -> dict[str, Tensor]:
        """Softmax cross entropy `class`, smooth L1 of the offsets `box` (SSD, section 2.2), both per matched anchor."""
        logits, offsets, anchors = self._flat(outputs)
        labels, boxes = (
            torch.stack(parts)
            for parts in zip(*(match(target.boxes, target.labels, anchors) for target in targets), strict=True)
        )
        matched = labels > 0
        count = matched.sum().clamp(min=1)
        by_anchor = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none").view_as(matched)
        hardest = by_anchor[~matched].topk(min(NEGATIVES * int(count), int((~matched).sum()))).values
        wanted = (boxes - anchors) / _sides(anchors)
        box = F.smooth_l1_loss(offsets[matched], wanted[matched], reduction="sum")
        self.collect(
            lambda: Matched(
                of_class(logits[matched].softmax(dim=-1), labels[matched]),
                (anchors + offsets * _sides(anchors))[matched],
                boxes[matched],
            )
        )
        return {"class": (by_anchor[matched].sum() + hardest.sum()) / count, "box": box / count}

    def candidates(self, outputs: Activations) -> tuple[Candidates, ...]:
        """The boxes of all anchors, in one group."""
        logits, offsets, anchors = self._flat(outputs)
        scores = logits.softmax(dim=-1)[..., 1:]
        return (Candidates(anchors + offsets * _sides(anchors), scores, [len(anchors)], SUPPRESSION),)

    def _flat(self, outputs: Activations) -> tuple[Tensor, Tensor, Tensor]:
        """All levels side by side: logits (B, N, 1 + K), offsets (B, N, 4) and anchors (N, 4), canvas pixels."""
        logits, offsets = (
            torch.cat([_by_anchor(maps) for maps in outputs[start : start + LEVELS]], dim=1) for start in (0, LEVELS)
        )
        sizes = tuple((int(maps.shape[-2]), int(maps.shape[-1])) for maps in outputs[:LEVELS])
        return logits, offsets, anchors_of(sizes).to(logits.device)


@lru_cache(maxsize=8)
@torch.inference_mode(mode=False)  # kept, so that they may serve a training after a prediction
def anchors_of(sizes: tuple[tuple[int, int], ...]) -> Tensor:
    """The anchors, level by level, row by row, cell by cell.

    Four of a smaller side with RATIOS and a larger square, centred in each cell; the sides of the levels between P3 and
    P7 lie on a line. They are pixels, whatever the canvas: what a cell sees does not grow with it.

    Args:
        sizes: (height, width) of each level's map, cells.

    Returns:
        (N, 4) float32, xyxy, canvas pixels; they may reach beyond the canvas.
    """
    anchors = []
    for level, ((rows, columns), stride) in enumerate(zip(sizes, STRIDES, strict=True)):
        share = level / (LEVELS - 1)
        small, large = (least + share * (most - least) for least, most in zip(SMALLEST, LARGEST, strict=True))
        shapes = [(small * ratio**0.5, small / ratio**0.5) for ratio in RATIOS] + [(large, large)]
        halves = torch.tensor(shapes) / 2
        y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
        centers = stride * (torch.stack([x, y], dim=-1).reshape(-1, 1, 2) + 0.5)
        anchors.append(torch.cat([centers - halves, centers + halves], dim=-1).reshape(-1, 4))
    return torch.cat(anchors)


def match(boxes: Tensor, labels: Tensor, anchors: Tensor) -> tuple[Tensor, Tensor]:
    """What each anchor should say (SSD, section 2.2).

    An anchor is matched with the object that it overlaps most, if their IoU is MATCH_IOU or more; besides, each object
    with the anchor that overlaps it most.

    Args:
        boxes: (M, 4) of the objects, xyxy; labels: (M,) int64; anchors: (N, 4).

    Returns:
        (N,) int64, 1 + the label of the object, 0 for the background, and (N, 4), its box, any for the background.
    """
    if not len(boxes):
        return labels.new_zeros(len(anchors)), anchors
    overlaps = box_iou(boxes, anchors)
    best, objects = overlaps.max(dim=0)
    own = overlaps.argmax(dim=1)
    objects[own] = torch.arange(len(boxes), device=own.device)
    matched = best >= MATCH_IOU
    matched[own] = True
    return torch.where(matched, labels[objects] + 1, 0), boxes[objects]


def _per_level(*names: str) -> list[str]:
    """Names of the head's modules at every level: `towers.{}.0` stands for `head.towers.0.0` and so on."""
    return [f"head.{name.format(level)}" for name in names for level in range(LEVELS)]


def _sides(boxes: Tensor) -> Tensor:
    """(N, 4) xyxy → (N, 4) width, height, width, height."""
    return (boxes[:, 2:] - boxes[:, :2]).repeat(1, 2)


def _by_anchor(maps: Tensor) -> Tensor:
    """(B, ANCHORS·R, H, W) → (B, H·W·ANCHORS, R) float32: losses and boxes are not for half precision."""
    batch, _, height, width = maps.shape
    split = maps.reshape(batch, ANCHORS, -1, height, width).permute(0, 3, 4, 1, 2)
    return split.reshape(batch, height * width * ANCHORS, -1).float()
