"""The training loop: from cached features to trained layers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fewshot_cli.detectors.chain import Activations, Detector, Target
from fewshot_cli.errors import DivergedError
from fewshot_cli.training.schedule import learning_rate

Batches = Callable[[Sequence[int]], tuple[Activations, list[Target]]]
"""Item numbers → activations at the cut and targets, on the training device."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepOptions:
    """What one step needs to know.

    iterations: of the whole run; lr: peak rate; warmup: share of the run; clip: largest gradient norm, 0 for
    none; bf16: compute in bfloat16 where that is safe.
    """

    iterations: int
    lr: float
    warmup: float
    clip: float
    bf16: bool


def make_optimizer(
    name: str,
    parameters: Iterable[tuple[nn.Parameter, float]],
    *,
    lr: float,
    weight_decay: float,
) -> torch.optim.Optimizer:
    """AdamW or SGD with momentum 0.9; biases and norms are not decayed.

    Args:
        name: `adamw` or `sgd`.
        parameters: what trains, each with its share of `lr`.
        lr: peak rate.
        weight_decay: see above.
    """
    members: dict[tuple[float, float], list[nn.Parameter]] = {}
    for parameter, share in parameters:
        members.setdefault((share, weight_decay if parameter.ndim > 1 else 0.0), []).append(parameter)
    groups = [{"params": params, "share": share, "weight_decay": decay} for (share, decay), params in members.items()]
    if name == "sgd":
        return torch.optim.SGD(groups, lr=lr, momentum=0.9)
    return torch.optim.AdamW(groups, lr=lr)


def train(
    detector: Detector,
    cut: int,
    batches: Batches,
    order: Sequence[Sequence[int]],
    optimizer: torch.optim.Optimizer,
    options: StepOptions,
    *,
    start: int = 0,
    after_step: Callable[[int, dict[str, float]], None],
) -> None:
    """Train the chosen layers from iteration `start` to the end.

    Args:
        detector: frozen but for the chosen layers, its norm statistics held.
        cut: where the activations enter the chain.
        batches: see Batches.
        order: the items of every iteration.
        optimizer: over the trained parameters.
        start: iterations already done.
        after_step: told (iterations done, losses by name with their sum as `loss`) after each step.

    Raises:
        DivergedError: a loss or a gradient is not finite; the parameters are those of the last good step.
    """
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    device = parameters[0].device
    for iteration in range(start, options.iterations):
        rate = learning_rate(iteration, options.iterations, options.lr, options.warmup)
        for group in optimizer.param_groups:
            group["lr"] = rate * group["share"]
        activations, targets = batches(order[iteration])
        with torch.autocast(device.type, torch.bfloat16, enabled=options.bf16):
            losses = detector.losses(activations, cut, targets)
        loss = torch.stack(list(losses.values())).sum()
        _check_finite("loss", loss, iteration, losses)
        optimizer.zero_grad()
        loss.backward()
        norm = nn.utils.clip_grad_norm_(parameters, options.clip or float("inf"))
        _check_finite("gradient", norm, iteration, losses)
        optimizer.step()
        after_step(iteration + 1, {"loss": loss.item(), **{name: value.item() for name, value in losses.items()}})


def _check_finite(what: str, value: Tensor, iteration: int, losses: dict[str, Tensor]) -> None:
    if torch.isfinite(value):
        return
    parts = ", ".join(f"{name} {part.item():.4g}" for name, part in losses.items())
    raise DivergedError(
        f"the {what} is {value.item()} at iteration {iteration + 1} ({parts})",
        hint="Lower --lr or --clip, or train with --precision fp32. What was saved before is intact.",
    )
