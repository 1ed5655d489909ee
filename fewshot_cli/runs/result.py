"""What the JSON files in a run's folder hold: what is written today, and what files must have when they are read."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal, TypeAlias

from annotated_types import Ge, Le, Len
from typing_extensions import Doc, TypedDict

from fewshot_cli.documents import MAY_LACK, Check, ReadAs
from fewshot_cli.encoders import known_text_encoder
from fewshot_cli.environment import Environment
from fewshot_cli.runs.config import known_template

Count: TypeAlias = Annotated[int, Ge(0)]
Measured: TypeAlias = float | None
"""None where there was nothing to measure."""


class Parameters(TypedDict):
    """How many parameters a detector has."""

    trained: Annotated[Count, Doc("Those that trained.")]
    total: Annotated[int, Ge(1), Doc("All.")]


class Counts(TypedDict):
    """Of a run's training and test images."""

    train: Annotated[Count, Doc("In the training images, with the variants that `fsod augment` wrote.")]
    test: Annotated[Count, Doc("In the test images; 0 without a test set.")]


class KeptClasses(TypedDict):
    """What it takes to keep the base classes."""

    classes: Annotated[list[str], Doc("The base classes that are kept.")]
    start: Annotated[str, Doc("First layer that runs twice.")]
    parameters: Annotated[Count, Doc("Stored twice.")]
    operations: Annotated[float, Doc("Of the layers that run twice, as a share of the whole chain's.")]


class BuiltSize(TypedDict):
    """The size of a neck and a head that were built; null for what is the detector's own."""

    head_depth: Annotated[int | None, Doc("Layers M of the head, predictor included.")]
    head_channels: Annotated[int | None, Doc("Channels of neck and head.")]
    neck: Annotated[str | None, Doc("`fpn` or `bifpn`.")]


class Frozen(TypedDict):
    """The proof that nothing else trained."""

    tensors: Annotated[Count, Doc("That had to stay as they are, to the last bit.")]
    changed: Annotated[Count, Doc("That did not: always 0.")]


class Best(TypedDict):
    """The highest test mAP of a run; optimistic, because it is chosen on the test set."""

    ap: Annotated[float, Doc("mAP@[.50:.95].")]
    iteration: Annotated[Count, Doc("After which it was measured.")]


class Numbers(TypedDict):
    """Those of COCO's numbers that readers rely on."""

    AP: Measured
    AP50: Measured
    AP75: Measured


class Metrics(TypedDict):
    """What pycocotools measured; null where there is nothing to measure."""

    numbers: Annotated[
        dict[str, Measured], ReadAs(Numbers), Doc("COCO's twelve, by name: `AP` is mAP@[.50:.95], 0 to 1.")
    ]
    per_class: Annotated[dict[str, Measured], Doc("Class → AP@[.50:.95].")]


class Averaged(TypedDict):
    """How the detector was averaged with its weights before training."""

    alpha: Annotated[float, Ge(0), Le(1), Doc("Share of the trained weights, 0 to 1.")]
    reason: Annotated[Literal["option", "classes", "cross-validation"], Doc("What decided it.")]


class Balance(TypedDict):
    """How the losses of classification and localisation were weighted."""

    method: Annotated[str, Doc("As in `--balance`.")]
    w_c: Annotated[float, Ge(0), Le(2), Doc("Weight of classification before the last measurement, mean.")]
    w_l: Annotated[float, Ge(0), Le(2), Doc("The same of localisation.")]


class ThresholdQuality(TypedDict):
    """What a score threshold gives on left-out shots."""

    threshold: Annotated[Measured, Doc("Score from which a detection counts; null: no detection was right.")]
    f1: Annotated[float, Doc("From the threshold on.")]
    precision: Annotated[float, Doc("From the threshold on.")]
    recall: Annotated[float, Doc("From the threshold on.")]


def _by_share(values: dict[str, Any]) -> dict[str, Any]:
    for name in values:
        try:
            float(name)
        except ValueError:
            raise ValueError(f"{name!r} is no number") from None
    return values


