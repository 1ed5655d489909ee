"""Several runs of the same classes beside each other: what they were, what they measured, how far they are apart."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from typing import TYPE_CHECKING, Annotated, Any, Literal

from typing_extensions import Doc, NotRequired, TypedDict

from fewshot_cli.datasets.store import open_dataset
from fewshot_cli.errors import DataError, UsageError
from fewshot_cli.runs.folder import Run, load_run
from fewshot_cli.schemas import schema_of

if TYPE_CHECKING:
    from torch import Tensor

    from fewshot_cli.runs.checkpoint import CheckpointInfo

NOT_AVERAGED = 1.0
"""The share of runs from before there was averaging."""


class ComparedRun(TypedDict):
    """One run of a comparison."""

    name: Annotated[str, Doc("Of its folder; the whole path where two have the same name.")]
    run: Annotated[str, Doc("Folder.")]
    detector: Annotated[str, Doc("Name in the registry.")]
    policy: Annotated[str, Doc("Policy.")]
    budget: Annotated[int | str | None, Doc("Head layers or parameters; null: the policy takes no budget.")]
    freeze_first: Annotated[int | None, Doc("Convolutions that stayed frozen; null: as the policy has it.")]
    alpha: Annotated[float, Doc("Share of the trained weights.")]
    seed: Annotated[int, Doc("Random seed.")]
    ap: Annotated[float | None, Doc("mAP@[.50:.95] on the test set; null: there is none.")]
    ap_interval: Annotated[list[float] | None, Doc("Low and high end of its 95 % interval.")]
    ap50: Annotated[float | None, Doc("AP at IoU 0.5.")]
    per_class: Annotated[dict[str, float | None], Doc("Class → AP@[.50:.95].")]
    parameters: Annotated[int, Doc("That trained.")]
    seconds: Annotated[float, Doc("Of the whole run.")]
    caveats: Annotated[list[str], Doc("Sentences that belong beside the mAP.")]


class RunDifference(TypedDict):
    """A run minus the first one."""

    run: Annotated[str, Doc("Name of the run.")]
    ap: Annotated[float | None, Doc("Of mAP@[.50:.95].")]
    per_class: Annotated[dict[str, float | None], Doc("Class → of AP@[.50:.95].")]
    ap_interval: Annotated[
        list[float] | None, Doc("Low and high end of the 95 % interval of `ap` over samples of the same test images.")
    ]
    drift: Annotated[
        dict[str, float] | None, Doc("Layer → 1 − |cos| of its parameters in both; null: from different weights.")
    ]


class Compared(TypedDict):
    """What `fsod compare --json` prints."""

    schema: Annotated[Literal["fsod/compare/1"], Doc("Kind and version.")]
    classes: Annotated[list[str], Doc("In label order.")]
    runs: Annotated[list[ComparedRun], Doc("In the given order.")]
    differences: Annotated[list[RunDifference], Doc("One for each run but the first.")]
    page: NotRequired[Annotated[str, Doc("The page, with --page.")]]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Runs that were measured on the same test images; the first is the baseline.

    Attributes:
        runs: at least two, finished.
        results: the content of their result.json.
        intervals: for each run but the first, the 95 % interval of its mAP minus the first one's over samples of the
            test images (`evaluation.bootstrap`); None without a test set, or where that is gone.
        drift: for each run but the first, 1 − |cos| of its parameters and the first run's by layer, 0 where both are
            as before training; None if the two start from different weights.
    """

    runs: tuple[Run, ...]
    results: tuple[dict[str, Any], ...]
    intervals: tuple[tuple[float, float] | None, ...]
    drift: tuple[dict[str, float] | None, ...]

    @property
    def names(self) -> list[str]:
        """Folder names of the runs; whole paths where these are the same."""
        short = [run.folder.resolve().name for run in self.runs]
        return short if len(set(short)) == len(short) else [str(run.folder) for run in self.runs]

    def to_json(self) -> dict[str, Any]:
        """One row a run, and each run minus the first."""
        rows = [_row(name, result) for name, result in zip(self.names, self.results, strict=True)]
        return {
            "schema": schema_of(Compared),
            "classes": self.results[0]["classes"],
            "runs": rows,
            "differences": [
                {
                    "run": row["name"],
                    **_minus(row, rows[0]),
                    "ap_interval": list(interval) if interval else None,
                    "drift": drift,
                }
                for row, interval, drift in zip(rows[1:], self.intervals, self.drift, strict=True)
            ],
        }


