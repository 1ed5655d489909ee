"""How far the layers and convolutions of detectors are from those of another one: runs, files, pretrained detectors."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from typing_extensions import Doc, NotRequired, TypedDict

from fewshot_cli.detectors.registry import DETECTORS
from fewshot_cli.errors import ModelError, UsageError
from fewshot_cli.inference.opening import as_named, open_detector
from fewshot_cli.progress import Reporter, SilentReporter
from fewshot_cli.runs.folder import Run
from fewshot_cli.schemas import schema_of

if TYPE_CHECKING:
    from torch import Tensor

    from fewshot_cli.detectors.chain import Detector
    from fewshot_cli.runs.checkpoint import CheckpointInfo

BASE = "base"
"""Stands for the pretrained detector that the other side started from."""


class ConvolutionDrift(TypedDict):
    """How far one convolution has turned."""

    number: Annotated[int, Doc("1, 2, …, in the order in which the input meets them.")]
    name: Annotated[str, Doc("In the network.")]
    layer: Annotated[str, Doc("Layer of the chain that it is in.")]
    drift: Annotated[float | None, Doc("1 − |cos| of its weights, without the bias; null: of another shape.")]


class DetectorDrift(TypedDict):
    """How far one detector is from the other side."""

    name: Annotated[str, Doc("As it was given.")]
    layers: Annotated[
        dict[str, float | None], Doc("Layer → 1 − |cos| of its parameters; null: they have another shape.")
    ]
    convolutions: Annotated[list[ConvolutionDrift], Doc("From the input to the output.")]


class Drifted(TypedDict):
    """What `fsod inspect-layers --against --json` prints."""

    schema: Annotated[Literal["fsod/drift/1"], Doc("Kind and version.")]
    detector: Annotated[str, Doc("Name in the registry.")]
    against: Annotated[str, Doc("What drift is measured from, as it was given.")]
    drifts: Annotated[list[DetectorDrift], Doc("In the given order.")]
    plot: NotRequired[Annotated[str, Doc("The figure, with --plot.")]]


@dataclass(frozen=True, slots=True)
class _Side:
    """A detector on the CPU; `info` is that of its checkpoint, None for whole weights."""

    name: str
    detector: Detector
    info: CheckpointInfo | None


def measure_drift(
    targets: Sequence[str], against: str, *, weights: str | None = None, reporter: Reporter | None = None
) -> dict[str, Any]:
    """1 − |cos(w′, w)| of every layer and of every convolution (Algorithm 1 of the layer-difference paper).

    Predictors of different classes have different shapes: there is no number for them.

    Args:
        targets: one or more of: the folder of a run, a checkpoint, a weights file, `base`.
        against: one of these; `base` is the pretrained detector that the other side started from.
        weights: where the base weights of runs and checkpoints are now, if they moved.
        reporter: receives the progress of downloads.

    Returns:
        a `Drifted`, as plain values.

    Raises:
        UsageError: no target, or a base of what has none.
        ModelError: the two sides are different detectors.
        DataError, CheckpointError, NetworkError: a side cannot be read.
    """
    reporter = reporter or SilentReporter()
    if not targets:
        raise UsageError("nothing is compared", hint=f"E.g. fsod inspect-layers runs/helmet --against {BASE}.")
    if against == BASE and BASE in targets:
        raise UsageError(f"{BASE} stands for what the other side started from", hint="Name a run on one side.")
    other = None if against == BASE else _open(against, weights, reporter)
    drifts, names = [], set[str]()
    for target in targets:
        if target == BASE:
            assert other is not None
            pair = _base_of(other, weights, reporter), other
        else:
            side = _open(target, weights, reporter)
            pair = side, other or _base_of(side, weights, reporter)
        drifts.append(_compared(target, *pair))
        names.add(pair[0].detector.name)
        if len(names) > 1:
            raise ModelError(
                f"different detectors cannot be compared: {', '.join(sorted(names))}", hint="Compare those of one kind."
            )
    return {"schema": schema_of(Drifted), "detector": names.pop(), "against": against, "drifts": drifts}


def _open(name: str, weights: str | None, reporter: Reporter) -> _Side:
    from fewshot_cli.detectors.tensor_file import CHECKPOINT, read_metadata
    from fewshot_cli.runs.checkpoint import read_checkpoint

    if name in DETECTORS:
        raise UsageError(
            f"{name} is a detector without weights of its own", hint=f"{BASE} is what the other side started from."
        )
    what = as_named(name)
    assert what is not None
    checkpoint = what.checkpoint if isinstance(what, Run) else what
    info = None
    if isinstance(what, Run) or CHECKPOINT in read_metadata(checkpoint):
        _, info = read_checkpoint(checkpoint)
    own = None if info is None else weights
    return _Side(name, _adapted(open_detector(what, best=False, weights=own, reporter=reporter)), info)


def _adapted(detector: Detector) -> Detector:
    """The fine-tuned one, where the pretrained head runs beside it."""
    from fewshot_cli.detectors.two_heads import TwoHeads

    return detector.adapted if isinstance(detector, TwoHeads) else detector


def _base_of(side: _Side, weights: str | None, reporter: Reporter) -> _Side:
    """What a run or checkpoint started from; its weights were compared with the recorded ones when it was opened."""
    from fewshot_cli.detectors.registry import build_detector

    info = side.info
    if info is None:
        raise UsageError(
            f"{side.name} is a weights file, which does not say what it started from",
            hint="Name the weights to compare it with.",
        )
    base = build_detector(
        info.detector, weights=weights or info.weights, image_size=info.image_size, seed=info.seed, reporter=reporter
    )
    return _Side(BASE, base, None)


def _compared(name: str, side: _Side, other: _Side) -> dict[str, Any]:
    if side.detector.name != other.detector.name:
        raise ModelError(
            f"{side.name} is a {side.detector.name}, {other.name} a {other.detector.name}",
            hint="Drift is between weights of one detector.",
        )
    before, after = (dict(each.detector.network.named_parameters()) for each in (other, side))
    placed = side.detector.layer_of_convolutions()
    return {
        "name": name,
        "layers": {layer.name: _drift(layer.parameters(), before, after) for layer in side.detector.layers},
        "convolutions": [
            {"number": number, "name": each, "layer": layer, "drift": _drift([f"{each}.weight"], before, after)}
            for number, (each, layer) in enumerate(placed.items(), start=1)
        ],
    }


def _drift(names: Collection[str], before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> float | None:
    """Of the parameters of these names together; None if one of them has another shape."""
    from fewshot_cli.evaluation.drift import drift

    if any(before[name].shape != after[name].shape for name in names):
        return None
    old, new = ({name: tensors[name] for name in names} for tensors in (before, after))
    return drift(old, new)
