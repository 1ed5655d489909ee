"""Every JSON document that fsod prints or leaves on disk, key by key.

    {"schema": schema_of(Result), "run": "runs/helmet", …}

`schema` names the kind of a document and its version: keys are added to a version, never taken away or changed in
meaning. Documents written before there was `schema` are read all the same. The command reference lists these types
(`cli.reference`), and tests hold real documents against them. Paths are texts; null is None.

A new document is one class here and one line in DOCUMENTS.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Annotated, Any, Literal, get_args

from typing_extensions import Doc, NotRequired, TypedDict, get_type_hints

# --- parts ---


class Environment(TypedDict):
    """With what a number was computed."""

    threads: Annotated[int, Doc("Threads that computed on the CPU.")]
    device: Annotated[str, Doc("`cpu`, `cuda:0`, ….")]
    device_name: Annotated[str, Doc("What the manufacturer calls the processor or GPU.")]
    precision: Annotated[str, Doc("Number format of convolutions: `fp32` or `bf16`.")]
    deterministic: Annotated[bool, Doc("Whether `--deterministic` was given.")]
    versions: Annotated[dict[str, str], Doc("Of fsod, Python and the packages that compute.")]
    platform: Annotated[str, Doc("Operating system and architecture.")]
    data: Annotated[
        dict[str, str], Doc("Split → a short SHA-256 of its annotations and images; empty without ground truth.")
    ]


class Metrics(TypedDict):
    """What pycocotools measured; null where there is nothing to measure."""

    numbers: Annotated[dict[str, float | None], Doc("COCO's twelve, by name: `AP` is mAP@[.50:.95], 0 to 1.")]
    per_class: Annotated[dict[str, float | None], Doc("Class → AP@[.50:.95].")]


class Counts(TypedDict):
    """Of a run's training and test images."""

    train: Annotated[int, Doc("In the training images, with the variants that `fsod augment` wrote.")]
    test: Annotated[int, Doc("In the test images; 0 without a test set.")]


class Parameters(TypedDict):
    """How many parameters a detector has."""

    trained: Annotated[int, Doc("Those that trained.")]
    total: Annotated[int, Doc("All.")]


class Best(TypedDict):
    """The highest test mAP of a run; optimistic, because it is chosen on the test set."""

    ap: Annotated[float, Doc("mAP@[.50:.95].")]
    iteration: Annotated[int, Doc("After which it was measured.")]


class Frozen(TypedDict):
    """The proof that nothing else trained."""

    tensors: Annotated[int, Doc("That had to stay as they are, to the last bit.")]
    changed: Annotated[int, Doc("That did not: always 0.")]


class Averaged(TypedDict):
    """How the detector was averaged with its weights before training."""

    alpha: Annotated[float, Doc("Share of the trained weights, 0 to 1.")]
    reason: Annotated[str, Doc("`option`, `classes` or `cross-validation`.")]


class KeptClasses(TypedDict):
    """What it takes to keep the base classes."""

    classes: Annotated[list[str], Doc("The base classes that are kept.")]
    start: Annotated[str, Doc("First layer that runs twice.")]
    parameters: Annotated[int, Doc("Stored twice.")]
    operations: Annotated[float, Doc("Of the layers that run twice, as a share of the whole chain's.")]


class ThresholdQuality(TypedDict):
    """What a score threshold gives on left-out shots."""

    threshold: Annotated[float | None, Doc("Score from which a detection counts; null: no detection was right.")]
    f1: Annotated[float, Doc("From the threshold on.")]
    precision: Annotated[float, Doc("From the threshold on.")]
    recall: Annotated[float, Doc("From the threshold on.")]


class CrossValidation(TypedDict):
    """An estimate from the shots alone."""

    folds: Annotated[int, Doc("How many there were.")]
    ap: Annotated[float | None, Doc("Mean of the mAP over folds.")]
    ap_interval: Annotated[float | None, Doc("Half the 95 % interval of that mean (Student's t).")]
    fold_ap: Annotated[list[float | None], Doc("mAP of each fold; null: its shots show no class that is measured.")]
    pooled_ap: Annotated[float | None, Doc("mAP on all left-out shots together.")]
    pooled_ap_interval: Annotated[
        list[float] | None, Doc("Low and high end of the 95 % interval of `pooled_ap` over samples of the shots.")
    ]
    averages: Annotated[dict[str, float], Doc("Share of the trained weights → score of the left-out shots.")]
    per_class: Annotated[dict[str, ThresholdQuality], Doc("Class → its threshold of the best F1.")]
    not_validated: Annotated[dict[str, int], Doc("Class with shots in less than two folds → how many it has.")]
    seconds: Annotated[float, Doc("That it took.")]


