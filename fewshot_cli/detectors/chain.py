"""The contract: a detector is an ordered chain of named layers.

    image ─► canvas ─► layer 1 ─► … ─► layer n ─► outputs ─► loss
                          ▲ activations between layers         └──► detections
                            can be stored and continued from

The chain can be cut before any layer. What lies before the cut is a pure function of the canvas, so its result can be
cached; that is where the speed of this project comes from. Norm layers use their stored statistics, also in layers that
train, unless they are told otherwise (`--norm-statistics train`): ten images are too few to estimate them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from fewshot_cli.detectors.architecture import OWN, Architecture
from fewshot_cli.detectors.canvas import Canvas, fit, to_image
from fewshot_cli.detectors.objects import ObjectFeatures, pool_objects
from fewshot_cli.detectors.positives import Matched, Positives, paired_iou
from fewshot_cli.detectors.predictors import NO_CLASS, ClassInit, ClassPredictor, with_classes
from fewshot_cli.detectors.suppression import Candidates, Detections, suppress
from fewshot_cli.errors import ModelError

PARTS = ("backbone", "neck", "proposals", "head")
"""What a layer can be part of. A plan trains each part by a rule of its own (`policies.Selection`):

backbone: the last N stages (`--backbone-stages N`); one layer is one stage.
neck: what joins the maps of the backbone, e.g. an FPN or the encoder of a DETR (`--train-neck`).
proposals: the region proposals of a two-stage detector (RPN). They train when the whole head does, unless stated
    otherwise; so `last 1` is the predictor alone.
head: layers 1 … M, the predictor last, by policy and budget.
"""
HEAD_PARTS = ("proposals", "head")
"""Parts that learn at the full learning rate when they train, and so does a neck that is not pretrained; the others at
`--backbone-lr`."""

Activations = tuple[Tensor, ...]
"""What flows between layers: a flat tuple of (B, …) tensors, all that the rest of the chain needs.

A part whose length differs from image to image (proposals) is padded to one fixed length, and its counts (B,) int64
are a tensor of their own in the tuple: see `ragged.pad_ragged`. Floating-point tensors may be cached in half precision;
what must not be rounded (boxes) is passed as its bits: see `ragged.to_bits`.
"""
Forward = Callable[[Activations], Activations]
BatchNorm = nn.modules.batchnorm._BatchNorm
"""The base class of torch's batch norms."""


@dataclass(frozen=True, slots=True)
class Layer:
    """One link of the chain.

    Attributes:
        name: unique and readable, e.g. `head.2`.
        part: one of PARTS.
        modules: (qualified name, module) of everything at this depth, both towers together.
        forward: activations in, activations out; uses only `modules`.
    """

    name: str
    part: str
    modules: tuple[tuple[str, nn.Module], ...]
    forward: Forward

    def parameters(self) -> dict[str, nn.Parameter]:
        """Every parameter of the layer by its qualified name."""
        return {
            f"{prefix}.{name}" if name else prefix: parameter
            for prefix, module in self.modules
            for name, parameter in module.named_parameters()
        }

    def batch_norms(self) -> dict[str, BatchNorm]:
        """Every batch norm of the layer that keeps statistics, by its qualified name."""
        return {
            f"{prefix}.{name}" if name else prefix: norm
            for prefix, module in self.modules
            for name, norm in module.named_modules()
            if isinstance(norm, BatchNorm) and norm.track_running_stats
        }


class SmallObjects(NamedTuple):
    """For which objects a parameter group is, and how fast it learns where most objects are such.

    side: of the largest object, canvas pixels; lr: the group's share of the learning rate by default.
    """

    side: float
    lr: float


@dataclass(frozen=True, slots=True)
class ParameterGroup:
    """Parameters that share a learning rate.

    Attributes:
        name: for messages, e.g. `the head`.
        role: which share of the learning rate it gets: `head` all of it, `backbone` that of `--backbone-lr`,
            `small-objects` that of `--small-object-lr`.
        parameters: by qualified name.
        small_objects: set if and only if the role is `small-objects`.
    """

    name: str
    role: Literal["head", "backbone", "small-objects"]
    parameters: dict[str, nn.Parameter]
    small_objects: SmallObjects | None = None


