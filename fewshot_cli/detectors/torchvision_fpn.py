"""torchvision's detectors on an FPN (arXiv 1612.03144), and those of them whose head is two towers.

Shapes: B images, A anchors a cell, K classes.
"""

from __future__ import annotations

from abc import abstractmethod
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, ClassVar, cast

from torch import Tensor, nn
from torchvision.models.detection.anchor_utils import AnchorGenerator

from fewshot_cli.detectors.chain import Activations, Layer, Target
from fewshot_cli.detectors.predictors import ClassInit, ClassPredictor
from fewshot_cli.detectors.torchvision_base import TorchvisionDetector

CHANNELS = 256
"""Of the neck and of what follows it, in all of torchvision's own detectors."""
BODY = "backbone.body"


def resnet_source(name: str) -> str | None:
    """The name in a ResNet classifier of a tensor that is named so in a detector; None if it is not of the backbone."""
    return name.removeprefix(f"{BODY}.") if name.startswith(f"{BODY}.") else None


def mobilenet_source(name: str) -> str | None:
    """The same for a MobileNet."""
    source = resnet_source(name)
    return source and f"features.{source}"


class FpnDetector(TorchvisionDetector):
    """A detector of torchvision with `backbone.body`, `backbone.fpn` and a head that a subclass makes into layers."""

    @abstractmethod
    def make_head(self) -> tuple[Layer, ...]:
        """The layers behind the neck."""

    def make_layers(self) -> tuple[Layer, ...]:
        body = self.network.backbone.body
        taken = {f"{BODY}.{name}" for name in body.return_layers}
        stages = self.make_stages([f"{BODY}.{name}" for name in body], taken)
        neck = self.make_layer("neck", "neck", ("backbone.fpn",), self._run_neck)
        return (*stages, neck, *self.make_head())

    def _run_neck(self, x: Activations) -> Activations:
        """Maps of the stages → maps of the pyramid, from the finest to the coarsest."""
        maps = OrderedDict((str(i), features) for i, features in enumerate(x))
        return tuple(self.network.backbone.fpn(maps).values())


class TowerDetector(FpnDetector):
    """A head of two towers of convolutions that go in step, for classes and boxes, shared by all levels.

    Layer `head.i` is what stands at depth i of both: a convolution, its norm if it has one, and the activation. The
    last layer is the predictor: what turns the towers' outputs into class logits, boxes and whatever else.
    """

    box_predictors: ClassVar[tuple[str, ...]] = ("bbox_reg",)
    """Names of the predictors behind the box tower, in the order of the outputs."""

    def __init__(self, name: str, network: nn.Module, classes: Sequence[str], image_size: int) -> None:
        super().__init__(name, network, classes, image_size)
        for module in network.modules():
            if isinstance(module, nn.GroupNorm):
                module.register_forward_pre_hook(_channels_first)

    @property
    def anchor_generator(self) -> AnchorGenerator:
        return cast(AnchorGenerator, self.network.anchor_generator)

    @property
    def predictors(self) -> list[ClassPredictor]:
        """One for all levels."""
        head = self.network.head.classification_head
        return [ClassPredictor("head.classification_head.cls_logits", anchors=head.num_anchors)]

    def replace_classes(self, classes: Sequence[str], inits: Sequence[ClassInit]) -> None:
        """As in any detector; torchvision's head also stores the number of classes."""
        super().replace_classes(classes, inits)
        self.network.head.classification_head.num_classes = len(classes)

    def make_head(self) -> tuple[Layer, ...]:
        depths = _depths(self.network.head.classification_head.conv)
        towers = [
            self.make_layer(f"head.{number}", "head", self._tower_modules(depth), partial(self._run_tower, depth))
            for number, depth in enumerate(depths, start=1)
        ]
        predictors = ["classification_head.cls_logits", *(f"regression_head.{name}" for name in self.box_predictors)]
        names = [f"head.{name}" for name in predictors]
        return (*towers, self.make_layer(f"head.{len(depths) + 1}", "head", names, self._run_predictor))

    def _tower_modules(self, depth: range) -> list[str]:
        """Names of what has weights at this depth of both towers."""
        return [
            f"head.{tower}.conv.{place}"
            for tower in ("classification_head", "regression_head")
            for place in depth
            if self.network.get_submodule(f"head.{tower}.conv.{place}").state_dict()
        ]

    def _run_tower(self, depth: range, x: Activations) -> Activations:
        """The maps for classes, then those for boxes, each through the modules at this depth of its tower."""
        head = self.network.head
        classes, boxes = (x, x) if depth.start == 0 else (x[: len(x) // 2], x[len(x) // 2 :])
        return (
            *(_through(head.classification_head.conv, depth, features) for features in classes),
            *(_through(head.regression_head.conv, depth, features) for features in boxes),
        )

    def predictor_maps(self, activations: Activations) -> Activations:
        return activations[: len(activations) // 2]

    def _run_predictor(self, x: Activations) -> Activations:
        """→ maps of class logits (B, A·K, H, W), one a level, then those of each predictor behind the box tower."""
        head, levels = self.network.head, len(x) // 2
        predictors = [getattr(head.regression_head, name) for name in self.box_predictors]
        return (
            *(head.classification_head.cls_logits(features) for features in x[:levels]),
            *(predictor(features) for predictor in predictors for features in x[levels:]),
        )

    def torchvision_losses(
        self, found: dict[str, Tensor], anchors: Tensor, targets: Sequence[Target], *more: object
    ) -> dict[str, Tensor]:
        """torchvision's losses of what the head gave; their positives are collected.

        Args:
            found: `cls_logits`, `bbox_regression` and whatever else, (B, anchors, …).
            anchors: (anchors, 4), xyxy, canvas pixels.
            targets: of each image.
            more: what else the network's `compute_loss` takes.
        """
        wanted = [{"boxes": target.boxes, "labels": target.labels} for target in targets]
        with _matches(self.network.head) as objects:
            losses = self.network.compute_loss(wanted, found, [anchors] * len(targets), *more)
        self.collect(lambda: self.matched(found, anchors, objects, targets))
        return cast("dict[str, Tensor]", losses)


@contextmanager
def _matches(head: Any) -> Iterator[list[Tensor]]:
    """The object of each anchor, an image a tensor; torchvision's networks tell it to the loss of their head alone."""
    kept: list[Tensor] = []
    compute = head.compute_loss

    def keep(targets: object, outputs: object, anchors: object, matched: list[Tensor]) -> object:
        kept.extend(matched)
        return compute(targets, outputs, anchors, matched)

    head.compute_loss = keep
    try:
        yield kept
    finally:
        del head.compute_loss


def _depths(tower: nn.Sequential) -> list[range]:
    """The places of a tower that make up each of its depths, each of which begins with a convolution."""
    starts = [place for place, part in enumerate(tower) if any(isinstance(m, nn.Conv2d) for m in part.modules())]
    return [range(start, stop) for start, stop in zip(starts, [*starts[1:], len(tower)], strict=True)]


def _through(tower: nn.Sequential, depth: range, features: Tensor) -> Tensor:
    for place in depth:
        features = tower[place](features)
    return features


def _channels_first(_: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
    """Group norm's backward pass is slow in channels-last bf16 on a CPU; the next convolution turns it back."""
    return (inputs[0].contiguous(),)
