"""From a source to a data set on disk: draw the shots, draw the test set, copy both."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from fewshot_cli.datasets.classes import match_classes
from fewshot_cli.datasets.formats.coco import check_images
from fewshot_cli.datasets.sampling import boxes_per_class, images_per_class, order_test, sample_shots, with_images
from fewshot_cli.datasets.store import (
    DEFAULT_ROOT,
    RECORD,
    Dataset,
    open_dataset,
    read_record,
    save_dataset,
    touch,
)
from fewshot_cli.datasets.types import ImageRecord, Split
from fewshot_cli.errors import DataError, DatasetError, Problem, UsageError
from fewshot_cli.files import sha256_of
from fewshot_cli.progress import Reporter, SilentReporter
from fewshot_cli.sources.registry import (
    DEFAULT_OPTIONS,
    Candidates,
    Query,
    Source,
    SourceOptions,
    default_detector,
    parse_source,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchRequest:
    """What `fsod fetch` was asked for; raises UsageError if it cannot be meant."""

    source: str = "openimages"
    """`coco:DIR`, or another name in `sources.SOURCES`."""
    classes: tuple[str, ...]
    """Class names, matched leniently; their order is the label order."""
    test_source: str | None = None
    """Where the test images come from; None: the source's own test split, or what the shots leave."""
    shots: int = 10
    """Training images per class."""
    test_images: int = 100
    """Test images at most."""
    seed: int = 0
    """Of both draws."""
    name: str | None = None
    """Folder under `root`; None: from the class names."""
    root: Path = DEFAULT_ROOT
    """Where data sets live."""
    force: bool = False
    """Replace a data set of that name."""
    skip_invalid: bool = False
    """Leave faulty images and boxes out instead of raising."""
    options: SourceOptions = field(default_factory=SourceOptions)
    """Of the source, and of the test source if that is one that takes them."""

    def __post_init__(self) -> None:
        if not self.classes or not all(name.strip() for name in self.classes):
            raise UsageError("no class is named", hint="Give at least one --class NAME.")
        if self.shots < 1:
            raise UsageError(f"--shots {self.shots} is not possible", hint="Give 1 or more.")
        if self.test_images < 1:
            raise UsageError(f"--test-images {self.test_images} is not possible", hint="Give 1 or more.")
        if not re.fullmatch(r"[^/\\\0.][^/\\\0]*", self.folder_name):
            raise UsageError(
                f"{self.folder_name!r} cannot be the name of a data set",
                hint="Give --name without slashes and without a dot in front.",
            )

    @property
    def folder_name(self) -> str:
        """`--name`, or the class names in lower case joined with hyphens: `coffee_cup-helmet`."""
        if self.name is not None:
            return self.name
        return "-".join(re.sub(r"[^\w.]+", "_", name.strip().casefold()).strip("._") for name in self.classes)

    @property
    def folder(self) -> Path:
        return self.root / self.folder_name


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchResult:
    """What `fetch` did.

    Attributes:
        dataset: as it lies on disk.
        reused: the same request had been fetched before; nothing was drawn.
        duplicates: candidates for the test set that were left out, their content being that of a shot.
        skipped: faulty records that were left out (only with `skip_invalid`).
    """

    dataset: Dataset
    reused: bool
    duplicates: tuple[Path, ...] = ()
    skipped: tuple[Problem, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "path": str(self.dataset.path),
            "classes": list(self.dataset.classes),
            "reused": self.reused,
            "train": _counts(self.dataset.train),
            "test": _counts(self.dataset.test),
            "duplicates": [str(path) for path in self.duplicates],
            "skipped": [str(problem) for problem in self.skipped],
        }


@dataclass(slots=True)
class _Draw:
    """The two splits while they are drawn."""

    train: Split
    test: Split
    duplicates: list[Path] = field(default_factory=list)
    faulty: list[Problem] = field(default_factory=list)


