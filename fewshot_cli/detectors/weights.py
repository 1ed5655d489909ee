"""Weights on disk: read without running code in them, loaded only if they fit, fingerprinted bit for bit."""

from __future__ import annotations

import hashlib
import re
import warnings
import zipfile
from collections.abc import Collection, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fewshot_cli.detectors.registry import DETECTORS
from fewshot_cli.detectors.tensor_file import CHECKPOINT, fingerprint, read_tensor_file
from fewshot_cli.errors import CheckpointError
from fewshot_cli.files import sha256_of
from fewshot_cli.paths import exists, is_folder, require_file, shown

_FORMATS = "Give a .pth, .pt or .safetensors file with a state dict, or one of: default, imagenet, none."
_AGAIN = "Download or copy it again, and compare its size and checksum with the source's."
_WRAPPERS = ("model", "state_dict", "model_state_dict", "ema")
_DEEPEST = 10
"""Wrappers inside each other; a file can hold one that is inside itself."""
_LARGEST_RATIO = 10
"""Of what an archive holds to its size; TorchScript compresses its code."""
_REAL_TYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_NOT_WEIGHTS = {
    b"version https://git-lfs": ("a git-LFS pointer, not the file itself", "Run `git lfs pull` where it came from."),
    b"<!doctype": ("a web page", "Download the file itself, not the page that shows it."),
    b"<html": ("a web page", "Download the file itself, not the page that shows it."),
    b"<?xml": ("an XML document", "Download the file itself; servers send one when access is denied."),
}


def read_weights(path: Path | str, *, without: tuple[str, ...] = ()) -> dict[str, Tensor]:
    """Read a state dict from a file onto the CPU. Nothing in the file is ever run.

    Args:
        path: .safetensors, or what torch.save wrote; a state dict wrapped as {"model": …}, {"state_dict": …} or
            {"ema": …} is unwrapped, and the `module.` prefix of DataParallel is taken off.
        without: tensors whose names begin so are left out, whatever is in them.

    Returns:
        tensors by name, at least one; every floating-point one is finite.

    Raises:
        CheckpointError: missing, empty, truncated, no checkpoint, one that could run code, or without usable tensors.
    """
    path = Path(path)
    _check_file(path)
    content = _read_safetensors(path) if path.suffix == ".safetensors" else read_torch(path)
    named = _without_prefix(_tensors_in(content)).items()
    tensors = {name: tensor for name, tensor in named if not name.startswith(without)}
    if not tensors:
        raise CheckpointError(f"{path} holds no tensors", hint=_FORMATS)
    check_tensors(path, tensors)
    return tensors


