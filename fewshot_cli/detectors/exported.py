"""A whole detector in one file, by `fsod export --format weights`: base and trained weights merged.

A safetensors file with every tensor of the network under its own name, and, in its metadata, what is needed to build
the detector around them. It goes wherever `--weights` takes a file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fewshot_cli import __version__
from fewshot_cli.detectors.architecture import OWN, Architecture
from fewshot_cli.detectors.tensor_file import EXPORTED, read_metadata
from fewshot_cli.documents import check_document, parse_document
from fewshot_cli.errors import CheckpointError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from fewshot_cli.detectors.chain import Detector

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
        architecture: size of neck and head, where it was chosen.
        fsod: version that wrote the file.
        schema: of this description.
    """

    detector: str
    classes: tuple[str, ...]
    image_size: int
    thresholds: dict[str, float]
    norm_eps: float | None
    architecture: Architecture = OWN
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
        architecture=detector.architecture,
    )


def to_bytes(detector: Detector, info: DetectorInfo) -> bytes:
    """The content of the file."""
    from fewshot_cli.detectors import tensor_file

    return tensor_file.to_bytes(detector.network.state_dict(), EXPORTED, asdict(info))


def read_info(path: Path | str) -> DetectorInfo | None:
    """What a file says of the detector in it, without PyTorch; None if it is no file of `fsod export`.

    Raises:
        CheckpointError: it is one, of another version of fsod or damaged.
    """
    path, hint = Path(path), "Export it again with `fsod export`."
    text = read_metadata(path).get(EXPORTED)
    if text is None:
        return None
    document = parse_document(text, path, hint, CheckpointError)
    if isinstance(document, dict) and document.get("schema", SCHEMA) != SCHEMA:
        raise CheckpointError(
            f"{path} has schema {document['schema']}, and this version of fsod reads {SCHEMA}", hint=hint
        )
    return check_document(document, DetectorInfo, path, hint, CheckpointError)


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
