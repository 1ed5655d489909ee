"""YOLOX as a chain: the authors' network, cut anywhere, with losses and boxes that a slow computation confirms."""

from __future__ import annotations

import copy
import hashlib
import math
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache, partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import cast

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from fewshot_cli.datasets.formats import read_split
from fewshot_cli.detectors import simota, yolox
from fewshot_cli.detectors.canvas import Canvas, batch_of, to_image
from fewshot_cli.detectors.chain import Activations, Detections, Target
from fewshot_cli.detectors.registry import build_detector
from fewshot_cli.detectors.weights import tensor_fingerprints
from fewshot_cli.detectors.yolox import PIXEL_SCALE, RELEASED, SIZES, ReleasedFile, Yolox, base_classes
from fewshot_cli.detectors.yolox_network import ConvBlock
from fewshot_cli.errors import CheckpointError, NetworkError
from fewshot_cli.evaluation.measure import score
from fewshot_cli.inference.placed import PlacedDetector
from fewshot_cli.policies import select
from fewshot_cli.training.plan import freeze

SIZE = 64
CELLS = ((8, 8), (16, 4), (32, 2))
"""(stride, side of the map) of the three levels of a 64-pixel canvas."""
CLASSES = ("cat", "dog", "owl")
LAYERS = ["backbone.stem", *(f"backbone.dark{i}" for i in range(2, 6)), "neck", *(f"head.{i}" for i in range(1, 5))]
STEM = "backbone.backbone.stem.conv.conv.weight"
TARGETS = [
    Target(torch.tensor([[4.0, 6.0, 30.0, 40.0], [20.0, 10.0, 60.0, 60.0]]), torch.tensor([2, 0])),
    Target(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64)),
]


def build(name: str = "yolox_nano", classes: tuple[str, ...] = CLASSES) -> Yolox:
    """A detector with statistics of its own and predictors that say something, so that no test passes on zeros."""
    torch.manual_seed(0)
    detector = Yolox(name, classes, SIZE)
    for norm in (m for m in detector.network.modules() if isinstance(m, nn.BatchNorm2d)):
        norm.momentum = 1.0
    with torch.no_grad():
        detector.train()
        detector.run(batch(4), 0)
        for predictor in (*detector.network.head.cls_preds, *detector.network.head.obj_preds):
            cast(Tensor, predictor.weight).normal_(0, 0.2)
            cast(Tensor, predictor.bias).fill_(-1.0)
    detector.hold_statistics()
    return detector


@pytest.fixture(scope="module")
def detector() -> Yolox:
    """One detector, which tests read and do not change."""
    return build()


def canvases(count: int = 2) -> Tensor:
    return torch.randint(0, 256, (count, 3, SIZE, SIZE), dtype=torch.uint8, generator=torch.Generator().manual_seed(3))


def batch(count: int = 2) -> Activations:
    """The same as the input of the chain: images that fill the canvas."""
    return canvases(count), torch.full((count, 2), SIZE)


def as_released(detector: Yolox) -> dict[str, Tensor]:
    """Its tensors as the authors publish them: the first convolution takes pixels of 0 to 255."""
    state = detector.network.state_dict()
    return state | {STEM: state[STEM] / PIXEL_SCALE}


def total(losses: dict[str, Tensor]) -> Tensor:
    return torch.stack(list(losses.values())).sum()


def blank(classes: int = 3) -> tuple[Tensor, ...]:
    """Outputs of one canvas that see nothing anywhere: class maps, tiny boxes, objectness maps."""
    widths = (classes, 4, 1)
    return tuple(
        torch.full((1, width, side, side), -3.0 if width == 4 else -12.0) for width in widths for _, side in CELLS
    )


def plant(outputs: Activations, box: tuple[float, ...], label: int, level: int, logit: float = 5.0) -> None:
    """Write a box, xyxy canvas pixels, into the cell of that level that holds its centre."""
    stride, _ = CELLS[level]
    x1, y1, x2, y2 = box
    x, y = (x1 + x2) / 2 / stride, (y1 + y2) / 2 / stride
    row, column = int(y), int(x)
    outputs[level][0, label, row, column] = logit
    outputs[3 + level][0, :, row, column] = torch.tensor(
        [x - column, y - row, math.log((x2 - x1) / stride), math.log((y2 - y1) / stride)]
    )
    outputs[6 + level][0, 0, row, column] = logit


