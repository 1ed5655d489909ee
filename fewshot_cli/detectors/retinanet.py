"""RetinaNet on torchvision's own modules (Lin et al., arXiv 1708.02002), as a chain of layers.

Shapes: B images, S side of the canvas, A = 9 anchors a cell, K classes; levels P3 … P7 with strides 8 … 128.
The two towers of the head go in step: layer `head.i` holds the module at depth i of both.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn
from torchvision.models import ResNet50_Weights, WeightsEnum
from torchvision.models.detection import (
    RetinaNet,
    RetinaNet_ResNet50_FPN_V2_Weights,
    RetinaNet_ResNet50_FPN_Weights,
    retinanet_resnet50_fpn,
    retinanet_resnet50_fpn_v2,
)
from torchvision.models.detection.image_list import ImageList
from torchvision.models.resnet import BasicBlock, Bottleneck
from torchvision.ops import clip_boxes_to_image

from fewshot_cli.detectors.chain import Activations, Detector, Layer, Target
from fewshot_cli.detectors.predictors import ClassInit, ClassPredictor, class_names
from fewshot_cli.detectors.suppression import Candidates, Suppression
from fewshot_cli.detectors.torchvision_weights import fetched, given, hash_in, recognise_other
from fewshot_cli.detectors.weights import load_exactly, read_weights
from fewshot_cli.errors import ModelError, closest
from fewshot_cli.files import sha256_of
from fewshot_cli.progress import Reporter

COCO_CLASSES = 91  # torchvision counts the background (index 0) and the holes in COCO's numbering
# torchvision's own, but for the floor: AP ranks all detections, and 0.05 would cut the tail of the recall curve.
SUPPRESSION = Suppression(min_score=0.001, candidates=1000, iou=0.5, detections=100)
LEVELS = 5
CHANNELS = 256  # of neck and towers


@dataclass(frozen=True, slots=True)
class _Variant:
    """What differs between the two recipes."""

    construct: Any
    weights: WeightsEnum
    zero_eps: bool
    """The v1 COCO weights were trained with eps = 0 in the batch norms; torchvision sets it on loading them."""


_VARIANTS = {
    "retinanet_resnet50_fpn": _Variant(retinanet_resnet50_fpn, RetinaNet_ResNet50_FPN_Weights.COCO_V1, True),
    "retinanet_resnet50_fpn_v2": _Variant(retinanet_resnet50_fpn_v2, RetinaNet_ResNet50_FPN_V2_Weights.COCO_V1, False),
}


def build(name: str, *, image_size: int, weights: str, reporter: Reporter) -> RetinaNetDetector:
    """Build a RetinaNet with its base classes.

    Args:
        name: `retinanet_resnet50_fpn` or `retinanet_resnet50_fpn_v2`.
        image_size: side of the canvas, a multiple of 32, pixels.
        weights: `default` (COCO), `imagenet` (backbone), `none` (random), or a file.
        reporter: shows the progress of downloads.

    Raises:
        ModelError: no such variant.
        CheckpointError: a file that does not fit.
        NetworkError: the download failed.
    """
    if name not in _VARIANTS:
        raise ModelError(f"{name!r} is not a RetinaNet", hint=closest(name, _VARIANTS))
    variant = _VARIANTS[name]
    if weights == "none":
        return _assemble(name, variant, COCO_CLASSES, image_size)
    if weights == "imagenet":
        detector = _assemble(name, variant, COCO_CLASSES, image_size)
        _load_backbone(detector, fetched(ResNet50_Weights.IMAGENET1K_V1, reporter))
        return detector
    path = fetched(variant.weights, reporter) if weights == "default" else given(variant.weights, Path(weights))
    return _from_file(name, variant, path, image_size)


def recognise(state: Mapping[str, Tensor]) -> str | None:
    """The RetinaNet, or the other model of torchvision, whose weights these are; None if they are of neither."""
    other = recognise_other(state)
    if other or not is_retinanet(state, CHANNELS):
        return other
    has_norms = "head.regression_head.conv.0.1.weight" in state
    return "retinanet_resnet50_fpn_v2" if has_norms else "retinanet_resnet50_fpn"


def is_retinanet(state: Mapping[str, Tensor], channels: int) -> bool:
    """Whether these are weights of a RetinaNet with so many channels in its head."""
    predictor = state.get("head.regression_head.bbox_reg.weight")
    return predictor is not None and predictor.shape[1:] == (channels, 3, 3)


def _assemble(name: str, variant: _Variant, num_classes: int, image_size: int) -> RetinaNetDetector:
    # Plain batch norm held in eval computes what FrozenBatchNorm2d does, in nearly half the time on a CPU.
    network = variant.construct(
        weights=None,
        weights_backbone=None,
        num_classes=num_classes,
    )
    return RetinaNetDetector(name, network, _class_names(variant, num_classes), image_size)


def _class_names(variant: _Variant, count: int) -> list[str]:
    return class_names(variant.weights.meta["categories"], count)


def _from_file(name: str, variant: _Variant, path: Path, image_size: int) -> RetinaNetDetector:
    state = _modern_names(read_weights(path))
    detector = _assemble(name, variant, count_classes(state, default=COCO_CLASSES), image_size)
    load_exactly(detector.network, state, what=f"{name} from {path}")
    if variant.zero_eps and sha256_of(path).startswith(hash_in(variant.weights)):
        _set_eps(detector.network, 0.0)
    return detector


def count_classes(state: Mapping[str, Tensor], *, default: int, anchors: int = 9) -> int:
    """K of a state dict; `default` when it has no predictor, so that the mismatch is reported as one."""
    bias = state.get("head.classification_head.cls_logits.bias")
    return max(1, bias.numel() // anchors) if bias is not None else default


def _modern_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The COCO v1 file is older than torchvision's present layer names: `conv.2.weight` is now `conv.1.0.weight`."""
    return {_modern_name(name): tensor for name, tensor in state.items()}


