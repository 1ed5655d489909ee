"""RetinaNet as a chain: the same numbers as torchvision's own forward, however it is cut."""

from __future__ import annotations

import copy
import hashlib
from functools import cache
from pathlib import Path
from typing import cast

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision.models import resnet50
from torchvision.models.detection import retinanet_resnet50_fpn

import fewshot_cli.detectors.retinanet as module
from fewshot_cli.detectors import torchvision_weights
from fewshot_cli.detectors.chain import Activations, Target
from fewshot_cli.detectors.registry import build_detector
from fewshot_cli.detectors.retinanet import SUPPRESSION, RetinaNetDetector
from fewshot_cli.detectors.weights import tensor_fingerprints
from fewshot_cli.errors import CheckpointError, NetworkError
from fewshot_cli.progress import SilentReporter

V1, V2 = "retinanet_resnet50_fpn", "retinanet_resnet50_fpn_v2"
SIZE = 128
LAYERS = ["backbone.stem", *(f"backbone.layer{i}" for i in range(1, 5)), "neck", *(f"head.{i}" for i in range(1, 6))]


def build(name: str = V1, weights: str | Path = "none") -> RetinaNetDetector:
    return cast(RetinaNetDetector, build_detector(name, weights=weights, image_size=SIZE))


def trained(detector: RetinaNetDetector) -> RetinaNetDetector:
    """Norm statistics and predictors that are not those of an untouched network, so that no test passes on zeros."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for norm in (m for m in detector.network.modules() if isinstance(m, nn.BatchNorm2d)):
            assert norm.running_mean is not None
            assert norm.running_var is not None
            norm.running_mean.normal_(0, 0.1, generator=generator)
            norm.running_var.uniform_(0.5, 1.5, generator=generator)
        detector.network.head.classification_head.cls_logits.weight.normal_(0, 0.1, generator=generator)
    return detector


@cache
def built(name: str) -> RetinaNetDetector:
    """One detector of each variant, which tests read and do not change: building one takes most of a second."""
    torch.manual_seed(0)
    return trained(build(name))


@pytest.fixture(params=[V1, pytest.param(V2, marks=pytest.mark.slow)])
def detector(request: pytest.FixtureRequest) -> RetinaNetDetector:
    return built(request.param)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A weights file of each, which tests read."""
    paths = {name: tmp_path_factory.mktemp("weights") / f"{name}.pth" for name in (V1, V2)}
    for name, path in paths.items():
        torch.save({"model": built(name).network.state_dict()}, path)
    return paths


def canvases(count: int = 2) -> Tensor:
    return torch.randint(0, 256, (count, 3, SIZE, SIZE), dtype=torch.uint8, generator=torch.Generator().manual_seed(3))


def batch(count: int = 2) -> Activations:
    """The same as the input of the chain: images that fill the canvas."""
    return canvases(count), torch.full((count, 2), SIZE)


TARGETS = [
    Target(torch.tensor([[10.0, 12.0, 60.0, 90.0], [70.0, 5.0, 120.0, 40.0]]), torch.tensor([3, 90])),
    Target(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64)),
]


def total(losses: dict[str, Tensor]) -> Tensor:
    return torch.stack(list(losses.values())).sum()


def torchvision_form(detector: RetinaNetDetector) -> nn.Module:
    """A copy of the network that torchvision's own forward runs on a canvas without resizing it."""
    network = copy.deepcopy(detector.network)
    network.transform.min_size, network.transform.max_size = (SIZE,), SIZE
    network.score_thresh, network.detections_per_img = SUPPRESSION.min_score, SUPPRESSION.detections
    return cast(nn.Module, network)


def test_the_loss_is_torchvisions_bit_for_bit(detector: RetinaNetDetector) -> None:
    """The chain's loss equals the network's own in train mode with norms in eval, an image without boxes included."""
    network = torchvision_form(detector).train()
    for norm in network.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.eval()
    wanted = network([c / 255 for c in canvases()], [{"boxes": t.boxes, "labels": t.labels} for t in TARGETS])
    found = detector.loss(detector.run(batch(), 0), TARGETS)
    assert {name: loss.item() for name, loss in wanted.items()} == {name: loss.item() for name, loss in found.items()}
    assert all(loss > 0 for loss in found.values())


