"""torchvision's published files: their hashes."""

from __future__ import annotations

from torchvision.models import ResNet50_Weights
from torchvision.models.detection import RetinaNet_ResNet50_FPN_Weights

from fewshot_cli.detectors.torchvision_weights import hash_in


def test_the_hash_is_read_off_the_name_of_the_release() -> None:
    """Torchvision's file names end in the first digits of their SHA-256."""
    assert "eeacb38b" == hash_in(RetinaNet_ResNet50_FPN_Weights.COCO_V1)
    assert "0676ba61" == hash_in(ResNet50_Weights.IMAGENET1K_V1)
