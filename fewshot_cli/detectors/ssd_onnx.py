"""The published SSD: an ONNX file with int8 weights, read into a state dict of `ssd_network.SsdNetwork`.

Its convolutions are followed from the outputs to the image. Each is known by its place in that walk, and must have the
shape, stride and groups of the one that our network has there; names in the file mean nothing. Weights and biases are
integers that `DequantizeLinear` scales, per output channel.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fewshot_cli.detectors.coco_classes import COCO_NAMES
from fewshot_cli.detectors.ssd_network import DEPTH, LEVELS, STAGES, SsdNetwork
from fewshot_cli.detectors.weights import check_tensors
from fewshot_cli.errors import CheckpointError, ConfigError
from fewshot_cli.paths import require_file

LARGEST = 64_000_000
"""Bytes of a file; the published one has 4 million."""
LARGEST_WEIGHT = 1 << 22
"""Numbers in one tensor; the largest weight has 0.4 million."""
_HINT = "Give the published file, or a .safetensors or .pth file of this detector."
_AGAIN = "Download or copy it again, and compare its size and checksum with the source's."


class _Shape(NamedTuple):
    """What tells one convolution from another: of its weight, its strides and groups."""

    weight: tuple[int, ...]
    strides: tuple[int, ...]
    groups: int

    def __str__(self) -> str:
        return f"{'×'.join(map(str, self.weight))} with stride {self.strides[0]} and {self.groups} groups"


def read_onnx(path: Path) -> dict[str, Tensor]:
    """The state dict of an `SsdNetwork` of 80 classes; the backbone's batch norms add the biases and are identities.

    Raises:
        CheckpointError: no ONNX file, a truncated one, one of another network, or one that keeps data elsewhere.
        ConfigError: the package onnx is missing.
    """
    graph = _read(path).graph
    network = SsdNetwork(len(COCO_NAMES))
    names = list(_walk())
    nodes = _convolutions(graph)
    if len(nodes) != len(names):
        raise _other(path, f"it has {len(nodes)} convolutions before its first two outputs instead of {len(names)}")
    state = network.state_dict()
    for place, (name, node) in enumerate(zip(names, nodes, strict=True), start=1):
        module = network.get_submodule(name)
        assert isinstance(module, nn.Conv2d)
        if len(node.input) < 3:
            raise _other(path, f"its convolution {place} has no bias")
        weight, bias = (_constant(graph, path, each) for each in node.input[1:3])
        found, wanted = _shape_of(node, weight), _Shape(tuple(module.weight.shape), module.stride, module.groups)
        if found != wanted or bias.shape != wanted.weight[:1]:
            raise _other(path, f"its convolution {place} is {found}, not {wanted}")
        state[f"{name}.weight"] = torch.from_numpy(weight)
        state |= _bias(network, name, torch.from_numpy(bias))
    check_tensors(path, state)
    return state


def _walk() -> Iterator[str]:
    """Names of our convolutions in the order of `_convolutions`: each after all that it depends on."""
    for lateral, (first, end) in enumerate(((0, STAGES[2][1]), STAGES[3], STAGES[4])):
        for block in range(first, end):
            yield from _block(block)
        yield f"neck.lateral.{lateral}"
    yield from _separable("neck.smooth.1")
    yield from _separable("neck.smooth.0")
    for level in range(LEVELS):
        if level > 2:
            yield from _separable(f"neck.extra.{level - 3}")
        for depth in range(DEPTH):
            yield from _separable(f"head.towers.{level}.{depth}")
        yield from _separable(f"head.classes.{level}")
    for level in range(LEVELS):
        yield from _separable(f"head.boxes.{level}")


def _block(index: int) -> Iterator[str]:
    """Convolutions of one of MobileNetV2's blocks: expand (from the second on), depthwise, project."""
    if index in (0, 18):
        yield f"features.{index}.0"
        return
    inner = ("conv.0.0", "conv.1") if index == 1 else ("conv.0.0", "conv.1.0", "conv.2")
    for name in inner:
        yield f"features.{index}.{name}"


def _separable(name: str) -> tuple[str, str]:
    return f"{name}.depthwise", f"{name}.pointwise"


