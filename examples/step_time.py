"""Seconds per training iteration of a detector of torchvision's: from cached features, and in torchvision's own loop.

    python examples/step_time.py
    python examples/step_time.py --detector fasterrcnn_resnet50_fpn

Random weights and noise images: time does not depend on what they show. Both sides train the same layers at the same
batch size and image size, on as many proposals. The ordinary loop is torchvision's: model(images, targets), backward,
step, in fp32, the same layers frozen with requires_grad. Ours is timed in fp32 and as it runs by default (bf16 where
that is faster). Medians over the iterations after one warm-up; filling the cache is reported as seconds per image
beside it.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torchvision.models import get_model

from fewshot_cli.detectors.chain import Activations, Detector, Target
from fewshot_cli.detectors.device import choose_device, computes_in_bf16
from fewshot_cli.detectors.registry import build_detector, select_in
from fewshot_cli.training.cache import FeatureCache
from fewshot_cli.training.loop import make_optimizer
from fewshot_cli.training.plan import Plan, freeze, trained_parameters
from fewshot_cli.training.rates import learning_rates

DETECTORS = ("retinanet_resnet50_fpn", "retinanet_resnet50_fpn_v2", "fcos_resnet50_fpn")
DETECTORS += ("fasterrcnn_resnet50_fpn", "fasterrcnn_resnet50_fpn_v2", "fasterrcnn_mobilenet_v3_large_fpn")


class Setup(NamedTuple):
    """What trains."""

    policy: str
    budget: int | None
    neck: bool = False

    def __str__(self) -> str:
        return f"{self.policy}{f' {self.budget}' if self.budget else ''}{' --train-neck' if self.neck else ''}"


SETUPS = (Setup("last", 1), Setup("symmetric", 3), Setup("all", None), Setup("all", None, neck=True))


def prepared(name: str, setup: Setup, size: int) -> tuple[Detector, Plan]:
    """A detector for one class with the chosen layers free."""
    detector = build_detector(name, weights="none", image_size=size)
    detector.replace_classes(["thing"], [()])
    return detector, freeze(detector, select_in(name, setup.policy, setup.budget, neck=setup.neck))


def noise(count: int, size: int) -> tuple[torch.Tensor, list[Target]]:
    """Canvases (count, 3, size, size) uint8 and three boxes on each."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8, generator=generator)
    corners = torch.rand(count, 3, 2, generator=generator) * size * 0.6
    sides = 20 + torch.rand(count, 3, 2, generator=generator) * size * 0.3
    boxes = torch.cat([corners, corners + sides], dim=2)
    return pixels, [Target(b, torch.zeros(3, dtype=torch.long)) for b in boxes]


def median_seconds(step: Callable[[], torch.Tensor], repeats: int, device: torch.device) -> float:
    """Median wall time of a step after one warm-up; a GPU is waited for."""
    times = []
    for _ in range(repeats + 1):
        started = time.perf_counter()
        step()
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
    return statistics.median(times[1:])


def ours(setup: Setup, options: argparse.Namespace, bf16: bool) -> tuple[float, float]:
    """Seconds per iteration from the cache, and seconds per image to fill it."""
    device = choose_device(options.device)
    detector, plan = prepared(options.detector, setup, options.size)
    detector.place(device)
    pixels, targets = noise(options.batch, options.size)
    on_device = [target.to(device) for target in targets]

    def prefix(items: Sequence[int]) -> tuple[Activations, list[Target]]:
        chosen = [on_device[i] for i in items]
        with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            batch = pixels[list(items)].to(device), torch.full((len(items), 2), options.size)
            return detector.prefix(batch, plan.cut, chosen), chosen

    dtype = torch.bfloat16 if bf16 else torch.float32
    cache = FeatureCache(
        prefix, options.batch, memory=8 << 30, disk=0, folder=Path(tempfile.gettempdir()), dtype=dtype, device=device
    )
    started = time.perf_counter()
    cache.fill()
    filling = (time.perf_counter() - started) / options.batch
    optimizer = make_optimizer("sgd", learning_rates(detector), lr=1e-4, weight_decay=0.0)

    def step() -> torch.Tensor:
        activations, _ = cache.batch(range(options.batch))
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            losses = detector.losses(activations, plan.cut, on_device)
        loss = torch.stack(list(losses.values())).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    return median_seconds(step, options.repeats, device), filling


def ordinary(setup: Setup, options: argparse.Namespace) -> float:
    """Seconds per iteration of torchvision's own model and loop with the same layers frozen."""
    device = choose_device(options.device)
    detector, _ = prepared(options.detector, setup, options.size)
    trained = set(trained_parameters(detector))
    background = int(detector.predictors[0].background)  # a row of the predictor, which torchvision counts as a class
    sizes = {"min_size": options.size, "max_size": options.size}
    model = get_model(options.detector, weights=None, weights_backbone=None, num_classes=background + 1, **sizes)
    if hasattr(model, "rpn"):
        for limits in (model.rpn._pre_nms_top_n, model.rpn._post_nms_top_n):
            limits["training"] = limits["testing"]
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in trained)
    model.to(device).train()
    pixels, targets = noise(options.batch, options.size)
    images = [image.to(device) / 255 for image in pixels]
    truth = [{"boxes": t.boxes.to(device), "labels": t.labels.to(device) + background} for t in targets]
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1e-4, momentum=0.9)

    def step() -> torch.Tensor:
        loss = torch.stack(list(model(images, truth).values())).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    return median_seconds(step, options.repeats, device)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--detector", choices=DETECTORS, default=DETECTORS[0])
    parser.add_argument("--size", type=int, default=640)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()

    device = choose_device(options.device)
    bf16 = computes_in_bf16("auto", device, prepared(options.detector, SETUPS[0], options.size)[0])
    machine = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{torch.get_num_threads()} CPU threads"
    print(f"{options.detector}, batch {options.batch}, {options.size} px; {machine}, torch {torch.__version__}")
    print(
        "| layers | torchvision's loop, s | ours fp32, s | ratio | ours by default, s | ratio | filling, s an image |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- |")
    # A head of three layers has no symmetric setup of its own: of setups that train the same, the last one counts.
    different = {prepared(options.detector, setup, options.size)[1].trained: setup for setup in SETUPS}
    for setup in different.values():
        theirs = ordinary(setup, options)
        plain, _ = ours(setup, options, bf16=False)
        default, filling = ours(setup, options, bf16=bf16)
        print(
            f"| {setup} | {theirs:.3f} | {plain:.3f} | {theirs / plain:.1f} "
            f"| {default:.3f} ({'bf16' if bf16 else 'fp32'}) | **{theirs / default:.1f}** | {filling:.2f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
