"""torchvision's published weight files: where they are, that they are whole, and what else torchvision publishes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor
from torchvision.models import WeightsEnum

from fewshot_cli.detectors.weights import check_hash
from fewshot_cli.download import download
from fewshot_cli.progress import Reporter

_OTHERS = {
    "head.regression_head.bbox_ctrness.weight": "FCOS",
    "head.regression_head.module_list.0.weight": "SSD",
    "roi_heads.box_predictor.cls_score.weight": "Faster R-CNN",
    "layer4.0.conv1.weight": "a ResNet classifier",
}
"""Models of torchvision that are no detectors here, each by a tensor that only it has."""


def recognise_other(state: Mapping[str, Tensor]) -> str | None:
    """What these weights of torchvision are, if they are of none of the detectors here; None for anything else."""
    return next((name for key, name in _OTHERS.items() if key in state), None)


def hash_in(weights: WeightsEnum) -> str:
    """The first digits of the file's SHA-256, which torchvision puts at the end of its name."""
    return str(weights.url).rpartition("-")[2].removesuffix(".pth")


def given(weights: WeightsEnum, path: Path) -> Path:
    """A file with the name of the published one must be that: the name holds its hash."""
    same = path.name == str(weights.url).rpartition("/")[2] and path.is_file()
    return check_hash(path, hash_in(weights)) if same else path


def fetched(weights: WeightsEnum, reporter: Reporter) -> Path:
    """torchvision's file in torch's own cache, downloaded there if absent.

    Not by torch.hub, which has no timeout, no retries and no resumption; the file and its place are the same.
    """
    path = Path(torch.hub.get_dir()) / "checkpoints" / str(weights.url).rpartition("/")[2]
    if path.exists():
        return check_hash(path, hash_in(weights))
    hint = f"--weights FILE works offline: get {path.name} elsewhere, or put it into {path.parent}."
    return download(weights.url, path, sha256_prefix=hash_in(weights), reporter=reporter, hint=hint)