class SearchCandidate(TypedDict):
    """One candidate of policy `auto`."""

    name: Annotated[str, Doc("Policy and budget in words.")]
    policy: Annotated[str, Doc("Policy.")]
    budget: Annotated[int | None, Doc("Head layers that train; null: the policy takes no budget.")]
    backbone_lr: Annotated[float | None, Doc("Learning rate of neck and backbone, as a share of --lr.")]
    layers: Annotated[list[str], Doc("That train.")]
    parameters: Annotated[int, Doc("That train.")]
    criterion: Annotated[float | None, Doc("Mean of the ranking criterion; null: not ranked.")]
    score: Annotated[float | None, Doc("Mean score of the left-out shots; null: not cross-validated.")]
    standard_error: Annotated[float | None, Doc("Of `score`.")]
    behind: Annotated[float | None, Doc("By how much the best candidate's scores are higher.")]
    behind_error: Annotated[float | None, Doc("Standard error of `behind`.")]
    shots: Annotated[int, Doc("That were left out.")]
    dropped: Annotated[str | None, Doc("`ranked lower`, `clearly worse` or `diverged`; null: it was not.")]


class Search(TypedDict):
    """What policy `auto` chose from."""

    chosen: Annotated[str, Doc("Name of the candidate.")]
    default: Annotated[str, Doc("Name of the candidate that would be trained without a comparison.")]
    criterion: Annotated[str, Doc("That ranked the candidates.")]
    folds: Annotated[int, Doc("Of its cross-validation.")]
    iterations: Annotated[int, Doc("Of the training in each fold.")]
    candidates: Annotated[list[SearchCandidate], Doc("Fewest parameters first.")]
    seconds: Annotated[float, Doc("That it took.")]


class SplitCounts(TypedDict):
    """How large a split is."""

    images: Annotated[int, Doc("Images.")]
    boxes: Annotated[int, Doc("Boxes.")]
    images_per_class: Annotated[dict[str, int], Doc("Class → images that show it.")]
    boxes_per_class: Annotated[dict[str, int], Doc("Class → boxes.")]


class Suspect(TypedDict):
    """Something to look at."""

    check: Annotated[str, Doc("What was looked for.")]
    message: Annotated[str, Doc("One or two sentences.")]
    images: Annotated[list[str], Doc("File names, as the source has them.")]


class RecordedSplit(TypedDict):
    """What dataset.json says of a split."""

    annotations: Annotated[str, Doc("What it was drawn from.")]
    images: Annotated[int, Doc("Images.")]
    images_per_class: Annotated[dict[str, int], Doc("Class → images that show it.")]
    boxes_per_class: Annotated[dict[str, int], Doc("Class → boxes.")]
    files: Annotated[
        list[dict[str, Any]],
        Doc("Of each image `id`, `file_name`, `source_file` and `sha256`, and what the source knows beside."),
    ]


class AugmentationRecord(TypedDict):
    """How variants were made."""

    copies: Annotated[int, Doc("Images for each shot, the shot included.")]
    ops: Annotated[dict[str, Any], Doc("Operation → its range.")]
    seed: Annotated[int, Doc("Of the variants.")]
    canvas: NotRequired[Annotated[int | None, Doc("Side of the canvas of the variants, pixels; null: full size.")]]


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
    trained: Annotated[bool, Doc("Whether it trains.")]
    cut_before: Annotated[bool, Doc("Whether features are cached before it.")]
    runs_twice: Annotated[bool, Doc("With kept base classes: whether it runs in both heads.")]
    criteria: NotRequired[Annotated[dict[str, float | None], Doc("With --data: criterion → value.")]]


class DetectorSummary(TypedDict):
    """A detector in the registry."""

    summary: Annotated[str, Doc("What it is.")]
    head_layers: Annotated[int, Doc("Depth M of its head.")]


