"""Weights files: what is read, what is refused and how that is said, and fingerprints."""

from __future__ import annotations

import argparse
import os
import pickle
import zipfile
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision.models import detection, mobilenet_v2, mobilenet_v3_large, resnet50, vgg16

from fewshot_cli.detectors.registry import DETECTORS, build_detector
from fewshot_cli.detectors.weights import (
    check_hash,
    guess_detector,
    load_exactly,
    read_weights,
    state_fingerprint,
    tensor_fingerprints,
)
from fewshot_cli.detectors.yolox_network import Size, YoloxNetwork
from fewshot_cli.errors import CheckpointError

STATE = {"layer.weight": torch.arange(12.0).reshape(3, 4), "layer.bias": torch.zeros(3)}


def saved(path: Path, content: Any, **options: Any) -> Path:
    torch.save(content, path, **options)
    return path


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"model": state, "epoch": 3},
        lambda state: {"state_dict": state},
        lambda state: {"ema": {"state_dict": state}},
        lambda state: {f"module.{name}": tensor for name, tensor in state.items()},
        lambda state: {"model": {f"module.{name}": tensor for name, tensor in state.items()}, "optimizer": {"lr": 1}},
    ],
    ids=["plain", "model", "state_dict", "ema", "parallel", "model and parallel"],
)
def test_a_state_dict_is_found_in_its_wrapping(tmp_path: Path, wrap: Callable[[dict[str, Tensor]], Any]) -> None:
    """What training scripts save around a state dict does not matter, in torch's new and old format."""
    for zipped in (True, False):
        path = saved(tmp_path / "w.pth", wrap(STATE), _use_new_zipfile_serialization=zipped)
        assert same(STATE, read_weights(path)), zipped


def test_safetensors_are_read(tmp_path: Path) -> None:
    """A .safetensors file gives the same tensors as a .pth file."""
    save_file(STATE, tmp_path / "w.safetensors")
    assert same(STATE, read_weights(tmp_path / "w.safetensors"))


def test_a_prefix_that_only_some_names_have_is_part_of_the_name(tmp_path: Path) -> None:
    """`module.` is taken off only if every name bears it."""
    state = {"module.a": torch.zeros(1), "b": torch.zeros(1)}
    assert same(state, read_weights(saved(tmp_path / "w.pth", state)))


