"""From a request to the images of both splits: survey the sources, join them, draw shots and test images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fewshot_cli.datasets.record import Stratified
from fewshot_cli.datasets.types import ImageRecord, Split
from fewshot_cli.errors import DataError, DatasetError, Problem
from fewshot_cli.files import sha256_of
from fewshot_cli.progress import Reporter
from fewshot_cli.sources.draw import Stock, draw_shots, draw_subset, draw_test, require_shots
from fewshot_cli.sources.joined import join
from fewshot_cli.sources.registry import Source
from fewshot_cli.sources.request import FetchRequest
from fewshot_cli.sources.survey import Query, Survey


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """What was drawn.

    Attributes:
        stocks: what the images were drawn from: the pool and, where it is another split, the test split.
        origin: facts about the sources.
        train, test: the images; `test` is None where there is no test set.
        duplicates: files left out of the test set.
        stratified: of a share of all images: how it compares with them.
    """

    stocks: tuple[Stock, ...]
    origin: dict[str, Any]
    train: Split
    test: Split | None
    duplicates: list[Path]
    stratified: Stratified | None

    @property
    def faulty(self) -> list[Problem]:
        return [problem for stock in self.stocks for problem in stock.faulty.values()]

    @property
    def skipped(self) -> tuple[Problem, ...]:
        return (*(problem for stock in self.stocks for problem in stock.problems), *self.faulty)

    @property
    def background(self) -> int:
        return sum(stock.candidates.background for stock in self.stocks)


def draw_splits(request: FetchRequest, reporter: Reporter) -> Drawn:
    """Both splits, disjoint by id within the pool and by content anywhere; every image decodes.

    Raises:
        DatasetError: drawn images that cannot be used, of both splits at once (not with `skip_invalid`).
        DataError: an unknown class, or too few images.
    """
    pools, tests_at = _surveys(request, reporter)
    pool = Stock(join([(source, survey.pool) for source, survey in pools.items() if survey.pool], request.classes))
    shots, stratified = _draw_train(request, pool)
    own_tests = [(source, survey.test) for source, survey in tests_at.items() if survey.test]
    rest = Stock(join(own_tests, request.classes)) if own_tests else pool
    tests, duplicates = _draw_test(request, rest, pool, shots) if request.test_images else ([], [])
    draw = Drawn(
        stocks=(pool,) if rest is pool else (pool, rest),
        origin=_origin(pools, tests_at),
        train=pool.split(shots),
        test=rest.split(tests) if tests else None,
        duplicates=duplicates,
        stratified=stratified,
    )
    if draw.faulty and not request.skip_invalid:
        hint = "Replace these images, or leave them out with --skip-invalid."
        raise DatasetError(_folder(pool), draw.faulty, hint=hint)
    if own_tests and not tests:
        raise _no_test_image(rest)
    _say_what_is_missing(request, rest, draw, reporter)
    return draw


def survey_sources(request: FetchRequest, reporter: Reporter) -> None:
    """Look whether the sources have the classes and enough images of them; nothing is drawn, and no image is opened.

    Raises:
        DataError: an unknown class, or too few images; what the sources raise.
    """
    pools, _ = _surveys(request, reporter)
    pool = Stock(join([(source, survey.pool) for source, survey in pools.items() if survey.pool], request.classes))
    require_shots(pool, pool.candidates.ids, request.shots or 1)


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


def _draw_train(request: FetchRequest, pool: Stock) -> tuple[list[ImageRecord], Stratified | None]:
    """K shots of each class, or a share of all images."""
    if request.fraction is not None:
        return draw_subset(pool, request.fraction, request.subset, request.seed, leave_out_faulty=request.skip_invalid)
    assert request.shots is not None  # it has a default
    return draw_shots(pool, request.shots, request.seed, replace_faulty=request.skip_invalid), None


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


def _say_what_is_missing(request: FetchRequest, stock: Stock, draw: Drawn, reporter: Reporter) -> None:
    """A test set that is not there, or smaller than the source could be expected to fill."""
    if not request.test_images:
        return
    if draw.test is None:
        count, classes = len(draw.train.images), "class" if len(draw.train.classes) == 1 else "classes"
        usable = "usable images" if draw.duplicates or draw.faulty or stock.problems else "images"
        fewer = "fewer --shots" if request.fraction is None else "a smaller --fraction"
        estimate = "`fsod finetune` will estimate the mAP by cross-validation on the shots. " if count > 1 else ""
        reporter.warn(
            f"No test set: all {count} {usable} of the {classes} are shots. {estimate}"
            f"Give --test-source, or {fewer}, to measure on images that were not trained on."
        )
    elif len(draw.test.images) < request.test_images and not stock.candidates.at_hand:
        reporter.warn(
            f"{stock.candidates.place} has {len(draw.test.images)} images for the test set; "
            f"--test-images is {request.test_images}"
        )