PUBLISHED = [
    ("yolox_nano", 0.91),
    ("yolox_tiny", 5.06),
    ("yolox_s", 8.97),
    ("yolox_m", 25.33),
    ("yolox_l", 54.21),
    ("yolox_x", 99.07),
]
"""Millions of parameters with 80 classes; upstream rounds the larger ones to 9.0, 25.3, 54.2 and 99.1."""


@pytest.mark.parametrize(("name", "millions"), PUBLISHED)
def test_the_sizes_are_the_published_ones(name: str, millions: float) -> None:
    """With COCO's 80 classes the parameters count what the authors publish."""
    with torch.device("meta"):
        detector = Yolox(name, base_classes(80), SIZE)
    assert millions == round(sum(p.numel() for p in detector.network.parameters()) / 1e6, 2)


@pytest.mark.parametrize("name", list(SIZES))
def test_every_parameter_belongs_to_exactly_one_layer(name: str) -> None:
    """No parameter is left out or counted twice, under the network's own names, after a change of classes too."""
    with torch.device("meta"):
        detector = Yolox(name, CLASSES, SIZE)
    for _ in range(2):
        names = [name for layer in detector.layers for name in layer.parameters()]
        assert sorted(names) == sorted(name for name, _ in detector.network.named_parameters())
        ours = {id(p) for layer in detector.layers for p in layer.parameters().values()}
        assert ours == {id(p) for p in detector.network.parameters()}
        detector.replace_classes(["helmet"], [()])


def test_the_chain_has_the_layers_of_the_design(detector: Yolox) -> None:
    """Stem, four stages, neck, then M = 4: stems, two tower blocks and the predictor, both towers together."""
    assert [layer.name for layer in detector.layers] == LAYERS
    assert [layer.part for layer in detector.layers] == ["backbone"] * 5 + ["neck"] + ["head"] * 4
    assert detector.head_depth == 4
    for depth, layer in enumerate(detector.layers[7:9]):
        towers = {f"head.{tower}.{level}.{depth}" for tower in ("cls_convs", "reg_convs") for level in range(3)}
        assert towers == {name for name, _ in layer.modules}


@torch.inference_mode()
@pytest.mark.parametrize(  # l and x only are larger
    "name",
    ["yolox_nano", "yolox_tiny", *(pytest.param(name, marks=pytest.mark.slow) for name in ("yolox_s", "yolox_m"))],
)
def test_a_cut_before_any_layer_changes_nothing(name: str) -> None:
    """Stored activations, gone on from, give the outputs of an uncut run bit for bit, and are not written to."""
    detector = build(name)
    whole = detector.run(batch(), 0)
    assert [(2, w, s, s) for w in (3, 4, 1) for _, s in CELLS] == [tuple(level.shape) for level in whole]
    for cut in range(1, len(detector.layers) + 1):
        stored = tuple(x.clone() for x in detector.run(batch(), 0, cut))
        kept = tuple(x.clone() for x in stored)
        outputs = detector.run(stored, cut)
        assert all(torch.equal(a, b) for a, b in zip(whole, outputs, strict=True)), detector.layers[cut - 1].name
        assert all(torch.equal(a, b) for a, b in zip(kept, stored, strict=True)), detector.layers[cut - 1].name


@torch.no_grad()
def test_a_layer_uses_only_its_own_modules(detector: Yolox) -> None:
    """A layer gives the same when every parameter outside it is overwritten, and other values when its own are."""
    x: Activations = (detector.normalize(canvases(1)),)
    other = copy.deepcopy(detector)
    for parameter in other.network.parameters():
        parameter.fill_(0.5)
    for layer, same in zip(detector.layers, other.layers, strict=True):
        expected, own = layer.forward(x), layer.parameters()
        for name, parameter in same.parameters().items():
            parameter.copy_(own[name])
        found = same.forward(x)
        assert all(torch.equal(a, b) for a, b in zip(expected, found, strict=True)), layer.name
        for parameter in same.parameters().values():
            parameter.fill_(0.5)
        found = same.forward(x)
        # What merely travels through the layer comes first, and stays.
        assert not torch.equal(expected[-1], found[-1]), layer.name
        x = expected


