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


def test_head_depths_hold_what_the_design_says() -> None:
    """YOLOX has M = 4 head layers, the others M = 5."""
    assert {name: 4 if name.startswith("yolox") else 5 for name in DETECTORS} == head_depths()


def test_what_the_registry_says_is_what_is_built() -> None:
    """Name, head depth, stages and default size of the built detector are the registry's, and it is in eval."""
    classes = {"yolox": 80, "retinanet_resnet50": 91, "retinanet_mini": 28, "ssd_mobilenet": 80}
    for name, spec in DETECTORS.items():
        with torch.device("meta"):
            detector = build_detector(name, weights="none")
        assert (name, spec.image_size) == (detector.name, detector.image_size)
        assert (spec.head_depth, spec.backbone_stages) == (detector.head_depth, detector.backbone_stages), name
        assert {layer.part for layer in detector.layers} <= set(PARTS), name
        assert not any(module.training for module in detector.modules()), name
        family = next(family for family in classes if name.startswith(family))
        assert classes[family] == len(detector.classes), name


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


def test_imagenet_weights_are_refused_where_there_are_none() -> None:
    """YOLOX has no ImageNet backbone, and the hint names detectors that have."""
    with pytest.raises(ModelError, match="no ImageNet weights") as caught:
        build_detector("yolox_nano", weights="imagenet")
    assert "retinanet_resnet50_fpn" in str(caught.value.hint)
