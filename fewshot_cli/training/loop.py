"""The training loop: an objective minimised over batches of cached features."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fewshot_cli.detectors.chain import Activations, Target
from fewshot_cli.errors import DivergedError
from fewshot_cli.training.objectives import Objective
from fewshot_cli.training.schedule import Rates

Batches = Callable[[Sequence[int]], tuple[Activations, list[Target]]]
"""Item numbers → activations at the cut and targets, on the training device."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepOptions:
    """What one step needs to know.

    clip: largest gradient norm, 0 for none; bf16: compute in bfloat16 where that is safe; seed: of what losses draw at
    random (samples of proposals, noisy queries), anew for every iteration, so that a resumed run draws what the
    unbroken one would have.
    """

    clip: float
    bf16: bool
    seed: int = 0


def make_optimizer(
    name: str,
    parameters: Iterable[tuple[nn.Parameter, float]],
    *,
    lr: float,
    weight_decay: float,
) -> torch.optim.Optimizer:
    """AdamW or SGD with momentum 0.9. Biases and norm parameters are exempt from weight decay.

    Args:
        name: `adamw` or `sgd`.
        parameters: what trains, each with its share of `lr`.
        lr: peak rate.
        weight_decay: decoupled for AdamW, L2 for SGD.
    """
    members: dict[tuple[float, float], list[nn.Parameter]] = {}
    for parameter, share in parameters:
        members.setdefault((share, weight_decay if parameter.ndim > 1 else 0.0), []).append(parameter)
    groups = [{"params": params, "share": share, "weight_decay": decay} for (share, decay), params in members.items()]
    if name == "sgd":
        return torch.optim.SGD(groups, lr=lr, momentum=0.9)
    return torch.optim.AdamW(groups, lr=lr)


def load_state(optimizer: torch.optim.Optimizer, saved: Mapping[str, Any], name: str) -> None:
    """Load what `optimizer.state_dict()` gave for the same parameters; rates and weight decay stay those given now.

    Args:
        optimizer: of `make_optimizer`, with that name; as it was if this raises.
        saved: may come from anywhere.

    Raises:
        ValueError: it is of other parameters or of another optimizer, or a number is not finite.
    """
    own = optimizer.state_dict()
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    members, state = [_members(document) for document in (own, saved)], saved.get("state")
    if members[0] != members[1] or not isinstance(state, Mapping) or not state.keys() <= set(range(len(parameters))):
        raise ValueError("the optimizer was of other parameters")
    expected = _state_of_one(name)
    for number, entry in state.items():
        if not isinstance(entry, Mapping) or entry.keys() != expected.keys():
            raise ValueError(f"it is not the state of {name}")
        for key, like in expected.items():
            shape = parameters[number].shape if like.ndim else like.shape
            if not _is_plain(entry[key]) or entry[key].shape != shape or entry[key].dtype != like.dtype:
                raise ValueError(f"{key} of the optimizer is not a finite tensor of the right shape and type")
    optimizer.load_state_dict({"state": state, "param_groups": own["param_groups"]})


def _members(state: Mapping[str, Any]) -> list[Any]:
    """Numbers of the parameters in each group; ValueError if there are no groups."""
    groups = state.get("param_groups")
    if not isinstance(groups, list) or not all(isinstance(group, Mapping) for group in groups):
        raise ValueError("the optimizer's parameter groups are missing")
    return [group.get("params") for group in groups]


def _state_of_one(name: str) -> dict[str, Tensor]:
    """What the optimizer keeps for a parameter of shape (1,), after one step."""
    parameter = nn.Parameter(torch.zeros(1))
    parameter.grad = torch.zeros(1)
    optimizer = make_optimizer(name, [(parameter, 1.0)], lr=1.0, weight_decay=0.0)
    optimizer.step()
    return dict(optimizer.state[parameter])


def _is_plain(value: object) -> bool:
    return isinstance(value, Tensor) and value.layout == torch.strided and bool(torch.isfinite(value).all())


def train(
    objective: Objective,
    batches: Batches,
    order: Sequence[Sequence[int]],
    optimizer: torch.optim.Optimizer,
    rates: Rates,
    options: StepOptions,
    *,
    weigh: Callable[[dict[str, Tensor]], Tensor] | None = None,
    start: int = 0,
    after_step: Callable[[int, dict[str, float]], None],
) -> None:
    """Minimise the objective's losses from iteration `start` to the end.

    Args:
        objective: over a detector that is frozen but for the chosen layers, its norm statistics held.
        batches: see Batches.
        order: the items of every iteration.
        optimizer: over the trained parameters.
        rates: the learning rate of each iteration; gets the losses.
        weigh: losses by name → what is minimised, if it is not their sum; rates and records stay those of the sum.
        start: iterations already done.
        after_step: gets (iterations done, losses by name with their sum as `loss`) after each step.

    Raises:
        DivergedError: a loss or a gradient is not finite; the parameters are those of the last good step.
    """
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    device = parameters[0].device
    for iteration in range(start, len(order)):
        rate = rates.at(iteration)
        for group in optimizer.param_groups:
            group["lr"] = rate * group["share"]
        activations, targets = batches(order[iteration])
        with drawing(options.seed, iteration), torch.autocast(device.type, torch.bfloat16, enabled=options.bf16):
            losses = objective.losses(activations, targets)
        loss = torch.stack(list(losses.values())).sum()
        _check_finite("loss", loss, iteration, losses)
        optimizer.zero_grad()
        (loss if weigh is None else weigh(losses)).backward()
        norm = nn.utils.clip_grad_norm_(parameters, options.clip or float("inf"))
        _check_finite("gradient", norm, iteration, losses)
        optimizer.step()
        rates.add_loss(iteration + 1, loss.item())
        after_step(iteration + 1, {"loss": loss.item(), **{name: value.item() for name, value in losses.items()}})


@contextmanager
def drawing(seed: int, iteration: int) -> Iterator[None]:
    """Seed torch's default generator by the iteration, for losses that draw; afterwards it is as before."""
    with torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed((seed * 1_000_003 + iteration) % 2**63)
        yield


def _check_finite(what: str, value: Tensor, iteration: int, losses: dict[str, Tensor]) -> None:
    if torch.isfinite(value):
        return
    parts = ", ".join(f"{name} {part.item():.4g}" for name, part in losses.items())
    raise DivergedError(
        f"the {what} is {value.item()} at iteration {iteration + 1} ({parts})",
        hint="Lower --lr or --clip, or train with --precision fp32. What was saved before is intact.",
    )