def _modern_name(name: str) -> str:
    block, _, kind = name.rpartition(".")
    owner, _, index = block.rpartition(".")
    if owner.endswith(("fpn.inner_blocks", "fpn.layer_blocks")):
        return f"{block}.0.{kind}"
    if owner.endswith(("classification_head.conv", "regression_head.conv")) and index.isdecimal():
        return f"{owner}.{int(index) // 2}.0.{kind}"  # an activation stood at every odd place
    return name


def _load_backbone(detector: RetinaNetDetector, path: Path) -> None:
    state = {name: tensor for name, tensor in read_weights(path).items() if not name.startswith("fc.")}
    load_exactly(
        cast(nn.Module, detector.network.backbone.body), state, what=f"the backbone of {detector.name} from {path}"
    )


def _set_eps(network: nn.Module, eps: float) -> None:
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = eps


class RetinaNetDetector(Detector):
    """RetinaNet, v1 or v2: stem, four ResNet stages, FPN, four tower layers and the predictor (M = 5)."""

    network: RetinaNet
    fast_in_bf16 = True
    # The convolution on a shortcut takes the block's input, as the first one does.
    input_order: ClassVar = {
        BasicBlock: ("conv1", "downsample", "conv2"),
        Bottleneck: ("conv1", "downsample", "conv2", "conv3"),
    }

    def __init__(self, name: str, network: RetinaNet, classes: Sequence[str], image_size: int) -> None:
        super().__init__(name, classes, image_size)
        self.network = network
        # torchvision pads with 0 after normalisation, which is the mean colour before it.
        self.pad_value = [round(255 * mean) for mean in self._transform.image_mean]
        self._anchors_of: dict[tuple[Any, ...], Tensor] = {}
        for module in network.modules():
            if isinstance(module, nn.GroupNorm):
                module.register_forward_pre_hook(_channels_first)
        self.layers = self.make_layers()

    @property
    def predictors(self) -> list[ClassPredictor]:
        """One for all levels."""
        head = self.network.head.classification_head
        return [ClassPredictor("head.classification_head.cls_logits", anchors=head.num_anchors)]

    def normalize(self, pixels: Tensor) -> Tensor:
        """(B, 3, S, S) uint8 RGB → float32, scaled to 0 … 1, then by ImageNet's mean and deviation."""
        return cast(Tensor, self._transform.normalize(pixels.float() / 255))

    def loss(self, outputs: Activations, targets: Sequence[Target]) -> dict[str, Tensor]:
        """Focal loss `classification` and `bbox_regression` (L1; GIoU in v2), both per matched anchor."""
        classes, boxes = self._flat(outputs)
        anchors = [torch.cat(self._anchors(outputs))] * len(targets)
        wanted = [{"boxes": target.boxes, "labels": target.labels} for target in targets]
        head_outputs = {"cls_logits": torch.cat(classes, dim=1), "bbox_regression": torch.cat(boxes, dim=1)}
        return cast("dict[str, Tensor]", self.network.compute_loss(wanted, head_outputs, anchors))

    def candidates(self, outputs: Activations) -> tuple[Candidates, ...]:
        """The boxes of all anchors, clipped to the canvas; each level is a group."""
        classes, offsets = self._flat(outputs)
        anchors = self._anchors(outputs)
        boxes = [self._boxes(level, around) for level, around in zip(offsets, anchors, strict=True)]
        scores = torch.cat(classes, dim=1).sigmoid_()  # in place: a batch of them is large
        return (Candidates(torch.cat(boxes, dim=1), scores, [len(level) for level in anchors], SUPPRESSION),)

    def _boxes(self, offsets: Tensor, anchors: Tensor) -> Tensor:
        """(B, A, 4) offsets from (A, 4) anchors → (B, A, 4) boxes in canvas pixels."""
        coder = self.network.box_coder
        boxes = coder.decode_single(offsets.flatten(0, 1), anchors.repeat(offsets.shape[0], 1))
        return clip_boxes_to_image(boxes, self._canvas_size).unflatten(0, (-1, len(anchors)))

    def replace_classes(self, classes: Sequence[str], inits: Sequence[ClassInit]) -> None:
        """As in any detector; torchvision's head also stores the number of classes."""
        super().replace_classes(classes, inits)
        self.network.head.classification_head.num_classes = len(classes)

    @property
    def _canvas_size(self) -> tuple[int, int]:
        return self.image_size, self.image_size

    @property
    def _transform(self) -> Any:
        return self.network.transform

    def make_layers(self) -> tuple[Layer, ...]:
        stages = (
            self.make_layer("backbone.stem", "backbone", ("backbone.body.conv1", "backbone.body.bn1"), self._run_stem),
            *(
                self.make_layer(
                    f"backbone.layer{i}",
                    "backbone",
                    (f"backbone.body.layer{i}",),
                    partial(self._run_stage, f"layer{i}"),
                )
                for i in range(1, 5)
            ),
        )
        towers = tuple(
            self.make_layer(
                f"head.{depth}",
                "head",
                tuple(f"head.{tower}.conv.{depth - 1}" for tower in ("classification_head", "regression_head")),
                partial(self._run_tower, depth - 1),
            )
            for depth in range(1, 1 + len(self.network.head.classification_head.conv))
        )
        neck = self.make_layer("neck", "neck", ("backbone.fpn",), self._run_neck)
        predictors = ("head.classification_head.cls_logits", "head.regression_head.bbox_reg")
        return (
            *stages,
            neck,
            *towers,
            self.make_layer(f"head.{len(towers) + 1}", "head", predictors, self._run_predictor),
        )

    def _run_stem(self, x: Activations) -> Activations:
        body = self.network.backbone.body
        return (body.maxpool(body.relu(body.bn1(body.conv1(x[0])))),)

    def _run_stage(self, name: str, x: Activations) -> Activations:
        """From layer3 on, the inputs are passed on beside the output, because the neck needs C3, C4 and C5."""
        kept = x if name in ("layer3", "layer4") else ()
        return (*kept, self.network.backbone.body[name](x[-1]))

    def _run_neck(self, x: Activations) -> Activations:
        """(C3, C4, C5) → (P3, …, P7), 256 channels each."""
        maps = OrderedDict((str(i), features) for i, features in enumerate(x))
        return tuple(self.network.backbone.fpn(maps).values())

    def _run_tower(self, index: int, x: Activations) -> Activations:
        """5 class maps, then 5 box maps, each through the module at this depth of its tower."""
        classes, boxes = (x, x) if index == 0 else (x[:LEVELS], x[LEVELS:])
        head = self.network.head
        return (
            *(head.classification_head.conv[index](features) for features in classes),
            *(head.regression_head.conv[index](features) for features in boxes),
        )

    def _run_predictor(self, x: Activations) -> Activations:
        """→ 5 maps of class logits (B, A·K, H, W), then 5 of box offsets (B, A·4, H, W)."""
        head = self.network.head
        return (
            *(head.classification_head.cls_logits(features) for features in x[:LEVELS]),
            *(head.regression_head.bbox_reg(features) for features in x[LEVELS:]),
        )

    def _flat(self, outputs: Activations) -> tuple[list[Tensor], list[Tensor]]:
        """Per level: class logits (B, H·W·A, K) and box offsets (B, H·W·A, 4), in float32 whatever came."""
        classes = [_by_anchor(level, len(self.classes)) for level in outputs[:LEVELS]]
        return classes, [_by_anchor(level, 4) for level in outputs[LEVELS:]]

    def _anchors(self, outputs: Activations) -> list[Tensor]:
        """Per level (H·W·A, 4) float32, xyxy, canvas pixels; made once per grid and device."""
        # Plain integers, also where an exporter traces them: the grid is that of the canvas, whatever the batch.
        grid = tuple(tuple(map(int, level.shape[-2:])) for level in outputs[:LEVELS])
        key = (grid, outputs[0].device)
        if key not in self._anchors_of:
            self._anchors_of[key] = self._made_anchors(grid, outputs[0].device)
        sizes = [height * width * self.network.head.classification_head.num_anchors for height, width in grid]
        return list(self._anchors_of[key].split(sizes))

    def _made_anchors(self, grid: tuple[tuple[int, ...], ...], device: torch.device) -> Tensor:
        canvas = torch.empty(1, 3, self.image_size, self.image_size, device="meta")
        # Not as inference tensors, even when evaluation comes first: training needs them in its graph later.
        with torch.inference_mode(False):
            maps = [torch.empty(1, 0, *size, device=device) for size in grid]
            return cast(Tensor, self.network.anchor_generator(ImageList(canvas, [self._canvas_size]), maps)[0])


def _channels_first(_: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
    """Group norm's backward pass is slow in channels-last bf16 on a CPU; the next convolution turns it back."""
    return (inputs[0].contiguous(),)


def _by_anchor(maps: Tensor, width: int) -> Tensor:
    """(B, A·width, H, W) → (B, H·W·A, width) float32: losses and boxes are not for half precision."""
    batch, _, height, columns = maps.shape
    split = maps.reshape(batch, -1, width, height, columns).permute(0, 3, 4, 1, 2)
    return split.reshape(batch, -1, width).float()
