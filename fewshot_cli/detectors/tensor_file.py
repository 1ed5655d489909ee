"""Safetensors files that say what was written into them, so that a byte that changed since is noticed.

The metadata holds, beside what the writer says there, a digest of all of it and of the tensors: their names, types,
shapes and bytes. A file without one, of another program or of an earlier fsod, is read as it is.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from safetensors import SafetensorError, safe_open

from fewshot_cli.errors import CheckpointError

if TYPE_CHECKING:
    from torch import Tensor

DIGEST = "fsod-sha256"
"""Key of the digest in the metadata."""
CHECKPOINT = "fsod"
"""Key of what the checkpoint of a run says of itself."""
AGAIN = "Copy it again, and compare its size and checksum with the source's."


class TensorFile(NamedTuple):
    """The content of a file: tensors by name, on the CPU, and what its writer says of them."""

    tensors: dict[str, Tensor]
    metadata: dict[str, str]


def to_bytes(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """The content of a file with a digest."""
    from safetensors.torch import save

    own = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    # Tensors that share memory cannot be written, and a part of a larger one would be written whole.
    own = {name: tensor.clone() for name, tensor in own.items()}
    content: bytes = save(own, {**metadata, DIGEST: _digest(own, metadata)})
    return content


def read_tensor_file(path: Path, *, hint: str = AGAIN) -> TensorFile:
    """Read a safetensors file, and check its digest if it has one.

    Args:
        path: a regular file.
        hint: what to do if it is damaged.

    Raises:
        CheckpointError: no file, a truncated or damaged one, or not what was written.
    """
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except MemoryError:
        raise
    except Exception as error:  # besides SafetensorError, what torch raises for types and shapes that it does not have
        raise CheckpointError(f"{path} is truncated or damaged: {error}", hint=hint) from error
    stated = metadata.pop(DIGEST, None)
    if stated is not None and stated != _digest(tensors, metadata):
        raise CheckpointError(f"{path} is damaged: it does not hold what was written into it", hint=hint)
    return TensorFile(tensors, metadata)


def read_metadata(path: Path) -> dict[str, str]:
    """What the writer of a safetensors file says, without PyTorch; empty if that cannot be read."""
    try:
        if path.suffix.lower() != ".safetensors" or not path.is_file():
            return {}
        with safe_open(path, framework="np") as file:
            return file.metadata() or {}
    except (SafetensorError, OSError, ValueError):
        return {}  # whoever reads the tensors says what is wrong


def fingerprint(tensor: Tensor) -> str:
    """SHA-256 of a tensor's type, shape and bytes."""
    import torch

    flat = tensor.detach().cpu().contiguous().reshape(-1)
    digest = hashlib.sha256(f"{tensor.dtype} {tuple(tensor.shape)} ".encode())
    digest.update(flat.view(torch.uint8).numpy().data if flat.numel() else b"")
    return digest.hexdigest()


def _digest(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    prints = {name: fingerprint(tensor) for name, tensor in tensors.items()}
    return hashlib.sha256(json.dumps([prints, dict(metadata)], sort_keys=True).encode()).hexdigest()