class Compared(TypedDict):
    """How an exported file was compared with PyTorch."""

    on: Annotated[str, Doc("`shots` or `images of noise`.")]
    images: Annotated[int, Doc("How many.")]
    boxes: NotRequired[Annotated[int, Doc("Candidates before suppression; ONNX only.")]]
    detections: NotRequired[Annotated[int, Doc("After suppression; ONNX only.")]]
    box: Annotated[float, Doc("Largest difference of a coordinate, canvas pixels.")]
    score: Annotated[float, Doc("Largest difference of a score.")]


class Unreadable(TypedDict):
    """A file that could not be read."""

    file: Annotated[str, Doc("Its path.")]
    reason: Annotated[str, Doc("Why.")]


class Estimate(TypedDict):
    """A mean over seeds."""

    mean: Annotated[float, Doc("mAP@[.50:.95], or a difference of two.")]
    margin: Annotated[float | None, Doc("Half its 95 % interval (Student's t); null for one seed.")]
    seeds: Annotated[int, Doc("How many.")]


class Difference(TypedDict):
    """How much higher the first setup is than the second, over the same shots and seeds."""

    estimate: Annotated[Estimate, Doc("Mean over seeds.")]
    wins: Annotated[int, Doc("Pairs of class and seed in which the first is better.")]
    losses: Annotated[int, Doc("Pairs in which it is worse.")]


class TableRow(TypedDict):
    """One setup of a table."""

    setup: Annotated[str, Doc("Policy and budget, or layers.")]
    layers: Annotated[int, Doc("That train; the median over the cells.")]
    parameters: Annotated[int, Doc("That train; the median over the cells.")]
    median_seconds: Annotated[float, Doc("Of a cell.")]
    columns: Annotated[dict[str, Estimate | None], Doc("Class or average → mAP; null: not finished.")]


class TableComparison(TypedDict):
    """Two setups, compared in pairs."""

    first: Annotated[str, Doc("A setup.")]
    second: Annotated[str, Doc("What is taken off it.")]
    columns: Annotated[dict[str, Difference | None], Doc("Class or average → difference; null: no pair.")]


class CellFailure(TypedDict):
    """A cell that could not be run."""

    cell: Annotated[str, Doc("Which.")]
    message: Annotated[str, Doc("Why.")]
    exit_code: Annotated[int, Doc("Of its error.")]


class PlannedCell(TypedDict):
    """A cell of the grid."""

    cell: Annotated[str, Doc("Which.")]
    done: Annotated[bool, Doc("Whether it is finished.")]


class DemoRow(TypedDict):
    """A setup of the demo."""

    setup: Annotated[str, Doc("What trained.")]
    layers: Annotated[str, Doc("That trained, or `none`.")]
    parameters: Annotated[int, Doc("That trained.")]
    ap: Annotated[float, Doc("mAP@[.50:.95].")]
    ap_interval: Annotated[list[float] | None, Doc("Low and high end of its 95 % interval over the test images.")]
    ap50: Annotated[float | None, Doc("mAP at an IoU of 0.5.")]
    seconds: Annotated[float, Doc("Of the fine-tune.")]


class RecordProblem(TypedDict):
    """One problem of a data set."""

    file: Annotated[str, Doc("Where.")]
    record: Annotated[str, Doc("In which record; may be empty.")]
    reason: Annotated[str, Doc("What is wrong.")]


class ErrorDetails(TypedDict):
    """What went wrong."""

    type: Annotated[str, Doc("Class of the error in `fewshot_cli.errors`; `Interrupted`, `Terminated`; else a bug.")]
    message: Annotated[str, Doc("What is wrong, and where.")]
    hint: Annotated[str | None, Doc("What would be right.")]
    exit_code: Annotated[int, Doc("Of the command.")]
    problems: NotRequired[Annotated[list[RecordProblem], Doc("All of a data set's.")]]


# --- documents ---


