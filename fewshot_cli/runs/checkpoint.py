"""The tensors of a run that differ from its base weights.

A checkpoint is a safetensors file of a few MB. Its metadata names the base and its fingerprint, so that the
whole detector can be put together again, and never on top of the wrong weights; and its content has a digest.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Le
from torch import Tensor

from fewshot_cli.bounds import SEED
from fewshot_cli.detectors.architecture import OWN, Architecture
from fewshot_cli.detectors.chain import Detector
from fewshot_cli.detectors.registry import WEIGHT_NAMES, build_detector
from fewshot_cli.detectors.tensor_file import CHECKPOINT, read_tensor_file, to_bytes
from fewshot_cli.detectors.two_heads import TwoHeads, copy_beside
from fewshot_cli.detectors.weights import check_tensors, state_fingerprint
from fewshot_cli.documents import check_document, parse_document
from fewshot_cli.errors import CheckpointError, closest
from fewshot_cli.files import write_atomically
from fewshot_cli.progress import Reporter

FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class CheckpointInfo:
    """What a checkpoint says of itself."""

    detector: str
    """A name in the registry."""
    weights: str
    """What the base was loaded from: `default`, `imagenet`, `none`, or a file."""
    base_fingerprint: str
    """SHA-256 of the base's parameters and buffers."""
    classes: tuple[str, ...]
    """In label order."""
    image_size: Annotated[int, Ge(1)]
    """Side of the canvas, pixels."""
    policy: str
    budget: int | None
    trained_layers: tuple[str, ...]
    """Names in the chain, of those in which anything trained."""
    iteration: Annotated[int, Ge(0)]
    """Iterations done."""
    seed: Annotated[int, Ge(SEED.least), Le(SEED.most)]
    """Also of a base with random weights."""
    keep_base_classes: bool = False
    """Whether the base's head runs beside the adapted one."""
    freeze_first: int | None = None
    """Convolutions, in input order, that stayed frozen; None: the policy alone says what trained."""
    architecture: Architecture = OWN
    """Size of neck and head, where it was chosen."""
    norm_statistics: Literal["hold", "train"] = "hold"
    """Whether statistics of batch norms in trained layers are the base's."""
    format: int = FORMAT


def save_checkpoint(path: Path, tensors: Mapping[str, Tensor], info: CheckpointInfo) -> None:
    """Write tensors by qualified name, and what they belong to, atomically; raises StorageError."""
    # safetensors reports a full disk as something else; bytes written by Python do not.
    content = to_bytes(tensors, CHECKPOINT, asdict(info))

    def write(temporary: Path) -> None:
        temporary.write_bytes(content)

    write_atomically(path, write)


def read_checkpoint(path: Path) -> tuple[dict[str, Tensor], CheckpointInfo]:
    """Tensors by qualified name, and what they belong to.

    Raises:
        CheckpointError: missing, damaged, changed since it was written, or not written by fsod; or a tensor is not
            finite.
    """
    if not path.is_file():
        raise CheckpointError(
            f"no checkpoint {path}", hint="Is the run finished? `fsod finetune --resume RUN` continues it."
        )
    tensors, metadata = read_tensor_file(path, hint="Copy it again, or train again.")
    info = _read_info(path, metadata)
    check_tensors(path, tensors)
    return tensors, info


def _read_info(path: Path, metadata: Mapping[str, str]) -> CheckpointInfo:
    hint = "Give a run's checkpoint.safetensors."
    if CHECKPOINT not in metadata:
        raise CheckpointError(f"{path} is not a checkpoint of fsod", hint=hint)
    document = parse_document(metadata[CHECKPOINT], path, hint, CheckpointError)
    if isinstance(document, dict) and document.get("format", FORMAT) != FORMAT:
        raise CheckpointError(
            f"{path} has format {document['format']!r}, and this version of fsod reads {FORMAT}",
            hint="Use the version of fsod that wrote it; config.json beside it names that.",
        )
    return check_document(document, CheckpointInfo, path, hint, CheckpointError)


