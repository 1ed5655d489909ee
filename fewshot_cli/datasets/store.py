"""A data set on disk, as `fsod fetch` leaves it and everything after reads it.

    data/NAME/
      train/  annotations.json  images/
      test/   annotations.json  images/   only where there is a test set
      dataset.json              where it came from, what was drawn, checksums, licences

It is built in a hidden folder beside its place and renamed there in one step, so a data set that can be seen is whole.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from os import PathLike
from pathlib import Path
from typing import Any

from fewshot_cli import __version__
from fewshot_cli.datasets.formats import read_split, train_and_test
from fewshot_cli.datasets.formats.coco_writer import file_names, fill_split
from fewshot_cli.datasets.record import DatasetRecord, changed_images
from fewshot_cli.datasets.splits import boxes_per_class, images_per_class, restrict
from fewshot_cli.datasets.types import Split
from fewshot_cli.documents import check_document, parse_document, read_file
from fewshot_cli.errors import DataError, DatasetError, Problem
from fewshot_cli.files import sha256_of, storage_errors, write_folder, write_json
from fewshot_cli.paths import exists
from fewshot_cli.schemas import schema_of

FORMAT = 1
RECORD = "dataset.json"
DEFAULT_ROOT = Path("data")


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """A data set ready for training.

    Attributes:
        path: its folder.
        train: the shots.
        test: same classes in the same order, no image of `train`; None: there is no test set.
        record: the content of dataset.json; empty for a folder that fsod did not fetch.
    """

    path: Path
    train: Split
    test: Split | None
    record: dict[str, Any]

    def __fspath__(self) -> str:
        return str(self.path)

    @property
    def name(self) -> str:
        return self.path.resolve().name

    @property
    def shots(self) -> Split:
        """The training images themselves, without the variants that `fsod augment` wrote behind them."""
        count = max(1, len(self.train.images) // self._written_copies)
        return replace(self.train, images=self.train.images[:count])

    @property
    def shot_of(self) -> tuple[int, ...]:
        """For each training image, the number of the shot that it is, or that it is a variant of."""
        shots, variants = len(self.shots.images), max(1, self._written_copies - 1)
        return tuple(i if i < shots else (i - shots) // variants for i in range(len(self.train.images)))

    @property
    def _written_copies(self) -> int:
        """Training images for each shot, the shot included: 1 unless `fsod augment` wrote the data set."""
        copies: int = self.record.get("augmentation", {}).get("copies", 1)
        return copies

    @property
    def detector(self) -> str | None:
        """The detector that was made for its images, if there is one."""
        return _detector_in(self.record)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names in label order."""
        return self.train.classes

    def require_test(self) -> Split:
        """The test set, for what cannot do without; raises DataError where there is none."""
        if self.test is None:
            raise DataError(
                f"{self.path} has no test set",
                hint="Fetch it with --test-source, or with fewer --shots, so that images are left to test on.",
            )
        return self.test


def open_dataset(path: PathLike[str] | str) -> Dataset:
    """Read a data set: one that fsod fetched, or any folder with a split train/ and perhaps test/ (or valid/).

    The images of a fetched one were decoded when it was written, and are not decoded again.

    Args:
        path: its folder; a `Dataset` or a `FetchResult` is one too.

    Raises:
        DataError: nothing is there, it is no data set, its test set was lost, or another version of fsod wrote it.
        DatasetError: problems of both splits, all at once, or images that changed since they were fetched.
    """
    path = Path(path)
    if not exists(path):
        raise DataError(f"{path} does not exist", hint="Give the folder of a data set, or run: fsod fetch")
    record = read_record(path) if (path / RECORD).exists() else {}
    train_at, test_at = train_and_test(path)
    if train_at is None:
        raise _incomplete(path, "train/")
    if test_at is None and _lists_test(record):
        raise _incomplete(path, "test/")
    check_unchanged(path, record)
    train, test = _read_both(path, train_at, test_at, decode_images=not record)
    return Dataset(path=path, train=train, test=restrict(test, train.classes) if test else None, record=record)


def _incomplete(path: Path, missing: str) -> DataError:
    return DataError(
        f"{path} is not a data set: it has no {missing} with annotations",
        hint="Expected train/ and perhaps test/, each with annotations.json and images/; fsod fetch makes them.",
    )


def latest_dataset(root: PathLike[str] | str = DEFAULT_ROOT) -> Dataset:
    """The data set under `root` that was fetched (or fetched again) last; raises DataError if there is none."""
    root = Path(root)
    records = [file for file in root.glob(f"*/{RECORD}") if not file.parent.name.startswith(".")]
    if not records:
        raise DataError(
            f"no data set under {root}",
            hint="Run fsod fetch first, or name one with --data.",
        )
    return open_dataset(max(records, key=lambda file: (file.stat().st_mtime_ns, file.parent.name)).parent)