@torch.no_grad()
def test_a_copy_runs_its_own_modules(detector: Yolox) -> None:
    """A deep copy computes the same; changing all of its weights changes the copy's outputs and not the original's."""
    expected = detector.run(batch(), 0)
    twin = copy.deepcopy(detector)
    assert all(torch.equal(a, b) for a, b in zip(expected, twin.run(batch(), 0), strict=True))
    for parameter in twin.network.parameters():
        parameter.mul_(0.5)
    changed = twin.run(batch(), 0)
    assert not any(torch.equal(a, b) for a, b in zip(expected, changed, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(expected, detector.run(batch(), 0), strict=True))


def test_pixels_go_in_as_bgr(detector: Yolox) -> None:
    """The network was trained on blue, green, red."""
    pixels = torch.tensor([64, 128, 192], dtype=torch.uint8)[None, :, None, None].expand(1, 3, 2, 2)
    assert [0.75, 0.5, 0.25] == detector.normalize(pixels)[0, :, 0, 0].tolist()


@torch.no_grad()
def test_released_weights_see_pixels_as_in_their_pretraining(tmp_path: Path, detector: Yolox) -> None:
    """The first convolution gives, to the last bit, what the file's weights give on pixels of 0 to 255."""
    torch.save({"model": as_released(detector)}, tmp_path / "base.pth")
    loaded = build_detector("yolox_nano", weights=tmp_path / "base.pth", image_size=SIZE)
    published = copy.deepcopy(loaded)
    published.network.load_state_dict(as_released(detector))
    expected = published.layers[0].forward((canvases().flip(1).float(),))
    found = loaded.run(batch(), 0, 1)
    assert torch.equal(expected[0], found[0])


@torch.no_grad()
def test_new_classes_take_the_weights_they_are_given(detector: Yolox) -> None:
    """A class scores as its base class did, or as the mean of several; a fresh one starts at about 0.01 everywhere."""
    changed = copy.deepcopy(detector)
    before = changed.run(batch(), 0)
    fingerprints = tensor_fingerprints(changed.network)
    torch.manual_seed(0)
    changed.replace_classes(["helmet", "owl again", "pet"], [(), (2,), (0, 1)])
    after = changed.run(batch(), 0)
    assert changed.classes == ("helmet", "owl again", "pet")
    for old, new in zip(before[:3], after[:3], strict=True):
        torch.testing.assert_close(new[:, 1], old[:, 2])
        torch.testing.assert_close(new[:, 2], old[:, :2].mean(dim=1))
        assert 0.005 < new[:, 0].sigmoid().mean() < 0.02
    assert all(torch.equal(old, new) for old, new in zip(before[3:], after[3:], strict=True))
    predictor = {f"head.cls_preds.{k}.{kind}" for k in range(3) for kind in ("weight", "bias")}
    kept = {name: value for name, value in fingerprints.items() if name not in predictor}
    assert kept == {n: value for n, value in tensor_fingerprints(changed.network).items() if n not in predictor}
    for level in range(3):
        theirs, ours = (d.network.head.cls_preds[level].state_dict() for d in (detector, changed))
        assert all(torch.equal(theirs[name][2], ours[name][1]) for name in theirs)


def test_new_classes_are_in_the_chain_the_loss_and_the_detections(detector: Yolox) -> None:
    """After a change of classes the last layer owns the new predictor, and loss and decoding count the new classes."""
    changed = copy.deepcopy(detector)
    changed.replace_classes(["helmet"], [()])
    weight = changed.network.head.cls_preds[0].weight
    assert any(p is weight for p in changed.layers[-1].parameters().values())
    outputs = changed.run(batch(1), 0)
    total(changed.loss(outputs, [Target(torch.tensor([[10.0, 10.0, 50.0, 50.0]]), torch.tensor([0]))])).backward()
    assert any(cast(Tensor, p.weight.grad).any() for p in changed.network.head.cls_preds)
    found = changed.decode(tuple(x.detach() for x in outputs))[0]
    assert {0} == set(found.labels.tolist())


def cross_entropy(logit: float, wanted: float) -> float:
    score = 1 / (1 + math.exp(-logit))
    return -wanted * math.log(score) - (1 - wanted) * math.log(1 - score)


class Cell:
    """One cell of one image: where it is, what it says."""

    def __init__(self, outputs: Activations, image: int, level: int, row: int, column: int) -> None:
        stride, _ = CELLS[level]
        self.classes = outputs[level][image, :, row, column].tolist()
        self.objectness = outputs[6 + level][image, 0, row, column].item()
        dx, dy, w, h = outputs[3 + level][image, :, row, column].tolist()
        x, y, width, height = (column + dx) * stride, (row + dy) * stride, math.exp(w) * stride, math.exp(h) * stride
        self.box = [x - width / 2, y - height / 2, x + width / 2, y + height / 2]
        self.center = [(column + 0.5) * stride, (row + 0.5) * stride]
        self.stride = stride


def iou(a: list[float], b: list[float]) -> float:
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    return width * height / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - width * height)