class Hostile:
    """Runs a command when unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.marker}",)


@pytest.mark.parametrize("form", ["zip", "legacy", "protocol 0", "protocol 2", "protocol 4"])
def test_a_hostile_pickle_is_refused_and_not_run(tmp_path: Path, form: str) -> None:
    """A pickle that would run a command is refused, says so, and the command did not run."""
    path, marker = tmp_path / "w.pth", tmp_path / "was_run"
    if form.startswith("protocol"):
        path.write_bytes(pickle.dumps(Hostile(marker), protocol=int(form[-1])))
    else:
        saved(path, {**STATE, "x": Hostile(marker)}, _use_new_zipfile_serialization=form == "zip")
    with pytest.raises(CheckpointError, match="not loaded.*could run code. Nothing was run") as caught:
        read_weights(path)
    assert str(path) in caught.value.message
    assert "state_dict" in str(caught.value.hint)
    assert not marker.exists()


def test_a_harmless_object_is_refused_by_its_name(tmp_path: Path) -> None:
    """Arguments saved beside the weights need code to load; the message names the type."""
    path = saved(tmp_path / "w.pth", {"model": STATE, "args": argparse.Namespace(lr=1)})
    with pytest.raises(CheckpointError, match="refers to argparse.Namespace"):
        read_weights(path)


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_a_program_is_refused(tmp_path: Path) -> None:
    """A TorchScript archive is a program, not weights."""
    path = tmp_path / "w.pt"
    torch.jit.save(torch.jit.trace(nn.Linear(2, 2), torch.zeros(1, 2)), str(path))
    with pytest.raises(CheckpointError, match="TorchScript"):
        read_weights(path)


NOT_WEIGHTS = {
    "empty": (b"", "is empty"),
    "page": (b"\n<!DOCTYPE html><html>", "a web page"),
    "html": (b"<HTML><body>", "a web page"),
    "denied": (b"<?xml version='1.0'?><Error>AccessDenied</Error>", "an XML document"),
    "pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "a git-LFS pointer"),
    "text": (b"Download the weights from our site.\n", "not a checkpoint"),
    "zeros": (bytes(1000), "not a checkpoint"),
    "image": (b"\xff\xd8\xff\xe0" + bytes(100), "not a checkpoint"),
    "short": (b"PK\x03\x04", "truncated or damaged"),
}


@pytest.mark.parametrize("kind", NOT_WEIGHTS)
def test_what_is_not_a_checkpoint_is_named(tmp_path: Path, kind: str) -> None:
    """The message says which file, and what it seems to be instead; the hint says what to do."""
    content, message = NOT_WEIGHTS[kind]
    (tmp_path / "w.pth").write_bytes(content)
    with pytest.raises(CheckpointError, match=message) as caught:
        read_weights(tmp_path / "w.pth")
    assert "w.pth" in caught.value.message
    assert caught.value.hint
    assert caught.value.exit_code == 5


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_truncated_file_is_refused(tmp_path: Path, suffix: str) -> None:
    """Wherever a download was cut, the file is not taken for weights."""
    path = tmp_path / f"w{suffix}"
    state = {"weight": torch.ones(200, 200)}
    save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
    content = path.read_bytes()
    for kept in (0.02, 0.5, 0.99):
        path.write_bytes(content[: int(len(content) * kept)])
        with pytest.raises(CheckpointError, match="damaged"):
            read_weights(path)


def test_a_missing_file_and_a_folder_are_told_apart(tmp_path: Path) -> None:
    """A typing error in `--weights` is answered with what could stand there."""
    with pytest.raises(CheckpointError, match="no weights file") as caught:
        read_weights(tmp_path / "imagnet")
    assert "default, imagenet, none" in str(caught.value.hint)
    with pytest.raises(CheckpointError, match="is a folder"):
        read_weights(tmp_path)


def test_a_file_without_named_tensors_is_refused(tmp_path: Path) -> None:
    """A checkpoint that holds anything but named tensors has nothing to load."""
    for content in ({"epoch": 1}, [1, 2], {}, {0: torch.zeros(1)}, {"model": {}}):
        with pytest.raises(CheckpointError, match="holds no tensors"):
            read_weights(saved(tmp_path / "w.pth", content))


@pytest.mark.parametrize(
    ("tensor", "fault"),
    [
        (torch.tensor([1.0, float("nan")]), "NaN or infinite"),
        (torch.tensor([1.0, float("-inf")], dtype=torch.bfloat16), "NaN or infinite"),
        (torch.zeros(3, dtype=torch.complex64), "complex"),
        (torch.zeros(3).to_sparse(), "sparse"),
        (torch.empty(3, device="meta"), "without data"),
        (torch.zeros(1).expand(10**7, 10**7), "larger than its data"),
        (torch.zeros(3).to(torch.float8_e4m3fn), "float8"),
    ],
    ids=["nan", "infinite", "complex", "sparse", "meta", "bomb", "float8"],
)
def test_a_tensor_that_is_no_weight_is_refused_by_name(tmp_path: Path, tensor: Tensor, fault: str) -> None:
    """A broken tensor is found when read, not when the loss is NaN; a tiny file cannot fill the memory."""
    with pytest.raises(CheckpointError, match=f"'broken'.*{fault}"):
        read_weights(saved(tmp_path / "w.pth", {"fine": torch.zeros(2), "broken": tensor}))


def small_network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1))


def test_a_fitting_state_is_loaded_bit_for_bit() -> None:
    """After loading, the module holds the state; the batch counter may be missing."""
    state = {f: torch.rand_like(t) for f, t in small_network().state_dict().items() if t.is_floating_point()}
    module = small_network()
    load_exactly(module, state, what="test")
    assert all(torch.equal(tensor, module.state_dict()[name]) for name, tensor in state.items())


def test_what_does_not_fit_is_counted_and_named_and_nothing_is_loaded() -> None:
    """All misfits are reported together, the first three of each, and the module stays as it was."""
    module = small_network()
    before = state_fingerprint(module)
    state = {f"extra.{i}": torch.zeros(1) for i in range(5)} | {
        "0.weight": torch.zeros(4, 3, 1, 1),
        "0.bias": torch.zeros(9),
        "2.weight": torch.zeros(2, 4, 1, 1, dtype=torch.int64),
    }
    with pytest.raises(CheckpointError) as caught:
        load_exactly(module, state, what="small from w.pth")
    message = caught.value.message
    assert "small from w.pth" in message
    assert "5 missing (1.weight, 1.bias, 1.running_mean, …)" in message
    assert "5 unexpected (extra.0, extra.1, extra.2, …)" in message
    assert "1 of another shape (0.bias (9,) instead of (4,))" in message
    assert "1 not floating point (2.weight torch.int64)" in message
    assert before == state_fingerprint(module)


def test_optional_names_may_be_missing() -> None:
    """Only names that the caller lists may be absent."""
    module = small_network()
    state = {name: tensor for name, tensor in module.state_dict().items() if name != "2.bias"}
    with pytest.raises(CheckpointError, match="1 missing \\(2.bias\\)"):
        load_exactly(module, state, what="test")
    load_exactly(module, state, what="test", optional=["2.bias"])


def test_a_detector_is_recognised_by_its_weights() -> None:
    """Every detector of the registry recognises its own state dict, and no other one claims it."""
    modules = {import_module(spec.module) for spec in DETECTORS.values()}
    for name in DETECTORS:
        with torch.device("meta"):
            state = build_detector(name, weights="none").network.state_dict()
        assert name == guess_detector(state)
        assert 1 == sum(module.recognise(state) is not None for module in modules), name


@pytest.mark.parametrize(
    ("build", "name"),
    [
        (detection.fcos_resnet50_fpn, "fcos_resnet50_fpn"),
        (detection.ssdlite320_mobilenet_v3_large, "ssdlite320_mobilenet_v3_large"),
        (detection.ssd300_vgg16, "ssd300_vgg16"),
        (detection.fasterrcnn_resnet50_fpn, "fasterrcnn_resnet50_fpn"),
        (detection.fasterrcnn_mobilenet_v3_large_320_fpn, "fasterrcnn_mobilenet_v3_large_fpn"),
        (detection.maskrcnn_resnet50_fpn, "Mask R-CNN"),
        (detection.keypointrcnn_resnet50_fpn, "Keypoint R-CNN"),
        (lambda **none: vgg16(weights=None), "a VGG classifier"),
        (lambda **none: mobilenet_v2(weights=None), "a MobileNetV2 classifier"),
        (lambda **none: mobilenet_v3_large(weights=None), "a MobileNetV3 classifier"),
        (lambda **none: resnet50(weights=None), "a ResNet classifier"),
        (lambda **none: YoloxNetwork(Size(depth=0.67, width=0.875), 80), "a YOLOX of another width"),
        (lambda **none: nn.Linear(2, 2), None),
    ],
)
def test_other_models_are_named(build: Callable[..., nn.Module], name: str | None) -> None:
    """What torchvision and the authors of YOLOX publish is named: by the detector's name if it is one of ours."""
    with torch.device("meta"):
        state = build(weights=None, weights_backbone=None).state_dict()
    assert name == guess_detector(state)