def _bias(network: nn.Module, name: str, bias: Tensor) -> dict[str, Tensor]:
    """The bias where the network has it: in the convolution, or in the batch norm behind it."""
    own = network.get_submodule(name)
    if own.bias is not None:
        return {f"{name}.bias": bias}
    before, _, place = name.rpartition(".")
    norm_name = f"{before}.{int(place) + 1}"
    norm = network.get_submodule(norm_name)
    assert isinstance(norm, nn.BatchNorm2d)
    return {
        f"{norm_name}.weight": torch.ones_like(bias),
        f"{norm_name}.bias": bias,
        f"{norm_name}.running_mean": torch.zeros_like(bias),
        f"{norm_name}.running_var": torch.full_like(bias, 1 - norm.eps),
    }


def _read(path: Path) -> Any:
    """The model; data outside the file is not looked at."""
    try:
        onnx = import_module("onnx")
    except ImportError as error:
        raise ConfigError(
            f"reading {path} needs the package onnx", hint="Install it with `pip install 'fsod[onnx]'`."
        ) from error
    require_file(path, error=CheckpointError, hint=_HINT, largest=LARGEST)
    try:
        return onnx.load_from_string(path.read_bytes())
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror}", hint=_HINT) from error
    except Exception as error:  # protobuf's decoder has errors of its own
        raise CheckpointError(f"{path} is no ONNX file, or a truncated or damaged one", hint=_AGAIN) from error


def _convolutions(graph: Any) -> list[Any]:
    """The convolutions that the first two outputs depend on, each after all that it depends on itself.

    Inputs are followed in their order, and outputs too: classes, then boxes.
    """
    makers = {output: node for node in graph.node for output in node.output}
    found, seen = [], set()
    waiting = [(output.name, False) for output in reversed(graph.output[:2])]
    while waiting:
        name, inputs_done = waiting.pop()
        node = makers.get(name)
        if node is None:
            continue
        if inputs_done:
            found += [node] if node.op_type == "Conv" else []
        elif name not in seen:
            seen.add(name)
            waiting.append((name, True))
            waiting += [(each, False) for each in reversed(node.input)]
    return found


def _shape_of(node: Any, weight: NDArray[np.float32]) -> _Shape:
    attributes = {attribute.name: attribute for attribute in node.attribute}
    strides = tuple(attributes["strides"].ints) if "strides" in attributes else (1, 1)
    return _Shape(weight.shape, strides, attributes["group"].i if "group" in attributes else 1)


def _constant(graph: Any, path: Path, name: str) -> NDArray[np.float32]:
    """A constant input of a convolution: an initialiser, or one that a `DequantizeLinear` scales."""
    maker = next((node for node in graph.node if name in node.output), None)
    if maker is None:
        return _initialiser(graph, path, name).astype(np.float32)
    if maker.op_type != "DequantizeLinear":
        raise _other(path, f"a weight or bias comes from {maker.op_type}")
    values, scale, zero = (_initialiser(graph, path, each) for each in maker.input[:3])
    axis = next((attribute.i for attribute in maker.attribute if attribute.name == "axis"), 1)
    along = tuple(-1 if each == axis else 1 for each in range(values.ndim)) if scale.size > 1 else ()
    try:
        shifted = values.astype(np.float64) - zero.reshape(along)
        return (shifted * scale.reshape(along)).astype(np.float32)
    except ValueError as error:
        raise _other(path, "the scales of a weight do not fit it") from error


def _initialiser(graph: Any, path: Path, name: str) -> NDArray[Any]:
    found = next((each for each in graph.initializer if each.name == name), None)
    if found is None or found.external_data or prod(found.dims) > LARGEST_WEIGHT:
        raise _other(path, "a weight or bias is not in it, or too large")
    try:
        values: NDArray[Any] = import_module("onnx").numpy_helper.to_array(found)
    except Exception as error:  # of sizes and types that the data does not have
        raise CheckpointError(f"{path} is damaged: {error}", hint=_AGAIN) from error
    return values


def _other(path: Path, why: str) -> CheckpointError:
    return CheckpointError(f"{path} is not the published SSD: {why}", hint=_HINT)
