"""YOLOX from nano to x as chains of layers: M = 4 (stem, conv, conv, predictor)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.detection import RetinaNet_ResNet50_FPN_Weights

from fewshot_cli.detectors import simota
from fewshot_cli.detectors.chain import Activations, Detector, Layer, ParameterGroup, SmallObjects, Target
from fewshot_cli.detectors.positives import Matched, of_class, paired_iou
from fewshot_cli.detectors.predictors import ClassPredictor, class_names, start_rare
from fewshot_cli.detectors.suppression import Candidates, Suppression
from fewshot_cli.detectors.weights import check_hash, load_exactly, read_weights
from fewshot_cli.detectors.yolox_network import STRIDES, CSPStage, Size, YoloxNetwork
from fewshot_cli.download import cache_folder, download
from fewshot_cli.progress import Reporter

SIZES = {
    "yolox_nano": Size(depth=0.33, width=0.25, depthwise=True),
    "yolox_tiny": Size(depth=0.33, width=0.375),
    "yolox_s": Size(depth=0.33, width=0.5),
    "yolox_m": Size(depth=0.67, width=0.75),
    "yolox_l": Size(depth=1.0, width=1.0),
    "yolox_x": Size(depth=1.33, width=1.25),
}
PIXEL_SCALE = 256.0
"""The first convolution gets pixels of 0 … 1, not of 0 … 255 as in its pretraining, and its weights are so much larger.

A step of Adam is about as large as the rate, whatever the weight: on pixels of 0 … 255 it would change the sums of that
convolution hundreds of times as much as the others', and its gradient would dominate the norm that is clipped. A power
of two, so that no bit of the outputs changes.
"""
BOX_LOSS_WEIGHT = 5.0
# mAP integrates over the whole precision–recall curve, so its low-score tail is kept.
SUPPRESSION = Suppression(min_score=0.001, candidates=1000, iou=0.65, detections=100)
LEVELS = len(STRIDES)
COCO_CLASSES = 80
SMALL_OBJECTS = SmallObjects(side=64, lr=2.0)
"""Objects that a level of stride 8 is for (FCOS, arXiv 1904.01355, section 3.2), and its share of the learning rate if
they are the rule (examples/defaults.md)."""
NECK = ("lateral_conv0", "C3_p4", "reduce_conv1", "C3_p3", "bu_conv2", "C3_n3", "bu_conv1", "C3_n4")

RELEASE = "https://github.com/Megvii-BaseDetection/YOLOX/releases/download/0.1.1rc0"
"""Where the authors publish their COCO weights, one `NAME.pth` per detector."""


class ReleasedFile(NamedTuple):
    """A file of the release: bytes, and the first digits of its SHA-256."""

    size: int
    sha256: str


RELEASED = {
    "yolox_nano": ReleasedFile(7_694_953, "cd28f55fbbc1829f"),
    "yolox_tiny": ReleasedFile(40_755_013, "9de513de589ac98b"),
    "yolox_s": ReleasedFile(72_089_125, "f55ded7181e1b0c1"),
    "yolox_m": ReleasedFile(203_114_461, "60076992b32da829"),
    "yolox_l": ReleasedFile(434_357_141, "1e6b7fa624037537"),
    "yolox_x": ReleasedFile(793_463_373, "5652330b6ae86004"),
}
"""The files also hold the optimizer's momentum, so they are twice as large as the weights."""


def build(name: str, *, image_size: int, weights: str, reporter: Reporter) -> Yolox:
    """Build a YOLOX with its base classes.

    Args:
        name: a key of SIZES.
        image_size: side of the canvas, a multiple of 32, pixels.
        weights: `default` (the authors' COCO weights, downloaded once), `none` (random), or a file.
        reporter: shows the progress of the download.

    Raises:
        CheckpointError: a file that does not fit.
        NetworkError: the download failed.
    """
    if weights == "none":
        return Yolox(name, base_classes(COCO_CLASSES), image_size)
    path = _released(name, reporter) if weights == "default" else _given(name, Path(weights))
    state = read_weights(path)
    predictor = state.get("head.cls_preds.0.bias")
    count = COCO_CLASSES if predictor is None else max(1, predictor.numel())
    detector = Yolox(name, base_classes(count), image_size)
    load_exactly(detector.network, state, what=f"{name} from {path}")
    with torch.no_grad():
        detector.network.backbone.backbone.stem.conv.conv.weight.mul_(PIXEL_SCALE)
    detector.pretrained = True
    return detector


def recognise(state: Mapping[str, Tensor]) -> str | None:
    """The YOLOX whose weights these are, by the width of the first stem of the head; None if they are of no YOLOX."""
    stem = state.get("head.stems.0.conv.weight")
    if stem is None:
        return None
    names: dict[tuple[int, ...], str] = {
        (size.channels(256), size.channels(256), 1, 1): name for name, size in SIZES.items()
    }
    return names.get(tuple(stem.shape), "a YOLOX of another width")


