"""fetch: a few images of a class, or a share of all images, and a test set, on disk."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fewshot_cli.datasets.classes import has_class, match_class
from fewshot_cli.detectors.coco_classes import COCO_NAMES
from fewshot_cli.progress import Reporter, SilentReporter
from fewshot_cli.sources.fetch import CheckResult, FetchRequest, FetchResult
from fewshot_cli.sources.fetch import check as check_request
from fewshot_cli.sources.fetch import fetch as fetch_request
from fewshot_cli.sources.request import ALL
from fewshot_cli.sources.vocabulary import no_class

if TYPE_CHECKING:
    from fewshot_cli.datasets.suspects import Detected, Suspect
    from fewshot_cli.datasets.types import Split

__all__ = ["CheckResult", "FetchRequest", "FetchResult", "check", "fetch"]

NONE: tuple[tuple[str, ...], ...] = ((), ("*",))
"""Classes as they are given by somebody who wants to see which there are."""
LABEL_CHECKER = "yolox_nano"
"""The pretrained detector whose detections are compared with the boxes."""


def fetch(
    classes: str | Sequence[str],
    *,
    source: str | PathLike[str] | Sequence[str | PathLike[str]] = "openimages",
    test_source: str | PathLike[str] | None = None,
    shots: int | None = None,
    fraction: float | None = None,
    subset: int = 1,
    test_images: int = 100,
    seed: int = 0,
    name: str | None = None,
    root: PathLike[str] | str = "data",
    force: bool = False,
    skip_invalid: bool = False,
    reporter: Reporter | None = None,
    **options: Any,
) -> FetchResult:
    """Draw shots and a test set of some classes and write them as a data set, as `fsod fetch` does.

        data = fetch("helmet", source="photos")
        finetune(data)

    A data set of that name from the same request is used again.

    Args:
        classes: name of the class, or several in label order; case, separators and plurals do not matter. `all`: every
            class of the source.
        source: a folder or file of annotated images of one's own in any known format (`NAME:DIR` names it),
            `openimages` or `miniature`; or several, joined by class name.
        test_source: the same for test images; None: the source's own test split, or what the shots leave of its images.
        shots: training images per class, 1 or more; None: 10, or what `fraction` says.
        fraction: instead of shots the share of all training images to draw, above 0 and at most 1, so that every class
            keeps its share of the objects.
        subset: which of the disjoint subsets of that fraction and seed, from 1 on.
        test_images: largest number of test images; 0: no test set, and nothing is downloaded for one.
        seed: of the draw: the same seed and request give the same data set.
        name: folder under `root`; None: from the class names.
        root: folder that holds data sets.
        force: replace a data set of that name.
        skip_invalid: leave faulty images and boxes out, and draw others, instead of raising.
        reporter: receives progress and remarks; None: silent.
        **options: of the source; for openimages: `split`, `test_split`, `allow`, `smallest_box` (a share of width and
            height), `mirror`, `offline`.

    Returns:
        the data set and what was left out of it; a path too, so that it can be given wherever a data set is wanted.

    Raises:
        UsageError: an unknown source or option, or a value that cannot be meant.
        DataError: an unknown class, too few images, or a data set of that name from another request.
        DatasetError: the problems of the source's images and annotations, all at once.
        NetworkError: the source downloads, and that failed; the same call continues where it stopped.
        ConfigError: the source needs a package that is not installed.
        StorageError: the data set cannot be written.
    """
    request = request_of(
        classes,
        source=source,
        test_source=test_source,
        shots=shots,
        fraction=fraction,
        subset=subset,
        test_images=test_images,
        seed=seed,
        name=name,
        root=Path(root),
        force=force,
        skip_invalid=skip_invalid,
        options=options,
    )
    reporter = reporter or SilentReporter()
    result = fetch_request(request, reporter)
    if result.reused:
        return result
    found = check_labels(result.dataset.train, reporter)
    return replace(result, warnings=(*result.warnings, *found))


def check(request: FetchRequest, reporter: Reporter | None = None) -> CheckResult:
    """Draw as `fetch` does and report what looks wrong, without writing; raises what `fetch` raises."""
    reporter = reporter or SilentReporter()
    result = check_request(request, reporter)
    found = check_labels(result.train, reporter)
    return replace(result, warnings=(*result.warnings, *found))


def request_of(
    classes: str | Sequence[str],
    *,
    source: str | PathLike[str] | Sequence[str | PathLike[str]] = "openimages",
    test_source: str | PathLike[str] | None = None,
    **others: Any,
) -> FetchRequest:
    """The request that `fetch` makes of its arguments; raises UsageError with the classes found if none is named."""
    sources = (source,) if isinstance(source, str | PathLike) else tuple(source)
    names = (classes,) if isinstance(classes, str) else tuple(classes)
    request = FetchRequest(
        classes=(ALL,) if names in NONE else names,
        source=tuple(fspath(each) for each in sources),
        test_source=None if test_source is None else fspath(test_source),
        **others,
    )
    if names in NONE:
        raise no_class(request)
    return request


def check_labels(shots: Split, reporter: Reporter) -> list[Suspect]:
    """Shots in which the pretrained detector finds, with a high score, an object of a class it knows that has no box.

    Only if its weights were downloaded earlier, and one of the classes is COCO's.
    """
    from fewshot_cli.download import cache_folder

    known = {match_class(name, COCO_NAMES) for name in shots.classes if has_class(name, COCO_NAMES)}
    weights = cache_folder() / "weights" / f"{LABEL_CHECKER}.pth"
    if not known or not weights.is_file():
        return []
    from fewshot_cli.datasets.suspects import partly_labelled
    from fewshot_cli.errors import FsodError

    try:
        detections = _detect(shots, known, weights, reporter)
    except FsodError as error:  # a check never stops a fetch
        reporter.warn(f"{LABEL_CHECKER} cannot look for objects without a box: {error.message}")
        return []
    suspects = partly_labelled(shots.images, detections, LABEL_CHECKER)
    for suspect in suspects:
        reporter.warn(suspect.message)
    return suspects


def _detect(shots: Split, classes: Collection[str], weights: Path, reporter: Reporter) -> list[Detected]:
    """The detections of some of COCO's classes in each shot."""
    import numpy as np

    from fewshot_cli.detectors.registry import build_detector
    from fewshot_cli.inference.placed import PlacedDetector

    labels = [label for label, name in enumerate(COCO_NAMES) if name in classes]
    placed = PlacedDetector.place(build_detector(LABEL_CHECKER, weights=weights))
    found = placed.detect([image.path for image in shots.images], reporter, "Looking for objects without a box")
    kept = [(each, np.isin(each.labels.cpu().numpy(), labels)) for each in found]
    return [(each.boxes.cpu().numpy()[own], each.scores.cpu().numpy()[own]) for each, own in kept]