def fetch(request: FetchRequest, reporter: Reporter | None = None) -> FetchResult:
    """Draw a K-shot training set and a test set and write them to `root/NAME`.

    A data set of that name made by the same request is used again and becomes the most recent one.
    Train and test share no image id of the same source and no content.

    Raises:
        UsageError: an unknown source, or an option that it does not take.
        DataError: unknown class, too few images, or a data set of that name from another request.
        DatasetError: the problems of the source, all at once.
        NetworkError: the source downloads, and that failed.
        ConfigError: the source needs a package that is not installed.
        StorageError: the disk refuses.
    """
    reporter = reporter or SilentReporter()
    source = parse_source(request.source)
    test_source = parse_source(request.test_source) if request.test_source else None
    asked = _asked(request, source, test_source)
    if request.folder.exists():
        if not request.force:
            return _reuse(request, asked, reporter)
        _check_replaceable(request.folder)
    if test_source:
        pool = source.candidates(_query(request, source, reporter, test_images=0))
        offered = test_source.candidates(_query(request, test_source, reporter, shots=0))
        candidates = _joined(pool, offered)
    else:
        candidates = source.candidates(_query(request, source, reporter))
    draw = _draw(request, candidates)
    return _write(request, asked, candidates, draw, reporter)


def _joined(pool: Candidates, offered: Candidates) -> Candidates:
    """Shots from one source, test images from another."""
    return replace(
        pool,
        test=offered.test or offered.pool,
        filters=(*pool.filters, *offered.filters),
        origin={**pool.origin, **({"test_source": offered.origin} if offered.origin else {})},
        facts={**pool.facts, **offered.facts},
    )


def _asked(request: FetchRequest, source: Source, test_source: Source | None) -> dict[str, Any]:
    """What makes two requests the same, besides the classes; raises UsageError for options that nobody takes."""
    return {
        "source": str(source),
        "test_source": str(test_source) if test_source else None,
        "shots": request.shots,
        "test_images": request.test_images,
        "seed": request.seed,
        "skip_invalid": request.skip_invalid,
        **_taker(source, test_source).complete(request.options).drawing(),
    }


def _taker(source: Source, test_source: Source | None) -> Source:
    """Whom the options of the request are for: the source that takes any."""
    return test_source if test_source and source.name not in DEFAULT_OPTIONS else source


def _query(
    request: FetchRequest,
    source: Source,
    reporter: Reporter,
    *,
    shots: int | None = None,
    test_images: int | None = None,
) -> Query:
    takes_options = source.name in DEFAULT_OPTIONS
    return Query(
        argument=source.argument,
        classes=request.classes,
        shots=request.shots if shots is None else shots,
        test_images=request.test_images if test_images is None else test_images,
        seed=request.seed,
        skip_invalid=request.skip_invalid,
        options=source.complete(request.options if takes_options else SourceOptions()),
        reporter=reporter,
    )


def _reuse(request: FetchRequest, asked: dict[str, Any], reporter: Reporter) -> FetchResult:
    """The data set that is already there, if it answers the same request."""
    folder = request.folder
    hint = "Give it another --name, or replace it with --force."
    if not (folder / RECORD).is_file():
        raise DataError(f"{folder} exists and is not a data set of fsod", hint="Give another --name.")
    record = read_record(folder)
    differences = [f"{key} {record.get(key)} (now {value})" for key, value in asked.items() if record.get(key) != value]
    if not _same_classes(request.classes, record.get("classes")):
        differences.insert(0, f"classes {record.get('classes')} (now {list(request.classes)})")
    if differences:
        raise DataError(f"{folder} was fetched with another request: {', '.join(differences)}", hint=hint)
    dataset = open_dataset(folder)
    touch(dataset)
    reporter.say(f"{folder} already holds this draw: used again (--force draws anew from the source)")
    return FetchResult(dataset=dataset, reused=True)


def _same_classes(wanted: tuple[str, ...], recorded: Any) -> bool:
    if not isinstance(recorded, list) or not all(isinstance(name, str) for name in recorded):
        return False
    try:
        return list(match_classes(wanted, recorded)) == recorded
    except DataError:
        return False