def check_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Raise CheckpointError for the first tensor that no weights are: sparse, without data, or not finite."""
    for name, tensor in tensors.items():
        fault = _fault_of(tensor)
        if fault:
            raise CheckpointError(
                f"{path}: tensor {name!r} {fault}",
                hint="Weights are dense, finite floating-point numbers; use a checkpoint from before this happened.",
            )


def check_hash(path: Path, sha256_prefix: str) -> Path:
    """The path, if the SHA-256 of its file begins so; raises CheckpointError, for a published file that changed."""
    try:
        found = sha256_of(path)
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror}", hint=_AGAIN) from error
    if not found.startswith(sha256_prefix):
        raise CheckpointError(
            f"{path} is damaged: its SHA-256 begins with {found[:8]}, that of the published file with "
            f"{sha256_prefix[:8]}",
            hint="Remove it: it is downloaded again when it is needed.",
        )
    return path


def load_exactly(module: nn.Module, state: Mapping[str, Tensor], *, what: str, optional: Collection[str] = ()) -> None:
    """Load a state dict if every name and shape matches; otherwise leave the module as it was.

    Args:
        module: takes the tensors, converted to its own float types.
        state: tensors by the module's names.
        what: names the weights in the message, e.g. `yolox_nano from weights.pth`.
        optional: names that may be missing, besides every `num_batches_tracked` (a count that eval never reads).

    Raises:
        CheckpointError: with the numbers and first names of what is missing, unexpected or of another shape or type,
            and, if they are recognised, what the weights are instead.
    """
    own = module.state_dict()
    faults = {
        "missing": [name for name in own if name not in state and not _may_miss(name, optional)],
        "unexpected": [name for name in state if name not in own],
        "of another shape": [
            f"{name} {tuple(state[name].shape)} instead of {tuple(tensor.shape)}"
            for name, tensor in own.items()
            if name in state and state[name].shape != tensor.shape
        ],
        "not floating point": [
            f"{name} {state[name].dtype}"
            for name, tensor in own.items()
            if name in state and tensor.is_floating_point() and not state[name].is_floating_point()
        ],
    }
    if any(faults.values()):
        raise CheckpointError(f"weights do not fit: {what}: {_listed(faults)}", hint=_what_instead(state, own))
    module.load_state_dict(state, strict=False)


def guess_detector(state: Mapping[str, Tensor]) -> str | None:
    """The detector that a state dict most likely belongs to, or None. A guess for messages, not a proof."""
    for name in dict.fromkeys(spec.module for spec in DETECTORS.values()):
        found: str | None = import_module(name).recognise(state)
        if found:
            return found
    return None


def tensor_fingerprints(module: nn.Module) -> dict[str, str]:
    """SHA-256 of type, shape and bytes of every parameter and buffer, by name, in sorted order.

    Equal fingerprints mean equal bits, wherever the tensor lives: this is how a run proves what stayed frozen.
    """
    tensors = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    return {name: fingerprint(tensors[name]) for name in sorted(tensors)}


def state_fingerprint(module: nn.Module) -> str:
    """One SHA-256 over the names and fingerprints of all parameters and buffers."""
    return joint_fingerprint(tensor_fingerprints(module))


def joint_fingerprint(fingerprints: Mapping[str, str]) -> str:
    """The same from what `tensor_fingerprints` returned."""
    lines = [f"{name} {digest}\n" for name, digest in fingerprints.items()]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _check_file(path: Path) -> None:
    try:
        if is_folder(path, error=CheckpointError):
            raise CheckpointError(f"{path} is a folder, not a weights file", hint=_FORMATS)
        if not exists(path, error=CheckpointError):
            raise CheckpointError(f"no weights file {shown(path)}", hint=_FORMATS)
        require_file(path, error=CheckpointError, hint=_FORMATS)
        with path.open("rb") as stream:
            start = stream.read(64)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise CheckpointError(f"cannot read {path}: {reason}", hint=_FORMATS) from error
    if not start:
        raise CheckpointError(f"{path} is empty (0 bytes)", hint=_AGAIN)
    for magic, (kind, hint) in _NOT_WEIGHTS.items():
        if start.lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith(magic):
            raise CheckpointError(f"{path} is not a checkpoint: it is {kind}", hint=hint)


def _read_safetensors(path: Path) -> Any:
    content = read_tensor_file(path)
    if CHECKPOINT in content.metadata:
        raise CheckpointError(
            f"{path} is the checkpoint of a run: it holds only what was trained, not a whole detector",
            hint="`fsod export RUN --format weights` makes a file for --weights; predict and eval take the run itself.",
        )
    return content.tensors


def read_torch(path: Path) -> Any:
    """What torch.save wrote, on the CPU, if it is plain values and tensors; raises CheckpointError. No code is run."""
    _check_archive(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about formats; what matters becomes an error below
            return torch.load(path, map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    except Exception as error:  # a damaged file can raise anything at all from the unpickler
        raise _unreadable(path, error) from error


def _check_archive(path: Path) -> None:
    """torch.save does not compress: an archive that holds far more than its size would fill the memory."""
    if not zipfile.is_zipfile(path):
        return
    try:
        with zipfile.ZipFile(path) as archive:
            held = sum(entry.file_size for entry in archive.infolist())
    except Exception as error:  # whatever a damaged directory raises
        raise CheckpointError(f"{path} is truncated or damaged: {_first_line(error)}", hint=_AGAIN) from error
    if held > _LARGEST_RATIO * path.stat().st_size:
        raise CheckpointError(f"{path} was not loaded: it is compressed, which torch.save never does", hint=_FORMATS)


def _unreadable(path: Path, error: Exception) -> CheckpointError:
    with path.open("rb") as stream:
        start = stream.read(16)
    code = _code_in(start, str(error))
    if code:
        return CheckpointError(
            f"{path} was not loaded: {code}, so loading it could run code. Nothing was run",
            hint="Only plain tensors are read. If you trust the file, save its state dict where it was made: "
            "torch.save(model.state_dict(), FILE), or as .safetensors.",
        )
    if start.startswith(b"PK"):
        size = f"{path.stat().st_size:,} bytes"
        return CheckpointError(f"{path} is truncated or damaged ({size}): {_first_line(error)}", hint=_AGAIN)
    return CheckpointError(f"{path} is not a checkpoint, or a damaged one (it begins with {start!r})", hint=_FORMATS)


def _code_in(start: bytes, message: str) -> str | None:
    """What in the file is more than tensors, by its first bytes and torch's complaint; None for mere damage."""
    if "TorchScript" in message:
        return "it is a TorchScript archive, a program"
    named = re.search(r"(?:GLOBAL|function|class) ([\w.]+)", message)
    if named:
        return f"its pickle refers to {named[1]}"
    if start[:1] == b"\x80" and start[1:2] > b"\x02":  # torch.save writes protocol 2, and nothing else is needed
        return "it is a Python pickle that torch.save did not write"
    return None


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].split(". ")[0] if lines else type(error).__name__


