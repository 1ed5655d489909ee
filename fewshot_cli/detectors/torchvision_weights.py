"""torchvision's published weight files, and ImageNet classifiers as backbones: what all detectors on them share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn
from torchvision.models import WeightsEnum
from torchvision.models.detection import RetinaNet_ResNet50_FPN_Weights

from fewshot_cli.detectors.architecture import OWN, Architecture, loaded_whole
from fewshot_cli.detectors.chain import Detector
from fewshot_cli.detectors.weights import check_hash, load_exactly, read_weights
from fewshot_cli.download import download
from fewshot_cli.files import sha256_of
from fewshot_cli.progress import Reporter

CATEGORIES: tuple[str, ...] = tuple(RetinaNet_ResNet50_FPN_Weights.COCO_V1.meta["categories"])
"""COCO's classes as torchvision counts them: 91, with the background in front and the holes in COCO's numbering."""
FOREGROUND = CATEGORIES[1:]
"""The same without the background, for predictors that have a row for it."""
CLASSIFIER_HEADS = ("fc.", "classifier.")
"""How the names of tensors begin that a classifier has behind its backbone."""

_OTHERS = {
    "layer4.0.conv1.weight": "a ResNet classifier",
    "features.28.weight": "a VGG classifier",
    "features.16.0.weight": "a MobileNetV3 classifier",
    "features.18.0.weight": "a MobileNetV2 classifier",
}
"""Models of torchvision that are no detectors, each by a tensor that only it has."""

D = TypeVar("D", bound=Detector)


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """What is published for a detector on torchvision's modules, and how it goes into the network.

    Attributes:
        coco: the detector, trained on COCO; None if there is no such file: then `default` is ImageNet's.
        classifier: of ImageNet; its backbone is the detector's. None if it does not fit.
        source: name of a tensor in the network → its name in the classifier; None if it has none.
        classes: number of base classes in a state dict; None if it has no class predictor.
        rename: name of a tensor in a file → its name in the network.
        zero_eps: whether `coco` was trained with eps = 0 in the batch norms, which torchvision sets on loading it.
        classifier_eps: of the batch norms of the classifier.
    """

    coco: WeightsEnum | None
    classifier: WeightsEnum | None
    source: Callable[[str], str | None]
    classes: Callable[[Mapping[str, Tensor]], int | None]
    rename: Callable[[str], str] = str
    zero_eps: bool = False
    classifier_eps: float = 1e-5


def build_published(
    make: Callable[[int | None], D],
    published: Published,
    weights: str,
    reporter: Reporter,
    architecture: Architecture = OWN,
) -> D:
    """A detector with the weights that `--weights` names.

    Args:
        make: number of base classes (None: COCO's) → the detector with random weights.
        published: see there.
        weights: `default`, `imagenet`, `none` (random), or a file with weights of the detector or of the classifier.
        reporter: shows the progress of downloads.
        architecture: what `make` builds.

    Raises:
        CheckpointError: a file that does not fit.
        ConfigError: a size of neck and head was chosen, and the file has weights of them.
        NetworkError: the download failed.
    """
    if weights == "none":
        return make(None)
    path = _path_of(published, weights, reporter)
    # What a classifier has behind its backbone is not needed, and NaN in VGG's.
    content = read_weights(path, without=CLASSIFIER_HEADS)
    state = {published.rename(name): tensor for name, tensor in content.items()}
    detector = make(published.classes(state))
    backbone = _backbone_of(detector.network, published)
    if backbone.keys() & state.keys():
        _load_backbone(detector, backbone, state, published, path)
        return detector
    if architecture.chosen:
        raise loaded_whole(architecture, path)
    load_exactly(detector.network, state, what=f"{detector.name} from {path}")
    if published.zero_eps and published.coco and sha256_of(path).startswith(hash_in(published.coco)):
        _set_eps(detector.network, 0.0)
    detector.pretrained = True
    return detector


def _path_of(published: Published, weights: str, reporter: Reporter) -> Path:
    """The file. One with the name of a published file must be that: the name holds its hash."""
    named = {"default": published.coco or published.classifier, "imagenet": published.classifier}.get(weights)
    if named:
        return fetched(named, reporter)
    path = Path(weights)
    for each in (published.coco, published.classifier):
        if each and path.name == file_of(each) and path.is_file():
            return check_hash(path, hash_in(each))
    return path


def _backbone_of(network: nn.Module, published: Published) -> dict[str, str]:
    """Name in the classifier → name in the network, of every tensor of the backbone."""
    if published.classifier is None:
        return {}
    pairs = ((published.source(name), name) for name in network.state_dict())
    return {source: name for source, name in pairs if source is not None}


def _load_backbone(
    detector: Detector, backbone: Mapping[str, str], state: Mapping[str, Tensor], published: Published, path: Path
) -> None:
    """Load a classifier; the rest of the detector stays as it is."""
    own = detector.network.state_dict()
    rest = {name: tensor for name, tensor in own.items() if name not in backbone.values()}
    own_names = {backbone.get(name, name): tensor for name, tensor in state.items()}
    load_exactly(detector.network, {**rest, **own_names}, what=f"the backbone of {detector.name} from {path}")
    for name, module in detector.network.named_modules():
        if published.source(f"{name}.weight") is not None:
            _set_eps(module, published.classifier_eps)


def _set_eps(network: nn.Module, eps: float) -> None:
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = eps


def count_classes(
    bias: str, anchors: int = 1, *, background: bool = False
) -> Callable[[Mapping[str, Tensor]], int | None]:
    """A function from a state dict to the number of classes that its predictor has.

    Args:
        bias: name of the predictor's, or of one level's.
        anchors: that it scores per place.
        background: whether it has one more row for each of them.
    """

    def count(state: Mapping[str, Tensor]) -> int | None:
        # A predictor of an impossible width counts as one of some width, so that the mismatch is reported as one.
        return max(1, state[bias].numel() // anchors - background) if bias in state else None

    return count


def recognise_other(state: Mapping[str, Tensor]) -> str | None:
    """The classifier of torchvision whose weights these are; None for anything else."""
    if any(name.startswith("head.") for name in state):
        return None  # a detector may name its backbone as the classifier does
    return next((name for key, name in _OTHERS.items() if key in state), None)


def with_modern_neck(name: str) -> str:
    """A tensor's name as torchvision has it now: in older files the FPN's `inner_blocks.0.0` is `inner_blocks.0`."""
    block, _, kind = name.rpartition(".")
    owner = block.rpartition(".")[0]
    return f"{block}.0.{kind}" if owner.endswith(("fpn.inner_blocks", "fpn.layer_blocks")) else name


def file_of(weights: WeightsEnum) -> str:
    """The name of the published file."""
    return str(weights.url).rpartition("/")[2]


def hash_in(weights: WeightsEnum) -> str:
    """The first digits of the file's SHA-256, which torchvision puts at the end of its name."""
    return str(weights.url).rpartition("-")[2].removesuffix(".pth")


def fetched(weights: WeightsEnum, reporter: Reporter) -> Path:
    """torchvision's file in torch's own cache, downloaded there if absent.

    Not by torch.hub, which has no timeout, no retries and no resumption; the file and its place are the same.
    """
    path = Path(torch.hub.get_dir()) / "checkpoints" / file_of(weights)
    if path.exists():
        return check_hash(path, hash_in(weights))
    hint = f"--weights FILE works offline: get {path.name} elsewhere, or put it into {path.parent}."
    return download(weights.url, path, sha256_prefix=hash_in(weights), reporter=reporter, hint=hint)
