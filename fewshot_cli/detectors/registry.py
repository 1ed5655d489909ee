"""The detectors, on one screen; nothing here imports torch.

To add one:

1. Write a module beside this one with a subclass of `chain.Detector`, whose docstring says what to define: the layers,
   the class predictors, a loss, and `candidates`, the boxes before non-maximum suppression, which is the same for all
   detectors and for exported files.
2. Give the module two functions: `build(name, *, image_size, weights, reporter)` returns the detector with its base
   classes (`weights` is `default`, `imagenet`, `none` or a file), `pretrained` if its class predictor is;
   `recognise(state)` returns the name of the detector that a state dict is of, or None. Messages about weights that do
   not fit use it.
3. Add a line to DETECTORS: name, summary, module, M, backbone stages, side of the canvas, ImageNet weights or not. If
   the size of neck or head can be chosen (`sizes`), `build` also takes `architecture`.

tests/detectors/test_registry.py then checks that the line agrees with what is built.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, cast

from fewshot_cli.bounds import IMAGE_SIZE
from fewshot_cli.detectors.architecture import OWN, Architecture, loaded_whole, options_of
from fewshot_cli.detectors.exported import DetectorInfo, check_detector, fill, read_info
from fewshot_cli.errors import ModelError, closest
from fewshot_cli.policies import Selection, select
from fewshot_cli.progress import Reporter, SilentReporter

if TYPE_CHECKING:
    from fewshot_cli.detectors.chain import Detector


WEIGHT_NAMES = ("default", "imagenet", "none")
"""What `--weights` takes besides a file."""

_FASTER = "fewshot_cli.detectors.faster_rcnn"
_FCOS = "fewshot_cli.detectors.fcos"
_RETINANET = "fewshot_cli.detectors.retinanet"
_MINI = "fewshot_cli.detectors.retinanet_mini"
_SSD_LITE = "fewshot_cli.detectors.ssd_mobilenet"
_SSD = "fewshot_cli.detectors.ssd_torchvision"
_YOLOX = "fewshot_cli.detectors.yolox"


@dataclass(frozen=True, slots=True)
class DetectorSpec:
    """What can be said of a detector without building it.

    Attributes:
        name: as given to `--detector`.
        summary: one line for lists.
        module: has `build` and `recognise` (see above); imported only when they are called.
        head_depth: M, the number of head layers, predictor included.
        backbone_stages: the number of layers of the backbone.
        image_size: side of the square canvas by default, pixels.
        has_imagenet: whether ImageNet weights exist for its backbone. A file with a classifier's weights will do, too.
        has_coco: whether weights of the whole detector are published; if not, `default` is ImageNet's.
        smallest: the smallest side of the canvas, pixels.
        sizes: fields of `Architecture` that can be chosen where neck and head are built and not loaded.
    """

    name: str
    summary: str
    module: str
    head_depth: int
    backbone_stages: int
    image_size: int
    has_imagenet: bool = False
    has_coco: bool = True
    smallest: int = IMAGE_SIZE.least
    sizes: tuple[str, ...] = ()


_SIZES = ("head_depth", "head_channels", "neck")
DETECTORS: dict[str, DetectorSpec] = {
    spec.name: spec
    for spec in (
        DetectorSpec(
            "retinanet_resnet50_fpn",
            "RetinaNet, ResNet-50, 34 M parameters",
            *(_RETINANET, 5, 5, 640, True),
            sizes=_SIZES,
        ),
        DetectorSpec(
            "retinanet_resnet50_fpn_v2",
            "RetinaNet, stronger recipe, 38 M parameters",
            *(_RETINANET, 5, 5, 640, True),
            sizes=_SIZES,
        ),
        DetectorSpec(
            "retinanet_mobilenet_v2_fpn",
            "RetinaNet, MobileNetV2, 12 M parameters, pretrained on ImageNet alone",
            *(_RETINANET, 5, 5, 640),
            has_imagenet=True,
            has_coco=False,
            sizes=_SIZES,
        ),
        DetectorSpec("retinanet_mini", "RetinaNet, slim, embedded, for the miniature world, 2 M", _MINI, 5, 5, 256),
        DetectorSpec(
            "ssd_mobilenet_v2_fpnlite",
            "SSD, MobileNetV2, 3 M parameters",
            *(_SSD_LITE, 5, 5, 256, True),
            sizes=("head_depth", "head_channels"),
        ),
        DetectorSpec("fcos_resnet50_fpn", "FCOS, ResNet-50, 32 M parameters", _FCOS, 5, 5, 640, True),
        DetectorSpec("fasterrcnn_resnet50_fpn", "Faster R-CNN, ResNet-50, 42 M parameters", _FASTER, 3, 5, 640, True),
        DetectorSpec(
            "fasterrcnn_resnet50_fpn_v2", "Faster R-CNN, stronger recipe, 44 M parameters", _FASTER, 6, 5, 640, True
        ),
        DetectorSpec(
            "fasterrcnn_mobilenet_v3_large_fpn", "Faster R-CNN, MobileNetV3, 19 M parameters", _FASTER, 3, 5, 640, True
        ),
        DetectorSpec("ssd300_vgg16", "SSD, VGG-16, 36 M parameters", _SSD, 1, 5, 320, True, smallest=288),
        DetectorSpec("ssdlite320_mobilenet_v3_large", "SSDLite, MobileNetV3, 3 M parameters", _SSD, 1, 5, 320),
        DetectorSpec("yolox_nano", "YOLOX-Nano, 0.9 M parameters, for laptops", _YOLOX, 4, 5, 416),
        DetectorSpec("yolox_tiny", "YOLOX-Tiny, 5 M parameters", _YOLOX, 4, 5, 416),
        DetectorSpec("yolox_s", "YOLOX-S, 9 M parameters", _YOLOX, 4, 5, 640),
        DetectorSpec("yolox_m", "YOLOX-M, 25 M parameters", _YOLOX, 4, 5, 640),
        DetectorSpec("yolox_l", "YOLOX-L, 54 M parameters", _YOLOX, 4, 5, 640),
        DetectorSpec("yolox_x", "YOLOX-X, 99 M parameters", _YOLOX, 4, 5, 640),
    )
}


def get_spec(name: str) -> DetectorSpec:
    """The detector of that name; raises ModelError with the valid ones."""
    if name not in DETECTORS:
        raise ModelError(f"unknown detector {name!r}", hint=closest(name, DETECTORS))
    return DETECTORS[name]


def head_depths() -> dict[str, int]:
    """M of every detector, by name."""
    return {name: spec.head_depth for name, spec in DETECTORS.items()}


def depth_in(name: str, architecture: Architecture = OWN) -> int:
    """M of the detector of that name, built like that; raises ModelError."""
    return architecture.head_depth or get_spec(name).head_depth


def check_architecture(name: str, weights: str | Path, architecture: Architecture) -> None:
    """Whether the detector can be built like that with these weights, as far as it shows without reading all of them.

    Raises:
        ModelError: an unknown detector, or one whose size cannot be chosen.
        ConfigError: an impossible size, or weights of the whole detector, which bring their own.
    """
    spec, chosen = get_spec(name), architecture.chosen
    architecture.check()
    if not set(chosen) <= set(spec.sizes):
        able = [other.name for other in DETECTORS.values() if set(chosen) <= set(other.sizes)]
        raise ModelError(
            f"{options_of(field for field in chosen if field not in spec.sizes)} cannot be chosen for {name}",
            hint=f"It can for {', '.join(able)}.",
        )
    if chosen and weights == "default" and spec.has_coco:
        raise loaded_whole(architecture, "--weights default")
    info = None if weights in WEIGHT_NAMES else read_info(weights)
    if chosen and info is not None and info.architecture != architecture:
        raise loaded_whole(architecture, weights)


def select_in(
    name: str,
    policy: str,
    budget: int | str | None,
    *,
    layers: Sequence[str] = (),
    neck: bool = False,
    backbone_stages: int = 0,
    freeze_first: int | None = None,
    architecture: Architecture = OWN,
) -> Selection:
    """What a policy trains in the detector of that name; see `policies.select`. Raises ModelError, PolicyError."""
    spec = get_spec(name)
    return select(
        policy,
        budget,
        depth_in(name, architecture),
        layers=layers,
        stages=spec.backbone_stages,
        neck=neck,
        backbone_stages=backbone_stages,
        freeze_first=freeze_first,
        depths=head_depths(),
    )


def build_detector(
    name: str,
    *,
    weights: str | Path = "default",
    image_size: int | None = None,
    seed: int = 0,
    architecture: Architecture = OWN,
    reporter: Reporter | None = None,
) -> Detector:
    """Build a detector with its base classes, on the CPU, in eval.

    Args:
        name: a name in DETECTORS.
        weights: `default` (COCO; ImageNet where `has_coco` is false), `imagenet` (backbone only), `none` (random), or a
            .pth, .pt or .safetensors file; one of `fsod export --format weights` brings its own classes and image size.
        image_size: side of the square canvas, a multiple of 32 from 64 to 2048 pixels; default: the file's, else the
            detector's own.
        seed: of the weights that are drawn at random; the caller's random state is left as it was.
        architecture: size of neck and head, where the weights are of the backbone alone or none; default: the file's,
            else the detector's own.
        reporter: shows the progress of downloads.

    Raises:
        ModelError: unknown detector, one without ImageNet weights, or one whose size cannot be chosen.
        ConfigError: an impossible image size or architecture, or one that the weights do not have.
        CheckpointError: a file that is not weights of this detector.
        NetworkError: the weights could not be downloaded.
    """
    spec = get_spec(name)
    info = None if weights in WEIGHT_NAMES else read_info(weights)
    if info is not None:
        check_detector(weights, info, name)
    check_architecture(name, weights, architecture)
    own_size = spec.image_size if info is None else info.image_size
    bounds = IMAGE_SIZE._replace(least=spec.smallest)
    size = bounds.check(f"{name}: image_size", own_size if image_size is None else image_size)
    if weights == "imagenet" and not spec.has_imagenet:
        able = [other.name for other in DETECTORS.values() if other.has_imagenet]
        raise ModelError(
            f"{name} has no ImageNet weights for its backbone",
            hint=f"Give --weights default, none or a file; {', '.join(able)} can start from imagenet.",
        )
    if info is not None:
        return _exported(spec, size, Path(weights), info)
    return _build(spec, size, str(weights), seed, architecture, reporter or SilentReporter())


def _exported(spec: DetectorSpec, image_size: int, path: Path, info: DetectorInfo) -> Detector:
    from fewshot_cli.detectors.weights import read_weights

    detector = _build(spec, image_size, "none", 0, info.architecture, SilentReporter())
    fill(detector, read_weights(path), info, what=f"{spec.name} from {path}")
    return detector


def _build(
    spec: DetectorSpec, image_size: int, weights: str, seed: int, architecture: Architecture, reporter: Reporter
) -> Detector:
    import torch

    module = import_module(spec.module)
    options = {"image_size": image_size, "weights": weights, "reporter": reporter}
    if architecture.chosen:
        options["architecture"] = architecture
    with torch.random.fork_rng(devices=[]):
        # Only the CPU's generator: torch.manual_seed would reseed the GPUs too, and nothing would put them back.
        torch.random.default_generator.manual_seed(seed)
        detector = cast("Detector", module.build(spec.name, **options))
    detector.architecture = architecture
    detector.hold_statistics()
    return detector
