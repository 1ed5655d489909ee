"""The SSD: the published network and anchors, its loss and boxes against slow computations, and its weight files."""

from __future__ import annotations

import copy
import math
import sys
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F
from torchvision.models import mobilenet_v2

import fewshot_cli.detectors.ssd_mobilenet as module
from fewshot_cli.detectors.chain import Activations, Target
from fewshot_cli.detectors.predictors import PRIOR
from fewshot_cli.detectors.registry import build_detector, select_in
from fewshot_cli.detectors.ssd_mobilenet import PUBLISHED, SsdMobilenet, anchors_of, match
from fewshot_cli.detectors.ssd_onnx import read_onnx
from fewshot_cli.detectors.weights import guess_detector
from fewshot_cli.errors import CheckpointError, ConfigError, NetworkError, PolicyError

onnx = pytest.importorskip("onnx")
helper, numpy_helper, TensorProto = onnx.helper, onnx.numpy_helper, onnx.TensorProto

NAME = "ssd_mobilenet_v2_fpnlite"
SIZE = 64
MAPS = ((8, 8), (4, 4), (2, 2), (1, 1), (1, 1))
CLASSES = ("cat", "dog", "owl")
LAYERS = [*(f"backbone.{stage}" for stage in range(1, 6)), "neck", *(f"head.{depth}" for depth in range(1, 6))]
TARGETS = [
    Target(torch.tensor([[4.0, 6.0, 30.0, 40.0], [20.0, 10.0, 60.0, 60.0]]), torch.tensor([2, 0])),
    Target(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64)),
]


def build() -> SsdMobilenet:
    """A detector whose predictors say something, so that no test passes on zeros."""
    torch.manual_seed(0)
    detector = SsdMobilenet(NAME, CLASSES, SIZE)
    with torch.no_grad():
        for predictor in (*detector.network.head.classes, *detector.network.head.boxes):
            predictor.get_parameter("pointwise.weight").normal_(0, 0.1)
    detector.hold_statistics()
    return detector


@pytest.fixture(scope="module")
def detector() -> SsdMobilenet:
    """One detector, which tests read and do not change."""
    return build()


@pytest.fixture(scope="module")
def file(real: Path) -> Path:
    """The authors' file."""
    return real / "weights" / "ssd_mobilenet_v2_fpnlite_10_256_int8.onnx"


@pytest.fixture(scope="module")
def published(file: Path) -> SsdMobilenet:
    """The detector with the authors' weights."""
    return cast(SsdMobilenet, build_detector(NAME, weights=file))


def batch(count: int = 2, size: int = SIZE) -> Activations:
    """The input of the chain: images that fill the canvas."""
    generator = torch.Generator().manual_seed(3)
    pixels = torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8, generator=generator)
    return pixels, torch.full((count, 2), size)


def in_float(path: Path) -> bytes:
    """The graph of the file without the rounding of activations; its input is what the first convolution gets."""
    graph = onnx.load(path).graph
    constants = {each.name for each in graph.initializer}
    passed = {
        node.output[0]: node.input[0]
        for node in graph.node
        if node.op_type in ("QuantizeLinear", "DequantizeLinear") and node.input[0] not in constants
    }

    def before(name: str) -> str:
        while name in passed:
            name = passed[name]
        return name

    nodes = [node for node in graph.node if node.output[0] not in passed]
    for node in nodes:
        node.input[:] = [before(name) for name in node.input]
    next(node for node in nodes if node.op_type == "Conv").input[0] = "pixels"
    outputs = [before(output.name) for output in graph.output[:2]]
    kept, needed = [], set(outputs)
    for node in reversed(nodes):
        if needed & set(node.output):
            kept.append(node)
            needed |= set(node.input)
    model = helper.make_model(
        helper.make_graph(
            kept[::-1],
            "float",
            [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, [None, 3, 256, 256])],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
            [each for each in graph.initializer if each.name in needed],
        ),
        opset_imports=[helper.make_opsetid("", 18)],
        ir_version=8,
    )
    return bytes(model.SerializeToString())