class Result(TypedDict):
    """result.json in a run's folder, and what `fsod finetune --json` prints."""

    schema: Annotated[Literal["fsod/result/1"], Doc("Kind and version.")]
    run: Annotated[str, Doc("The run's folder.")]
    data: Annotated[str, Doc("Folder of the data set.")]
    classes: Annotated[list[str], Doc("In label order.")]
    known_classes: Annotated[list[str], Doc("Of these, the ones that the pretrained detector knows by name.")]
    detector: Annotated[str, Doc("Name in the registry.")]
    policy: Annotated[str, Doc("Where the budget went; with `auto`, the one that was chosen.")]
    budget: Annotated[int | None, Doc("Head layers that trained; null: the policy takes none.")]
    trained_layers: Annotated[list[str], Doc("Names in the chain.")]
    parameters: Annotated[Parameters, Doc("How many.")]
    keep_base_classes: Annotated[KeptClasses | None, Doc("Null: the base classes are not kept.")]
    images: Annotated[Counts, Doc("Images.")]
    boxes: Annotated[Counts, Doc("Boxes of the measured classes, without crowds.")]
    seed: Annotated[int, Doc("Of everything that is drawn.")]
    backbone_lr: Annotated[float, Doc("Learning rate of neck and backbone, as a share of --lr.")]
    small_object_lr: Annotated[float, Doc("Learning rate of the stride-8 level, as a share of --lr.")]
    precision: Annotated[str, Doc("As in `environment`.")]
    device: Annotated[str, Doc("As in `environment`.")]
    threads: Annotated[int, Doc("As in `environment`.")]
    iterations: Annotated[int, Doc("Done.")]
    ap: Annotated[float | None, Doc("Test mAP@[.50:.95] after the last iteration; null without a test set.")]
    ap_interval: Annotated[
        list[float] | None, Doc("Low and high end of its 95 % interval over samples of the test images (bootstrap).")
    ]
    caveats: Annotated[list[str], Doc("Sentences that belong beside `ap`: too few test images or boxes.")]
    best: Annotated[Best | None, Doc("Null without a test set.")]
    metrics: Annotated[Metrics | None, Doc("Null without a test set.")]
    train_ap: Annotated[float, Doc("mAP on the training images themselves.")]
    search: Annotated[Search | None, Doc("With policy `auto`.")]
    cross_validation: Annotated[CrossValidation | None, Doc("Null: there was none.")]
    thresholds: Annotated[dict[str, float], Doc("Class → score from which `fsod predict` counts a detection.")]
    average: Annotated[Averaged, Doc("Shares of the weights.")]
    frozen: Annotated[Frozen, Doc("The check of frozen tensors.")]
    drift: Annotated[dict[str, float], Doc("Layer → 1 − |cos(w′, w)|; 0 for frozen layers.")]
    peak_memory_mb: Annotated[int, Doc("Most memory in use, MB of 10⁶ bytes.")]
    seconds: Annotated[dict[str, float], Doc("Step → seconds, and `total`.")]
    environment: Annotated[Environment, Doc("With what it was computed.")]


class RunConfig(TypedDict):
    """config.json in a run's folder, which `fsod finetune --config FILE` takes."""

    schema: Annotated[Literal["fsod/run-config/1"], Doc("Kind and version.")]
    command: Annotated[str, Doc("`finetune`.")]
    fsod: Annotated[str, Doc("Version.")]
    torch: Annotated[str, Doc("Version.")]
    created: Annotated[str, Doc("ISO 8601, UTC.")]
    options: Annotated[dict[str, Any], Doc("Every option of `fsod finetune`.")]


class DatasetRecord(TypedDict):
    """dataset.json in a data set's folder."""

    schema: Annotated[Literal["fsod/dataset/1"], Doc("Kind and version.")]
    format: Annotated[int, Doc("1; from before there was `schema`.")]
    fsod: Annotated[str, Doc("Version.")]
    created: Annotated[str, Doc("ISO 8601, UTC.")]
    name: Annotated[str, Doc("Of the folder.")]
    classes: Annotated[list[str], Doc("In label order.")]
    licences: Annotated[list[str], Doc("What the sources say about rights.")]
    source: Annotated[str | list[str], Doc("What was fetched from; of an augmented data set, the data set.")]
    test_source: NotRequired[Annotated[str | None, Doc("Option of `fsod fetch`.")]]
    shots: NotRequired[Annotated[int, Doc("Option of `fsod fetch`.")]]
    test_images: NotRequired[Annotated[int, Doc("Option of `fsod fetch`.")]]
    seed: NotRequired[Annotated[int, Doc("Option of `fsod fetch`.")]]
    skip_invalid: NotRequired[Annotated[bool, Doc("Option of `fsod fetch`.")]]
    options: NotRequired[Annotated[dict[str, Any], Doc("Options of the source that decide which images are drawn.")]]
    filters: NotRequired[Annotated[list[str], Doc("What was left out, and why.")]]
    origin: NotRequired[Annotated[dict[str, Any], Doc("What the source says of itself.")]]
    duplicates_left_out: NotRequired[Annotated[list[str], Doc("Test images with the content of a shot.")]]
    problems_left_out: NotRequired[Annotated[list[str], Doc("Faulty images and boxes, with --skip-invalid.")]]
    detector: NotRequired[Annotated[str, Doc("The detector that was made for the images.")]]
    augmentation: NotRequired[Annotated[AugmentationRecord, Doc("Of an augmented data set.")]]
    splits: Annotated[dict[str, RecordedSplit], Doc("`train`, and `test` where there is one.")]