def test_a_model_that_is_no_detector_here_is_not_suggested(tmp_path: Path) -> None:
    """The hint says whose weights they are, and whose would be right."""
    path = saved(tmp_path / "w.pth", {"layer4.0.conv1.weight": torch.zeros(2, 2)})
    with pytest.raises(CheckpointError) as caught:
        build_detector("yolox_nano", weights=path)
    assert "These look like weights of a ResNet classifier; give weights of yolox_nano." == caught.value.hint


def test_odd_shapes_are_guessed_at_without_a_crash() -> None:
    """A damaged file has any shape under the names that detectors are recognised by."""
    for shape in ((), (0,), (3,), (256, 0), (2, 2, 2, 2, 2)):
        for key in ("head.stems.0.conv.weight", "head.regression_head.bbox_reg.weight"):
            assert guess_detector({key: torch.zeros(shape)}) in (None, "a YOLOX of another width"), (key, shape)


def test_weights_of_another_detector_are_recognised(tmp_path: Path) -> None:
    """Giving yolox_tiny's file to yolox_nano says whose file it is."""
    tiny = build_detector("yolox_tiny", weights="none", image_size=64)
    path = saved(tmp_path / "w.pth", {"model": tiny.get_submodule("network").state_dict()})
    with pytest.raises(CheckpointError, match="of another shape") as caught:
        build_detector("yolox_nano", weights=path)
    assert "look like weights of yolox_tiny" in str(caught.value.hint)