def _tensors_in(content: Any) -> dict[str, Tensor]:
    """The tensors of a state dict, inside as many known wrappers as there are; none if there are too many."""
    for _ in range(_DEEPEST):
        if not isinstance(content, Mapping):
            return {}
        inner = next((content[key] for key in _WRAPPERS if isinstance(content.get(key), Mapping)), None)
        if inner is None:
            return {name: each for name, each in content.items() if isinstance(name, str) and isinstance(each, Tensor)}
        content = inner
    return {}


def _without_prefix(tensors: dict[str, Tensor], prefix: str = "module.") -> dict[str, Tensor]:
    if not all(name.startswith(prefix) for name in tensors):
        return tensors
    return {name[len(prefix) :]: tensor for name, tensor in tensors.items()}


def _fault_of(tensor: Tensor) -> str | None:
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_complex() or tensor.is_meta:
        return "is sparse, quantised, complex or without data"
    # A tensor of stride 0 can claim terabytes from a few bytes; looking at its values would fill the memory.
    if tensor.untyped_storage().nbytes() < tensor.numel() * tensor.element_size():
        return f"claims a shape {tuple(tensor.shape)} larger than its data"
    if tensor.is_floating_point() and tensor.dtype not in _REAL_TYPES:
        return f"is stored as {tensor.dtype}"
    if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
        return "holds NaN or infinite numbers"
    return None


def _may_miss(name: str, optional: Collection[str]) -> bool:
    return name in optional or name.endswith("num_batches_tracked")


def _listed(faults: dict[str, list[str]], shown: int = 3) -> str:
    parts = []
    for kind, names in faults.items():
        if names:
            more = ", …" if len(names) > shown else ""
            parts.append(f"{len(names)} {kind} ({', '.join(names[:shown])}{more})")
    return "; ".join(parts)


def _what_instead(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> str:
    theirs, ours = guess_detector(state), guess_detector(own)
    if theirs and theirs != ours:
        choice = "choose that detector, or give" if theirs in DETECTORS else "give"
        return f"These look like weights of {theirs}; {choice} weights of {ours or 'this one'}."
    if theirs:
        return f"They look like {theirs}, but changed: another number of classes, or a damaged or partial file."
    return "Give weights that were saved from this very detector."