@torch.no_grad()
def test_the_network_is_the_published_one(file: Path, published: SsdMobilenet) -> None:
    """On noise, class probabilities and offsets are those of the file's graph in float, to 1e-5."""
    runtime = pytest.importorskip("onnxruntime")
    session = runtime.InferenceSession(in_float(file), providers=["CPUExecutionProvider"])
    pixels, valid = batch(1, 256)
    logits, offsets, _ = published._flat(published.run((pixels, valid), 0))
    wanted = session.run(None, {"pixels": published.normalize(pixels).numpy()})
    assert [(1, 6820, 81), (1, 6820, 4)] == [part.shape for part in wanted]
    assert np.abs(wanted[0] - logits.softmax(dim=-1).numpy()).max() < 1e-5
    assert np.abs(wanted[1] - offsets.numpy()).max() < 1e-5
    assert wanted[0][..., 1:].max() > 0.01


def test_the_anchors_are_those_of_the_file_before_rounding(file: Path) -> None:
    """Each corner in the file is ours, rounded to a step of its int8 numbers."""
    graph = onnx.load(file).graph
    tensors = {each.name: numpy_helper.to_array(each) for each in graph.initializer}
    outputs = {node.output[0]: node for node in graph.node}
    steps, zero = (tensors[name] for name in outputs[graph.output[2].name].input[1:])
    maps = [tensors[node.input[0]] for node in graph.node if node.op_type == "Tile"]
    stored = np.concatenate([each.reshape(-1, 4) for each in sorted(maps, key=lambda each: -each.size)])
    anchors = anchors_of(tuple((side, side) for side in (32, 16, 8, 4, 2))).numpy() / 256
    assert (6820, 4) == anchors.shape
    assert np.abs(anchors / steps - (stored.astype(np.float64) - zero)).max() < 0.501


def test_the_chain_has_the_layers_of_the_design(detector: SsdMobilenet) -> None:
    """Five stages, neck, then M = 5; every layer of the head is on all levels."""
    assert LAYERS == [layer.name for layer in detector.layers]
    assert ["backbone"] * 5 + ["neck"] + ["head"] * 5 == [layer.part for layer in detector.layers]
    assert {f"head.towers.{level}.1" for level in range(5)} == {name for name, _ in detector.layers[7].modules}


@torch.inference_mode()
def test_a_cut_before_any_layer_changes_nothing(detector: SsdMobilenet) -> None:
    """Stored activations, gone on from, give the outputs of an uncut run bit for bit, and are not written to."""
    whole = detector.run(batch(), 0)
    assert [(2, width, *size) for width in (20, 20) for size in MAPS] == [tuple(each.shape) for each in whole]
    for cut in range(1, len(detector.layers) + 1):
        stored = tuple(x.clone() for x in detector.run(batch(), 0, cut))
        kept = tuple(x.clone() for x in stored)
        outputs = detector.run(stored, cut)
        assert all(torch.equal(a, b) for a, b in zip(whole, outputs, strict=True)), cut
        assert all(torch.equal(a, b) for a, b in zip(kept, stored, strict=True)), cut


def test_convolutions_come_as_the_input_meets_them(detector: SsdMobilenet) -> None:
    """Of the backbone in the order in which they run; then neck, towers and predictor."""
    met: list[str] = []
    names = {each: name for name, each in detector.network.named_modules()}
    hooks = [
        each.register_forward_pre_hook(lambda each, _: met.append(names[each]))
        for each in detector.network.features.modules()
        if isinstance(each, nn.Conv2d)
    ]
    detector.run(batch(1), 0)
    for hook in hooks:
        hook.remove()
    order = detector.convolutions()
    assert met == list(order[: len(met)])
    parts = [name.partition(".")[0] for name in order]
    assert ["features"] * 52 + ["neck"] * 11 + ["head"] * 60 == parts
    assert "head.boxes.4.pointwise" == order[-1]


@pytest.mark.parametrize("size", [96, 320])
def test_cells_of_an_odd_map_see_what_those_of_an_even_map_see(detector: SsdMobilenet, size: int) -> None:
    """On a canvas with maps of odd sizes, the first cells are those of the same pixels on a larger canvas."""
    pixels = batch(1, 384)[0]
    with torch.no_grad():
        small, large = (
            detector.run((pixels[..., :side, :side], torch.full((1, 2), side)), 0, 5) for side in (size, 384)
        )
    for here, there in zip(small, large, strict=True):
        torch.testing.assert_close(here[..., :1, :1], there[..., :1, :1])