@torch.no_grad()
def test_detections_are_torchvisions_bit_for_bit(detector: RetinaNetDetector) -> None:
    """Boxes, scores and labels equal the network's own in eval, best first, at most 100, down to 0.001."""
    network = torchvision_form(detector).eval()
    wanted = network([c / 255 for c in canvases()])
    found = detector.decode(detector.run(batch(), 0))
    for theirs, ours in zip(wanted, found, strict=True):
        assert torch.equal(theirs["boxes"], ours.boxes)
        assert torch.equal(theirs["scores"], ours.scores)
        assert torch.equal(theirs["labels"], ours.labels)
        assert 0 < len(ours.scores) <= 100
        assert torch.equal(ours.scores, ours.scores.sort(descending=True).values)
        assert ours.boxes.min() >= 0
        assert ours.boxes.max() <= SIZE


@torch.inference_mode()
def test_a_cut_before_any_layer_changes_nothing(detector: RetinaNetDetector) -> None:
    """Stored activations, gone on from, give the outputs of an uncut run bit for bit, and are not written to."""
    whole = detector.run(batch(1), 0)
    stored = batch(1)
    for cut in range(1, len(detector.layers) + 1):
        stored = detector.run(stored, cut - 1, cut)
        kept = tuple(x.clone() for x in stored)
        outputs = detector.run(stored, cut)
        assert all(torch.equal(a, b) for a, b in zip(whole, outputs, strict=True)), detector.layers[cut - 1].name
        assert all(torch.equal(a, b) for a, b in zip(kept, stored, strict=True)), detector.layers[cut - 1].name


def test_the_chain_has_the_layers_of_the_design(detector: RetinaNetDetector) -> None:
    """Stem, four stages, neck, four tower layers and the predictor, with both towers in every head layer."""
    assert [layer.name for layer in detector.layers] == LAYERS
    assert [layer.part for layer in detector.layers] == ["backbone"] * 5 + ["neck"] + ["head"] * 5
    assert detector.head_depth == 5
    for layer in detector.layers[6:]:
        towers = {name.split(".")[1] for name, _ in layer.modules}
        assert towers == {"classification_head", "regression_head"}


def test_every_parameter_belongs_to_exactly_one_layer(detector: RetinaNetDetector) -> None:
    """No parameter is left out or counted twice, under the network's own names."""
    names = [name for layer in detector.layers for name in layer.parameters()]
    assert sorted(names) == sorted(name for name, _ in detector.network.named_parameters())
    ours = {id(p) for layer in detector.layers for p in layer.parameters().values()}
    assert ours == {id(p) for p in detector.network.parameters()}


@torch.no_grad()
def test_a_layer_uses_only_its_own_modules(detector: RetinaNetDetector) -> None:
    """A layer gives the same when every parameter outside it is overwritten."""
    x: tuple[Tensor, ...] = (detector.normalize(canvases(1)),)
    other = copy.deepcopy(detector)
    for parameter in other.network.parameters():
        parameter.fill_(0.5)
    for layer, same in zip(detector.layers, other.layers, strict=True):
        own = layer.parameters()
        for name, parameter in same.parameters().items():
            parameter.copy_(own[name])
        expected, found = layer.forward(x), same.forward(x)
        assert all(torch.equal(a, b) for a, b in zip(expected, found, strict=True)), layer.name
        for parameter in same.parameters().values():
            parameter.fill_(0.5)
        x = expected


