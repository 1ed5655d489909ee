"""Weights that are none, that run code, or whose tensors are missing, not numbers, or of another shape."""

from __future__ import annotations

import json
import os
import pickle
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

from fuzz_harness import Case, Change
from fuzz_values import BROKEN, JSON_VALUES, SPECIAL, content, cut, flipped, replaced
from fuzz_world import BASE, DATA, DONE, EXPORTED, LAST, ONNX, PHOTO

CHECKPOINT = f"{DONE}/checkpoint.safetensors"


def _torch(make: Callable[[], Any]) -> Change:
    def save(path: Path) -> None:
        import torch

        torch.save(make(), path)

    return save


def _itself() -> Any:
    loop: list[Any] = []
    loop.append(loop)
    return loop


def _itself_by_name() -> Any:
    loop: dict[str, Any] = {}
    loop["model"] = loop
    return loop


def _deep() -> Any:
    import torch

    inner: Any = {"a": torch.zeros(1)}
    for _ in range(300):
        inner = {"model": inner}
    return inner


class _Code:
    def __reduce__(self) -> Any:
        return os.system, ("touch hacked",)


def _pickled(path: Path) -> None:
    content(pickle.dumps({"model": _Code()}))(path)


def _state(change: Callable[[dict[str, Any], Random], Any]) -> Change:
    """The state dict in the file, changed."""

    def edit(path: Path) -> None:
        import torch

        state = torch.load(path, weights_only=True)["model"]
        torch.save({"model": change(state, Random(7))}, path)

    return edit


def _tensors(
    change: Callable[[dict[str, Any]], Any], metadata: Callable[[dict[str, str]], dict[str, str]] = dict
) -> Change:
    """The tensors and the metadata of a safetensors file, changed."""

    def edit(path: Path) -> None:
        from safetensors import safe_open
        from safetensors.torch import load_file, save

        with safe_open(path, framework="pt") as file:
            told = dict(file.metadata())
        content(save(change(load_file(path)), metadata(told)))(path)

    return edit


def _set(tensors: dict[str, Any], find: str, make: Callable[[Any], Any]) -> dict[str, Any]:
    name = next(name for name in tensors if find in name and tensors[name].dim() > 0)
    return {**tensors, name: make(tensors[name]).contiguous()}


def _edits(find: str) -> dict[str, Callable[[dict[str, Any]], dict[str, Any]]]:
    """Name → change of tensors by name."""
    return {
        "one missing": lambda tensors: dict(list(tensors.items())[1:]),
        "half missing": lambda tensors: dict(list(tensors.items())[::2]),
        "all but one missing": lambda tensors: dict(list(tensors.items())[:1]),
        "none": lambda tensors: {},
        "a foreign one": lambda tensors: {**tensors, "foreign.weight": next(iter(tensors.values())).clone()},
        "NaN": lambda tensors: _set(tensors, find, lambda tensor: tensor * float("nan")),
        "infinity": lambda tensors: _set(tensors, find, lambda tensor: tensor + float("inf")),
        "another shape": lambda tensors: _set(tensors, find, lambda tensor: tensor[:-1]),
        "one more dimension": lambda tensors: _set(tensors, find, lambda tensor: tensor[None]),
        "flat": lambda tensors: _set(tensors, find, lambda tensor: tensor.flatten()[:1]),
        "integers": lambda tensors: _set(tensors, find, lambda tensor: tensor.int()),
        "complex": lambda tensors: _set(tensors, find, lambda tensor: tensor.to(__import__("torch").complex64)),
        "renamed": lambda tensors: {f"x.{name}": tensor for name, tensor in tensors.items()},
    }


def _header(change: Callable[[dict[str, Any]], dict[str, Any]], length: Callable[[int], int] = int) -> Change:
    """The header of a safetensors file, changed; its length too."""

    def edit(path: Path) -> None:
        data = path.read_bytes()
        size = struct.unpack("<Q", data[:8])[0]
        header = json.dumps(change(json.loads(data[8 : 8 + size]))).encode()
        content(struct.pack("<Q", length(len(header))) + header + data[8 + size :])(path)

    return edit