class Target(NamedTuple):
    """Ground truth of one canvas.

    boxes: (N, 4) float32, xyxy, canvas pixels; labels: (N,) int64, index into the detector's classes; embeddings:
    (N, D) float32 of length 1, what a teacher makes of each object, None without one.
    """

    boxes: Tensor
    labels: Tensor
    embeddings: Tensor | None = None

    def to(self, device: torch.device) -> Target:
        embeddings = None if self.embeddings is None else self.embeddings.to(device)
        return Target(self.boxes.to(device), self.labels.to(device), embeddings)


@runtime_checkable
class Finishes(Protocol):
    """A module that can compute something once when nothing trains any more; see `Detector.finish_training`."""

    def finish_training(self) -> None: ...


class Detector(nn.Module, ABC):
    """A detector that can be run in parts.

    A subclass holds its modules under `network` and sets `layers = self.make_layers()` in its constructor. It defines
    `make_layers`, `predictors`, `normalize`, either `candidates` or `decode`, and either `loss` (one-stage) or `losses`
    (targets take part in the forward pass). Where the defaults do not fit, it overrides `prepare`, `parameter_groups`,
    `input_order`, `classification_losses` and `localisation_losses`.
    """

    layers: tuple[Layer, ...]
    network: nn.Module
    pretrained: bool = False
    """Whether the class predictor is pretrained; whoever loads weights into it says so."""
    stretches: bool = False
    """Whether images are stretched to the square instead of keeping their proportions."""
    architecture: Architecture = OWN
    """The size of neck and head, where it was chosen; whoever builds the detector says so."""
    estimated: frozenset[str] = frozenset()
    """Qualified names of the batch norms whose statistics follow the batches of the training."""
    pad_value: int | list[int] = 114
    fast_in_bf16: bool = False
    """Whether bf16 measures faster than fp32 on a CPU that has bf16 arithmetic."""
    input_order: ClassVar[Mapping[type[nn.Module], tuple[str, ...]]] = {}
    """Submodules with parameters in the order in which the input meets them, for modules that register them in another
    order."""
    classification_losses: ClassVar[tuple[str, ...]] = ("classification",)
    """Names of the losses that learn what something is, whether it is an object at all included (objectness)."""
    localisation_losses: ClassVar[tuple[str, ...]] = ("bbox_regression",)
    """Names of the losses that learn where it is: of boxes, of proposals, and centre-ness, which follows from boxes."""
    _collected: list[Positives] | None = None

    def __init__(self, name: str, classes: Sequence[str], image_size: int) -> None:
        super().__init__()
        self.name = name
        self.classes = tuple(classes)
        self.image_size = image_size

    # What a subclass defines.

    @abstractmethod
    def make_layers(self) -> tuple[Layer, ...]:
        """The chain over the modules that `network` has now: backbone stages, neck, proposals, head 1 … M, in order.

        Layers hold bound methods rather than closures, so that a deep copy of the detector runs its own modules.
        """

    @property
    @abstractmethod
    def predictors(self) -> Sequence[ClassPredictor]:
        """Every class predictor of the network: one per level or decoder layer that has its own.

        Box regression that each class has for itself is one too (`width` 4).
        """

    @abstractmethod
    def normalize(self, pixels: Tensor) -> Tensor:
        """(B, 3, S, S) uint8 RGB → what the first layer was trained on."""

    def candidates(self, outputs: Activations) -> tuple[Candidates, ...]:
        """Outputs → every box that the head proposes; with several heads beside each other, one entry each.

        What `fsod export` writes. A detector that cannot say it defines `decode` instead, and cannot be exported.
        """
        raise ModelError(
            f"{self.name} cannot be written as ONNX: the number of its candidates differs from image to image",
            hint="`fsod export --format weights` makes a file for --weights.",
        )

    def loss(self, outputs: Activations, targets: Sequence[Target]) -> dict[str, Tensor]:
        """Named scalar losses of a batch of float32 outputs; their sum is what training minimises.

        Hands its positives to `collect`. Called by the default `losses` alone: a detector that overrides that needs no
        `loss`.
        """
        raise NotImplementedError(f"{type(self).__name__} defines neither loss nor losses")

    # What follows from it, and can be overridden.

    def decode(self, outputs: Activations) -> list[Detections]:
        """Outputs → detections per canvas, in **canvas** pixels, after NMS, at most 100 each, best first."""
        return suppress(self.candidates(outputs))

    def prepare(self, pixels: Tensor, valid: Tensor) -> Activations:
        """The input of the chain → the input of its first layer, which is normalised pixels by default.

        Args:
            pixels: (B, 3, S, S) uint8 RGB.
            valid: (B, 2) int64, height and width in canvas pixels that the image covers, for detectors that mask the
                padding.
        """
        return (self.normalize(pixels),)

    def losses(self, activations: Activations, start: int, targets: Sequence[Target]) -> dict[str, Tensor]:
        """Named scalar losses from the input of layer `start` on; what training calls, inside `torch.autocast`.

        Override it where the forward pass needs the targets (sampling of RoIs, denoising queries); random draws are
        then made with torch's default generator of the CPU, and positives handed to `collect`.
        """
        outputs = self.run(activations, start)
        with torch.autocast(outputs[0].device.type, enabled=False):
            return self.loss(tuple(output.float() for output in outputs), targets)

    @contextmanager
    def collecting(self) -> Iterator[list[Positives]]:
        """A context in which `losses` appends the positives of each batch to the list; outside, nothing is computed."""
        self._collected = collected = list[Positives]()
        try:
            yield collected
        finally:
            self._collected = None

    def collect(self, matched: Callable[[], Matched]) -> None:
        """Take the positives of a batch, if somebody wants them: whoever computes a loss calls it, for the final boxes.

        Args:
            matched: is only called then, without gradients.
        """
        if self._collected is not None:
            with torch.no_grad():
                scores, boxes, objects = matched()
                self._collected.append(Positives(scores, paired_iou(boxes, objects)))

    def predictor_maps(self, activations: Activations) -> Activations:
        """The input of the last layer → its maps (B, C, H, W) for classes, from the finest to the coarsest.

        By default all of it. Override it where the boxes have maps of their own.
        """
        return activations

    def losses_and_objects(
        self, activations: Activations, start: int, targets: Sequence[Target]
    ) -> tuple[dict[str, Tensor], tuple[ObjectFeatures, ...]]:
        """`losses`, to the bit, and what the predictor gets of each object of the targets; the layers run once.

        Override it where the input of the predictor is no maps.
        """
        last = len(self.layers) - 1
        before = self.run(activations, start, last)
        maps = self.predictor_maps(before)
        if any(part.ndim != 4 for part in maps):
            raise ModelError(
                f"{self.name} cannot be distilled into: the input of its predictor is no maps",
                hint="Leave --distil out, or choose another detector.",
            )
        return self.losses(before, last, targets), pool_objects(maps, [t.boxes for t in targets], self.image_size)

    def prefix(
        self, activations: Activations, cut: int, targets: Sequence[Target] | None = None, start: int = 0
    ) -> Activations:
        """The input of the chain, or what this gave for a cut at `start` → the input of layer `cut`, to be cached.

        Override it where `losses` needs more from the frozen layers than detecting does, e.g. the features of the
        objects' own boxes. Detections from it must be the same with and without targets.

        Args:
            targets: of training examples; None for images that are only to be detected in.
        """
        return self.run(activations, start, cut)

    def parameter_groups(self) -> tuple[ParameterGroup, ...]:
        """Every parameter in exactly one group: by default the head with its proposals, and what lies before them.

        A neck that is not pretrained learns as fast as the head, which is as new as it is.
        """
        new = HEAD_PARTS if self.pretrained else (*HEAD_PARTS, "neck")
        head = [layer for layer in self.layers if layer.part in new]
        before = [layer for layer in self.layers if layer.part not in new]
        return (
            ParameterGroup("the head" if self.pretrained else "neck and head", "head", _parameters(head)),
            ParameterGroup("backbone and neck" if self.pretrained else "backbone", "backbone", _parameters(before)),
        )

    def convolutions(self) -> tuple[str, ...]:
        """Qualified names of all nn.Conv2d modules, in the order in which the input meets them.

        Layers come in chain order and modules in the order of their registration, unless `input_order` has another.
        """
        return tuple(self.layer_of_convolutions())

    def layer_of_convolutions(self) -> dict[str, str]:
        """The same, each with the name of its layer."""
        return {name: layer.name for layer, name, module in self._met() if isinstance(module, nn.Conv2d)}

    def parameters_before(self, convolution: int) -> frozenset[str]:
        """Qualified names of all parameters that the input meets before a convolution, counted from 0.

        With convolution N that is the first N convolutions, their norms, and what else lies between them; all
        parameters if there is no convolution N.
        """
        names, met = set[str](), 0
        for _, name, module in self._met():
            met += isinstance(module, nn.Conv2d)
            if met > convolution:
                break
            names.update(f"{name}.{own}" for own, _ in module.named_parameters(recurse=False))
        return frozenset(names)

    def _met(self) -> Iterator[tuple[Layer, str, nn.Module]]:
        """Layer, name and module of all that has or holds parameters, in the order in which the input meets it."""
        for layer in self.layers:
            for start, module in layer.modules:
                for name, found in _in_order(start, module, self.input_order):
                    yield layer, name, found

    def replace_classes(self, classes: Sequence[str], inits: Sequence[ClassInit]) -> None:
        """Give every class predictor new classes; box regression that all classes share is kept.

        Where each class has a regression of its own, one without base classes starts from the mean of all of them:
        what moves a box onto an object is much the same for any object, and random rows would have to learn it.

        Args:
            classes: the new class names, in label order.
            inits: for each of them, where its predictor weights come from.
        """
        every = tuple(row for row, name in enumerate(self.classes) if name not in NO_CLASS)
        for predictor in self.predictors:
            old = self.network.get_submodule(predictor.name)
            starts = inits if predictor.width == 1 else [bases or every for bases in inits]
            self.network.set_submodule(predictor.name, with_classes(old, predictor, starts))
        self.classes = tuple(classes)
        self.layers = self.make_layers()

    # What all detectors share.

    @property
    def head_depth(self) -> int:
        """M, the number of head layers, predictor included."""
        return sum(layer.part == "head" for layer in self.layers)

    @property
    def backbone_stages(self) -> int:
        """The number of backbone stages, each of them one layer."""
        return sum(layer.part == "backbone" for layer in self.layers)

    def make_layer(self, name: str, part: str, modules: Sequence[str], forward: Forward) -> Layer:
        """A layer of modules of the network, given by their qualified names."""
        return Layer(name, part, tuple((module, self.network.get_submodule(module)) for module in modules), forward)

    def make_canvas(self, image: Tensor) -> Canvas:
        """A (3, H, W) uint8 RGB image in the detector's square, as it was trained: padded, or stretched to fill it."""
        return fit(image, self.image_size, stretches=self.stretches, pad_value=self.pad_value)

    def run(self, activations: Activations, start: int, stop: int | None = None) -> Activations:
        """Run from the input of layer `start` to the input of layer `stop` (default: the outputs).

        The input of layer 0 is the pair that `batch_of` makes: pixels and their valid size.
        """
        layers = self.layers[start:stop]
        if layers and start == 0:
            activations = self.prepare(*activations)
        for layer in layers:
            activations = layer.forward(activations)
        return activations

    def place(self, device: torch.device) -> None:
        """Move to a device, channels last: convolutions are up to twice as fast there, on CPUs and GPUs alike."""
        self.to(device)
        self.to(memory_format=torch.channels_last)

    def hold_statistics(self) -> None:
        """Put every module in eval: norm layers keep the statistics they were pretrained with."""
        self.eval()

    @torch.no_grad()
    def finish_training(self) -> None:
        """Compute once, on the final device, what stays as it is while nothing trains; outputs keep every bit.

        Calls `finish_training` of every module that has it. The detector must not be trained or moved
        afterwards.
        """
        for module in self.modules():
            if isinstance(module, Finishes) and not isinstance(module, Detector):
                module.finish_training()

    @torch.no_grad()
    def detect(self, activations: Activations, start: int, canvases: Sequence[Canvas]) -> list[Detections]:
        """Run from the input of layer `start` to detections in the pixels of the original images."""
        found = self.decode(self.run(activations, start))
        return [to_image(detections, canvas) for detections, canvas in zip(found, canvases, strict=True)]


def _parameters(layers: Iterable[Layer]) -> dict[str, nn.Parameter]:
    return {name: parameter for layer in layers for name, parameter in layer.parameters().items()}


def _in_order(
    name: str, module: nn.Module, orders: Mapping[type[nn.Module], tuple[str, ...]]
) -> Iterator[tuple[str, nn.Module]]:
    yield name, module
    children = dict(module.named_children())
    for child in orders.get(type(module), tuple(children)):
        if child in children:
            yield from _in_order(f"{name}.{child}", children[child], orders)