@pytest.mark.parametrize("trainable", [[10], [6, 10], [6, 7, 10], [5], [0, 4]])
def test_gradients_reach_exactly_the_trainable_layers(trainable: list[int]) -> None:
    """With some layers trainable, each of their parameters gets a gradient and no other does."""
    detector = copy.deepcopy(built(V1)).requires_grad_(False)
    for index in trainable:
        for parameter in detector.layers[index].parameters().values():
            parameter.requires_grad_(True)
    start = trainable[0]
    with torch.inference_mode():
        stored = detector.run(batch(), 0, start)
    total(detector.loss(detector.run(tuple(x.clone() for x in stored), start), TARGETS)).backward()
    expected = {name for index in trainable for name in detector.layers[index].parameters()}
    assert expected == {name for name, p in detector.network.named_parameters() if p.grad is not None}


@pytest.mark.slow
def test_evaluation_before_training_does_not_spoil_the_graph() -> None:
    """Anchors first made under inference mode can be used in a loss that is differentiated (v2 decodes boxes)."""
    detector = build(V2)
    with torch.inference_mode():
        detector.decode(detector.run(batch(), 0))
    losses = detector.loss(detector.run(batch(), 0), TARGETS)
    losses["bbox_regression"].backward()
    assert detector.network.head.regression_head.bbox_reg.weight.grad.abs().sum() > 0


@torch.no_grad()
def test_new_classes_take_the_rows_they_are_given(detector: RetinaNetDetector) -> None:
    """A class that starts from a base class scores as that class did; a fresh one starts at about 0.01 everywhere."""
    changed = copy.deepcopy(detector)
    before = changed.run(batch(), 0)
    boxes = copy.deepcopy(changed.network.head.regression_head.state_dict())
    changed.replace_classes(["helmet", "again 3", "again 90"], [(), (3,), (90,)])
    after = changed.run(batch(), 0)
    assert changed.classes == ("helmet", "again 3", "again 90")
    for old, new in zip(before[:5], after[:5], strict=True):
        old, new = old.unflatten(1, (9, 91)), new.unflatten(1, (9, 3))
        torch.testing.assert_close(new[:, :, 1:], old[:, :, [3, 90]])
        assert 0.004 < new[:, :, 0].sigmoid().mean() < 0.025
    assert all(torch.equal(old, new) for old, new in zip(before[5:], after[5:], strict=True))
    assert all(torch.equal(boxes[name], x) for name, x in changed.network.head.regression_head.state_dict().items())


def test_new_classes_are_in_the_chain_the_loss_and_the_detections(detector: RetinaNetDetector) -> None:
    """After a change of classes the layers own the new predictor, and loss and decoding count the new classes."""
    changed = copy.deepcopy(detector)
    changed.replace_classes(["helmet"], [()])
    predictor = changed.network.head.classification_head.cls_logits
    assert predictor.out_channels == 9
    assert any(p is predictor.weight for p in changed.layers[-1].parameters().values())
    target = [Target(torch.tensor([[10.0, 10.0, 80.0, 80.0]]), torch.tensor([0]))]
    outputs = changed.run(batch(1), 0)
    total(changed.loss(outputs, target)).backward()
    assert predictor.weight.grad is not None
    assert predictor.weight.grad.abs().sum() > 0
    assert changed.decode(tuple(x.detach() for x in outputs))[0].labels.unique().tolist() == [0]
    assert detector.network.head.classification_head.cls_logits.out_channels == 9 * 91


def test_a_fresh_predictor_is_a_function_of_the_seed() -> None:
    """Two changes of classes under one seed give the same bits."""
    detectors = [copy.deepcopy(built(V1)) for _ in range(2)]
    for detector in detectors:
        torch.manual_seed(5)
        detector.replace_classes(["helmet"], [()])
    first, second = (tensor_fingerprints(detector) for detector in detectors)
    assert first == second


def test_half_precision_outputs_are_computed_on_in_full(detector: RetinaNetDetector) -> None:
    """bf16 outputs meet float32 anchors: loss and boxes are float32 and close to the full-precision ones."""
    with torch.no_grad():
        outputs = detector.run(batch(), 0)
        half = tuple(x.bfloat16() for x in outputs)
        full_loss, half_loss = detector.loss(outputs, TARGETS), detector.loss(half, TARGETS)
        found = detector.decode(half)
    assert all(loss.dtype == torch.float32 for loss in half_loss.values())
    assert found[0].boxes.dtype == torch.float32
    assert total(full_loss).item() == pytest.approx(total(half_loss).item(), rel=0.02)


