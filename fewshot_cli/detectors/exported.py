"""A whole detector in one file, by `fsod export --format weights`: base and trained weights merged.

A safetensors file with every tensor of the network under its own name, and, in its metadata, what is needed to build
the detector around them. It goes wherever `--weights` takes a file.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fewshot_cli import __version__
from fewshot_cli.errors import CheckpointError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from fewshot_cli.detectors.chain import Detector

METADATA = "fsod-detector"
SCHEMA = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectorInfo:
    """What a file says of the detector in it.

    Attributes:
        detector: a name in the registry.
        classes: in label order.
        image_size: side of the canvas, pixels.
        thresholds: class → score from which a detection counts; empty if not measured.
        norm_eps: of every batch norm, because it is no tensor and differs between weights; None without batch norms.
        fsod: version that wrote the file.
        schema: of this description.
    """

    detector: str
    classes: tuple[str, ...]
    image_size: int
    thresholds: dict[str, float]
    norm_eps: float | None
    fsod: str = __version__
    schema: int = SCHEMA


def describe(detector: Detector, thresholds: Mapping[str, float]) -> DetectorInfo:
    """What the file of this detector will say."""
    eps = {norm.eps for norm in _norms(detector.network)}
    return DetectorInfo(
        detector=detector.name,
        classes=detector.classes,
        image_size=detector.image_size,
        thresholds=dict(thresholds),
        norm_eps=max(eps, default=None),
    )


def to_bytes(detector: Detector, info: DetectorInfo) -> bytes:
    """The content of the file."""
    from safetensors.torch import save

    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in detector.network.state_dict().items()}
    content: bytes = save(tensors, {METADATA: json.dumps(asdict(info))})
    return content


def read_info(path: Path | str) -> DetectorInfo | None:
    """What a file says of the detector in it, without PyTorch; None if it is no file of `fsod export`.

    Raises:
        CheckpointError: it is one, of another version of fsod or damaged.
    """
    path = Path(path)
    if path.suffix != ".safetensors" or not path.is_file():
        return None
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np") as file:
            text = (file.metadata() or {}).get(METADATA)
    except (SafetensorError, OSError):
        return None  # whoever loads it says what is wrong
    if text is None:
        return None
    try:
        return _info(json.loads(text))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(
            f"{path} describes its detector in an unknown way: {error}", hint="Export it again with `fsod export`."
        ) from error


def _info(document: dict[str, Any]) -> DetectorInfo:
    if document["schema"] != SCHEMA:
        raise ValueError(f"schema {document['schema']}, where this version of fsod reads {SCHEMA}")
    eps = document["norm_eps"]
    return DetectorInfo(
        detector=str(document["detector"]),
        classes=tuple(str(name) for name in document["classes"]),
        image_size=int(document["image_size"]),
        thresholds={str(name): float(score) for name, score in document["thresholds"].items()},
        norm_eps=None if eps is None else float(eps),
        fsod=str(document["fsod"]),
    )


def check_detector(path: Path | str, info: DetectorInfo, name: str) -> None:
    """Raises CheckpointError if the file is of another detector than that of this name."""
    if info.detector != name:
        raise CheckpointError(f"{path} is a {info.detector}, not a {name}", hint=f"Give --detector {info.detector}.")


def fill(detector: Detector, state: Mapping[str, Tensor], info: DetectorInfo, *, what: str) -> None:
    """Turn a detector of the right name, whatever its weights, into the one of the file.

    Raises:
        CheckpointError: the tensors do not fit.
    """
    from fewshot_cli.detectors.weights import load_exactly

    detector.replace_classes(info.classes, [()] * len(info.classes))
    load_exactly(detector.network, state, what=what)
    for norm in _norms(detector.network):
        norm.eps = info.norm_eps if info.norm_eps is not None else norm.eps
    detector.hold_statistics()
    detector.pretrained = True


def _norms(network: nn.Module) -> list[nn.BatchNorm2d]:
    from torch import nn

    return [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