def base_classes(count: int) -> list[str]:
    """COCO's 80 names; numbers if there are not 80 classes."""
    categories = RetinaNet_ResNet50_FPN_Weights.COCO_V1.meta["categories"]
    return class_names([name for name in categories if name not in ("__background__", "N/A")], count)


def _given(name: str, path: Path) -> Path:
    """A file with the name and the size of the released one must be that."""
    file = RELEASED[name]
    same = path.name == f"{name}.pth" and path.is_file() and path.stat().st_size == file.size
    return check_hash(path, file.sha256) if same else path


def _released(name: str, reporter: Reporter) -> Path:
    path, file = cache_folder() / "weights" / f"{name}.pth", RELEASED[name]
    if path.exists():
        return check_hash(path, file.sha256)
    hint = f"Without a network give --weights FILE (a copy of {name}.pth) or --weights none."
    return download(
        f"{RELEASE}/{name}.pth",
        path,
        expected_size=file.size,
        sha256_prefix=file.sha256,
        reporter=reporter,
        hint=hint,
    )


class Predictions(NamedTuple):
    """The three levels side by side: A = all cells.

    boxes: (B, A, 4) xyxy canvas pixels; classes: (B, A, K) logits; objectness: (B, A, 1) logits;
    centers: (A, 2) cell centres in canvas pixels; strides: (A,) pixels.
    """

    boxes: Tensor
    classes: Tensor
    objectness: Tensor
    centers: Tensor
    strides: Tensor


class Yolox(Detector):
    """A YOLOX detector; its input is BGR as in its pretraining, but see PIXEL_SCALE."""

    network: YoloxNetwork
    pad_value = 114
    input_order: ClassVar = {CSPStage: ("conv1", "conv2", "m", "conv3")}
    classification_losses = ("class", "objectness")
    localisation_losses = ("box",)

    def __init__(self, name: str, classes: Sequence[str], image_size: int) -> None:
        super().__init__(name, classes, image_size)
        self.network = YoloxNetwork(SIZES[name], len(self.classes))
        self.layers = self.make_layers()
        for predictor in (*self.network.head.cls_preds, *self.network.head.obj_preds):
            start_rare(predictor)

    @property
    def predictors(self) -> list[ClassPredictor]:
        """One per level."""
        return [ClassPredictor(name) for name in _per_level("cls_preds")]

    def make_layers(self) -> tuple[Layer, ...]:
        return (
            self._stage("stem", kept=0),
            self._stage("dark2", kept=0),
            self._stage("dark3", kept=0),
            self._stage("dark4", kept=1),
            self._stage("dark5", kept=2),
            self.make_layer("neck", "neck", [f"backbone.{name}" for name in NECK], self._run_neck),
            self.make_layer("head.1", "head", _per_level("stems"), self._run_stems),
            self.make_layer("head.2", "head", _per_level("cls_convs.0", "reg_convs.0"), partial(self._run_tower, 0)),
            self.make_layer("head.3", "head", _per_level("cls_convs.1", "reg_convs.1"), partial(self._run_tower, 1)),
            self.make_layer("head.4", "head", _per_level("cls_preds", "reg_preds", "obj_preds"), self._run_predictor),
        )

    def _stage(self, name: str, kept: int) -> Layer:
        forward = partial(self._run_stage, name, kept)
        return self.make_layer(f"backbone.{name}", "backbone", [f"backbone.backbone.{name}"], forward)

    def _run_stage(self, name: str, kept: int, x: Activations) -> Activations:
        """C3 and C4 are passed on beside the output, because the neck needs them and C5."""
        return (*x[:kept], self.network.backbone.backbone.get_submodule(name)(x[-1]))

    def _run_neck(self, x: Activations) -> Activations:
        return self.network.backbone.aggregate(*x)

    def _run_stems(self, x: Activations) -> Activations:
        return _each(self.network.head.stems, x)

    def _run_tower(self, depth: int, x: Activations) -> Activations:
        """3 class maps, then 3 box maps, each through the block at this depth of its tower."""
        classes, boxes = (x, x) if depth == 0 else (x[:LEVELS], x[LEVELS:])
        head = self.network.head
        return (
            *(tower.get_submodule(str(depth))(level) for tower, level in zip(head.cls_convs, classes, strict=True)),
            *(tower.get_submodule(str(depth))(level) for tower, level in zip(head.reg_convs, boxes, strict=True)),
        )

    def _run_predictor(self, x: Activations) -> Activations:
        """3 maps of class logits, 3 of box offsets, 3 of objectness logits."""
        head, classes, boxes = self.network.head, x[:LEVELS], x[LEVELS:]
        return (*_each(head.cls_preds, classes), *_each(head.reg_preds, boxes), *_each(head.obj_preds, boxes))

    def predictor_maps(self, activations: Activations) -> Activations:
        return activations[:LEVELS]

    def parameter_groups(self) -> tuple[ParameterGroup, ...]:
        """The stride-8 level of the head is a group of its own, for small objects: levels share no weights."""
        head, before = super().parameter_groups()
        fine = {name: parameter for name, parameter in head.parameters.items() if _level_of(name) == 0}
        rest = {name: parameter for name, parameter in head.parameters.items() if name not in fine}
        return (
            ParameterGroup("the head's stride-8 level", "small-objects", fine, SMALL_OBJECTS),
            replace(head, parameters=rest),
            before,
        )

    def normalize(self, pixels: Tensor) -> Tensor:
        return pixels.flip(1).float() / PIXEL_SCALE

    def predictions(self, outputs: Activations) -> Predictions:
        """Maps of the three levels → one list of cells with boxes in canvas pixels."""
        classes, boxes, objectness = (_cells(outputs[i : i + LEVELS]) for i in range(0, 3 * LEVELS, LEVELS))
        corners, strides = _grid(outputs[:LEVELS])
        middles = boxes[..., :2] * strides[:, None] + corners
        sizes = boxes[..., 2:].exp() * strides[:, None]
        return Predictions(
            boxes=torch.cat([middles - sizes / 2, middles + sizes / 2], dim=-1),
            classes=classes,
            objectness=objectness,
            centers=corners + strides[:, None] / 2,
            strides=strides,
        )

    def loss(self, outputs: Activations, targets: Sequence[Target]) -> dict[str, Tensor]:
        found = self.predictions(outputs)
        matched = torch.zeros_like(found.objectness)
        boxes, wanted_boxes, classes, wanted_classes, labels = [], [], [], [], []
        for i, target in enumerate(targets):
            pairs = simota.assign(
                found.boxes[i],
                found.classes[i],
                found.objectness[i],
                found.centers,
                found.strides,
                target.boxes,
                target.labels,
            )
            matched[i, pairs.predictions] = 1.0
            boxes.append(found.boxes[i, pairs.predictions])
            wanted_boxes.append(target.boxes[pairs.objects])
            classes.append(found.classes[i, pairs.predictions])
            labels.append(target.labels[pairs.objects])
            one_hot = F.one_hot(labels[-1], len(self.classes)).float()
            wanted_classes.append(one_hot * pairs.ious[:, None])
        count = matched.sum().clamp(min=1)
        iou = paired_iou(torch.cat(boxes), torch.cat(wanted_boxes))
        class_loss = F.binary_cross_entropy_with_logits(torch.cat(classes), torch.cat(wanted_classes), reduction="sum")
        objectness = F.binary_cross_entropy_with_logits(found.objectness, matched, reduction="sum")
        self.collect(
            lambda: Matched(
                of_class(torch.cat(classes).sigmoid(), torch.cat(labels)), torch.cat(boxes), torch.cat(wanted_boxes)
            )
        )
        return {
            "box": BOX_LOSS_WEIGHT * (1 - iou**2).sum() / count,
            "objectness": objectness / count,
            "class": class_loss / count,
        }

    def candidates(self, outputs: Activations) -> tuple[Candidates, ...]:
        """The boxes of all cells, in one group."""
        found = self.predictions(tuple(maps.float() for maps in outputs))
        scores = found.classes.sigmoid() * found.objectness.sigmoid()
        return (Candidates(found.boxes, scores, [len(found.strides)], SUPPRESSION),)