def compare(*runs: Run | str | PathLike[str]) -> Comparison:
    """Put runs beside each other; cells of a sweep are runs too.

    Args:
        runs: two or more runs, or their folders; the first is what the others are compared with.

    Raises:
        UsageError: fewer than two runs, or one given twice.
        DataError: a folder is no finished run, or the runs have other classes or other test images.
        CheckpointError: a checkpoint cannot be read.
    """
    opened = tuple(run if isinstance(run, Run) else load_run(run) for run in runs)
    folders = {run.folder.resolve() for run in opened}
    if len(opened) < 2 or len(folders) < len(opened):
        raise UsageError("there is nothing to compare", hint="Give two different runs or more.")
    results = tuple(run.result for run in opened)
    for run, result in zip(opened[1:], results[1:], strict=True):
        _check_alike(opened[0], results[0], run, result)
    drift = tuple(
        _drift((opened[0], results[0]), (run, result)) for run, result in zip(opened[1:], results[1:], strict=True)
    )
    return Comparison(opened, results, tuple(_intervals(opened, results[0]["classes"])), drift)


def _check_alike(first: Run, its: Mapping[str, Any], second: Run, other: Mapping[str, Any]) -> None:
    """Raise DataError if a difference of their mAPs would say nothing of how they were trained."""
    if its["classes"] != other["classes"]:
        raise DataError(
            f"{second.folder} detects {', '.join(other['classes'])}, {first.folder} {', '.join(its['classes'])}",
            hint="Compare runs of the same classes.",
        )
    if its["data"] != other["data"] and _tests(its["data"]) != _tests(other["data"]):
        raise DataError(
            f"{second.folder} was measured on other test images than {first.folder}",
            hint="Compare runs of one data set, or measure one on the other's: fsod eval RUN --data DATA.",
        )


def _intervals(runs: Sequence[Run], classes: Sequence[str]) -> Iterator[tuple[float, float] | None]:
    """Of the differences to the first run; its images are those of the others."""
    from fewshot_cli.evaluation.bootstrap import difference_interval
    from fewshot_cli.evaluation.coco_metrics import match
    from fewshot_cli.evaluation.matches import matches_of
    from fewshot_cli.evaluation.measure import ground_truth

    folder = runs[0].read_config().data_folder
    test = open_dataset(folder).test if folder.is_dir() else None
    if test is None:
        yield from [None] * (len(runs) - 1)
        return
    truth = ground_truth(test, classes)
    first, *others = [matches_of(match(truth, run.read_predictions())) for run in runs]
    for other in others:
        yield difference_interval(first, other)


def _tests(data: str) -> list[tuple[str, bytes]] | None:
    """Names and boxes of the test images of a data set; None if it has none."""
    test = open_dataset(data).test
    return None if test is None else sorted((image.path.name, image.boxes.tobytes()) for image in test.images)


def _row(name: str, result: Mapping[str, Any]) -> dict[str, Any]:
    measured = result["metrics"] or {"numbers": {}, "per_class": {}}
    return {
        "name": name,
        "run": result["run"],
        "detector": result["detector"],
        "policy": result["policy"],
        "budget": result["budget"],
        "freeze_first": result.get("freeze_first"),
        "alpha": (result.get("average") or {}).get("alpha", NOT_AVERAGED),
        "seed": result["seed"],
        "ap": result["ap"],
        "ap_interval": result.get("ap_interval"),
        "ap50": measured["numbers"].get("AP50"),
        "per_class": measured["per_class"],
        "parameters": result["parameters"]["trained"],
        "seconds": result["seconds"]["total"],
        "caveats": result.get("caveats", []),
    }


def _minus(row: Mapping[str, Any], first: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "ap": _difference(row["ap"], first["ap"]),
        "per_class": {name: _difference(ap, first["per_class"].get(name)) for name, ap in row["per_class"].items()},
    }


def _difference(ap: float | None, first: float | None) -> float | None:
    return None if ap is None or first is None else ap - first


def _drift(first: tuple[Run, Mapping[str, Any]], second: tuple[Run, Mapping[str, Any]]) -> dict[str, float] | None:
    """Between two runs, layer by layer; None if they do not start from the same weights.

    A layer that is in both checkpoints is compared as it is there. Of one that trained in one run alone, the other has
    the weights before training, and the run has recorded how far it moved from them.
    """
    from fewshot_cli.evaluation.drift import drift
    from fewshot_cli.runs.checkpoint import read_checkpoint
    from fewshot_cli.training.outline import outline

    (one, info), (other, others_info) = (read_checkpoint(run.checkpoint) for run, _ in (first, second))
    if _base(info) != _base(others_info):
        return None
    recorded = [result["drift"] for _, result in (first, second)]
    apart = {}
    for layer in outline(info.detector, len(info.classes), info.architecture).layers:
        here, there = _of_layer(layer.parameters(), one), _of_layer(layer.parameters(), other)
        if here and here.keys() == there.keys():
            apart[layer.name] = drift(here, there)
        else:
            apart[layer.name] = max(before.get(layer.name, 0.0) for before in recorded)
    return apart


def _of_layer(parameters: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensors[name] for name in parameters if name in tensors}


def _base(info: CheckpointInfo) -> tuple[str, str]:
    return info.detector, info.base_fingerprint
