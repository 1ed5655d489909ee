"""What more capacity in neck and head costs, with the backbone frozen and not: parameters, time and memory.

    python examples/capacity.py
    python examples/capacity.py --detector retinanet_resnet50_fpn --batch 4

Random weights and noise images: time does not depend on what they show. Frozen: neck and head train from cached
features of the backbone. All: every layer trains from cached images. Each is timed in a process of its own, because
memory is the most that the process had. Medians over the iterations after one warm-up, in fp32, of the time that one
thread computes, so that other processes disturb little.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import statistics
import time
from typing import NamedTuple

import torch

from fewshot_cli.detectors.architecture import OWN, Architecture
from fewshot_cli.detectors.chain import Target
from fewshot_cli.detectors.registry import build_detector, select_in
from fewshot_cli.training.loop import make_optimizer
from fewshot_cli.training.plan import freeze
from fewshot_cli.training.rates import learning_rates

LEVELS = (
    Architecture(3, 64, "fpn"),
    Architecture(5, 128, "fpn"),
    Architecture(5, 128, "bifpn"),
    OWN,
    Architecture(5, 256, "bifpn"),
)


class Cost(NamedTuple):
    """parameters: of neck and head; seconds: of CPU time per iteration; megabytes: the most, less before building."""

    parameters: int
    seconds: float
    megabytes: float


def measure(options: argparse.Namespace, level: Architecture, policy: str) -> Cost:
    """Train a few iterations with policy `all` and the neck, or `full`."""
    torch.set_num_threads(1)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    detector = build_detector(options.detector, weights="none", image_size=options.size, architecture=level)
    detector.replace_classes([f"class {number}" for number in range(options.classes)], [()] * options.classes)
    plan = freeze(detector, select_in(options.detector, policy, None, neck=True, architecture=level))
    detector.place(torch.device("cpu"))
    pixels = torch.randint(0, 256, (options.batch, 3, options.size, options.size), dtype=torch.uint8)
    targets = [Target(torch.tensor([[20.0, 30.0, 150.0, 200.0]]), torch.zeros(1, dtype=torch.long))] * options.batch
    with torch.no_grad():
        features = detector.prefix((pixels, torch.full((options.batch, 2), options.size)), plan.cut, targets)
    optimizer = make_optimizer("adamw", learning_rates(detector), lr=1e-4, weight_decay=0.0)
    seconds = []
    for _ in range(options.repeats + 1):
        started = time.process_time()
        loss = torch.stack(list(detector.losses(features, plan.cut, targets).values())).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        seconds.append(time.process_time() - started)
    built = [layer for layer in detector.layers if layer.part != "backbone"]
    parameters = sum(each.numel() for layer in built for each in layer.parameters().values())
    memory = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 / 1e6
    return Cost(parameters, statistics.median(seconds[1:]), memory)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--detector", default="retinanet_mobilenet_v2_fpn")
    parser.add_argument("--classes", type=int, default=20)
    parser.add_argument("--size", type=int, default=320)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()

    print(
        f"{options.detector}, batch {options.batch}, {options.size} px, 1 CPU thread, fp32, torch {torch.__version__}"
    )
    print("| neck and head | parameters | frozen, s | all, s | ratio | frozen, MB | all, MB | ratio |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    context = multiprocessing.get_context("spawn")
    for level in LEVELS:
        costs = []
        for policy in ("all", "full"):
            with context.Pool(1) as pool:
                costs.append(pool.apply(measure, (options, level, policy)))
        frozen, whole = costs
        print(
            f"| {str(level) or 'its own'} | {frozen.parameters:,} | {frozen.seconds:.2f} | {whole.seconds:.2f} "
            f"| {whole.seconds / frozen.seconds:.1f} | {frozen.megabytes:.0f} | {whole.megabytes:.0f} "
            f"| {whole.megabytes / frozen.megabytes:.1f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