def _per_level(*lists: str) -> list[str]:
    """Names of the head's modules at every level: `cls_convs.1` stands for `head.cls_convs.0.1` and so on."""
    parts = [name.partition(".") for name in lists]
    return [f"head.{name}.{level}{dot}{depth}" for name, dot, depth in parts for level in range(LEVELS)]


def _level_of(parameter: str) -> int | None:
    """The level of a parameter of the head, e.g. 0 of `head.cls_convs.0.1.conv.weight`; None for one of the neck."""
    part, _, level, *_ = parameter.split(".")
    return int(level) if part == "head" else None


def _each(modules: nn.ModuleList, maps: Activations) -> Activations:
    """Each map through the module of its level."""
    return tuple(module(level) for module, level in zip(modules, maps, strict=True))


def _cells(maps: Activations) -> Tensor:
    """(B, C, H, W) per level → (B, A, C) in float32: losses and boxes are not for half precision."""
    return torch.cat([level.flatten(2) for level in maps], dim=2).transpose(1, 2).float()


def _grid(maps: Activations) -> tuple[Tensor, Tensor]:
    """Cells' top-left corners (A, 2) in canvas pixels, and their strides (A,)."""
    corners, strides = [], []
    for level, stride in zip(maps, STRIDES, strict=True):
        height, width = level.shape[-2:]
        rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        corners.append(torch.stack([columns, rows], dim=-1).reshape(-1, 2) * stride)
        strides.append(torch.full((height * width,), stride))
    device = maps[0].device
    return torch.cat(corners).float().to(device), torch.cat(strides).float().to(device)