@torch.no_grad()
def test_the_loss_is_that_of_the_paper(detector: Yolox) -> None:
    """Box, objectness and class losses equal a cell-by-cell computation, an image without objects included."""
    outputs = detector.run(batch(), 0)
    box = objectness = classes = matches = 0.0
    for image, target in enumerate(TARGETS):
        cells = [
            Cell(outputs, image, level, row, column)
            for level, (_, side) in enumerate(CELLS)
            for row in range(side)
            for column in range(side)
        ]
        # The pairs are simota's, which test_simota holds.
        pairs = simota.assign(
            torch.tensor([cell.box for cell in cells]),
            torch.tensor([cell.classes for cell in cells]),
            torch.tensor([[cell.objectness] for cell in cells]),
            torch.tensor([cell.center for cell in cells]),
            torch.tensor([float(cell.stride) for cell in cells]),
            target.boxes,
            target.labels,
        )
        matched = dict(zip(pairs.predictions.tolist(), pairs.objects.tolist(), strict=True))
        matches += len(matched)
        for number, cell in enumerate(cells):
            objectness += cross_entropy(cell.objectness, float(number in matched))
            if number not in matched:
                continue
            overlap = iou(cell.box, target.boxes[matched[number]].tolist())
            box += 5 * (1 - overlap**2)
            for label, logit in enumerate(cell.classes):
                classes += cross_entropy(logit, overlap * (label == target.labels[matched[number]].item()))
    losses = detector.loss(outputs, TARGETS)
    assert matches >= 2
    assert {"box", "objectness", "class"} == set(losses)
    assert box / matches == pytest.approx(losses["box"].item(), rel=1e-4)
    assert objectness / matches == pytest.approx(losses["objectness"].item(), rel=1e-4)
    assert classes / matches == pytest.approx(losses["class"].item(), rel=1e-4)


def test_without_objects_only_objectness_is_left(detector: Yolox) -> None:
    """A batch of images without objects has a finite loss that pushes objectness down and nothing else."""
    outputs = tuple(x.detach().requires_grad_() for x in detector.run(batch(), 0))
    losses = detector.loss(outputs, [TARGETS[1], TARGETS[1]])
    assert (0.0, 0.0) == (losses["box"].item(), losses["class"].item())
    total(losses).backward()
    assert all(x.grad is not None and x.grad.min() > 0 for x in outputs[6:])
    assert all(x.grad is None or not x.grad.any() for x in outputs[:6])


@torch.no_grad()
def test_a_better_box_has_a_lower_loss() -> None:
    """A detector that says the truth loses less than one that is 4 pixels off, and that one less than a blank one."""
    detector = build()
    target = [Target(torch.tensor([[12.0, 12.0, 36.0, 40.0]]), torch.tensor([1]))]
    right, off = blank(), blank()
    plant(right, (12, 12, 36, 40), 1, 0)
    plant(off, (16, 12, 40, 40), 1, 0)
    perfect, near, nothing = (total(detector.loss(outputs, target)).item() for outputs in (right, off, blank()))
    assert perfect < near < nothing
    assert perfect < 0.2


@pytest.mark.parametrize(
    ("policy", "budget", "layers"),
    [
        ("last", 1, {"head.4"}),
        ("last", 2, {"head.3", "head.4"}),
        ("symmetric", 2, {"head.1", "head.4"}),
        ("symmetric", 3, {"head.1", "head.2", "head.4"}),
        ("all", None, {f"head.{i}" for i in range(1, 5)}),
        ("full", None, set(LAYERS)),
    ],
)
def test_gradients_reach_exactly_the_layers_of_the_policy(policy: str, budget: int | None, layers: set[str]) -> None:
    """From cached activations at the cut, every parameter of the chosen layers gets a gradient and no other does."""
    detector = build()
    split = freeze(detector, select(policy, budget, detector.head_depth, stages=detector.backbone_stages))
    with torch.no_grad():
        stored = detector.run(batch(), 0, split.cut)
    total(detector.loss(detector.run(stored, split.cut), TARGETS)).backward()
    chosen = [layer.parameters() for layer in detector.layers if layer.name in layers]
    expected = {name for parameters in chosen for name in parameters}
    assert expected == {name for name, p in detector.network.named_parameters() if p.grad is not None}
    # A level without a match teaches its class and box predictors nothing: zeros there, but not in the whole layer.
    assert all(any(cast(Tensor, p.grad).any() for p in parameters.values()) for parameters in chosen)