class Fetched(TypedDict):
    """What `fsod fetch --json` prints."""

    schema: Annotated[Literal["fsod/fetch/1"], Doc("Kind and version.")]
    path: Annotated[str | None, Doc("The data set; null with --check.")]
    classes: Annotated[list[str], Doc("In label order.")]
    reused: Annotated[bool, Doc("Whether the data set was there already.")]
    train: Annotated[SplitCounts, Doc("The shots.")]
    test: Annotated[SplitCounts | None, Doc("Null: no test set.")]
    duplicates: Annotated[list[str], Doc("Left out of the test set, their content being that of a shot.")]
    skipped: Annotated[list[str], Doc("Faulty images and boxes, with --skip-invalid.")]
    warnings: Annotated[list[Suspect], Doc("What looks wrong and is no fault.")]
    background: Annotated[int | None, Doc("Images without any box, which are not drawn; null: not counted.")]


class Augmented(TypedDict):
    """What `fsod augment --json` prints."""

    schema: Annotated[Literal["fsod/augment/1"], Doc("Kind and version.")]
    path: NotRequired[Annotated[str, Doc("The new data set; not with --preview.")]]
    source: Annotated[str, Doc("The data set that it was made of.")]
    images: NotRequired[Annotated[Counts, Doc("Images; not with --preview.")]]
    train_boxes: NotRequired[Annotated[int, Doc("Boxes in training images; not with --preview.")]]
    contact_sheet: Annotated[str, Doc("Shots and some of their variants, to look at.")]


class Evaluated(TypedDict):
    """What `fsod eval --json` prints."""

    schema: Annotated[Literal["fsod/eval/1"], Doc("Kind and version.")]
    measured: Annotated[str, Doc("The run or file, or the detector's name.")]
    data: Annotated[str, Doc("The annotations.")]
    images: Annotated[int, Doc("That were measured on.")]
    boxes: Annotated[int, Doc("Of the measured classes, without crowds.")]
    numbers: Annotated[dict[str, float | None], Doc("COCO's twelve, by name: `AP` is mAP@[.50:.95], 0 to 1.")]
    per_class: Annotated[dict[str, float | None], Doc("Class → AP@[.50:.95].")]
    ap_interval: Annotated[
        list[float] | None, Doc("Low and high end of the mAP's 95 % interval over samples of the images (bootstrap).")
    ]
    caveats: Annotated[list[str], Doc("Sentences that belong beside the mAP: too few images or boxes.")]
    environment: Annotated[Environment, Doc("With what it was computed.")]
    fiftyone: NotRequired[Annotated[str, Doc("Name of the FiftyOne data set, with --fiftyone.")]]


class ComparedRun(TypedDict):
    """One run of a comparison."""

    name: Annotated[str, Doc("Of its folder; the whole path where two have the same name.")]
    run: Annotated[str, Doc("Folder.")]
    detector: Annotated[str, Doc("Name in the registry.")]
    policy: Annotated[str, Doc("Policy.")]
    budget: Annotated[int | str | None, Doc("Head layers or parameters; null: the policy takes no budget.")]
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


class Comparison(TypedDict):
    """What `fsod compare --json` prints."""

    schema: Annotated[Literal["fsod/compare/1"], Doc("Kind and version.")]
    classes: Annotated[list[str], Doc("In label order.")]
    runs: Annotated[list[ComparedRun], Doc("In the given order.")]
    differences: Annotated[list[RunDifference], Doc("One for each run but the first.")]
    page: NotRequired[Annotated[str, Doc("The page, with --page.")]]


