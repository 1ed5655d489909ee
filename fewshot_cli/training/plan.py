"""A policy's selection applied to a detector: every parameter becomes trained or frozen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import compress
from typing import Literal

from torch import Tensor, nn

from fewshot_cli.detectors.chain import PARTS, BatchNorm, Detector, Layer
from fewshot_cli.detectors.weights import tensor_fingerprints
from fewshot_cli.errors import FsodError, PolicyError, closest
from fewshot_cli.policies import Selection, get_policy


@dataclass(frozen=True, slots=True)
class Plan:
    """Where a detector's chain is cut and what trains behind the cut.

    trained: one flag a layer, in chain order: whether anything in it trains; cut: index of the first such layer, or
    the number of layers when nothing trains; frozen: qualified names of parameters that do not train, wherever they
    are. Everything before the cut is a pure function of the canvas.
    """

    trained: tuple[bool, ...]
    cut: int
    frozen: frozenset[str] = frozenset()


def plan_chain(detector: Detector, selection: Selection) -> Plan:
    """Which layers of this chain the selection trains, and the cut that follows.

    Raises:
        PolicyError: the selection names a layer that the chain does not have, freezes as many convolutions as there
            are or more, or freezes what its policy trains.
    """
    names = [layer.name for layer in detector.layers]
    for unknown in sorted((selection.layers or frozenset()).difference(names)):
        raise PolicyError(f"{detector.name} has no layer {unknown!r}", hint=closest(unknown, names))
    chosen = [_is_chosen(i, detector.layers, selection) for i in range(len(detector.layers))]
    frozen = _first_parameters(detector, selection.freeze_first or 0)
    if frozen and not get_policy(selection.policy).whole_detector:
        _check_conflicts(list(compress(detector.layers, chosen)), selection, frozen)
    flags = [
        flag and not (frozen and frozen.issuperset(layer.parameters()))
        for flag, layer in zip(chosen, detector.layers, strict=True)
    ]
    cut = flags.index(True) if any(flags) else len(flags)
    return Plan(tuple(flags), cut, frozen)


def _first_parameters(detector: Detector, count: int) -> frozenset[str]:
    """What belongs to the first convolutions; raises PolicyError if no other convolution is left."""
    if not count:
        return frozenset()
    total = len(detector.convolutions())
    if count >= total:
        frozen = "all of them" if count == total else f"not {count}"
        raise PolicyError(
            f"--freeze-first {count} is not possible: {detector.name} has {total} convolutions, {frozen}",
            hint=f"Give 0 to {total - 1}, so that the predictor trains.",
        )
    return detector.parameters_before(count)


def _check_conflicts(chosen: Sequence[Layer], selection: Selection, frozen: frozenset[str]) -> None:
    """Raise PolicyError for the first layer that is to train and that has a frozen parameter."""
    for layer in chosen:
        if not frozen.isdisjoint(layer.parameters()):
            raise PolicyError(
                f"--freeze-first {selection.freeze_first} freezes convolutions of {layer.name}, "
                f"which policy {selection.policy} trains here",
                hint="Freeze fewer of them (`fsod inspect-layers DETECTOR` shows those of each layer), or name fewer "
                "layers; without a policy, everything behind them trains.",
            )


def _is_chosen(index: int, layers: tuple[Layer, ...], selection: Selection) -> bool:
    if selection.layers is not None:
        return layers[index].name in selection.layers
    part = layers[index].part
    same_part = [i for i, other in enumerate(layers) if other.part == part]
    if part == "head":
        return same_part.index(index) + 1 in selection.head_layers
    if part == "proposals":
        return selection.proposals
    if part == "neck":
        return selection.neck
    if part == "backbone":
        return index in same_part[len(same_part) - selection.backbone_stages :]
    raise FsodError(f"layer {layers[index].name} is of an unknown part {part!r}", hint=closest(part, PARTS))


def freeze(detector: Detector, selection: Selection, norm_statistics: Literal["hold", "train"] = "hold") -> Plan:
    """Mark every parameter as trained or frozen, and the statistics of batch norms likewise.

    Afterwards `requires_grad` is true exactly for the parameters of the chosen layers that the plan does not freeze.

    Args:
        norm_statistics: `hold` keeps those of every layer as pretrained; with `train` those of the chosen layers follow
            the batches (`estimating`).

    Raises:
        PolicyError: nothing is left to train, though the policy is not `none`.
    """
    _check_coverage(detector)
    plan = plan_chain(detector, selection)
    estimated: list[str] = []
    for layer, trained in zip(detector.layers, plan.trained, strict=True):
        for name, parameter in layer.parameters().items():
            parameter.requires_grad_(trained and name not in plan.frozen)
        if trained and norm_statistics == "train":
            estimated += [name for name in layer.batch_norms() if f"{name}.weight" not in plan.frozen]
    detector.estimated = frozenset(estimated)
    if selection.policy != "none" and not trained_parameters(detector):
        raise PolicyError(
            f"policy {selection.policy} leaves nothing to train in {detector.name}",
            hint="Raise --budget, or look at the chain with `fsod inspect-layers`.",
        )
    detector.hold_statistics()
    return plan


def planned_layers(detector: Detector, plan: Plan) -> tuple[str, ...]:
    """Names of the layers that a plan trains, in full or in part, in chain order."""
    return tuple(layer.name for layer in compress(detector.layers, plan.trained))


def planned_parameters(detector: Detector, plan: Plan) -> list[str]:
    """Qualified names of what a plan trains, in chain order."""
    return list(_planned(detector, plan))


def planned_size(detector: Detector, plan: Plan) -> int:
    """How many parameters a plan trains."""
    return sum(parameter.numel() for parameter in _planned(detector, plan).values())


def _planned(detector: Detector, plan: Plan) -> dict[str, nn.Parameter]:
    """What a plan trains by its qualified name, in chain order."""
    chosen = compress(detector.layers, plan.trained)
    named = (each for layer in chosen for each in layer.parameters().items())
    return {name: parameter for name, parameter in named if name not in plan.frozen}


def parameters_per_layer(detector: Detector) -> dict[str, int]:
    """Number of parameters by layer name, in chain order."""
    return {
        layer.name: sum(parameter.numel() for parameter in layer.parameters().values()) for layer in detector.layers
    }


def trained_parameters(detector: Detector) -> dict[str, nn.Parameter]:
    """The parameters that train, by qualified name."""
    return {name: parameter for name, parameter in detector.network.named_parameters() if parameter.requires_grad}


def trains_before_predictor(detector: Detector) -> bool:
    """Whether a parameter trains whose change the predictor sees in its input."""
    layers = detector.layers[:-1]
    return any(parameter.requires_grad for layer in layers for parameter in layer.parameters().values())


def trained_norms(detector: Detector) -> dict[str, BatchNorm]:
    """The batch norms whose statistics train, by qualified name."""
    layers = detector.layers if detector.estimated else ()
    norms = {name: norm for layer in layers for name, norm in layer.batch_norms().items()}
    return {name: norm for name, norm in norms.items() if name in detector.estimated}


def trained_tensors(detector: Detector) -> dict[str, Tensor]:
    """All that training changes, by qualified name: the parameters that train, and statistics of batch norms."""
    statistics = {
        f"{name}.{kind}": value
        for name, norm in trained_norms(detector).items()
        for kind, value in norm.named_buffers()
    }
    return {**trained_parameters(detector), **statistics}


@contextmanager
def estimating(detector: Detector) -> Iterator[None]:
    """For as long as the context lasts, batch norms whose statistics train use and collect those of the batch.

    Everything else stays in eval, and outside of the context they are, too: what detects is never the batch's.
    """
    norms = trained_norms(detector).values()
    for norm in norms:
        norm.train()
    try:
        yield
    finally:
        for norm in norms:
            norm.eval()


def _check_coverage(detector: Detector) -> None:
    kinds = {
        "layer of the chain": [layer.parameters() for layer in detector.layers],
        "parameter group": [group.parameters for group in detector.parameter_groups()],
    }
    for what, members in kinds.items():
        counts = Counter(id(parameter) for parameters in members for parameter in parameters.values())
        stray = [name for name, parameter in detector.network.named_parameters() if counts[id(parameter)] != 1]
        if stray:
            raise FsodError(f"{detector.name}: not in exactly one {what}: {', '.join(stray[:5])}")


class FrozenCheck:
    """Remembers what must not change, and proves that it did not: parameters and buffers, bit for bit."""

    def __init__(self, detector: Detector) -> None:
        trained = trained_tensors(detector)
        prints = tensor_fingerprints(detector.network)
        self._before = {name: value for name, value in prints.items() if name not in trained}

    def __len__(self) -> int:
        return len(self._before)

    def changed(self, detector: Detector) -> list[str]:
        """Names of frozen tensors that are not what they were."""
        after = tensor_fingerprints(detector.network)
        return [name for name, value in self._before.items() if after.get(name) != value]