@pytest.mark.parametrize("level", [0, 1, 2])
def test_decoding_recovers_a_planted_box(detector: Yolox, level: int) -> None:
    """A box written into the raw outputs of one cell comes out alone, with its label, score and corners."""
    outputs = blank()
    plant(outputs, (20.0, 8.0, 52.0, 47.0), 2, level)
    (found,) = detector.decode(outputs)
    torch.testing.assert_close(found.boxes, torch.tensor([[20.0, 8.0, 52.0, 47.0]]), atol=1e-3, rtol=0)
    assert [2] == found.labels.tolist()
    assert (1 / (1 + math.exp(-5))) ** 2 == pytest.approx(found.scores.item(), rel=1e-4)


@pytest.mark.parametrize(
    ("box", "label", "count"),
    [((18.0, 12.0, 42.0, 40.0), 1, 1), ((18.0, 12.0, 42.0, 40.0), 0, 2), ((40.0, 36.0, 60.0, 60.0), 1, 2)],
)
def test_overlapping_boxes_of_one_class_are_suppressed(
    detector: Yolox, box: tuple[float, ...], label: int, count: int
) -> None:
    """Of two boxes on the same place the better one stays; of another class, or elsewhere, both do, best first."""
    outputs = blank()
    plant(outputs, (16.0, 12.0, 40.0, 40.0), 1, 0, logit=4.0)
    plant(outputs, box, label, 1, logit=6.0)
    (found,) = detector.decode(outputs)
    assert count == len(found.scores)
    assert label == found.labels[0]
    assert torch.equal(found.scores, found.scores.sort(descending=True).values)


def test_at_most_a_hundred_detections(detector: Yolox) -> None:
    """Where more boxes are certain the hundred best stay."""
    outputs = tuple(x.repeat(2, 1, 4, 4) for x in blank())
    for level in range(3):
        outputs[3 + level][:, 2:] = -2.0
        outputs[level][:, 0] = torch.linspace(1, 4, outputs[level][0, 0].numel()).view_as(outputs[level][0, 0])
        outputs[6 + level][:] = 3.0
    found = detector.decode(outputs)
    assert [100, 100] == [len(image.scores) for image in found]
    assert found[0].scores.min() > 0.8


@torch.no_grad()
def test_half_precision_outputs_are_computed_on_in_full(detector: Yolox) -> None:
    """From bf16 outputs, loss, boxes and scores are float32, and the loss is close to that of float32 outputs."""
    outputs = detector.run(batch(), 0)
    half = tuple(x.bfloat16() for x in outputs)
    losses = detector.loss(half, TARGETS)
    found = detector.decode(half)[0]
    assert {torch.float32} == {x.dtype for x in (*losses.values(), found.boxes, found.scores)}
    assert total(detector.loss(outputs, TARGETS)).item() == pytest.approx(total(losses).item(), rel=0.05)


@lru_cache
def untrained() -> Yolox:
    """For hypothesis, which calls a test many times and takes no fixture for it."""
    return Yolox("yolox_nano", CLASSES, SIZE)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(height=st.integers(1, 300), width=st.integers(1, 300), grey=st.integers(120, 255))
def test_a_canvas_holds_the_whole_image_top_left(height: int, width: int, grey: int) -> None:
    """The longer side fills the square, the proportions stay to a pixel, and the rest below and right is 114."""
    pixels, scale, size, valid = untrained().make_canvas(torch.full((3, height, width), grey, dtype=torch.uint8))
    assert ((3, SIZE, SIZE), torch.uint8) == (tuple(pixels.shape), pixels.dtype)
    assert (height, width) == size
    assert (SIZE / max(height, width),) * 2 == pytest.approx(scale)
    shown = pixels[0] == grey
    rows, columns = int(shown.any(dim=1).sum()), int(shown.any(dim=0).sum())
    assert (rows, columns) == valid
    assert max(rows, columns) == SIZE
    assert max(1, height * scale[1]) == pytest.approx(rows, abs=0.501)
    assert max(1, width * scale[0]) == pytest.approx(columns, abs=0.501)
    assert shown[:rows, :columns].all()
    assert (pixels[:, ~shown] == 114).all()