class Reported(TypedDict):
    """What `fsod report --json` prints."""

    schema: Annotated[Literal["fsod/report/1"], Doc("Kind and version.")]
    page: Annotated[str, Doc("The page.")]


class Predicted(TypedDict):
    """predict.json in a folder of detections, and what `fsod predict --json` prints."""

    schema: Annotated[Literal["fsod/predict/1"], Doc("Kind and version.")]
    command: Annotated[str, Doc("`predict`.")]
    fsod: Annotated[str, Doc("Version.")]
    model: Annotated[str, Doc("The run or file, or the detector's name.")]
    folder: Annotated[str | None, Doc("Where the files are; null: standard output.")]
    format: Annotated[str, Doc("Of the detections.")]
    images: Annotated[int, Doc("That could be read.")]
    videos: Annotated[int, Doc("That could be read.")]
    frames: Annotated[int, Doc("Of the videos.")]
    detections: Annotated[dict[str, int], Doc("Class → how many.")]
    thresholds: Annotated[dict[str, float], Doc("Class → score from which a detection counts.")]
    unreadable: Annotated[list[Unreadable], Doc("Files that were left out.")]
    seconds: Annotated[float, Doc("From the first image to the last.")]
    images_per_second: Annotated[float, Doc("Images and frames.")]
    environment: Annotated[Environment, Doc("With what it was computed.")]
    page: NotRequired[Annotated[str, Doc("With --page.")]]


class Exported(TypedDict):
    """What `fsod export --json` prints."""

    schema: Annotated[Literal["fsod/export/1"], Doc("Kind and version.")]
    path: Annotated[str, Doc("The file.")]
    format: Annotated[str, Doc("`onnx` or `weights`.")]
    exported: Annotated[str, Doc("The run or file, or the detector's name.")]
    detector: Annotated[str, Doc("Name in the registry.")]
    classes: Annotated[list[str], Doc("In label order.")]
    image_size: Annotated[int, Doc("Side of the canvas, pixels.")]
    thresholds: Annotated[dict[str, float], Doc("Class → score from which a detection counts.")]
    size: Annotated[int, Doc("Of the file, bytes.")]
    opset: Annotated[int | None, Doc("Version of ONNX's operators; null for weights.")]
    inputs: Annotated[dict[str, list[str | int]], Doc("ONNX: name → axes, a number or the name of one that varies.")]
    outputs: Annotated[dict[str, list[str | int]], Doc("ONNX: name → axes.")]
    compared: Annotated[Compared, Doc("With PyTorch.")]


class Chain(TypedDict):
    """What `fsod inspect-layers NAME --json` prints."""

    schema: Annotated[Literal["fsod/inspect-layers/1"], Doc("Kind and version.")]
    detector: Annotated[str, Doc("Name in the registry.")]
    image_size: Annotated[int, Doc("Side of the canvas, pixels.")]
    classes: Annotated[int, Doc("How many its predictor has.")]
    head_depth: Annotated[int, Doc("Layers M of the head.")]
    policy: Annotated[str, Doc("Policy.")]
    budget: Annotated[int | None, Doc("Head layers that train; null: the policy takes none.")]
    parameters: Annotated[int, Doc("Of the whole detector.")]
    trained: Annotated[TrainedCounts, Doc("What trains.")]
    cut: Annotated[str | None, Doc("Layer before which features are cached; null: nothing trains.")]
    cached_mb: Annotated[float, Doc("One image's activations there in fp32, MB of 10⁶ bytes.")]
    keep_base_classes: Annotated[KeptClasses | None, Doc("Null: the base classes are not kept.")]
    layers: Annotated[list[Layer], Doc("From the input to the output.")]
    data: NotRequired[Annotated[str, Doc("With --data: the data set.")]]
    gradients: NotRequired[Annotated[int, Doc("With --data: how many were measured.")]]


class Detectors(TypedDict):
    """What `fsod inspect-layers --json` prints without a name."""

    schema: Annotated[Literal["fsod/detectors/1"], Doc("Kind and version.")]
    detectors: Annotated[dict[str, DetectorSummary], Doc("Name → what it is.")]