def _one(change: Callable[[dict[str, Any]], dict[str, Any]]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Of the first tensor in a header."""

    def edit(header: dict[str, Any]) -> dict[str, Any]:
        name = next(name for name in header if name != "__metadata__")
        return {**header, name: {**header[name], **change(header[name])}}

    return edit


HEADERS: dict[str, Change] = {
    "a length of 2^63": _header(dict, lambda _: 2**63), "a length of 0": _header(dict, lambda _: 0), "a length too short": _header(dict, lambda size: size - 5),
    "a length too long": _header(dict, lambda size: size + 10_000_000), "a shape that lies": _header(_one(lambda _: {"shape": [2**40]})),
    "a negative shape": _header(_one(lambda _: {"shape": [-1]})), "offsets outside": _header(_one(lambda _: {"data_offsets": [0, 2**40]})),
    "offsets backwards": _header(_one(lambda _: {"data_offsets": [100, 0]})), "an unknown type": _header(_one(lambda _: {"dtype": "X99"})),
    "another type": _header(_one(lambda _: {"dtype": "I32"})), "offsets of another tensor": _header(_one(lambda entry: {"data_offsets": [entry["data_offsets"][0] + 4, entry["data_offsets"][1] + 4]})),
    "no metadata": _header(lambda header: {name: entry for name, entry in header.items() if name != "__metadata__"}),
    "metadata of another kind": _header(lambda header: {**header, "__metadata__": 7}), "no tensors": _header(lambda header: {"__metadata__": header["__metadata__"]}),
    "deep": content(struct.pack("<Q", 100_000) + b"[" * 100_000),
}  # fmt: skip

FILES: dict[str, Change] = {
    "a list in itself": _torch(_itself), "a dict in itself": _torch(_itself_by_name), "300 wrappers": _torch(_deep), "a list": _torch(lambda: [1, 2]),
    "a number": _torch(lambda: 7), "text": _torch(lambda: "x"), "nothing": _torch(dict), "a tensor": _torch(lambda: __import__("torch").zeros(3)),
    "numbers by name": _torch(lambda: {"model": {"a": 1}}), "tensors by number": _torch(lambda: {1: __import__("torch").zeros(2)}),
    "code": _pickled, "code in a checkpoint": _torch(lambda: {"model": _Code()}), "half": cut(0.5), "all but the end": cut(0.99), "the start": cut(0.01),
    "a sparse tensor": _torch(lambda: {"model": {"a": __import__("torch").eye(3).to_sparse()}}),
    "a huge view": _torch(lambda: {"model": {"a": __import__("torch").zeros(1).expand(2**40)}}),
    "pickle without an end": content(b"\x80\x02" + b"(" * 100_000), "a memo without an end": content(b"\x80\x02]q\0" + b"h\0a" * 10_000 + b"."),
}  # fmt: skip
"""Name → content of a .pth."""


def weights() -> Iterator[Case]:
    """As `--weights`, as what detects, and as a run's checkpoint."""
    for name, change in {
        **FILES,
        **{f"flipped {seed}": flipped(seed, 3) for seed in range(6)},
        **_named(SPECIAL),
        **_named(_contents()),
    }.items():
        yield from _as_weights(name, BASE, change, harmless=False)
    for name, edit in _edits("conv.weight").items():
        yield from _as_weights(
            f"tensors: {name}", BASE, _state(lambda state, _, edit=edit: edit(state)), harmless=False
        )
    for name, change in {
        **HEADERS,
        **{f"flipped {seed}": flipped(seed, 3) for seed in range(8)},
        **_named(_contents()),
        "half": cut(0.5),
    }.items():
        # Without metadata it is a plain weights file, whose classes have no names.
        yield _predict(name, EXPORTED, change, harmless=name == "no metadata")
        yield from _of_run(name, change)
    for name, edit in _edits("weight").items():
        yield _predict(f"tensors: {name}", EXPORTED, _tensors(edit))
        yield from _of_run(f"tensors: {name}", _tensors(edit))
    for name, change in {
        **{f"flipped {seed}": flipped(seed, 3) for seed in range(8)},
        **_named(_contents()),
        **_named(SPECIAL),
        "half": cut(0.5),
    }.items():
        yield _predict(name, ONNX, change, harmless="flipped" in name)
    yield from _metadata()
    for name, file in {
        "a checkpoint": CHECKPOINT,
        "a state": f"{DONE}/state.pt",
        "a result": f"{DONE}/result.json",
        "an ONNX file": ONNX,
        "a photo": PHOTO,
    }.items():
        argv = ("finetune", "--data", DATA, *LAST, "--weights", file)
        yield Case(kind="weights", name=f"weights: {name} as --weights", argv=argv, parts=(DATA, DONE, ONNX, PHOTO))


def _named(changes: dict[str, Change] | Any) -> dict[str, Change]:
    return {f"file: {name}": change for name, change in changes.items()}


def _contents() -> dict[str, Change]:
    return {name: content(data) for name, data in BROKEN.items()}


def _as_weights(name: str, file: str, change: Change, *, harmless: bool) -> Iterator[Case]:
    calls = {
        "finetune": ("finetune", "--data", DATA, *LAST, "--weights", file),
        "eval": ("eval", "--detector", "yolox_nano", "--threads", "1", "--data", DATA, "--weights", file),
        "inspect-layers": ("inspect-layers", "yolox_nano", "--weights", file, "--threads", "1"),
    }
    command = Random(name).choice(sorted(calls))
    yield Case(
        kind="weights",
        name=f"weights: {command} {name}",
        argv=calls[command],
        parts=(DATA, BASE),
        changes={file: change},
        harmless=harmless,
    )


def _predict(name: str, file: str, change: Change, *, harmless: bool = False) -> Case:
    argv = ("predict", file, PHOTO, "--threads", "1")
    return Case(
        kind="weights",
        name=f"weights: predict {file} {name}",
        argv=argv,
        parts=(PHOTO, file),
        changes={file: change},
        harmless=harmless,
    )


def _of_run(name: str, change: Change) -> Iterator[Case]:
    calls = {"eval": ("eval", DONE, "--threads", "1"), "predict": ("predict", DONE, PHOTO, "--threads", "1"), "export": ("export", DONE, "--format", "weights", "--threads", "1")}  # fmt: skip
    command = Random(name).choice(sorted(calls))
    yield Case(
        kind="weights",
        name=f"weights: {command} checkpoint {name}",
        argv=calls[command],
        parts=(DATA, DONE, PHOTO),
        changes={CHECKPOINT: change},
    )


def _metadata() -> Iterator[Case]:
    """What the files say of themselves."""
    fields = ("detector", "classes", "image_size", "norm_eps", "thresholds", "schema", "fsod")
    for field in fields:
        for name in Random(field).sample(sorted(JSON_VALUES), 4):
            change = _told("fsod-detector", field, JSON_VALUES[name])
            yield _predict(
                f"metadata: {field} {name}",
                EXPORTED,
                change,
                harmless=field in ("fsod", "thresholds") or (field == "norm_eps" and name in ("null", "zero")),
            )
    for field in (
        "detector",
        "weights",
        "base_fingerprint",
        "classes",
        "image_size",
        "policy",
        "trained_layers",
        "iteration",
        "seed",
        "keep_base_classes",
        "format",
    ):
        for name in Random(field).sample(sorted(JSON_VALUES), 4):
            harmless = field in (
                "iteration",
                "policy",
                "seed",
                "trained_layers",
                "keep_base_classes",
                "weights",
                "image_size",
            )
            for case in _of_run(f"metadata: {field} {name}", _told("fsod", field, JSON_VALUES[name])):
                yield Case(**{**vars(case), "harmless": harmless})
    for name, text in {"no JSON": "{", "null": "null", "a list": "[]", "deep": "[" * 100_000}.items():
        yield _predict(
            f"metadata: {name}", EXPORTED, _tensors(dict, lambda told, text=text: {**told, "fsod-detector": text})
        )
        yield from _of_run(f"metadata: {name}", _tensors(dict, lambda told, text=text: {**told, "fsod": text}))


def _told(key: str, field: str, value: Any) -> Change:
    def metadata(told: dict[str, str]) -> dict[str, str]:
        return {**told, key: json.dumps(replaced(json.loads(told[key]), (field,), value))}

    return _tensors(dict, metadata)