def test_the_real_weights_are_read(real: Path) -> None:
    """The upstream YOLOX-nano checkpoint is read and recognised."""
    state = read_weights(real / "weights" / "yolox_nano_coco.pth")
    assert guess_detector(state) == "yolox_nano"
    assert sum(tensor.numel() for name, tensor in state.items() if name.endswith(("weight", "bias"))) > 900_000


def test_a_fingerprint_changes_with_any_bit_and_only_with_bits() -> None:
    """One flipped bit in a parameter or buffer changes exactly its own fingerprint and the whole one's."""
    before, module = small_network(), small_network()
    assert tensor_fingerprints(before) == tensor_fingerprints(module)
    assert state_fingerprint(before) == state_fingerprint(module)
    running_mean = module.get_buffer("1.running_mean")
    running_mean.view(torch.int32)[2] ^= 1
    old, new = tensor_fingerprints(before), tensor_fingerprints(module)
    assert {name for name in old if old[name] != new[name]} == {"1.running_mean"}
    assert state_fingerprint(before) != state_fingerprint(module)


def test_a_fingerprint_depends_on_type_and_shape_but_not_on_memory_layout() -> None:
    """Equal bytes in another shape or type differ; the same values in channels-last order do not."""

    def of(tensor: Tensor) -> str:
        module = nn.Module()
        module.register_buffer("x", tensor, persistent=False)
        return tensor_fingerprints(module)["x"]

    zeros = torch.zeros(2, 4, 3, 3)
    values = torch.rand(2, 4, 3, 3)
    assert of(zeros) != of(zeros.reshape(4, 2, 3, 3))
    assert of(zeros) != of(zeros.to(torch.int32))
    assert of(values) == of(values.to(memory_format=torch.channels_last))
    assert of(torch.tensor(0.0)) == of(torch.tensor(0.0)) != of(torch.tensor(-0.0))
    assert of(torch.zeros(0, 4)) != of(torch.zeros(0, 3))


def _self_containing() -> dict[str, Any]:
    wrapper: dict[str, Any] = {}
    wrapper["model"] = wrapper
    return wrapper


def _nested(depth: int) -> dict[str, Any]:
    inner: dict[str, Any] = STATE
    for _ in range(depth):
        inner = {"model": inner}
    return inner


@pytest.mark.parametrize("content", [_self_containing(), _nested(20), [[]], {"model": [STATE]}])
def test_containers_that_hold_themselves_are_no_weights(content: Any, tmp_path: Path) -> None:
    """A wrapper inside itself, or inside too many others, ends with an error and not in an endless search."""
    with pytest.raises(CheckpointError, match="holds no tensors"):
        read_weights(saved(tmp_path / "w.pth", content))


def test_a_compressed_archive_is_not_unpacked(tmp_path: Path) -> None:
    """torch.save does not compress, so a file that holds a hundred times its size was made to fill the memory."""
    with zipfile.ZipFile(tmp_path / "w.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\0" * 10_000_000)
    with pytest.raises(CheckpointError, match="it is compressed"):
        read_weights(tmp_path / "w.pth")


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
def test_pipes_are_not_read(name: str, tmp_path: Path) -> None:
    """A pipe with the name of a weights file is refused instead of waited for."""
    os.mkfifo(tmp_path / name)
    with pytest.raises(CheckpointError, match="is not a regular file"):
        read_weights(tmp_path / name)


def test_published_weights_that_changed_are_refused(tmp_path: Path) -> None:
    """The SHA-256 of a published file is known: with another one it is damaged."""
    path = tmp_path / "w.pth"
    path.write_bytes(b"abc")
    assert path == check_hash(path, "ba7816bf8f01cfea")
    with pytest.raises(CheckpointError, match="its SHA-256 begins with ba7816bf"):
        check_hash(path, "aa7816bf")
