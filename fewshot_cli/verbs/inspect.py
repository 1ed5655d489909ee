"""A detector's chain described, without weights and without memory for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from typing_extensions import Doc, NotRequired, TypedDict

from fewshot_cli.detectors.architecture import OWN, Architecture
from fewshot_cli.detectors.canvas import blank_batch
from fewshot_cli.detectors.chain import Detector
from fewshot_cli.detectors.registry import build_detector
from fewshot_cli.detectors.two_heads import SecondHead, second_head
from fewshot_cli.policies import Selection
from fewshot_cli.runs.checkpoint import read_checkpoint
from fewshot_cli.runs.folder import load_run
from fewshot_cli.runs.result import BuiltSize, KeptClasses
from fewshot_cli.schemas import schema_of
from fewshot_cli.training.plan import (
    Plan,
    parameters_per_layer,
    plan_chain,
    planned_layers,
    planned_parameters,
    planned_size,
)


class TrainedCounts(TypedDict):
    """How much trains."""

    layers: Annotated[int, Doc("Layers of the whole chain.")]
    head_layers: Annotated[int, Doc("Of these, in the head.")]
    parameters: Annotated[int, Doc("Parameters.")]


class Layer(TypedDict):
    """One layer of the chain."""

    part: Annotated[str, Doc("`backbone`, `neck`, `proposals` or `head`.")]
    name: Annotated[str, Doc("As --layers takes it.")]
    modules: Annotated[list[str], Doc("Names in the network.")]
    parameters: Annotated[int, Doc("Parameters.")]
    share: Annotated[float, Doc("Of all parameters.")]
    trained: Annotated[bool, Doc("Whether it trains, in full or in part.")]
    cut_before: Annotated[bool, Doc("Whether features are cached before it.")]
    runs_twice: Annotated[bool, Doc("With kept base classes: whether it runs in both heads.")]
    criteria: NotRequired[Annotated[dict[str, float | None], Doc("With --data: criterion → value.")]]


class Convolution(TypedDict):
    """One convolution."""

    number: Annotated[int, Doc("1, 2, …, in the order in which the input meets them.")]
    name: Annotated[str, Doc("In the network.")]
    layer: Annotated[str, Doc("Layer of the chain that it is in.")]
    parameters: Annotated[int, Doc("Of its weight and bias.")]
    trained: Annotated[bool, Doc("Whether it trains.")]


class Chain(TypedDict):
    """What `fsod inspect-layers NAME --json` prints."""

    schema: Annotated[Literal["fsod/inspect-layers/1"], Doc("Kind and version.")]
    detector: Annotated[str, Doc("Name in the registry.")]
    image_size: Annotated[int, Doc("Side of the canvas, pixels.")]
    classes: Annotated[int, Doc("How many its predictor has.")]
    head_depth: Annotated[int, Doc("Layers M of the head.")]
    architecture: Annotated[BuiltSize | None, Doc("Size of neck and head; null: the detector's own.")]
    policy: Annotated[str, Doc("Policy.")]
    budget: Annotated[int | None, Doc("Head layers that train; null: the policy takes none.")]
    freeze_first: Annotated[int | None, Doc("Convolutions that stay frozen; null: as the policy has it.")]
    parameters: Annotated[int, Doc("Of the whole detector.")]
    trained: Annotated[TrainedCounts, Doc("What trains.")]
    cut: Annotated[str | None, Doc("Layer before which features are cached; null: nothing trains.")]
    cached_mb: Annotated[float, Doc("One image's activations there in fp32, MB of 10⁶ bytes.")]
    keep_base_classes: Annotated[KeptClasses | None, Doc("Null: the base classes are not kept.")]
    layers: Annotated[list[Layer], Doc("From the input to the output.")]
    convolutions: Annotated[list[Convolution], Doc("From the input to the output.")]
    data: NotRequired[Annotated[str, Doc("With --data: the data set.")]]
    gradients: NotRequired[Annotated[int, Doc("With --data: how many were measured.")]]


def inspect_run(folder: Path, *, keep_base_classes: bool = False) -> dict[str, Any]:
    """What a run trained, and what its base classes take if they are kept; raises DataError, CheckpointError."""
    _, info = read_checkpoint(load_run(folder).checkpoint)
    return inspect_selection(
        info.detector,
        Selection(
            layers=frozenset(info.trained_layers),
            freeze_first=info.freeze_first,
            policy=info.policy,
            budget=info.budget,
        ),
        classes=info.classes,
        image_size=info.image_size,
        keep_base_classes=keep_base_classes or info.keep_base_classes,
        architecture=info.architecture,
    )


def inspect_selection(
    name: str,
    selection: Selection,
    *,
    classes: Sequence[str],
    image_size: int | None,
    keep_base_classes: bool = False,
    architecture: Architecture = OWN,
) -> dict[str, Any]:
    """The chain, what the selection trains, and the cut, as plain values.

    Parameters are counted with a predictor for `classes`; `cached_mb` is the size of one image's
    activations at the cut in fp32 (uint8 pixels where the cut is the canvas), in MB of 10⁶ bytes.
    """
    # Shapes are all that is needed: on the meta device nothing is drawn, stored or computed.
    with torch.device("meta"):
        detector = build_detector(name, weights="none", image_size=image_size, architecture=architecture)
        plan = plan_chain(detector, selection)
        beside = second_head(detector, classes, planned_parameters(detector, plan)) if keep_base_classes else None
        detector.replace_classes(classes, [()] * len(classes))
        cached = _bytes_at(detector, plan.cut) / 1e6
    return {
        "schema": schema_of(Chain),
        "detector": name,
        "image_size": detector.image_size,
        "classes": len(classes),
        "head_depth": detector.head_depth,
        "architecture": asdict(architecture) if architecture.chosen else None,
        "policy": selection.policy,
        "budget": selection.budget,
        "freeze_first": selection.freeze_first,
        "parameters": sum(parameters_per_layer(detector).values()),
        "trained": _totals(detector, plan),
        "cut": detector.layers[plan.cut].name if plan.cut < len(detector.layers) else None,
        "cached_mb": round(cached, 4),
        "keep_base_classes": asdict(beside) if beside else None,
        "layers": _rows(detector, plan, beside),
        "convolutions": _convolutions(detector, plan),
    }


def _rows(detector: Detector, plan: Plan, beside: SecondHead | None) -> list[dict[str, Any]]:
    counts = parameters_per_layer(detector)
    names = list(counts)
    total = sum(counts.values())
    twice = names.index(beside.start) if beside else len(names)
    return [
        {
            "part": layer.part,
            "name": layer.name,
            "modules": _compact([name for name, _ in layer.modules]),
            "parameters": counts[layer.name],
            "share": counts[layer.name] / total,
            "trained": trained,
            "cut_before": i == plan.cut,
            "runs_twice": i >= twice,
        }
        for i, (layer, trained) in enumerate(zip(detector.layers, plan.trained, strict=True))
    ]


def _convolutions(detector: Detector, plan: Plan) -> list[dict[str, Any]]:
    trained = set(planned_parameters(detector, plan))
    return [
        {
            "number": number,
            "name": name,
            "layer": layer,
            "parameters": sum(each.numel() for each in detector.network.get_submodule(name).parameters()),
            "trained": f"{name}.weight" in trained,
        }
        for number, (name, layer) in enumerate(detector.layer_of_convolutions().items(), start=1)
    ]


def _totals(detector: Detector, plan: Plan) -> dict[str, int]:
    chosen = planned_layers(detector, plan)
    return {
        "layers": len(chosen),
        "head_layers": sum(layer.part == "head" and layer.name in chosen for layer in detector.layers),
        "parameters": planned_size(detector, plan),
    }


def _bytes_at(detector: Detector, cut: int) -> int:
    activations = detector.run(blank_batch(detector.image_size), 0, cut)
    return sum(tensor.numel() * tensor.element_size() for tensor in activations)


def _compact(names: list[str]) -> list[str]:
    """`head.stems.0`, `head.stems.1`, `head.stems.2` → `head.stems.{0,1,2}`: the levels in one line."""
    grouped: dict[tuple[str, str], list[str]] = {}
    for name in names:
        parts = name.split(".")
        place = next((i for i, part in enumerate(parts) if part.isdigit()), None)
        if place is None:
            grouped[(name, "")] = []
        else:
            key = (".".join(parts[:place]), "".join(f".{part}" for part in parts[place + 1 :]))
            grouped.setdefault(key, []).append(parts[place])
    return [
        before
        if not numbers
        else f"{before}.{numbers[0] if len(numbers) == 1 else '{' + ','.join(numbers) + '}'}{after}"
        for (before, after), numbers in grouped.items()
    ]