class SweepTable(TypedDict):
    """A table of a sweep, a detector at a number of shots; table.json in its folder is a list of them."""

    schema: Annotated[Literal["fsod/sweep-table/1"], Doc("Kind and version.")]
    detector: Annotated[str, Doc("Name in the registry.")]
    shots: Annotated[int, Doc("Training images of each class.")]
    classes: Annotated[list[str], Doc("In the order of the grid.")]
    averaged: Annotated[bool, Doc("Whether any run was averaged with the weights before training.")]
    caveats: Annotated[list[str], Doc("Sentences that belong beside the numbers: small test sets.")]
    averages: Annotated[dict[str, list[str]], Doc("Further columns → the classes that each is the average of.")]
    rows: Annotated[list[TableRow], Doc("Setups in the order of the grid.")]
    comparisons: Annotated[list[TableComparison], Doc("Setups compared in pairs.")]


class Swept(TypedDict):
    """What `fsod sweep --json` prints."""

    schema: Annotated[Literal["fsod/sweep/1"], Doc("Kind and version.")]
    folder: Annotated[str, Doc("The sweep's folder.")]
    tables: Annotated[list[SweepTable], Doc("One a detector and number of shots.")]
    failures: Annotated[list[CellFailure], Doc("Cells that could not be run.")]
    files: Annotated[list[str], Doc("Tables, plots and the page.")]


class SweepPlan(TypedDict):
    """What `fsod sweep --dry-run --json` prints."""

    schema: Annotated[Literal["fsod/sweep-plan/1"], Doc("Kind and version.")]
    cells: Annotated[list[PlannedCell], Doc("In order.")]
    missing: Annotated[int, Doc("How many are not finished.")]
    seconds: Annotated[float, Doc("That these take in one process, estimated.")]


class SweepRecord(TypedDict):
    """sweep.json in a sweep's folder: the options of `fsod sweep` that decide its cells."""

    schema: Annotated[Literal["fsod/sweep-config/1"], Doc("Kind and version.")]
    classes: Annotated[list[str], Doc("Option of `fsod sweep`.")]
    policies: Annotated[list[str], Doc("Option of `fsod sweep`.")]
    budgets: Annotated[list[int | str], Doc("Option of `fsod sweep`.")]
    layers: Annotated[list[str], Doc("Option of `fsod sweep`.")]
    shots: Annotated[list[int], Doc("Option of `fsod sweep`.")]
    seeds: Annotated[int, Doc("Option of `fsod sweep`.")]
    detectors: Annotated[list[str], Doc("Option of `fsod sweep`.")]
    baselines: Annotated[bool, Doc("Option of `fsod sweep`.")]
    source: Annotated[str, Doc("Option of `fsod sweep`.")]
    test_source: Annotated[str | None, Doc("Option of `fsod sweep`.")]
    test_images: Annotated[int, Doc("Option of `fsod sweep`.")]
    fetch_options: Annotated[dict[str, Any], Doc("Option of `fsod sweep`.")]
    weights: Annotated[str, Doc("Option of `fsod sweep`.")]
    eval_every: Annotated[int, Doc("Option of `fsod sweep`.")]
    options: Annotated[dict[str, Any], Doc("Option of `fsod sweep`.")]


class Demonstrated(TypedDict):
    """What `fsod demo --json` prints."""

    schema: Annotated[Literal["fsod/demo/1"], Doc("Kind and version.")]
    page: Annotated[str, Doc("Images to look at.")]
    rows: Annotated[list[DemoRow], Doc("One a setup.")]
    commands: Annotated[list[str], Doc("That do the same.")]


class Failed(TypedDict):
    """What any command prints with --json instead of its result if it fails."""

    schema: Annotated[Literal["fsod/error/1"], Doc("Kind and version.")]
    error: Annotated[ErrorDetails, Doc("What went wrong.")]


DOCUMENTS: tuple[type, ...] = (
    Fetched,
    DatasetRecord,
    Augmented,
    Result,
    RunConfig,
    Evaluated,
    Comparison,
    Reported,
    Predicted,
    Exported,
    Detectors,
    Chain,
    Swept,
    SweepPlan,
    SweepTable,
    SweepRecord,
    Demonstrated,
    Failed,
)
"""Every document, in the order of the reference."""


@lru_cache
def schema_of(kind: type) -> str:
    """What a document of that kind holds as `schema`: `fsod/NAME/VERSION`."""
    name: str = get_args(get_type_hints(kind)["schema"])[0]
    return name