def overlap(a: list[float], b: list[float]) -> float:
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    return width * height / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - width * height)


def test_an_anchor_is_matched_by_overlap_and_each_object_has_one() -> None:
    """IoU of a half matches; an object that no anchor overlaps so much gets its best one, even from another object."""
    anchors = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 20], [40, 40, 50, 50], [90, 90, 99, 99]])
    boxes = torch.tensor([[0.0, 0, 10, 10], [44, 40, 60, 50]])
    labels, wanted = match(boxes, torch.tensor([4, 7]), anchors)
    assert [5, 5, 8, 0] == labels.tolist()
    assert torch.equal(boxes[[0, 0, 1]], wanted[:3])
    stolen, _ = match(torch.tensor([[0.0, 0, 10, 10], [0, 0, 9, 9]]), torch.tensor([0, 1]), anchors[:1])
    assert [2] == stolen.tolist()


@torch.no_grad()
def test_the_loss_is_that_of_the_paper(detector: SsdMobilenet) -> None:
    """Class and box losses equal an anchor-by-anchor computation, an image without objects included."""
    outputs = detector.run(batch(), 0)
    anchors = anchors_of(MAPS).tolist()
    cells = [
        (level, row, column)
        for level, (rows, columns) in enumerate(MAPS)
        for row in range(rows)
        for column in range(columns)
    ]
    positive, negative, box = [], [], 0.0
    for image, (boxes, labels, _) in enumerate(TARGETS):
        matched: dict[int, int] = {}
        for number, anchor in enumerate(anchors):
            overlaps = [overlap(anchor, each) for each in boxes.tolist()]
            if overlaps and max(overlaps) >= 0.5:
                matched[number] = overlaps.index(max(overlaps))
        for index, each in enumerate(boxes.tolist()):
            matched[max(range(len(anchors)), key=lambda number: overlap(anchors[number], each))] = index
        for number, (x1, y1, x2, y2) in enumerate(anchors):
            level, row, column = cells[number // 5]
            rows = outputs[level][image, :, row, column].view(5, 4)[number % 5].tolist()
            log_sum = math.log(sum(math.exp(logit) for logit in rows))
            if number not in matched:
                negative.append(log_sum - rows[0])
                continue
            positive.append(log_sum - rows[1 + int(labels[matched[number]])])
            offsets = outputs[5 + level][image, :, row, column].view(5, 4)[number % 5].tolist()
            wanted = boxes[matched[number]].tolist()
            sides = (x2 - x1, y2 - y1) * 2
            for found, corner, start, side in zip(offsets, wanted, (x1, y1, x2, y2), sides, strict=True):
                apart = abs(found - (corner - start) / side)
                box += apart - 0.5 if apart > 1 else apart**2 / 2
    hardest = sorted(negative, reverse=True)[: 3 * len(positive)]
    losses = detector.loss(outputs, TARGETS)
    assert len(positive) >= 3
    assert {"class", "box"} == set(losses)
    assert (sum(positive) + sum(hardest)) / len(positive) == pytest.approx(losses["class"].item(), rel=1e-4)
    assert box / len(positive) == pytest.approx(losses["box"].item(), rel=1e-4)


def test_training_follows_a_prediction(detector: SsdMobilenet) -> None:
    """Anchors that were made in inference mode serve the loss and its gradient."""
    anchors_of.cache_clear()
    with torch.inference_mode():
        detector.decode(detector.run(batch(), 0))
    assert not anchors_of(MAPS).is_inference()
    losses = detector.losses(batch(), 0, TARGETS)
    torch.stack(list(losses.values())).sum().backward()
    detector.zero_grad()


def test_without_objects_the_loss_is_finite(detector: SsdMobilenet) -> None:
    """A batch of images without objects pushes its hardest anchors to the background, and moves no box."""
    outputs = tuple(x.detach().requires_grad_() for x in detector.run(batch(), 0))
    losses = detector.loss(outputs, [TARGETS[1], TARGETS[1]])
    assert 0.0 == losses["box"].item()
    losses["class"].backward()
    assert any(x.grad is not None and x.grad.any() for x in outputs[:5])


@torch.no_grad()
def test_a_box_is_its_anchor_with_moved_corners(detector: SsdMobilenet) -> None:
    """The best detection is the planted one: corners moved by shares of the anchor's width and height."""
    outputs = [torch.zeros(1, 20, *size) for _ in range(2) for size in MAPS]
    for level in outputs[:5]:
        level.view(1, 5, 4, *level.shape[-2:])[:, :, 0] = 12.0
    outputs[1].view(5, 4, 4, 4)[1, :, 2, 3] = torch.tensor([0.0, 0.0, 5.0, 0.0])
    outputs[6].view(5, 4, 4, 4)[1, :, 2, 3] = torch.tensor([0.1, -0.2, 0.3, 0.4])
    found = detector.decode(tuple(outputs))[0]
    side = (26.67468 * 3 + 230.4) / 4
    width, height, x, y = side * 2**0.5, side / 2**0.5, 3.5 * 16, 2.5 * 16
    wanted = [x - 0.4 * width, y - 0.7 * height, x + 0.8 * width, y + 0.9 * height]
    assert wanted == pytest.approx(found.boxes[0].tolist(), rel=1e-5)
    assert 1 == found.labels[0]
    assert math.exp(5) / (math.exp(5) + 3) == pytest.approx(found.scores[0].item(), rel=1e-5)


@torch.no_grad()
def test_new_classes_leave_the_background_and_the_boxes(detector: SsdMobilenet) -> None:
    """A new class scores as its base class did, against the same background; a random one PRIOR of it everywhere."""
    changed = copy.deepcopy(detector)
    changed.replace_classes(["again", "helmet"], [(2,), ()])
    before, after = detector.run(batch(), 0), changed.run(batch(), 0)
    for level in range(5):
        old, new = before[level].unflatten(1, (5, 4)), after[level].unflatten(1, (5, 3))
        torch.testing.assert_close(new[:, :, :2], old[:, :, [0, 3]])
        logit = (new[:, :, 2] - new[:, :, 0]).mean().item()
        assert math.log(PRIOR / (1 - PRIOR)) == pytest.approx(logit, abs=0.3)
        assert torch.equal(before[5 + level], after[5 + level])
    assert {0, 1} >= set(changed.decode(after)[0].labels.tolist())


def test_a_state_dict_of_ours_is_read(detector: SsdMobilenet, tmp_path: Path) -> None:
    """Weights with three classes come back bit for bit, in either format, and are recognised."""
    state = detector.network.state_dict()
    torch.save(state, tmp_path / "ssd.pth")
    save_file(state, tmp_path / "ssd.safetensors")
    for name in ("ssd.pth", "ssd.safetensors"):
        loaded = build_detector(NAME, weights=tmp_path / name, image_size=SIZE)
        assert all(torch.equal(tensor, state[key]) for key, tensor in loaded.network.state_dict().items())
        assert (3, True) == (len(loaded.classes), loaded.pretrained)
    assert NAME == guess_detector(state)


@torch.no_grad()
def test_a_classifier_gives_its_backbone(tmp_path: Path) -> None:
    """ImageNet weights compute on pixels of −1 … 1 what they computed on normalised ones; the head is not pretrained."""
    classifier = mobilenet_v2().eval()
    torch.save(classifier.state_dict(), tmp_path / "classifier.pth")
    loaded = build_detector(NAME, weights=tmp_path / "classifier.pth", image_size=SIZE)
    assert not loaded.pretrained
    assert "a MobileNetV2 classifier" == guess_detector(classifier.state_dict())
    pixels = batch(1)[0]
    mean, deviation = (torch.tensor(each)[:, None, None] for each in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    first = cast(Any, classifier.features[0])
    wanted = first[2](first[1](F.conv2d((pixels / 255 - mean) / deviation, first[0].weight, stride=2)))
    found = cast(Any, loaded.network).features[0](loaded.normalize(pixels))
    torch.testing.assert_close(found[..., :-1, :-1], wanted, atol=1e-5, rtol=1e-4)


def test_the_local_backbone_is_read(real: Path) -> None:
    """The ImageNet features of the shared folder fit."""
    assert not build_detector(NAME, weights=real / "weights" / "mobilenet_v2_imagenet_features.pth").pretrained


def other_network() -> bytes:
    """An ONNX file with one convolution."""
    weight = numpy_helper.from_array(np.zeros((4, 3, 3, 3), np.float32), "w")
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("x", "y", "z")]
    nodes = [helper.make_node("Conv", ["x", "w"], ["y"]), helper.make_node("Relu", ["y"], ["z"])]
    graph = helper.make_graph(nodes, "other", values[:1], values[1:], [weight])
    return bytes(helper.make_model(graph).SerializeToString())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            other_network(),
            "is not the published SSD: it has 1 convolutions before its first two outputs instead of 123",
        ),
        (other_network()[:40], "is no ONNX file, or a truncated or damaged one"),
        (b"", "is not the published SSD: it has 0 convolutions"),
    ],
)
def test_another_file_is_refused(content: bytes, message: str, tmp_path: Path) -> None:
    """Another network, a truncated file, an empty one: the error says which, with the exit code of checkpoints."""
    (tmp_path / "model.onnx").write_bytes(content)
    with pytest.raises(CheckpointError, match=message) as caught:
        build_detector(NAME, weights=tmp_path / "model.onnx")
    assert 5 == caught.value.exit_code


