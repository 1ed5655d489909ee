"""The embedded detector: trained, small, and like the large RetinaNet in everything that a policy touches."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from helpers_runs import REPOSITORY, fine_tune

from fewshot_cli.detectors.registry import build_detector
from fewshot_cli.detectors.retinanet_mini import WEIGHTS
from fewshot_cli.errors import CheckpointError
from fewshot_cli.evaluation.measure import score
from fewshot_cli.inference.placed import PlacedDetector
from fewshot_cli.runs.config import FinetuneConfig
from fewshot_cli.sources.fetch import FetchRequest, fetch
from fewshot_cli.sources.miniature.classes import BASE, NOVEL
from fewshot_cli.sources.miniature.world import HELD_OUT, draw_base_split

HEAD = ["head.1", "head.2", "head.3", "head.4", "head.5"]


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FSOD_CACHE", str(tmp_path_factory.mktemp("cache")))


def base_map(folder: Path, images: int) -> float:
    """mAP of the weights in the package on the first held-out images."""
    split = draw_base_split(folder, HELD_OUT, images)
    detector = build_detector("retinanet_mini")
    metrics, _ = score(
        PlacedDetector.place(detector, "cpu", "fp32").detect([image.path for image in split.images]),
        split,
        detector.classes,
    )
    return metrics.ap


@pytest.mark.slow
def test_the_weights_in_the_package_know_the_base_classes_and_no_novel_one(tmp_path: Path) -> None:
    """mAP on held-out images is that of a trained detector."""
    assert tuple(BASE) == build_detector("retinanet_mini").classes
    assert not set(BASE) & set(NOVEL)
    assert 0.4 < base_map(tmp_path, 10)


@pytest.mark.slow
def test_base_map_is_at_least_a_half_on_500_held_out_images(tmp_path: Path) -> None:
    """The figure of the model card."""
    assert 0.50 <= base_map(tmp_path, 500)


def test_detector_and_file_are_small() -> None:
    """One to three million parameters, 8 MB at most, with a model card beside them."""
    detector = build_detector("retinanet_mini")
    assert 1e6 < sum(parameter.numel() for parameter in detector.parameters()) < 3e6
    assert WEIGHTS.stat().st_size < 8e6
    assert WEIGHTS.with_suffix(".md").is_file()


def test_its_head_is_that_of_the_large_one() -> None:
    """Same layers, same modules at each depth: every policy means the same."""
    small, large = build_detector("retinanet_mini"), build_detector("retinanet_resnet50_fpn_v2", weights="none")
    assert [(layer.name, layer.part) for layer in small.layers] == [(layer.name, layer.part) for layer in large.layers]
    for ours, theirs in zip(small.layers, large.layers, strict=True):
        assert [name for name, _ in ours.modules] == [name for name, _ in theirs.modules]


def test_weights_with_other_classes_load_from_a_file(tmp_path: Path) -> None:
    """The number of classes is read from the file."""
    detector = build_detector("retinanet_mini")
    detector.replace_classes(("a", "b"), ((), ()))
    torch.save(detector.network.state_dict(), tmp_path / "two.pth")
    assert 2 == len(build_detector("retinanet_mini", weights=tmp_path / "two.pth").classes)


def test_weights_of_the_large_one_do_not_fit(tmp_path: Path) -> None:
    """The error names the detector; nothing is loaded in part."""
    large = build_detector("retinanet_resnet50_fpn", weights="none").network.state_dict()
    torch.save(large, tmp_path / "large.pth")
    with pytest.raises(CheckpointError, match="retinanet_mini"):
        build_detector("retinanet_mini", weights=tmp_path / "large.pth")


@pytest.mark.slow
def test_a_few_steps_teach_a_novel_class(tmp_path: Path) -> None:
    """From ten images of a class that it never saw, in a few steps, detections appear that were not there before."""
    request = FetchRequest(source="miniature", classes=("flower",), shots=10, test_images=10, root=tmp_path / "data")
    data = str(fetch(request).dataset.path)
    short = {"data": data, "detector": "retinanet_mini", "copies": 2, "iterations": 15, "eval_every": 0}
    before = fine_tune(tmp_path / "none", FinetuneConfig(policy="none", **short)).read_result()  # type: ignore[arg-type]
    after = fine_tune(tmp_path / "all", FinetuneConfig(policy="all", **short)).read_result()  # type: ignore[arg-type]
    assert HEAD == after["trained_layers"]
    assert before["ap"] + 0.02 < after["ap"]


def test_the_model_card_names_data_recipe_and_figures() -> None:
    """What a reader of a model card looks for is there."""
    card = (REPOSITORY / "fewshot_cli" / "detectors" / "retinanet_mini.md").read_text("utf-8")
    for word in ("Data", "Recipe", "Hardware", "Figures", "pretrain_retinanet_mini.py", "mAP", "Licence"):
        assert word in card
