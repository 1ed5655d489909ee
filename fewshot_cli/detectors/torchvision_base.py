"""What torchvision's detectors share: their input, the stages of a classifier's body as layers, and anchors.

Shapes: B images, S side of the canvas, A anchors a cell.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn
from torchvision.models.detection.anchor_utils import AnchorGenerator, DefaultBoxGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.models.resnet import BasicBlock, Bottleneck

from fewshot_cli.detectors.chain import Activations, Detector, Layer, Target
from fewshot_cli.detectors.positives import Matched, of_class

Grid = tuple[tuple[int, int], ...]
"""(height, width) of the map of each level."""


class TorchvisionDetector(Detector):
    """A detector on torchvision's modules; a subclass makes the layers behind the backbone.

    Args:
        network: torchvision's, with its `transform`.
    """

    network: Any
    # The convolution on a shortcut takes the block's input, as the first one does.
    input_order: ClassVar = {
        BasicBlock: ("conv1", "bn1", "downsample", "conv2", "bn2"),
        Bottleneck: ("conv1", "bn1", "downsample", "conv2", "bn2", "conv3", "bn3"),
    }

    def __init__(self, name: str, network: nn.Module, classes: Sequence[str], image_size: int) -> None:
        super().__init__(name, classes, image_size)
        self.network = network
        # torchvision pads with 0 after normalisation, which is the mean colour before it.
        self.pad_value = [round(255 * mean) for mean in self.network.transform.image_mean]
        self._anchors_of: dict[tuple[Grid, torch.device], Tensor] = {}
        self.layers = self.make_layers()

    @property
    @abstractmethod
    def anchor_generator(self) -> AnchorGenerator | DefaultBoxGenerator:
        """torchvision's."""

    def normalize(self, pixels: Tensor) -> Tensor:
        """(B, 3, S, S) uint8 RGB → float32, scaled to 0 … 1, then by the network's mean and deviation."""
        return cast(Tensor, self.network.transform.normalize(pixels.float() / 255))

    @property
    def canvas_size(self) -> tuple[int, int]:
        return self.image_size, self.image_size

    # Positives of the one-stage detectors.

    def class_scores(self, logits: Tensor) -> Tensor:
        """Logits of an anchor's classes → their scores (…, K)."""
        return logits.sigmoid()

    def decoded(self, offsets: Tensor, anchors: Tensor) -> Tensor:
        """(P, 4) offsets from (P, 4) anchors → (P, 4) boxes in canvas pixels, not clipped."""
        return cast(Tensor, self.network.box_coder.decode_single(offsets, anchors))

    def matched(
        self, found: Mapping[str, Tensor], anchors: Tensor, objects: Sequence[Tensor], targets: Sequence[Target]
    ) -> Matched:
        """What torchvision's loss matched.

        Args:
            found: `cls_logits` and `bbox_regression`, (B, anchors, …).
            anchors: (anchors, 4), xyxy, canvas pixels.
            objects: of each image (anchors,) int64, the object of each anchor, negative for none.
            targets: of each image.
        """
        parts = []
        for logits, offsets, of, target in zip(
            found["cls_logits"], found["bbox_regression"], objects, targets, strict=True
        ):
            rows = (of >= 0).nonzero()[:, 0]
            scores = of_class(self.class_scores(logits[rows]), target.labels[of[rows]])
            parts.append(Matched(scores, self.decoded(offsets[rows], anchors[rows]), target.boxes[of[rows]]))
        return Matched(*(torch.cat(part) for part in zip(*parts, strict=True)))

    # Stages of the backbone.

    def make_stages(self, children: Sequence[str], taken: Collection[str]) -> list[Layer]:
        """The stages of a body.

        Args:
            children: of the body, in order, by their qualified names.
            taken: those of them whose outputs the next layers need, besides the last one's.
        """
        layers, before = [], ""
        for name, stage in self._stages(children).items():
            modules = [child for child in stage if self.network.get_submodule(child).state_dict()]
            run = partial(self._run_stage, stage, taken, before in taken)
            layers.append(self.make_layer(f"backbone.{name}", "backbone", modules, run))
            before = stage[-1]
        return layers

    def _stages(self, children: Sequence[str]) -> dict[str, list[str]]:
        """Name → children. A ResNet has a stem and four stages; elsewhere one begins where maps become smaller."""
        names = [child.rpartition(".")[2] for child in children]
        if "layer1" in names:
            stem = names.index("layer1")
            return {
                "stem": list(children[:stem]),
                **{name: [children[stem + i]] for i, name in enumerate(names[stem:])},
            }
        stages: list[list[str]] = []
        for child in children:
            if not stages or _shrinks(self.network.get_submodule(child)):
                stages.append([])
            stages[-1].append(child)
        return {f"stage{number}": stage for number, stage in enumerate(stages, start=1)}

    def _run_stage(self, stage: Sequence[str], taken: Collection[str], keep: bool, x: Activations) -> Activations:
        """Outputs that are needed later are passed on in front of the last one.

        Args:
            stage: modules, one after the other.
            taken: names of modules whose outputs are needed later.
            keep: whether the input is needed later, too.
        """
        features, kept = x[-1], x if keep else x[:-1]
        for name in stage:
            features = self.network.get_submodule(name)(features)
            if name in taken:
                kept = (*kept, features)
        return kept if stage[-1] in taken else (*kept, features)

    # Anchors.

    def anchors(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Per level (H·W·A, 4) float32, xyxy, canvas pixels, for maps (B, …, H, W); made once per grid and device."""
        # Plain integers, also where an exporter traces them: the grid is that of the canvas, whatever the batch.
        grid = tuple((int(level.shape[-2]), int(level.shape[-1])) for level in maps)
        key = (grid, maps[0].device)
        if key not in self._anchors_of:
            self._anchors_of[key] = self._made_anchors(grid, maps[0].device)
        each = self.anchor_generator.num_anchors_per_location()
        sizes = [height * width * anchors for (height, width), anchors in zip(grid, each, strict=True)]
        return list(self._anchors_of[key].split(sizes))

    def _made_anchors(self, grid: Grid, device: torch.device) -> Tensor:
        canvas = torch.empty(1, 3, *self.canvas_size, device="meta")
        # Not as inference tensors, even when evaluation comes first: training needs them in its graph later.
        with torch.inference_mode(False):
            maps = [torch.empty(1, 0, *size, device=device) for size in grid]
            return cast(Tensor, self.anchor_generator(ImageList(canvas, [self.canvas_size]), maps)[0])


def by_anchor(maps: Tensor, width: int) -> Tensor:
    """(B, A·width, H, W) → (B, H·W·A, width) float32: losses and boxes are not for half precision."""
    batch, _, height, columns = maps.shape
    split = maps.reshape(batch, -1, width, height, columns).permute(0, 3, 4, 1, 2)
    return split.reshape(batch, -1, width).float()


def _shrinks(block: nn.Module) -> bool:
    """Whether a convolution or a pooling in it has a stride."""
    strides = (module.stride for module in block.modules() if isinstance(module, nn.Conv2d | nn.MaxPool2d))
    return any(stride not in (1, (1, 1)) for stride in strides)
