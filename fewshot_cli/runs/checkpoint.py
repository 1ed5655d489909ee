"""The tensors of a run that differ from its base weights.

A checkpoint is a safetensors file of a few MB. Its metadata names the base and its fingerprint, so that the
whole detector can be put together again, and never on top of the wrong weights.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from fewshot_cli.detectors.chain import Detector
from fewshot_cli.detectors.registry import WEIGHT_NAMES, build_detector
from fewshot_cli.detectors.two_heads import TwoHeads, copy_beside
from fewshot_cli.detectors.weights import state_fingerprint
from fewshot_cli.errors import CheckpointError
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
    image_size: int
    """Side of the canvas, pixels."""
    policy: str
    budget: int | None
    trained_layers: tuple[str, ...]
    """Names in the chain."""
    iteration: int
    """Iterations done."""
    seed: int
    """Also of a base with random weights."""
    keep_base_classes: bool = False
    """Whether the base's head runs beside the adapted one."""
    format: int = FORMAT


def save_checkpoint(path: Path, tensors: Mapping[str, Tensor], info: CheckpointInfo) -> None:
    """Write tensors by qualified name, and what they belong to, atomically; raises StorageError."""
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    metadata = {"fsod": json.dumps(asdict(info))}
    # safetensors reports a full disk as something else; bytes written by Python do not.
    content = save(dict(tensors), metadata)

    def write(temporary: Path) -> None:
        temporary.write_bytes(content)

    write_atomically(path, write)


def read_checkpoint(path: Path) -> tuple[dict[str, Tensor], CheckpointInfo]:
    """Tensors by qualified name, and what they belong to.

    Raises:
        CheckpointError: missing, truncated, or not written by fsod.
    """
    if not path.is_file():
        raise CheckpointError(
            f"no checkpoint {path}", hint="Is the run finished? `fsod finetune --resume RUN` continues it."
        )
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        info = json.loads(metadata["fsod"])
        return tensors, CheckpointInfo(
            **{**info, "classes": tuple(info["classes"]), "trained_layers": tuple(info["trained_layers"])}
        )
    except SafetensorError as error:
        raise CheckpointError(
            f"{path} is truncated or damaged: {error}", hint="Copy it again, or train again."
        ) from error
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{path} is not a checkpoint of this version of fsod", hint="Give a run's checkpoint.safetensors."
        ) from error


def restore(
    path: Path, *, weights: str | None = None, reporter: Reporter | None = None
) -> tuple[Detector, CheckpointInfo]:
    """The fine-tuned detector: base and checkpoint put together, in eval, on the CPU.

    It is a `TwoHeads` if the checkpoint says that the base classes are kept.

    Args:
        path: a checkpoint.
        weights: where the base is now, if it moved since.

    Raises:
        CheckpointError: the base is gone or not the one it was trained on, or the tensors are of another detector.
    """
    tensors, info = read_checkpoint(path)
    _check_base(path, info, weights)
    base = build_detector(
        info.detector, weights=weights or info.weights, image_size=info.image_size, seed=info.seed, reporter=reporter
    )
    if state_fingerprint(base.network) != info.base_fingerprint:
        raise CheckpointError(
            f"{path} was trained on other {info.detector} weights than {weights or info.weights}",
            hint="Give the weights it started from with --weights.",
        )
    adapted = copy_beside(base, tensors) if info.keep_base_classes else base
    adapted.replace_classes(info.classes, [()] * len(info.classes))
    load_tensors(adapted, tensors, path)
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


@torch.no_grad()
def load_tensors(detector: Detector, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Copy tensors into the detector by name; raises CheckpointError if a name or a shape is foreign."""
    own = detector.network.state_dict()
    foreign = [name for name, tensor in tensors.items() if name not in own or own[name].shape != tensor.shape]
    if foreign:
        raise CheckpointError(
            f"{path} does not fit {detector.name}: {len(foreign)} tensors are foreign, first {foreign[0]}",
            hint=f"Give a checkpoint of {detector.name} with {len(detector.classes)} classes.",
        )
    for name, tensor in tensors.items():
        own[name].copy_(tensor)


def tensors_to_keep(detector: Detector, base: Mapping[str, str], now: Mapping[str, str]) -> dict[str, Tensor]:
    """What a checkpoint must hold: whatever trained, the class predictors, and what else is not as in the base.

    Args:
        base, now: fingerprints by name, of the base and of the detector with its new classes.
    """
    trained = {name for name, parameter in detector.network.named_parameters() if parameter.requires_grad}
    # Predictors also if they are as in the base, because `restore` begins with random ones.
    predictors = {f"{predictor.name}.{kind}" for predictor in detector.predictors for kind in ("weight", "bias")}
    state = detector.network.state_dict()
    return {name: state[name] for name in state if name in trained | predictors or base.get(name) != now.get(name)}
