"""`--source DIR`: annotated images of one's own, in any format of `datasets.formats`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fewshot_cli.datasets.formats import Format, check_place, get_format, read_split, train_and_test
from fewshot_cli.errors import DataError
from fewshot_cli.paths import named
from fewshot_cli.sources.survey import Brought, Candidates, Query, Survey

ARGUMENT = "DIR"


def survey(query: Query) -> Survey:
    """Read a split folder, an annotation file, or a data set folder with train/ and perhaps test/ or valid/.

    Images are not decoded: only those that are drawn need to be.

    Raises:
        DataError: DIR is not there, holds no annotations in the format, or has no split to train on; an unknown class.
        DatasetError: the problems of its records.
    """
    path = check_place(named(query.argument))
    pool, test = _locate(path, get_format(query.name))
    return Survey(
        pool=_candidates(pool, query) if query.pool or test is None else None,
        test=_candidates(test, query) if query.test and test else None,
    )


def count_classes(name: str, argument: str, *, skip_invalid: bool) -> dict[str, int]:
    """Class name → images of the split to train on that show it; raises like `survey`."""
    from fewshot_cli.datasets.splits import images_per_class

    pool, _ = _locate(check_place(named(argument)), get_format(name))
    return images_per_class(read_split(pool, format=name, decode_images=False, skip_invalid=skip_invalid))


def _locate(path: Path, format: Format) -> tuple[Path, Path | None]:
    """Where the pool is, and the test split if DIR has its own."""
    splits = train_and_test(path, format)
    if format.recognise(path) or splits == (None, None):
        return path, splits.test  # if nothing is there, the reader's error lists what was expected
    if splits.train is None:
        raise DataError(f"{path} has no split to train on", hint=f"Found only {splits.test}.")
    return splits.train, splits.test


def _candidates(path: Path, query: Query) -> Candidates:
    """Everything that was read, at hand."""
    from fewshot_cli.datasets.splits import members, restrict

    read = read_split(path, format=query.name, decode_images=False, skip_invalid=query.skip_invalid)
    split = restrict(read, query.classes, partial=query.partial)
    images = {image.id: image for image in split.images}

    def bring(ids: Sequence[int]) -> Brought:
        return Brought(images={image_id: images[image_id] for image_id in ids}, licences=split.licences)

    return Candidates(
        place=split.annotations,
        ids={name: sorted(ids) for name, ids in members(split.images, split.classes).items()},
        bring=bring,
        at_hand=True,
        problems=split.skipped,
        vocabulary=read.classes,
        used=[name for name in split.classes if name in read.classes],
        background=sum(not len(image.boxes) for image in read.images),
        remarks=read.remarks,
    )
