"""The registry: names, sizes and seeds, and that listing detectors costs nothing."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from fewshot_cli.detectors.chain import PARTS
from fewshot_cli.detectors.registry import DETECTORS, build_detector, get_spec, head_depths
from fewshot_cli.detectors.weights import state_fingerprint
from fewshot_cli.errors import ConfigError, ModelError


def test_listing_detectors_does_not_import_torch() -> None:
    """`--help` and a wrong detector name must not wait seconds for torch."""
    code = "import sys, fewshot_cli.detectors.registry; sys.exit(bool({'torch', 'numpy'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_an_unknown_detector_names_the_closest_and_all() -> None:
    """A typing error is answered with the name that was meant, and exit code 5."""
    with pytest.raises(ModelError, match="unknown detector 'yolox_nan'") as caught:
        get_spec("yolox_nan")
    assert caught.value.hint is not None
    assert "Did you mean yolox_nano?" in caught.value.hint
    assert all(name in caught.value.hint for name in DETECTORS)
    assert caught.value.exit_code == 5


FAMILIES = {
    # name begins with: (M, stages of the backbone, base classes); the longest that fits counts
    "retinanet": (5, 5, 91),
    "retinanet_mini": (5, 5, 28),
    "fcos": (5, 5, 91),
    "fasterrcnn": (3, 5, 90),
    "fasterrcnn_resnet50_fpn_v2": (6, 5, 90),
    "ssd": (1, 5, 90),
    "ssd_mobilenet": (5, 5, 80),
    "yolox": (4, 5, 80),
}
"""torchvision counts the background as a class where scores are sigmoids; where they are a softmax it is a row."""


def family_of(name: str) -> tuple[int, int, int]:
    return FAMILIES[max((family for family in FAMILIES if name.startswith(family)), key=len)]


def test_head_depths_hold_what_the_design_says() -> None:
    """RetinaNet, FCOS and SSD on FPN have M = 5 head layers, YOLOX 4, Faster R-CNN 3, its second version 6, SSD 1."""
    assert {name: family_of(name)[0] for name in DETECTORS} == head_depths()


@pytest.mark.parametrize("name", DETECTORS)
def test_what_the_registry_says_is_what_is_built(name: str) -> None:
    """Head depth, stages and default size are the registry's; every parameter is in one layer; nothing is pretrained."""
    with torch.device("meta"):
        detector = build_detector(name, weights="none")
    spec, built = DETECTORS[name], (detector.head_depth, detector.backbone_stages, len(detector.classes))
    assert (name, spec.image_size, False) == (detector.name, detector.image_size, detector.pretrained)
    assert family_of(name) == built
    assert (spec.head_depth, spec.backbone_stages) == built[:2]
    order = [PARTS.index(layer.part) for layer in detector.layers]
    assert sorted(order) == order
    assert not any(module.training for module in detector.modules())
    for _ in range(2):
        every = sorted(name for name, _ in detector.network.named_parameters())
        assert every == sorted(name for layer in detector.layers for name in layer.parameters())
        detector.replace_classes(["helmet", "bird"], [(), ()])


def test_random_weights_are_a_function_of_the_seed() -> None:
    """The same seed gives the same bits, another seed others, and the caller's random state is left alone."""
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    first, again, other = (build_detector("yolox_nano", weights="none", seed=seed) for seed in (1, 1, 2))
    assert torch.equal(expected, torch.rand(3))
    assert state_fingerprint(first) == state_fingerprint(again)
    assert state_fingerprint(first) != state_fingerprint(other)


def test_an_impossible_image_size_is_refused() -> None:
    """Only multiples of 32 from 64 to 2048 fit every stride; the hint names one that works."""
    for size in (0, -32, 32, 100, 2080, 641):
        with pytest.raises(
            ConfigError, match=f"image_size is {size}: give a multiple of 32 that is at least 64"
        ) as caught:
            build_detector("yolox_nano", weights="none", image_size=size)
        assert str(caught.value.hint).startswith("E.g. ")


def test_a_detector_can_need_a_larger_canvas() -> None:
    """The coarsest maps of VGG-16's SSD vanish in a small one; the error says from which size on it works."""
    with pytest.raises(
        ConfigError, match="ssd300_vgg16: image_size is 256: give a multiple of 32 that is at least 288"
    ):
        build_detector("ssd300_vgg16", weights="none", image_size=256)
    with torch.device("meta"):
        assert 288 == build_detector("ssd300_vgg16", weights="none", image_size=288).image_size


def test_imagenet_weights_are_refused_where_there_are_none() -> None:
    """YOLOX has no ImageNet backbone, and the hint names detectors that have."""
    with pytest.raises(ModelError, match="no ImageNet weights") as caught:
        build_detector("yolox_nano", weights="imagenet")
    assert "retinanet_resnet50_fpn" in str(caught.value.hint)