class CrossValidation(TypedDict):
    """An estimate from the shots alone."""

    folds: Annotated[Count, Doc("How many there were.")]
    ap: Annotated[Measured, Doc("Mean of the mAP over folds.")]
    ap_interval: Annotated[Measured, Doc("Half the 95 % interval of that mean (Student's t).")]
    fold_ap: Annotated[
        list[Measured], Doc("mAP of each fold; null: its shots show no class that is measured."), MAY_LACK
    ]
    pooled_ap: Annotated[Measured, Doc("mAP on all left-out shots together.")]
    pooled_ap_interval: Annotated[
        list[float] | None,
        Doc("Low and high end of the 95 % interval of `pooled_ap` over samples of the shots."),
        MAY_LACK,
    ]
    averages: Annotated[
        dict[str, float],
        Check(_by_share),
        Doc("Share of the trained weights → score of the left-out shots."),
        MAY_LACK,
    ]
    per_class: Annotated[dict[str, ThresholdQuality], Doc("Class → its threshold of the best F1.")]
    not_validated: Annotated[dict[str, Count], Doc("Class with shots in less than two folds → how many it has.")]
    seconds: Annotated[float, Doc("That it took."), MAY_LACK]


class SearchCandidate(TypedDict):
    """One candidate of policy `auto`."""

    name: Annotated[str, Doc("Policy and budget in words.")]
    policy: Annotated[str, Doc("Policy."), MAY_LACK]
    budget: Annotated[int | None, Doc("Head layers that train; null: the policy takes no budget."), MAY_LACK]
    backbone_lr: Annotated[float | None, Doc("Learning rate of neck and backbone, as a share of --lr."), MAY_LACK]
    layers: Annotated[list[str], Doc("That train.")]
    parameters: Annotated[Count, Doc("That train.")]
    criterion: Annotated[Measured, Doc("Mean of the ranking criterion; null: not ranked.")]
    score: Annotated[Measured, Doc("Mean score of the left-out shots; null: not cross-validated.")]
    standard_error: Annotated[Measured, Doc("Of `score`.")]
    behind: Annotated[Measured, Doc("By how much the best candidate's scores are higher."), MAY_LACK]
    behind_error: Annotated[Measured, Doc("Standard error of `behind`."), MAY_LACK]
    shots: Annotated[Count, Doc("That were left out.")]
    dropped: Annotated[str | None, Doc("`ranked lower`, `clearly worse` or `diverged`; null: it was not.")]


class Search(TypedDict):
    """What policy `auto` chose from."""

    chosen: Annotated[str, Doc("Name of the candidate.")]
    default: Annotated[str, Doc("Name of the candidate that would be trained without a comparison."), MAY_LACK]
    criterion: Annotated[str, Doc("That ranked the candidates.")]
    folds: Annotated[Count, Doc("Of its cross-validation.")]
    iterations: Annotated[Count, Doc("Of the training in each fold.")]
    candidates: Annotated[list[SearchCandidate], Len(1), Doc("Fewest parameters first.")]
    seconds: Annotated[float, Doc("That it took."), MAY_LACK]


class Refined(TypedDict):
    """How `predict` and `eval` refine scores with `--refine`, chosen on left-out shots."""

    encoder: Annotated[str, Check(known_text_encoder), Doc("And its weights, as --refine takes them.")]
    template: Annotated[
        str, Check(known_template), Doc("Of the prompts, `{}` for the class; several are separated by `|`.")
    ]
    weight: Annotated[float, Ge(0), Le(1), Doc("Of the encoder in the score, 0 to 1.")]
    weights: Annotated[dict[str, float], Check(_by_share), Doc("Weight → score of the left-out shots.")]
    thresholds: Annotated[dict[str, float], Doc("Class → refined score from which a detection counts.")]
    seconds: Annotated[float, Doc("That it took.")]


def _with_choice(search: dict[str, Any]) -> dict[str, Any]:
    finished = [one for one in search["candidates"] if not one["dropped"]]
    if search["chosen"] not in [one["name"] for one in finished]:
        raise ValueError(f"the chosen candidate {search['chosen']!r} is not among those that were measured to the end")
    if any(one["score"] is None for one in finished):
        raise ValueError("a candidate that was not dropped has no score")
    return search


