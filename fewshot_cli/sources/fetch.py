"""From a request to a data set on disk, or to what such a data set would hold."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

from fewshot_cli.datasets.classes import match_classes
from fewshot_cli.datasets.store import RECORD, open_dataset, read_record, save_dataset, touch
from fewshot_cli.datasets.suspects import Suspect, class_names, suspects_in
from fewshot_cli.errors import DataError, FsodError
from fewshot_cli.locks import exclusive
from fewshot_cli.paths import exists
from fewshot_cli.progress import Reporter, SilentReporter
from fewshot_cli.sources.drawn_splits import Drawn, draw_splits
from fewshot_cli.sources.registry import default_detector
from fewshot_cli.sources.request import FetchRequest
from fewshot_cli.sources.results import CheckResult, FetchResult
from fewshot_cli.sources.vocabulary import with_all_classes

__all__ = ["CheckResult", "FetchRequest", "FetchResult", "check", "fetch"]


def fetch(request: FetchRequest, reporter: Reporter | None = None) -> FetchResult:
    """Draw K shots of each class, or a share of all images, and a test set, and write them to `root/NAME`.

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
    request = with_all_classes(request)
    lock = request.root / f".{request.folder_name}.lock"
    try:
        # A second fetch of the same name waits, and then uses what the first has written.
        with exclusive(lock, f"{request.folder} is being fetched", waiting=reporter.say):
            return _fetch(request, reporter)
    except FsodError:
        with suppress(OSError):
            request.root.rmdir()  # made for the lock, unless it holds something
        raise


def _fetch(request: FetchRequest, reporter: Reporter) -> FetchResult:
    if exists(request.folder):
        if not request.force:
            return _reuse(request, reporter)
        _check_replaceable(request.folder)
    draw = draw_splits(request, reporter)
    return _write(request, draw, reporter)


def check(request: FetchRequest, reporter: Reporter | None = None) -> CheckResult:
    """Draw as `fetch` does and look at what was drawn, without writing; raises what `fetch` raises for the sources."""
    reporter = reporter or SilentReporter()
    draw = draw_splits(with_all_classes(request), reporter)
    warnings = _suspects(draw, reporter)
    return CheckResult(
        train=draw.train,
        test=draw.test,
        duplicates=tuple(draw.duplicates),
        skipped=draw.skipped,
        warnings=warnings,
        background=draw.background,
        stratified=draw.stratified,
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


# --- writing ---


def _write(request: FetchRequest, draw: Drawn, reporter: Reporter) -> FetchResult:
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


def _record(request: FetchRequest, draw: Drawn) -> dict[str, Any]:
    """What the data set records of its origin, and of what was left out."""
    detector = _detector_of(request)
    return {
        **request.record(),
        **({"stratified": draw.stratified} if draw.stratified else {}),
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


def _suspects(draw: Drawn, reporter: Reporter) -> tuple[Suspect, ...]:
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