def change_stride(model: Any) -> None:
    """The first convolution keeps the size of the image."""
    node = next(node for node in model.graph.node if node.op_type == "Conv")
    strides = next(attribute for attribute in node.attribute if attribute.name == "strides")
    strides.ints[:] = [1, 1]


def keep_outside(model: Any) -> None:
    """A weight is said to be in another file."""
    node = next(node for node in model.graph.node if node.op_type == "Conv")
    maker = next(made for made in model.graph.node if node.input[1] in made.output)
    tensor = next(each for each in model.graph.initializer if each.name == maker.input[0])
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (change_stride, "its convolution 1 is 32×3×3×3 with stride 1 and 1 groups, not 32×3×3×3 with stride 2"),
        (keep_outside, "a weight or bias is not in it"),
    ],
)
def test_a_changed_file_is_refused(change: Any, message: str, file: Path, tmp_path: Path) -> None:
    """The published graph with another stride, or with data elsewhere, which is not read."""
    model = onnx.load(file)
    change(model)
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(CheckpointError, match=message):
        read_onnx(tmp_path / "model.onnx")


def test_a_published_file_is_known_by_its_hash(monkeypatch: pytest.MonkeyPatch, file: Path, tmp_path: Path) -> None:
    """A file of its name and size must be it; one in the cache is used without a network."""
    monkeypatch.setattr(module, "cache_folder", lambda: tmp_path)
    path = tmp_path / "weights" / file.name
    path.parent.mkdir()
    content = file.read_bytes()
    path.write_bytes(content)
    assert build_detector(NAME).pretrained
    path.write_bytes(content[:-1] + b"x")
    assert PUBLISHED.size == len(content)
    for weights in ("default", path):
        with pytest.raises(CheckpointError, match="is damaged: its SHA-256 begins with"):
            build_detector(NAME, weights=weights)


def test_without_a_network_the_error_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """`default` cannot be had: give a file."""
    monkeypatch.setattr(module, "cache_folder", lambda: tmp_path)
    monkeypatch.setattr(module, "PUBLISHED", PUBLISHED._replace(url="http://127.0.0.1:9/ssd.onnx"))
    monkeypatch.setattr("fewshot_cli.download.FIRST_PAUSE", 0.0)
    with pytest.raises(NetworkError) as caught:
        build_detector(NAME)
    assert "--weights FILE (a copy of ssd.onnx)" in str(caught.value.hint)


def test_without_onnx_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The package reads the published file alone, so it is an extra."""
    monkeypatch.setitem(sys.modules, "onnx", None)
    (tmp_path / "model.onnx").write_bytes(b"")
    with pytest.raises(ConfigError, match="needs the package onnx") as caught:
        build_detector(NAME, weights=tmp_path / "model.onnx")
    assert "fsod[onnx]" in str(caught.value.hint)


def test_six_backbone_stages_are_too_many() -> None:
    """The backbone has five."""
    with pytest.raises(PolicyError, match="6"):
        select_in(NAME, "full", None, backbone_stages=6)