class Result(TypedDict):
    """result.json in a run's folder, and what `fsod finetune --json` prints."""

    schema: Annotated[Literal["fsod/result/1"], Doc("Kind and version.")]
    run: Annotated[str, Doc("The run's folder.")]
    data: Annotated[str, Doc("Folder of the data set.")]
    classes: Annotated[list[str], Len(1), Doc("In label order.")]
    known_classes: Annotated[list[str], Doc("Of these, the ones that the pretrained detector knows by name."), MAY_LACK]
    detector: Annotated[str, Doc("Name in the registry.")]
    architecture: Annotated[BuiltSize | None, Doc("Size of neck and head; null: the detector's own."), MAY_LACK]
    policy: Annotated[str, Doc("Where the budget went; with `auto`, the one that was chosen.")]
    budget: Annotated[
        int | None, ReadAs(int | str | None), Doc("Head layers that trained; null: the policy takes none.")
    ]
    freeze_first: Annotated[
        Count | None, Doc("Convolutions, in input order, that stayed frozen; null: as the policy has it."), MAY_LACK
    ]
    trained_layers: Annotated[list[str], Doc("Names in the chain, of those in which anything trained.")]
    parameters: Annotated[Parameters, Doc("How many.")]
    keep_base_classes: Annotated[KeptClasses | None, Doc("Null: the base classes are not kept."), MAY_LACK]
    images: Annotated[Counts, Doc("Images.")]
    boxes: Annotated[Counts, Doc("Boxes of the measured classes, without crowds."), MAY_LACK]
    seed: Annotated[int, Doc("Of everything that is drawn.")]
    backbone_lr: Annotated[float, Doc("Learning rate of neck and backbone, as a share of --lr."), MAY_LACK]
    small_object_lr: Annotated[float, Doc("Learning rate of the stride-8 level, as a share of --lr."), MAY_LACK]
    norm_statistics: Annotated[
        Literal["hold", "train"],
        ReadAs(str),
        Doc("Of batch norms in trained layers: `hold`, those before training, or `train`, those of the variants."),
        MAY_LACK,
    ]
    precision: Annotated[str, Doc("As in `environment`.")]
    device: Annotated[str, Doc("As in `environment`.")]
    threads: Annotated[Count, Doc("As in `environment`.")]
    iterations: Annotated[Count, Doc("Done.")]
    ap: Annotated[Measured, Doc("Test mAP@[.50:.95] after the last iteration; null without a test set.")]
    ap_interval: Annotated[
        list[float] | None,
        Doc("Low and high end of its 95 % interval over samples of the test images (bootstrap)."),
        MAY_LACK,
    ]
    caveats: Annotated[list[str], Doc("Sentences that belong beside `ap`: too few test images or boxes."), MAY_LACK]
    best: Annotated[Best | None, Doc("Null without a test set.")]
    metrics: Annotated[Metrics | None, Doc("Null without a test set.")]
    train_ap: Annotated[float, ReadAs(Measured), Doc("mAP on the training images themselves.")]
    generalisation_gap: Annotated[Measured, Doc("`train_ap` − `ap`; null without a test set."), MAY_LACK]
    decay_gain: Annotated[
        Measured, Doc("With `--schedule steps`: the mAP gained between the first step and the second."), MAY_LACK
    ]
    search: Annotated[Annotated[Search, Check(_with_choice)] | None, Doc("With policy `auto`."), MAY_LACK]
    cross_validation: Annotated[CrossValidation | None, Doc("Null: there was none."), MAY_LACK]
    thresholds: Annotated[
        dict[str, float],
        ReadAs(dict[str, float] | None),
        Doc("Class → score from which `fsod predict` counts a detection."),
        MAY_LACK,
    ]
    refine: Annotated[Refined | None, Doc("Null: scores are not refined."), MAY_LACK]
    average: Annotated[Averaged, ReadAs(Averaged | None), Doc("Shares of the weights."), MAY_LACK]
    balance: Annotated[Balance | None, Doc("Null: the losses of both tasks had the same weight."), MAY_LACK]
    frozen: Annotated[Frozen, Doc("The check of frozen tensors.")]
    drift: Annotated[dict[str, float], Doc("Layer → 1 − |cos(w′, w)|; 0 for frozen layers.")]
    convolution_drift: Annotated[
        list[float], Doc("The same for the weight of each convolution, in input order; 0 for frozen ones."), MAY_LACK
    ]
    peak_memory_mb: Annotated[
        Count, Doc("Most memory in use, MB of 10⁶ bytes: of tensors on a GPU, on a CPU of the whole process.")
    ]
    cached_mb: Annotated[
        float, Ge(0), Doc("Features cached in memory and on disk at the end, MB of 10⁶ bytes."), MAY_LACK
    ]
    seconds: Annotated[
        dict[str, float],
        Doc("Step → seconds, and `total`: `training` without the measurements, which are in `evaluation`."),
    ]
    environment: Annotated[Environment, ReadAs(dict[str, Any]), Doc("With what it was computed."), MAY_LACK]


