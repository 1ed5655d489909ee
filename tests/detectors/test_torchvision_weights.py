"""torchvision's published files, and classifiers of ImageNet as backbones."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import ResNet50_Weights, mobilenet_v2, mobilenet_v3_large
from torchvision.models.detection import RetinaNet_ResNet50_FPN_Weights

from fewshot_cli.detectors import torchvision_weights
from fewshot_cli.detectors.chain import Detector
from fewshot_cli.detectors.registry import DETECTORS, build_detector
from fewshot_cli.detectors.torchvision_weights import count_classes, hash_in
from fewshot_cli.errors import CheckpointError

V2, V3 = "retinanet_mobilenet_v2_fpn", "fasterrcnn_mobilenet_v3_large_fpn"
SIZE = 64


def build(name: str, weights: str | Path = "none") -> Detector:
    return build_detector(name, weights=weights, image_size=SIZE)


def body_of(detector: Detector) -> dict[str, Tensor]:
    prefix = "backbone.body."
    state = detector.network.state_dict()
    return {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}


def epsilons(detector: Detector) -> set[float]:
    return {module.eps for module in detector.modules() if isinstance(module, nn.BatchNorm2d)}


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole MobileNetV2 classifier."""
    torch.manual_seed(9)
    path = tmp_path_factory.mktemp("classifier") / "mobilenet.pth"
    torch.save(mobilenet_v2(weights=None).state_dict(), path)
    return path


def test_the_hash_is_read_off_the_name_of_the_release() -> None:
    """Torchvision's file names end in the first digits of their SHA-256."""
    assert "eeacb38b" == hash_in(RetinaNet_ResNet50_FPN_Weights.COCO_V1)
    assert "0676ba61" == hash_in(ResNet50_Weights.IMAGENET1K_V1)


def test_a_file_with_the_name_of_a_published_one_must_be_that(tmp_path: Path) -> None:
    """A damaged download is not taken for the weights, neither the detector's nor the classifier's."""
    for name in ("retinanet_resnet50_fpn_coco-eeacb38b.pth", "resnet50-0676ba61.pth"):
        (tmp_path / name).write_bytes(b"damaged")
        with pytest.raises(CheckpointError, match=f"{name} is damaged"):
            build("retinanet_resnet50_fpn", tmp_path / name)


@pytest.mark.parametrize("form", ["whole", "backbone"])
def test_a_classifiers_file_is_the_backbone(classifier: Path, tmp_path: Path, form: str) -> None:
    """Its convolutions are the detector's, with its last layer or without; all else is as with random weights."""
    state = torch.load(classifier, weights_only=True)
    if form == "backbone":
        state = {name: tensor for name, tensor in state.items() if name.startswith("features.")}
    torch.save(state, tmp_path / "w.pth")
    found, random = build(V2, tmp_path / "w.pth"), build(V2)
    assert not found.pretrained
    body = body_of(found)
    assert all(torch.equal(state[f"features.{name}"], tensor) for name, tensor in body.items())
    others = {name for name in random.network.state_dict() if not name.startswith("backbone.body.")}
    assert all(torch.equal(found.network.state_dict()[name], random.network.state_dict()[name]) for name in others)


def test_imagenet_is_the_default_where_coco_weights_are_not_published(
    classifier: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`default` and `imagenet` are the same for the RetinaNet on MobileNetV2, as its registry line says."""
    cache = tmp_path / "hub" / "checkpoints"
    cache.mkdir(parents=True)
    (cache / "mobilenet_v2-b0353104.pth").symlink_to(classifier)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torchvision_weights, "check_hash", lambda path, digest: path)  # a stand-in
    built = {weights: build(V2, weights) for weights in ("default", "imagenet")}
    states = [detector.network.state_dict() for detector in built.values()]
    assert all(torch.equal(*pair) for pair in zip(*(state.values() for state in states), strict=True))
    assert [False, False] == [detector.pretrained for detector in built.values()]
    assert [V2] == [name for name, spec in DETECTORS.items() if not spec.has_coco] and DETECTORS[V2].has_imagenet


def test_a_whole_detectors_file_is_pretrained(tmp_path: Path) -> None:
    """The same detector, from a file of its own, has a predictor whose classes are known."""
    torch.save(build(V2).network.state_dict(), tmp_path / "w.pth")
    assert build(V2, tmp_path / "w.pth").pretrained


def test_a_classifiers_norms_keep_their_epsilon(tmp_path: Path) -> None:
    """MobileNetV3's was trained with 0.001, which is no tensor; torchvision's detector of it was not."""
    torch.save(mobilenet_v3_large(weights=None).state_dict(), tmp_path / "w.pth")
    found = build(V3, tmp_path / "w.pth")
    assert ({1e-3}, False) == (epsilons(found), found.pretrained)
    assert {1e-5} == epsilons(build(V3))


def test_another_classifier_is_refused(classifier: Path, tmp_path: Path) -> None:
    """A MobileNetV2 given to a ResNet or a MobileNetV3 is named, and so is what would be right."""
    for name in ("retinanet_resnet50_fpn", V3):
        with torch.device("meta"), pytest.raises(CheckpointError, match="weights do not fit") as caught:
            build(name, classifier)
        expected = f"These look like weights of a MobileNetV2 classifier; give weights of {name}."
        assert expected == caught.value.hint


def test_a_cut_classifier_is_refused(classifier: Path, tmp_path: Path) -> None:
    """Without all of the backbone it would be random in places, which nobody would notice."""
    state = torch.load(classifier, weights_only=True)
    torch.save(
        {name: tensor for name, tensor in state.items() if not name.startswith("features.7")}, tmp_path / "w.pth"
    )
    with pytest.raises(CheckpointError, match=f"the backbone of {V2} from .*missing"):
        build(V2, tmp_path / "w.pth")


def test_the_real_backbone_is_taken(real: Path) -> None:
    """ImageNet's MobileNetV2 without a classifier, its norms folded."""
    found = build(V2, real / "weights" / "mobilenet_v2_imagenet_features.pth")
    assert not found.pretrained
    weight = body_of(found)["0.0.weight"]
    assert torch.equal(
        torch.load(real / "weights" / "mobilenet_v2_imagenet_features.pth")["features.0.0.weight"], weight
    )


@pytest.mark.parametrize(
    ("outputs", "anchors", "background", "expected"), [(91, 1, True, 90), (27, 9, False, 3), (4, 9, False, 1)]
)
def test_classes_are_counted_on_the_predictor(outputs: int, anchors: int, background: bool, expected: int) -> None:
    """Its outputs divided by the anchors, less the background; a predictor of an impossible width has one class."""
    count = count_classes("p.bias", anchors, background=background)
    assert (expected, None) == (count({"p.bias": torch.zeros(outputs)}), count({}))
