"""Safetensors files that say what was written into them, so that a byte that changed since is noticed.

The metadata has one key, with a JSON object: what the writer says, and a digest of that and of the tensors: their
names, types, shapes and bytes. A file without a digest, of another program or of an earlier fsod, is read as it is.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from safetensors import SafetensorError, safe_open

from fewshot_cli.errors import CheckpointError

if TYPE_CHECKING:
    from torch import Tensor

CHECKPOINT, EXPORTED = "fsod", "fsod-detector"
"""Keys of what a run's checkpoint and a file of `fsod export` say of themselves."""
DIGEST = "sha256"
"""Where in it the digest is."""
AGAIN = "Copy it again, and compare its size and checksum with the source's."


class TensorFile(NamedTuple):
    """The content of a file: tensors by name, on the CPU, and what its writer says of them."""

    tensors: dict[str, Tensor]
    metadata: dict[str, str]


def to_bytes(tensors: Mapping[str, Tensor], key: str, document: Mapping[str, Any]) -> bytes:
    """The content of a file with a digest; the same for the same tensors and document.

    Args:
        tensors: by name.
        key: CHECKPOINT or EXPORTED. One key alone, because safetensors writes several in any order.
        document: what the file says of itself.
    """
    from safetensors.torch import save

    # Tensors that share memory cannot be written, and a part of a larger one would be written whole.
    own = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    content: bytes = save(own, {key: json.dumps({**document, DIGEST: _digest(own, document)})})
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
    for key in (CHECKPOINT, EXPORTED):
        document = _object(metadata.get(key, ""))
        stated = document.pop(DIGEST, None)
        if stated is not None and stated != _digest(tensors, document):
            raise CheckpointError(f"{path} is damaged: it does not hold what was written into it", hint=hint)
    return TensorFile(tensors, metadata)


def _object(text: str) -> dict[str, Any]:
    """The JSON object in a text; empty for anything else, which whoever needs it reports."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


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


def _digest(tensors: Mapping[str, Tensor], document: Mapping[str, Any]) -> str:
    prints = {name: fingerprint(tensor) for name, tensor in tensors.items()}
    return hashlib.sha256(json.dumps([prints, dict(document)], sort_keys=True).encode()).hexdigest()
