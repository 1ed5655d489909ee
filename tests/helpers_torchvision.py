"""torchvision's own forward pass beside ours, on the same random weights."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from fewshot_cli.detectors.chain import Activations, Detections, Detector, Target


def some_norms(detector: Detector) -> Detector:
    """Norm statistics and predictors that are not those of an untouched network, so that no test passes on zeros."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for norm in (m for m in detector.network.modules() if isinstance(m, nn.BatchNorm2d)):
            assert norm.running_mean is not None and norm.running_var is not None
            norm.running_mean.normal_(0, 0.1, generator=generator)
            norm.running_var.uniform_(0.5, 1.5, generator=generator)
        for predictor in detector.predictors:
            detector.network.get_parameter(f"{predictor.name}.weight").normal_(0, 0.02, generator=generator)
    return detector


@torch.no_grad()
def norms_of_noise(detector: Detector) -> Detector:
    """Norm statistics of images of noise: with none, what passes a deep random network vanishes."""
    norms = [module for module in detector.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.train().momentum = 1.0
    detector.run(canvases(detector.image_size, 8), 0)
    for norm in norms:
        norm.eval()
    return detector


def canvases(size: int, count: int = 2) -> Activations:
    """The input of the chain: images of noise that fill the canvas."""
    generator = torch.Generator().manual_seed(3)
    pixels = torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8, generator=generator)
    return pixels, torch.full((count, 2), size)


def theirs_of(network: nn.Module, size: int) -> nn.Module:
    """A copy of the network that takes canvases of that size as they are, with norms that are held when it trains."""
    own = copy.deepcopy(network)
    own.transform._skip_resize = True  # in training, where the choice of a size would be a random draw
    own.transform.min_size, own.transform.max_size = (size,), size
    own.train()
    for norm in own.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.eval()
    return own


def their_losses(network: nn.Module, images: Activations, targets: list[Target], first: int) -> dict[str, Tensor]:
    """What torchvision's forward gives in training; `first` is its label of our class 0."""
    wanted = [{"boxes": target.boxes, "labels": target.labels + first} for target in targets]
    losses: dict[str, Tensor] = network([image / 255 for image in images[0]], wanted)
    return losses


@torch.no_grad()
def their_detections(network: nn.Module, images: Activations, first: int) -> list[Detections]:
    """What torchvision's forward gives in eval, with our labels."""
    found = network.eval()([image / 255 for image in images[0]])
    return [Detections(each["boxes"], each["scores"], each["labels"] - first) for each in found]


def assert_equal_detections(theirs: list[Detections], ours: list[Detections]) -> None:
    """The same but for the last digits, and for the order of equal scores."""
    for wanted, found in zip(theirs, ours, strict=True):
        assert 0 < len(found.scores) <= 100
        torch.testing.assert_close(wanted.scores, found.scores)
        assert torch.equal(found.scores, found.scores.sort(descending=True).values)
        rows = [torch.cat([each.boxes, each.labels[:, None]], dim=1) for each in (wanted, found)]
        torch.testing.assert_close(*(each[each.sum(dim=1).argsort()] for each in rows), rtol=1e-4, atol=1e-3)