def _consistent(result: dict[str, Any]) -> dict[str, Any]:
    measured = [name for name in ("ap", "best", "metrics") if result[name] is not None]
    if len(measured) not in (0, 3):
        raise ValueError(f"{', '.join(measured)} without the rest of what is measured on a test set")
    if len((result.get("cross_validation") or {}).get("averages", ())) > 1 and not result.get("average"):
        raise ValueError("average lacks the share that was chosen")
    if unknown := [name for name in result["trained_layers"] if name not in result["drift"]]:
        raise ValueError(f"drift lacks the trained layer {unknown[0]!r}")
    if "total" not in result["seconds"]:
        raise ValueError("seconds lacks the total")
    return result


RunResult: TypeAlias = Annotated[Result, Check(_consistent)]
"""The content of result.json, whose parts fit together."""


class RunConfig(TypedDict):
    """config.json in a run's folder, which `fsod finetune --config FILE` takes."""

    schema: Annotated[Literal["fsod/run-config/1"], Doc("Kind and version.")]
    command: Annotated[str, Doc("`finetune`."), MAY_LACK]
    fsod: Annotated[str, Doc("Version."), MAY_LACK]
    torch: Annotated[str, Doc("Version."), MAY_LACK]
    created: Annotated[str, Doc("ISO 8601, UTC."), MAY_LACK]
    options: Annotated[dict[str, Any], Doc("Every option of `fsod finetune`.")]


class BalanceRecord(TypedDict):
    """Means of the iterations since the measurement before, see `training.balancing`; None where there was nothing."""

    p_c: Measured
    p_l: Measured
    w_c: Measured
    w_l: Measured


class Record(TypedDict):
    """One line of metrics.jsonl, and one of the records in state.pt."""

    iteration: Count
    ap: Measured
    losses: dict[str, float]
    mean_loss: Annotated[float, MAY_LACK]
    balance: Annotated[BalanceRecord, MAY_LACK]
    train_ap: Annotated[Measured, MAY_LACK]


def _writable(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    try:
        json.dumps(records, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"not what metrics.jsonl can hold: {error}") from None
    return records


class State(TypedDict):
    """What state.pt holds: of the run when it was saved; parameters by qualified name."""

    iteration: Annotated[int, Ge(1)]
    records: Annotated[list[Record], Check(_writable)]
    parameters: dict[str, Any]
    objective: Annotated[dict[str, Any], MAY_LACK]
    optimizer: dict[str, Any]
    balance: Annotated[dict[str, Any], MAY_LACK]


class Detection(TypedDict):
    """One of predictions.json, in COCO's results format; pixels."""

    image_id: int
    category_id: int
    bbox: Annotated[list[float], Len(4, 4)]
    score: float


class StoredFold(TypedDict):
    """One of folds.json, see `selection.left_out.Fold`; results by the share of the trained weights."""

    images: list[int]
    results: Annotated[dict[str, list[Detection]], Check(_by_share)]
    seconds: float