def read_record(path: Path) -> dict[str, Any]:
    """The content of a data set's dataset.json, a `record.DatasetRecord`; raises DataError if it cannot be used."""
    file, hint = path / RECORD, "Fetch it again with --force, or remove the folder."
    record = parse_document(read_file(file, hint=hint), file, hint)
    if isinstance(record, dict) and record.get("format") != FORMAT:
        raise DataError(f"{file} is not a record that fsod {__version__} understands", hint=hint)
    check_document(record, DatasetRecord, file, hint)
    return dict(record)


def check_unchanged(path: Path, record: Mapping[str, Any], splits: Collection[str] = ("train", "test")) -> None:
    """Raise DatasetError, which lists them, if images of a data set are gone or not those that were written with it.

    Args:
        path: its folder.
        record: the content of its dataset.json; empty where fsod did not write the folder: then nothing is checked.
        splits: to look at.
    """
    problems = changed_images(path, record, splits) if record else []
    if problems:
        raise DatasetError(
            f"{path} has changed since it was fetched",
            problems,
            hint="Put the images back, or fetch the data set again: fsod fetch … --force.",
        )


def recorded_detector(path: Path) -> str | None:
    """The detector that was made for the images of a data set, as its record says; None if there is no record."""
    return _detector_in(read_record(path)) if (path / RECORD).is_file() else None


def _lists_test(record: dict[str, Any]) -> bool:
    return "test" in record.get("splits", {})


def _detector_in(record: dict[str, Any]) -> str | None:
    name: str | None = record.get("detector")
    return name


def touch(dataset: Dataset) -> None:
    """Make it the most recently fetched one; raises StorageError."""
    with storage_errors(dataset.path):
        os.utime(dataset.path / RECORD)


def save_dataset(
    path: Path,
    train: Split,
    test: Split | None,
    record: dict[str, Any],
    *,
    facts: Mapping[Path, Mapping[str, Any]] | None = None,
    overwrite: bool,
) -> Dataset:
    """Write a data set, all or nothing.

    Args:
        path: its folder.
        train, test: what to copy; both with the same classes. No test set: None.
        record: further keys for dataset.json.
        facts: further keys for single images, by the file that is copied.
        overwrite: replace an existing folder.

    Returns:
        the data set as it lies on disk.

    Raises:
        DataError: `path` exists, or an image cannot be read.
        StorageError: it cannot be written.
    """
    splits = {"train": train, **({"test": test} if test else {})}

    def fill(folder: Path) -> None:
        described = {}
        for name, split in splits.items():
            (folder / name).mkdir()
            fill_split(folder / name, split)
            described[name] = _describe(split, folder / name / "images", facts or {})
        write_json(folder / RECORD, {**_header(path, list(splits.values())), **record, "splits": described})

    write_folder(path, fill, overwrite=overwrite)
    return open_dataset(path)


def _header(path: Path, splits: Sequence[Split]) -> dict[str, Any]:
    return {
        "schema": schema_of(DatasetRecord),
        "format": FORMAT,
        "fsod": __version__,
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "name": path.name,
        "classes": list(splits[0].classes),
        "licences": list(dict.fromkeys(licence for split in splits for licence in split.licences)),
    }


def _describe(split: Split, images: Path, facts: Mapping[Path, Mapping[str, Any]]) -> dict[str, Any]:
    """What dataset.json says about one split; checksums are those of the files in `images`."""
    names = file_names(split.images)
    return {
        "annotations": str(split.annotations),
        "images": len(split.images),
        "images_per_class": images_per_class(split),
        "boxes_per_class": boxes_per_class(split),
        "files": [
            {
                "id": image.id,
                "file_name": names[image.id],
                "source_file": image.name or image.path.name,
                "sha256": sha256_of(images / names[image.id]),
                "bytes": (images / names[image.id]).stat().st_size,
                **facts.get(image.path, {}),
            }
            for image in split.images
        ],
    }


def _read_both(path: Path, train: Path, test: Path | None, *, decode_images: bool) -> tuple[Split, Split | None]:
    """Read the splits; the problems of both come in one error."""
    read: list[Split] = []
    problems: list[Problem] = []
    for split in filter(None, (train, test)):
        try:
            read.append(read_split(split, decode_images=decode_images))
        except DatasetError as error:
            problems.extend(error.problems)
    if problems:
        raise DatasetError(str(path), problems, hint="Fetch the data set again with --force, or correct the files.")
    return read[0], read[1] if test else None
