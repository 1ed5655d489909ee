"""MobileNetV2 (arXiv 1801.04381), trained on ImageNet, as an encoder: the mean over its last map, D = 1,280."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torchvision.models import MobileNet_V2_Weights, mobilenet_v2

from fewshot_cli.detectors.torchvision_weights import CLASSIFIER_HEADS, fetched
from fewshot_cli.detectors.weights import read_weights
from fewshot_cli.encoders.crops import crops_of, embed_in_batches
from fewshot_cli.encoders.loading import load
from fewshot_cli.progress import Reporter

PUBLISHED = MobileNet_V2_Weights.IMAGENET1K_V1
DIMENSION, SIDE = 1280, 224


def build(weights: str, device: torch.device, reporter: Reporter) -> MobilenetEncoder:
    """The encoder.

    Args:
        weights: a file with the state dict of torchvision's classifier, or of its features; empty: torchvision's
            ImageNet weights, downloaded once.
        reporter: shows the progress of the download.

    Raises:
        CheckpointError: a file that does not fit.
        NetworkError: the download failed.
    """
    path = Path(weights) if weights else fetched(PUBLISHED, reporter)
    state = read_weights(path, without=CLASSIFIER_HEADS)
    network = mobilenet_v2(weights=None)
    network.classifier = nn.Identity()
    load(network, state, path, what="MobileNetV2")
    return MobilenetEncoder(network.eval().requires_grad_(False).to(device), device)


class MobilenetEncoder:
    """torchvision's MobileNetV2 without its classifier."""

    def __init__(self, network: nn.Module, device: torch.device) -> None:
        transform = PUBLISHED.transforms()
        self._mean, self._deviation = (
            torch.tensor(values, device=device)[:, None, None] for values in (transform.mean, transform.std)
        )
        self._network, self._device = network, device

    def embed(self, pixels: Tensor, boxes: Tensor) -> Tensor:
        return embed_in_batches(self._encode, crops_of(pixels, boxes, SIDE), DIMENSION, self._device)

    def _encode(self, crops: Tensor) -> Tensor:
        encoded: Tensor = self._network((crops - self._mean) / self._deviation)
        return encoded
