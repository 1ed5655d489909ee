"""Learning rates over a run, and the order in which variants are seen."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch

from fewshot_cli.runs.schedules import COSINE, PLATEAU, Schedule

TENTH = 0.1
"""Factor of each step of the rate."""
PATIENCE, LOWER = 5, 0.03
"""Of schedule `plateau`: measurements within which the mean training loss must become lower by that share."""


class Rates:
    """The learning rate of each iteration of a run: a linear warm-up, then what the schedule says.

    `cosine`: half a cosine down to a hundredth of the peak. `steps`: a tenth after each of the given shares of the run.
    `plateau`: a tenth whenever the training loss, its mean over the iterations between two measurements, has not become
    3 % lower than the lowest before within five measurements. It is the training loss because the test set must not
    decide anything, and because it is there without a test set and in the folds of a cross-validation as well.

    Args:
        schedule: see `runs.schedules`.
        iterations: of the run.
        peak: rate at the end of the warm-up.
        warmup: share of the run spent warming up, 0 … 1.
        every: iterations between two measurements.
        means: what `means` was, of a run that is continued after a measurement.

    Attributes:
        means: the mean training loss up to each measurement so far, since the one before.
        current: the rate that was asked for last.
    """

    def __init__(
        self,
        schedule: Schedule = Schedule(COSINE),
        *,
        iterations: int,
        peak: float,
        warmup: float,
        every: int = 1,
        means: Iterable[float] = (),
    ) -> None:
        self.schedule = schedule
        self.iterations, self.peak, self.warmup, self.every = iterations, peak, warmup, every
        self.means = list(means)
        self.current = 0.0
        self._losses: list[float] = []

    def at(self, iteration: int) -> float:
        """The rate of an iteration, 0 … iterations − 1, after the losses of those before it were added."""
        self.current = self._at(iteration)
        return self.current

    def add_loss(self, done: int, loss: float) -> None:
        """Take the loss of the iteration that was done last; `done` counts all."""
        self._losses.append(loss)
        if done % self.every == 0 or done == self.iterations:
            self.means.append(round(sum(self._losses) / len(self._losses), 6))
            self._losses.clear()

    def _at(self, iteration: int) -> float:
        if self.schedule.kind == COSINE:
            return learning_rate(iteration, self.iterations, self.peak, self.warmup)
        rising = self.warmup * self.iterations
        peak = self.peak * min(1.0, (iteration + 1) / (rising + 1))
        if self.schedule.kind == PLATEAU:
            return peak * TENTH ** plateaus(self.means)
        return peak * TENTH ** sum(iteration >= step * self.iterations for step in self.schedule.steps)


def decay_gain(records: Iterable[Mapping[str, Any]], schedule: Schedule, iterations: int) -> float | None:
    """The mAP that was gained on the test set between the first step of the rate and the second, or the end.

    Args:
        records: of the measurements: `iteration`, `ap`.
        iterations: of the run.

    Returns:
        None with another schedule, or without a measurement before and one after the first step.
    """
    if not schedule.steps:
        return None
    first, second = (*schedule.steps, 1.0)[:2]
    measured = {record["iteration"]: record["ap"] for record in records if record["ap"] is not None}
    before = [iteration for iteration in measured if iteration <= first * iterations]
    after = [iteration for iteration in measured if first * iterations < iteration <= second * iterations]
    return float(measured[max(after)] - measured[max(before)]) if before and after else None


def plateaus(means: Sequence[float]) -> int:
    """How often, in a row of mean losses, PATIENCE of them were not lower by LOWER than the lowest before."""
    found, waited, lowest = 0, 0, math.inf
    for mean in means:
        if mean <= lowest * (1 - LOWER):
            lowest, waited = mean, 0
        else:
            waited += 1
        if waited == PATIENCE:
            found, waited = found + 1, 0
    return found


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