@torch.no_grad()
def test_padding_is_what_torchvision_pads_with(detector: RetinaNetDetector) -> None:
    """Torchvision pads with zeros after normalising; our grey comes within half a step of 255 of that."""
    image = torch.full((3, 40, SIZE), 200, dtype=torch.uint8)
    pixels = detector.normalize(detector.make_canvas(image).pixels[None])
    assert pixels[:, :, 40:].abs().max() < 0.5 / 255 / 0.224 + 1e-6
    assert pixels[:, :, :40].abs().min() > 0.5


@pytest.mark.parametrize(("name", "suffix"), [(V1, ".pth"), pytest.param(V2, ".safetensors", marks=pytest.mark.slow)])
def test_a_file_gives_back_the_detector_that_it_was_saved_from(
    tmp_path: Path, files: dict[str, Path], name: str, suffix: str
) -> None:
    """Every tensor comes back bit for bit, and the base classes are COCO's, background and holes kept."""
    detector, path = built(name), files[name]
    if suffix == ".safetensors":
        save_file(detector.network.state_dict(), path := tmp_path / "base.safetensors")
    loaded = build(name, path)
    assert tensor_fingerprints(detector) == tensor_fingerprints(loaded)
    assert loaded.classes[:3] == ("__background__", "person", "bicycle")
    assert loaded.classes[12] == "N/A"
    assert len(loaded.classes) == 91


@pytest.mark.slow
def test_a_file_with_other_classes_names_them_by_number(tmp_path: Path) -> None:
    """The number of classes is read off the predictor."""
    with torch.device("meta"):
        narrow = retinanet_resnet50_fpn(weights=None, weights_backbone=None, num_classes=3)
    shapes = {name: torch.zeros(t.shape, dtype=t.dtype) for name, t in narrow.state_dict().items()}
    torch.save(shapes, tmp_path / "w.pth")
    detector = build(V1, tmp_path / "w.pth")
    assert detector.classes == ("class 0", "class 1", "class 2")
    assert detector.run(batch(1), 0)[0].shape[1] == 27


def old_name(name: str) -> str:
    """The name that a tensor has in torchvision's COCO v1 file, which is older than the present modules."""
    parts = name.split(".")
    if parts[2] in ("inner_blocks", "layer_blocks"):  # backbone.fpn.inner_blocks.0.0.weight
        del parts[4]
    if parts[2] == "conv":  # head.regression_head.conv.1.0.weight
        parts[3:5] = [str(2 * int(parts[3]))]
    return ".".join(parts)


def coco_file(folder: Path, tensors: dict[str, Tensor]) -> Path:
    """A file of the form of torchvision's v1 release: old names, no batch counters."""
    state = {old_name(n): t for n, t in tensors.items() if not n.endswith("batches_tracked")}
    assert "head.classification_head.conv.6.weight" in state
    assert "backbone.fpn.inner_blocks.2.bias" in state
    path = folder / "retinanet_resnet50_fpn_coco-eeacb38b.pth"
    torch.save(state, path)
    return path


def epsilons(detector: RetinaNetDetector) -> set[float]:
    return {m.eps for m in detector.network.modules() if isinstance(m, nn.BatchNorm2d)}


@pytest.mark.slow
def test_the_old_names_of_the_release_are_understood(tmp_path: Path) -> None:
    """A file with the layer names of the COCO v1 release loads as torchvision itself loads it, bit for bit."""
    detector = built(V1)
    path = coco_file(tmp_path, detector.network.state_dict()).rename(tmp_path / "own.pth")
    theirs = retinanet_resnet50_fpn(weights=None, weights_backbone=None)
    theirs.load_state_dict(torch.load(path, weights_only=True))
    loaded = build(V1, path)
    assert tensor_fingerprints(detector) == tensor_fingerprints(loaded)
    assert tensor_fingerprints(theirs) == tensor_fingerprints(loaded.network)
    assert epsilons(loaded) == {1e-5}