def test_an_image_of_the_right_size_is_not_resampled(detector: Yolox) -> None:
    """Pixels of an image that fits stay as they are."""
    image = canvases(1)[0]
    assert torch.equal(image, detector.make_canvas(image).pixels)
    wide = image[:, :40]
    assert torch.equal(wide, detector.make_canvas(wide).pixels[:, :40])


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    height=st.integers(1, 2000),
    width=st.integers(1, 2000),
    corners=st.lists(st.floats(0, 1, width=32), min_size=4, max_size=4),
)
def test_boxes_come_back_to_the_image(height: int, width: int, corners: list[float]) -> None:
    """Boxes scaled onto the canvas come back to the image's pixels; what reaches into the padding is clipped."""
    scale = SIZE / width, SIZE / height
    box = torch.tensor([corners]).sort().values * torch.tensor([width, height, width, height])
    box = torch.cat([box[:, :2].minimum(box[:, 2:]), box[:, :2].maximum(box[:, 2:])], dim=1)
    canvas = Canvas(torch.empty(0), scale, (height, width), (SIZE, SIZE))
    labels, scores = torch.tensor([1, 2]), torch.tensor([0.5, 0.25])
    beyond = torch.tensor([[-5.0, -5.0, SIZE + 5.0, SIZE + 5.0]])
    found = to_image(Detections(torch.cat([box * canvas.box_scale, beyond]), scores, labels), canvas)
    torch.testing.assert_close(found.boxes[:1], box, atol=max(height, width) * 1e-5, rtol=0)
    assert [0.0, 0.0, width, height] == found.boxes[1].tolist()
    assert torch.equal(labels, found.labels)
    assert torch.equal(scores, found.scores)


def test_coco_names_are_in_cocos_order() -> None:
    """80 names without the holes of COCO's numbering; another number of classes has no names."""
    names = base_classes(80)
    assert (80, "person", "bicycle", "toothbrush") == (len(set(names)), names[0], names[1], names[-1])
    assert ("stop sign", "parking meter") == (names[11], names[12])
    assert ["class 0", "class 1"] == base_classes(2)


def test_a_file_gives_back_the_detector_that_it_was_saved_from(tmp_path: Path, detector: Yolox) -> None:
    """Every tensor comes back bit for bit; classes that are not COCO's are named by number."""
    torch.save({"model": as_released(detector)}, tmp_path / "base.pth")
    loaded = build_detector("yolox_nano", weights=tmp_path / "base.pth", image_size=SIZE)
    assert tensor_fingerprints(detector) == tensor_fingerprints(loaded)
    assert ("class 0", "class 1", "class 2") == loaded.classes