def restore(
    path: Path, *, weights: str | None = None, reporter: Reporter | None = None
) -> tuple[Detector, CheckpointInfo]:
    """The fine-tuned detector: base and checkpoint put together, in eval, on the CPU.

    It is a `TwoHeads` if the checkpoint says that the base classes are kept.

    Args:
        path: a checkpoint.
        weights: where the base is now, if it moved since.

    Raises:
        CheckpointError: see `read_checkpoint`; or the base is gone or not the one it was trained on, or the tensors
            are not those of the layers that it says were trained, and of the class predictors.
    """
    tensors, info = read_checkpoint(path)
    _check_base(path, info, weights)
    base = build_detector(
        info.detector,
        weights=weights or info.weights,
        image_size=info.image_size,
        seed=info.seed,
        architecture=info.architecture,
        reporter=reporter,
    )
    if state_fingerprint(base.network) != info.base_fingerprint:
        raise CheckpointError(
            f"{path} was trained on other {info.detector} weights than {weights or info.weights}",
            hint="Give the weights it started from with --weights.",
        )
    adapted = copy_beside(base, tensors) if info.keep_base_classes else base
    adapted.replace_classes(info.classes, [()] * len(info.classes))
    load_tensors(adapted, tensors, path, required=_required(adapted, info, path))
    detector = TwoHeads(base, adapted) if info.keep_base_classes else adapted
    detector.hold_statistics()
    return detector, info


def _check_base(path: Path, info: CheckpointInfo, weights: str | None) -> None:
    """Say so if the base was a file that is gone."""
    if weights is None and info.weights not in WEIGHT_NAMES and not Path(info.weights).exists():
        raise CheckpointError(
            f"the base weights of {path} are not at {info.weights} any more",
            hint="Give their new place with --weights. `fsod export --format weights` makes a file that needs no base.",
        )


def _required(detector: Detector, info: CheckpointInfo, path: Path) -> list[str]:
    """What a checkpoint cannot lack: what trained in the trained layers, and the class predictors."""
    layers = {layer.name: layer for layer in detector.layers}
    unknown = [name for name in info.trained_layers if name not in layers]
    if unknown:
        raise CheckpointError(
            f"{path} says that {unknown[0]!r} was trained, which {detector.name} does not have",
            hint=closest(unknown[0], layers),
        )
    trained = [layers[each] for each in info.trained_layers]
    statistics = [
        f"{name}.{kind}"
        for layer in trained
        for name, norm in layer.batch_norms().items()
        for kind, _ in norm.named_buffers()
        if info.norm_statistics == "train"
    ]
    return [*(name for layer in trained for name in layer.parameters()), *statistics, *_predictors(detector)]


@torch.no_grad()
def load_tensors(detector: Detector, tensors: Mapping[str, Tensor], path: Path, *, required: Collection[str]) -> None:
    """Copy tensors into the detector by name.

    Raises:
        CheckpointError: a name is foreign or one that is required is missing, a shape or type is another, or a number
            is not finite; names the first of them. Nothing was copied then.
    """
    own = detector.network.state_dict()
    faults = {
        "foreign": [name for name in tensors if name not in own],
        "missing": [name for name in required if name not in tensors],
        "of another shape or type": [
            name
            for name, tensor in tensors.items()
            if name in own and (own[name].shape, own[name].dtype) != (tensor.shape, tensor.dtype)
        ],
    }
    for fault, names in faults.items():
        if names:
            raise CheckpointError(
                f"{path} does not fit {detector.name}: {len(names)} tensors are {fault}, first {names[0]}",
                hint=f"Give a checkpoint of {detector.name} with {len(detector.classes)} classes, as it was written.",
            )
    check_tensors(path, tensors)
    for name, tensor in tensors.items():
        own[name].copy_(tensor)


def _predictors(detector: Detector) -> list[str]:
    """Names of the tensors of the class predictors."""
    return [f"{predictor.name}.{kind}" for predictor in detector.predictors for kind in ("weight", "bias")]


def tensors_to_keep(
    detector: Detector, trained: Collection[str], base: Mapping[str, str], now: Mapping[str, str]
) -> dict[str, Tensor]:
    """What a checkpoint must hold: layers that trained, the class predictors, and what else is not as in the base.

    A layer is there as a whole, also if a part of it was frozen, so that it can be compared with that of another run.

    Args:
        trained: names of what training changes.
        base, now: fingerprints by name, of the base and of the detector with its new classes.
    """
    # Predictors also if they are as in the base, because `restore` begins with random ones.
    layers = [layer.parameters() for layer in detector.layers]
    whole = {name for layer in layers if not layer.keys().isdisjoint(trained) for name in layer}
    always = {*trained, *whole, *_predictors(detector)}
    state = detector.network.state_dict()
    return {name: state[name] for name in state if name in always or base.get(name) != now.get(name)}