@pytest.mark.slow
def test_the_release_itself_gets_eps_zero(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file whose hash is the release's gets eps = 0, as torchvision gives it; from the cache and by path alike."""
    hub = tmp_path / "hub" / "checkpoints"
    hub.mkdir(parents=True)
    path = coco_file(hub, built(V1).network.state_dict())
    # The real file is not in the repository, so the hash in the release's name is made that of the stand-in.
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:8]
    monkeypatch.setattr(torchvision_weights, "hash_in", lambda weights: digest)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    assert epsilons(build(V1, path)) == {0.0}
    assert epsilons(build(V1, "default")) == {0.0}


@pytest.mark.parametrize("name", [V1, pytest.param(V2, marks=pytest.mark.slow)])
def test_imagenet_weights_go_into_the_backbone_only(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With `imagenet` the ResNet is the classifier's, its last layer left out, and the rest is as with `none`."""
    hub = tmp_path / "hub" / "checkpoints"
    hub.mkdir(parents=True)
    torch.manual_seed(9)
    classifier = resnet50(weights=None)
    torch.save(classifier.state_dict(), hub / "resnet50-0676ba61.pth")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(
        torchvision_weights, "check_hash", lambda path, digest: path
    )  # a stand-in, not the published file
    found, random = tensor_fingerprints(build(name, "imagenet")), tensor_fingerprints(build(name))
    body = "network.backbone.body."
    wanted = {body + n: f for n, f in tensor_fingerprints(classifier).items() if not n.startswith("fc.")}
    assert wanted == {n: f for n, f in found.items() if n.startswith(body)}
    assert {n: f for n, f in random.items() if n not in wanted} == {n: f for n, f in found.items() if n not in wanted}


@pytest.mark.parametrize("weights", ["default", "imagenet"])
def test_without_network_the_error_says_what_works_offline(
    weights: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A download that cannot come ends with exit code 7 and the advice to give a file."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    for variable in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(variable, "http://127.0.0.1:9")  # nobody listens on the discard port
    for variable in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    with pytest.raises(NetworkError, match="download.pytorch.org") as caught:
        module.build(V1, image_size=SIZE, weights=weights, reporter=SilentReporter())
    assert "--weights FILE works offline" in str(caught.value.hint)


@pytest.mark.slow
def test_the_other_variants_file_is_recognised(files: dict[str, Path]) -> None:
    """Weights of v2 given to v1, and the other way round, say whose they are."""
    with pytest.raises(CheckpointError, match="unexpected") as caught:
        build(V1, files[V2])
    assert f"weights of {V2};" in str(caught.value.hint)
    with pytest.raises(CheckpointError, match="missing") as caught:
        build(V2, files[V1])
    assert f"weights of {V1};" in str(caught.value.hint)


@pytest.mark.parametrize(
    "broken", ["backbone", *(pytest.param(name, marks=pytest.mark.slow) for name in ("predictor", "odd"))]
)
def test_a_partial_file_is_refused(tmp_path: Path, broken: str) -> None:
    """A file without all of the detector, or with a predictor of an impossible width, does not load."""
    state = built(V1).network.state_dict()
    if broken == "odd":
        state["head.classification_head.cls_logits.bias"] = torch.zeros(4)
    else:
        dropped = "backbone.body.layer3" if broken == "backbone" else "head.classification_head.cls_logits"
        state = {name: tensor for name, tensor in state.items() if not name.startswith(dropped)}
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match="weights do not fit: retinanet_resnet50_fpn from .*w.pth"):
        build(V1, tmp_path / "w.pth")


def test_an_empty_predictor_is_refused(tmp_path: Path) -> None:
    """A classifier file, or one whose predictor bias is empty, is no RetinaNet."""
    torch.save({"head.classification_head.cls_logits.bias": torch.zeros(0)}, tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match="missing"):
        build(V1, tmp_path / "w.pth")