@pytest.fixture
def release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that a server on this machine publishes in place of the authors' release, and an empty cache."""
    folder = tmp_path / "release"
    folder.mkdir()
    handler = partial(SilentHandler, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        monkeypatch.setattr(yolox, "RELEASE", f"http://127.0.0.1:{server.server_address[1]}")
        monkeypatch.setenv("FSOD_CACHE", str(tmp_path / "cache"))
        monkeypatch.setenv("no_proxy", "*")
        yield folder
        server.shutdown()


class SilentHandler(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


def test_a_released_file_of_another_size_or_content_is_refused(
    release: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, detector: Yolox
) -> None:
    """Size and SHA-256 are those of the authors' file, or nothing stays in the cache; the right file is loaded."""
    file = release / "yolox_nano.pth"
    torch.save({"model": as_released(detector)}, file)
    with pytest.raises(NetworkError, match="bytes instead of 7,694,953"):
        build_detector("yolox_nano", image_size=SIZE)
    size, digest = file.stat().st_size, hashlib.sha256(file.read_bytes()).hexdigest()
    monkeypatch.setitem(RELEASED, "yolox_nano", ReleasedFile(size, "0badf00d"))
    with pytest.raises(NetworkError, match="SHA-256 begins with"):
        build_detector("yolox_nano", image_size=SIZE)
    assert [] == list((tmp_path / "cache").rglob("*.pth"))
    monkeypatch.setitem(RELEASED, "yolox_nano", ReleasedFile(size, digest[:16]))
    assert tensor_fingerprints(detector) == tensor_fingerprints(build_detector("yolox_nano", image_size=SIZE))


def test_every_size_has_its_released_file() -> None:
    """A file holds more than the parameters in float32, and its hash is known to 16 digits."""
    assert SIZES.keys() == RELEASED.keys()
    for (name, millions), (size, digest) in zip(PUBLISHED, RELEASED.values(), strict=True):
        assert 1 < size / (4e6 * millions) < 2.2, name
        assert 16 == len(digest) and set(digest) <= set("0123456789abcdef"), name


@pytest.mark.parametrize("bias", [torch.zeros(0), torch.tensor(1.0), torch.zeros(3, 3)])
def test_an_impossible_predictor_is_refused(tmp_path: Path, detector: Yolox, bias: Tensor) -> None:
    """A file whose predictor has an impossible shape is a checkpoint error, not a crash."""
    state = detector.network.state_dict() | {"head.cls_preds.0.bias": bias}
    torch.save(state, tmp_path / "odd.pth")
    with pytest.raises(CheckpointError, match="weights do not fit: yolox_nano"):
        build_detector("yolox_nano", weights=tmp_path / "odd.pth", image_size=SIZE)


def test_the_real_weights_load(real: Path) -> None:
    """The authors' checkpoint has our names and shapes, all of them, and COCO's 80 classes."""
    detector = build_detector("yolox_nano", weights=real / "weights" / "yolox_nano_coco.pth")
    theirs = torch.load(real / "weights" / "yolox_nano_coco.pth", weights_only=True)["model"]
    ours = as_released(detector)
    assert {name for name in ours if not name.endswith("num_batches_tracked")} <= set(theirs)
    assert set(theirs) <= set(ours)
    assert all(torch.equal(tensor, ours[name]) for name, tensor in theirs.items())
    assert base_classes(80) == list(detector.classes)


@pytest.mark.slow
def test_the_real_weights_score_what_they_should(real: Path) -> None:
    """On 40 COCO images the ported detector is still itself: the AP that it had there when all 128 gave 0.340."""
    detector = build_detector("yolox_nano", weights=real / "weights" / "yolox_nano_coco.pth")
    detector.place(torch.device("cpu"))
    whole = read_split(real / "data" / "coco_val128" / "test", decode_images=False)
    split = replace(whole, images=whole.images[:40])
    metrics, _ = score(
        PlacedDetector.place(detector, "cpu", "fp32").detect([image.path for image in split.images]),
        split,
        detector.classes,
    )
    assert 0.377 == pytest.approx(metrics.ap, abs=0.005)


@pytest.mark.parametrize("groups", [1, 4])
def test_a_held_norm_is_multiplied_into_its_convolution(groups: int) -> None:
    """Output and gradients are those of convolution, batch norm and SiLU one after the other; in training mode too."""
    generator = torch.Generator().manual_seed(0)
    block = ConvBlock(4, 8, 3, stride=2, groups=groups).double().eval()
    for tensor in (*block.parameters(), block.bn.running_mean, block.bn.running_var):
        tensor.data = torch.rand(tensor.shape, generator=generator, dtype=torch.float64) + 0.1
    x = torch.randn(2, 4, 9, 7, generator=generator, dtype=torch.float64)
    for training in (False, True):
        block.train(training)
        found = torch.autograd.grad(block(x).square().sum(), list(block.parameters()))
        wanted = torch.autograd.grad(
            nn.functional.silu(block.bn(block.conv(x))).square().sum(), list(block.parameters())
        )
        for ours, theirs in zip(found, wanted, strict=True):
            torch.testing.assert_close(ours, theirs)


def test_finishing_the_training_changes_no_bit() -> None:
    """Norms that are folded once give the very outputs of norms that are folded for every image."""
    detector = build_detector("yolox_nano", weights="none", image_size=64)
    torch.manual_seed(3)
    for module in detector.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.uniform_(-1, 1)
            module.running_var.uniform_(0.5, 2)
    canvas = detector.make_canvas(torch.randint(0, 255, (3, 48, 64), dtype=torch.uint8))
    with torch.no_grad():
        before = detector.run(batch_of([canvas]), 0)
        detector.finish_training()
        after = detector.run(batch_of([canvas]), 0)
    assert all(torch.equal(*pair) for pair in zip(before, after, strict=True))
    assert all(module.folded is not None for module in detector.modules() if isinstance(module, ConvBlock))