def _check_replaceable(folder: Path) -> None:
    """--force replaces data sets, never a folder that something else may need."""
    if not (folder / RECORD).is_file():
        raise DataError(
            f"{folder} is not a data set of fsod, so --force does not replace it", hint="Give another --name."
        )


def _draw(request: FetchRequest, candidates: Candidates) -> _Draw:
    """Both splits, disjoint by id within the pool and by content anywhere; every chosen image decodes.

    Raises:
        DatasetError: chosen images that cannot be used, of both splits at once (not with `skip_invalid`).
        DataError: an unknown class, or too few images.
    """
    train, faulty = _draw_shots(request, candidates.pool)
    own_test = candidates.test is not None
    without = frozenset() if own_test else frozenset(image.id for image in train.images)
    ordered = order_test(candidates.test or candidates.pool, request.classes, request.seed, without=without)
    draw = _Draw(train, ordered, faulty=faulty)
    _take_test(request, draw)
    if draw.faulty and not request.skip_invalid:
        raise DatasetError(
            str(candidates.pool.annotations.parent),
            draw.faulty,
            hint="Replace these images, or leave them out with --skip-invalid.",
        )
    if not draw.test.images:
        raise DataError(
            f"{ordered.annotations}: no image is left for the test set",
            hint="Ask for fewer --shots, or give a --test-source.",
        )
    return draw


def _draw_shots(request: FetchRequest, pool: Split) -> tuple[Split, list[Problem]]:
    """The shots, and the faulty images met; with `skip_invalid` others stand in for them."""
    faulty: dict[int, Problem] = {}
    while True:
        usable = [image for image in pool.images if image.id not in faulty]
        train = sample_shots(with_images(pool, usable), request.classes, request.shots, request.seed)
        found = check_images(train.images)
        faulty.update(found)
        if not found or not request.skip_invalid:
            return train, list(faulty.values())


def _take_test(request: FetchRequest, draw: _Draw) -> None:
    """Reduce `draw.test` to its first usable images whose content is not that of a shot."""
    known = {sha256_of(image.path) for image in draw.train.images}
    taken: list[ImageRecord] = []
    for image in draw.test.images:
        if len(taken) == request.test_images:
            break
        found = check_images([image])
        if found:
            # A faulty image may have been met among the shots already.
            draw.faulty.extend(problem for problem in found.values() if problem not in draw.faulty)
        elif sha256_of(image.path) in known:
            draw.duplicates.append(image.path)
        else:
            taken.append(image)
    draw.test = with_images(draw.test, taken)


def _write(
    request: FetchRequest, asked: dict[str, Any], candidates: Candidates, draw: _Draw, reporter: Reporter
) -> FetchResult:
    test_skipped = candidates.test.skipped if candidates.test else ()
    skipped = (*candidates.pool.skipped, *test_skipped, *draw.faulty)
    record = {
        **asked,
        "filters": list(candidates.filters),
        **({"detector": detector} if (detector := default_detector(request.source)) else {}),
        **({"origin": dict(candidates.origin)} if candidates.origin else {}),
        "duplicates_left_out": [str(path) for path in draw.duplicates],
        "problems_left_out": [str(problem) for problem in skipped],
    }
    dataset = save_dataset(
        request.folder, draw.train, draw.test, record, facts=candidates.facts, overwrite=request.force
    )
    if draw.duplicates:
        reporter.warn(f"{len(draw.duplicates)} test candidates left out: their content is that of a shot")
    if skipped:
        reporter.warn(f"{len(skipped)} faulty records left out; {request.folder / RECORD} lists them")
    return FetchResult(dataset=dataset, reused=False, duplicates=tuple(draw.duplicates), skipped=skipped)


def _counts(split: Split) -> dict[str, Any]:
    return {
        "images": len(split.images),
        "boxes": sum(len(image.boxes) for image in split.images),
        "images_per_class": images_per_class(split),
        "boxes_per_class": boxes_per_class(split),
    }
