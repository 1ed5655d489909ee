"""Learning rates over a run, and the order in which variants are seen."""

from __future__ import annotations

import math

import torch


def learning_rate(iteration: int, iterations: int, peak: float, warmup: float, final: float = 0.01) -> float:
    """Linear warm-up, then cosine decay (SGDR, arXiv 1608.03983, without restarts).

    Args:
        iteration: 0 … iterations − 1.
        peak: rate at the end of the warm-up.
        warmup: share of the run spent warming up, 0 … 1.
        final: rate at the end, as a share of the peak.
    """
    rising = warmup * iterations
    if iteration < rising:
        return peak * (iteration + 1) / (rising + 1)
    progress = (iteration - rising) / max(1.0, iterations - rising)
    return peak * (final + (1 - final) * (1 + math.cos(math.pi * progress)) / 2)


def batch_order(count: int, batch_size: int, iterations: int, seed: int) -> list[list[int]]:
    """Which items each iteration sees: every item once before any is seen again, shuffled anew each time.

    A pure function of its arguments, so a resumed run sees what the unbroken one would have.
    """
    generator = torch.Generator().manual_seed(seed)
    wanted = batch_size * iterations
    order: list[int] = []
    while len(order) < wanted:
        order.extend(torch.randperm(count, generator=generator).tolist())
    return [order[i : i + batch_size] for i in range(0, wanted, batch_size)]
