"""From a source to a data set on disk: ask what there is, draw the shots and the test set, write both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fewshot_cli.datasets.classes import match_classes
from fewshot_cli.datasets.splits import boxes_per_class, images_per_class
from fewshot_cli.datasets.store import RECORD, Dataset, open_dataset, read_record, save_dataset, touch
from fewshot_cli.datasets.suspects import Suspect, class_names, suspects_in
from fewshot_cli.datasets.types import ImageRecord, Split
from fewshot_cli.errors import DataError, DatasetError, Problem
from fewshot_cli.files import sha256_of
from fewshot_cli.progress import Reporter, SilentReporter
from fewshot_cli.sources.draw import Stock, draw_shots, draw_test
from fewshot_cli.sources.joined import join
from fewshot_cli.sources.registry import Source, default_detector
from fewshot_cli.sources.request import FetchRequest
from fewshot_cli.sources.survey import Query, Survey

__all__ = ["CheckResult", "FetchRequest", "FetchResult", "check", "fetch"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchResult:
    """What `fetch` did. It is a path too: `Path(result)` is the folder of the data set.

    Attributes:
        dataset: as it lies on disk.
        reused: the same request had been fetched before; nothing was drawn.
        duplicates: files that were left out of the test set, their content being that of a shot.
        skipped: faulty images and boxes that were left out (only with `skip_invalid`).
        warnings: what looks wrong and is no fault; of a data set that is used again: empty.
        background: images of the sources without any box, which are not drawn; of a data set that is used again: None.
    """

    dataset: Dataset
    reused: bool
    duplicates: tuple[Path, ...] = ()
    skipped: tuple[Problem, ...] = ()
    warnings: tuple[Suspect, ...] = ()
    background: int | None = None

    @property
    def path(self) -> Path:
        """Folder of the data set."""
        return self.dataset.path

    def __fspath__(self) -> str:
        return str(self.path)

    def to_json(self) -> dict[str, Any]:
        """For `--json`; `test` is null where there is no test set."""
        return {
            "path": str(self.path),
            "classes": list(self.dataset.classes),
            "reused": self.reused,
            **_found(self, self.dataset.train, self.dataset.test),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckResult:
    """What `fetch` would do; nothing was written.

    Attributes:
        train, test: the images that would be drawn; `test` is None where there would be no test set.
        duplicates, skipped, warnings, background: as in FetchResult.
    """

    train: Split
    test: Split | None
    duplicates: tuple[Path, ...]
    skipped: tuple[Problem, ...]
    warnings: tuple[Suspect, ...]
    background: int

    def to_json(self) -> dict[str, Any]:
        """For `--json`, with the keys of a FetchResult; `path` is null."""
        return {
            "path": None,
            "classes": list(self.train.classes),
            "reused": False,
            **_found(self, self.train, self.test),
        }


def _found(result: FetchResult | CheckResult, train: Split, test: Split | None) -> dict[str, Any]:
    """What both results say in JSON."""
    return {
        "train": _counts(train),
        "test": _counts(test) if test else None,
        "duplicates": [str(path) for path in result.duplicates],
        "skipped": [str(problem) for problem in result.skipped],
        "warnings": [warning.to_json() for warning in result.warnings],
        "background": result.background,
    }


def fetch(request: FetchRequest, reporter: Reporter | None = None) -> FetchResult:
    """Draw a K-shot training set and a test set and write them to `root/NAME`.

    A data set of that name made by the same request is used again and becomes the most recent one. Train and test share
    no image id of the same source and no content. Where the shots take all images there is no test set.

    Raises:
        DataError: unknown class, too few images, or a data set of that name from another request.
        DatasetError: the problems of the source, all at once.
        NetworkError: the source downloads, and that failed.
        ConfigError: the source needs a package that is not installed.
        StorageError: the data set cannot be written.
    """
    reporter = reporter or SilentReporter()
    if request.folder.exists():
        if not request.force:
            return _reuse(request, reporter)
        _check_replaceable(request.folder)
    draw = _draw(request, reporter)
    return _write(request, draw, reporter)


def check(request: FetchRequest, reporter: Reporter | None = None) -> CheckResult:
    """Draw as `fetch` does and look at what was drawn, without writing; raises what `fetch` raises for the sources."""
    reporter = reporter or SilentReporter()
    draw = _draw(request, reporter)
    warnings = _suspects(draw, reporter)
    return CheckResult(
        train=draw.train,
        test=draw.test,
        duplicates=tuple(draw.duplicates),
        skipped=draw.skipped,
        warnings=warnings,
        background=draw.background,
    )


# --- a data set that is there already ---


def _reuse(request: FetchRequest, reporter: Reporter) -> FetchResult:
    """The data set that is already there, if it comes from the same request."""
    folder = request.folder
    if not (folder / RECORD).is_file():
        raise DataError(f"{folder} exists and is not a data set of fsod", hint="Give another --name.")
    record = read_record(folder)
    if differences := _differences(request, record):
        raise DataError(
            f"{folder} was fetched with another request: {', '.join(differences)}",
            hint="Give it another --name, or replace it with --force.",
        )
    dataset = open_dataset(folder)
    touch(dataset)
    reporter.say(f"{folder} already holds this draw: used again (--force draws anew from the source)")
    return FetchResult(dataset=dataset, reused=True)


def _differences(request: FetchRequest, record: dict[str, Any]) -> list[str]:
    asked = request.record()
    changed = [f"{key} {record.get(key)} (now {value})" for key, value in asked.items() if record.get(key) != value]
    if _same_classes(request.classes, record.get("classes")):
        return changed
    return [f"classes {record.get('classes')} (now {list(request.classes)})", *changed]


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


# --- drawing ---


@dataclass(frozen=True, slots=True, kw_only=True)
class _Draw:
    """What was drawn.

    Attributes:
        stocks: what the images were drawn from: the pool and, where it is another split, the test split.
        origin: facts about the sources.
        train, test: the images; `test` is None where there is no test set.
        duplicates: files left out of the test set.
    """

    stocks: tuple[Stock, ...]
    origin: dict[str, Any]
    train: Split
    test: Split | None
    duplicates: list[Path]

    @property
    def faulty(self) -> list[Problem]:
        return [problem for stock in self.stocks for problem in stock.faulty.values()]

    @property
    def skipped(self) -> tuple[Problem, ...]:
        return (*(problem for stock in self.stocks for problem in stock.problems), *self.faulty)

    @property
    def background(self) -> int:
        return sum(stock.candidates.background for stock in self.stocks)


def _draw(request: FetchRequest, reporter: Reporter) -> _Draw:
    """Both splits, disjoint by id within the pool and by content anywhere; every image decodes.

    Raises:
        DatasetError: drawn images that cannot be used, of both splits at once (not with `skip_invalid`).
        DataError: an unknown class, or too few images.
    """
    pools, tests_at = _surveys(request, reporter)
    pool = Stock(join([(source, survey.pool) for source, survey in pools.items() if survey.pool], request.classes))
    shots = draw_shots(pool, request.shots, request.seed, replace_faulty=request.skip_invalid)
    own_tests = [(source, survey.test) for source, survey in tests_at.items() if survey.test]
    rest = Stock(join(own_tests, request.classes)) if own_tests else pool
    tests, duplicates = _draw_test(request, rest, pool, shots) if request.test_images else ([], [])
    draw = _Draw(
        stocks=(pool,) if rest is pool else (pool, rest),
        origin=_origin(pools, tests_at),
        train=pool.split(shots),
        test=rest.split(tests) if tests else None,
        duplicates=duplicates,
    )
    if draw.faulty and not request.skip_invalid:
        hint = "Replace these images, or leave them out with --skip-invalid."
        raise DatasetError(_folder(pool), draw.faulty, hint=hint)
    if own_tests and not tests:
        raise _no_test_image(rest)
    _say_what_is_missing(request, rest, draw, reporter)
    return draw


Surveys = dict[str, Survey]
"""By source, as it is written."""
TEST = "--test-source"


def _surveys(request: FetchRequest, reporter: Reporter) -> tuple[Surveys, Surveys]:
    """What the sources have, and what those of the test set have: they are the same unless one is named."""
    other = request.source_of_test
    with_test = bool(request.test_images) and not other
    wanted = [
        *((source, _query(request, source, reporter, pool=True, test=with_test)) for source in request.sources),
        *((source, _query(request, source, reporter, pool=False, test=True)) for source in [other] if source),
    ]
    surveys = _survey_all(wanted)
    if other is None:
        return surveys, surveys
    survey = surveys.pop(TEST)
    return surveys, {str(other): replace(survey, test=survey.test or survey.pool)}


def _survey_all(wanted: Sequence[tuple[Source, Query]]) -> Surveys:
    """All surveys, that of a named test source under TEST; the problems of all come in one error."""
    surveys: Surveys = {}
    errors: list[DatasetError] = []
    for source, query in wanted:
        try:
            surveys[str(source) if query.pool else TEST] = source.survey(query)
        except DatasetError as error:
            errors.append(error)
    if len(errors) > 1:
        problems = [problem for error in errors for problem in error.problems]
        raise DatasetError(f"{len(errors)} sources", problems, hint=errors[0].hint)
    if errors:
        raise errors[0]
    return surveys


def _query(request: FetchRequest, source: Source, reporter: Reporter, *, pool: bool, test: bool) -> Query:
    return Query(
        name=source.name,
        argument=source.argument,
        classes=request.classes,
        pool=pool,
        test=test,
        skip_invalid=request.skip_invalid,
        partial=pool and len(request.sources) > 1,
        options=source.options(request.options),
        reporter=reporter,
    )


def _draw_test(
    request: FetchRequest, stock: Stock, pool: Stock, shots: list[ImageRecord]
) -> tuple[list[ImageRecord], list[Path]]:
    """The test images and the duplicates, from a stock that may be the pool of the shots."""
    # Of a pool that is not at hand, what was brought to choose shots from is not tested on either.
    used = shots if pool.candidates.at_hand else pool.images.values()
    return draw_test(
        stock,
        request.test_images,
        request.seed,
        without={image.id for image in used} if stock is pool else set(),
        known={sha256_of(image.path) for image in shots},
    )


def _origin(pools: Surveys, tests: Surveys) -> dict[str, Any]:
    """Facts about the sources: of the only one, or by source."""
    facts = {source: dict(found) for source, survey in pools.items() if (found := survey.origin())}
    origin = dict(*facts.values()) if len(pools) == 1 else facts
    for survey in tests.values() if tests is not pools else ():
        if other := dict(survey.origin()):
            origin["test_source"] = other
    return origin


def _folder(stock: Stock) -> str:
    """Names where its images come from: the folder of the annotations."""
    place = stock.candidates.place
    return str(place.parent if place.parent.parts else place)


def _no_test_image(stock: Stock) -> DataError:
    name = stock.classes[0]
    return DataError(
        f"{stock.candidates.place}: no usable image of {name!r} for the test set",
        hint=" ".join(filter(None, (stock.candidates.advice(name, 1), "Or do without: --test-images 0."))),
    )


def _say_what_is_missing(request: FetchRequest, stock: Stock, draw: _Draw, reporter: Reporter) -> None:
    """A test set that is not there, or smaller than the source could be expected to fill."""
    if not request.test_images:
        return
    if draw.test is None:
        count, classes = len(draw.train.images), "class" if len(draw.train.classes) == 1 else "classes"
        usable = "usable images" if draw.duplicates or draw.faulty or stock.problems else "images"
        estimate = "`fsod finetune` will estimate the mAP by cross-validation on the shots. " if count > 1 else ""
        reporter.warn(
            f"No test set: all {count} {usable} of the {classes} are shots. {estimate}"
            "Give --test-source, or fewer --shots, to measure on images that were not trained on."
        )
    elif len(draw.test.images) < request.test_images and not stock.candidates.at_hand:
        reporter.warn(
            f"{stock.candidates.place} has {len(draw.test.images)} images for the test set; "
            f"--test-images is {request.test_images}"
        )


# --- writing ---


def _write(request: FetchRequest, draw: _Draw, reporter: Reporter) -> FetchResult:
    skipped, record = draw.skipped, _record(request, draw)
    facts = {path: known for stock in draw.stocks for path, known in stock.facts.items()}
    dataset = save_dataset(request.folder, draw.train, draw.test, record, facts=facts, overwrite=request.force)
    if draw.duplicates:
        reporter.warn(f"{len(draw.duplicates)} images left out of the test set: their content is that of a shot")
    if skipped:
        reporter.warn(f"{len(skipped)} faulty images or boxes left out; {request.folder / RECORD} lists them")
    return FetchResult(
        dataset=dataset,
        reused=False,
        duplicates=tuple(draw.duplicates),
        skipped=skipped,
        warnings=_suspects(draw, reporter),
        background=draw.background,
    )


def _record(request: FetchRequest, draw: _Draw) -> dict[str, Any]:
    """What the data set records of its origin, and of what was left out."""
    detector = _detector_of(request)
    return {
        **request.record(),
        "filters": [
            f"{stock.candidates.place.name}: {reason}: {count} images left out"
            for stock in draw.stocks
            for reason, count in sorted(stock.left_out.items())
        ],
        **({"detector": detector} if detector else {}),
        **({"origin": draw.origin} if draw.origin else {}),
        "duplicates_left_out": [str(path) for path in draw.duplicates],
        "problems_left_out": [str(problem) for problem in draw.skipped],
    }


def _suspects(draw: _Draw, reporter: Reporter) -> tuple[Suspect, ...]:
    """What the sources hold and is not used, and what looks wrong in the images and in the names of their classes."""
    remarks = dict.fromkeys(remark for stock in draw.stocks for remark in stock.candidates.remarks)
    names = dict.fromkeys(name for stock in draw.stocks for name in stock.candidates.vocabulary)
    used = {name for stock in draw.stocks for name in stock.candidates.used}
    thumbnails = {path: each for stock in draw.stocks for path, each in stock.thumbnails.items()}
    found = (
        *(Suspect("records", remark) for remark in remarks),
        *class_names(tuple(names), used),
        *suspects_in(draw.train, draw.test, thumbnails),
    )
    for suspect in found:
        reporter.warn(suspect.message)
    return found


def _detector_of(request: FetchRequest) -> str | None:
    """The detector that was made for the images, if all sources have the same."""
    names = {default_detector(str(source)) for source in request.sources}
    return names.pop() if len(names) == 1 else None


def _counts(split: Split) -> dict[str, Any]:
    return {
        "images": len(split.images),
        "boxes": sum(len(image.boxes) for image in split.images),
        "images_per_class": images_per_class(split),
        "boxes_per_class": boxes_per_class(split),
    }
