"""The folder in which Open Images is kept between fetches, and how its metadata comes there.

    <cache>/open-images-v7/
      openimages/…           metadata under its original paths; NAME.json beside it: size and checksum
      <split>/data/          images, each verified before it got its name
      <split>/metadata/ labels/   what FiftyOne reads while it downloads

It is not FiftyOne's own zoo folder: FiftyOne takes a list that is there for the whole list, so the short lists that are
left here would make its own downloads incomplete.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fewshot_cli.download import cache_folder, download
from fewshot_cli.errors import DataError, NetworkError
from fewshot_cli.files import sha256_of, storage_errors, write_json
from fewshot_cli.progress import Reporter, SilentReporter
from fewshot_cli.sources.openimages.release import CLASSES, HIERARCHY, ORIGIN, SPLITS, VERSION

_TAIL = 1 << 16  # bytes from the end in which the last line begins


def zoo_folder() -> Path:
    """Where Open Images is kept; not created here."""
    return cache_folder() / f"open-images-{VERSION}"


@dataclass(slots=True)
class Zoo:
    """Open Images as far as it is here, and the way to the rest.

    Attributes:
        mirror: address that replaces both origins; None: the origins.
        offline: nothing is downloaded.
        reporter: receives the downloads.
        root: the folder.
        checksums: path of each metadata file used so far → its SHA-256.
    """

    mirror: str | None = None
    offline: bool = False
    reporter: Reporter = field(default_factory=SilentReporter)
    root: Path = field(default_factory=zoo_folder)
    checksums: dict[str, str] = field(default_factory=dict)

    def boxes(self, split: str) -> Path:
        """The box CSV of a split; raises NetworkError, StorageError."""
        return self._file(SPLITS[split].boxes, check_table)

    def images(self, split: str) -> Path:
        """The CSV with the facts about each image of a split; raises NetworkError, StorageError."""
        return self._file(SPLITS[split].images, check_table)

    def classes(self) -> dict[str, str]:
        """Class name → label (`Helmet` → `/m/0zvk5`); raises NetworkError, StorageError."""
        rows = _read_classes(self._file(CLASSES, _read_classes))
        return {name: label for label, name in rows}

    def hierarchy(self) -> Any:
        """The tree of classes, as the release has it; raises NetworkError, StorageError."""
        return _read_hierarchy(self._file(HIERARCHY, _read_hierarchy))

    def has_boxes(self, split: str) -> bool:
        """Whether the box CSV of a split is here already."""
        return (self.root / SPLITS[split].boxes).is_file()

    def _file(self, name: str, check: Callable[[Path], Any]) -> Path:
        """A metadata file: the one that is here if it is whole, else downloaded and checked."""
        path = self.root / name
        record = path.with_name(path.name + ".json")
        known = _known(path, record)
        if known is None:
            # A file without a record was put there by hand, or its download was killed after the last step.
            if record.exists() or (path.exists() and not _passes(check, path)):
                _remove(path, record)
            if not path.exists():
                self._bring(name, path, check)
            known = {"size": path.stat().st_size, "sha256": sha256_of(path)}
            write_json(record, known)
        self.checksums[name] = known["sha256"]
        return path

    def _bring(self, name: str, path: Path, check: Callable[[Path], Any]) -> None:
        if self.offline:
            raise NetworkError(
                f"{path} is not here, and --offline allows no download",
                hint=f"Run the command once without --offline, or put a copy of {ORIGIN}/{name} there.",
            )
        url = f"{self.mirror or ORIGIN}/{name}"
        download(url, path, reporter=self.reporter, hint=_HINT)
        try:
            check(path)
        except DataError as error:
            _remove(path)
            raise NetworkError(f"{url}: {error.message.removeprefix(f'{path}: ')}", hint=_HINT) from error


_HINT = (
    "The same command continues where this one stopped. Behind a proxy set HTTPS_PROXY; "
    "for a copy elsewhere give --mirror URL; to use only what is here, --offline."
)


def _known(path: Path, record: Path) -> dict[str, Any] | None:
    """The record of a file, if the file still has the size in it, else None."""
    try:
        known = json.loads(record.read_text("utf-8"))
        same = path.stat().st_size == known["size"] and isinstance(known["sha256"], str)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return dict(known) if same else None


def _remove(*paths: Path) -> None:
    for path in paths:
        with storage_errors(path):
            path.unlink(missing_ok=True)


def _passes(check: Callable[[Path], Any], path: Path) -> bool:
    try:
        check(path)
    except DataError:
        return False
    return True


# --- what a whole file looks like ---


def check_table(path: Path) -> None:
    """Raise DataError unless the file is a CSV of images whose last line is whole."""
    with path.open("rb") as stream:
        head = stream.readline(_TAIL)
        stream.seek(max(0, path.stat().st_size - _TAIL))
        tail = stream.read()
    if not head.startswith(b"ImageID,"):
        raise DataError(f"{path}: not a list of images: its first line does not begin with ImageID")
    if not tail.endswith(b"\n") and len(_cells(tail.splitlines()[-1])) != len(_cells(head)):
        raise DataError(f"{path}: cut: its last line is not whole")


def _cells(line: bytes) -> list[str]:
    return next(csv.reader([line.decode("utf-8", "replace").rstrip("\r\n")]), [])


def _read_classes(path: Path) -> list[tuple[str, str]]:
    """(label, name) of each class; raises DataError."""
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            rows = [row for row in csv.reader(stream) if row]
    except (OSError, ValueError, csv.Error) as error:
        raise DataError(f"{path}: not a list of classes: {error}") from error
    if not rows or any(len(row) != 2 or not row[0].startswith("/") or not row[1].strip() for row in rows):
        raise DataError(f"{path}: not a list of classes: expected lines such as /m/0zvk5,Helmet")
    return [(label, name.strip()) for label, name in rows]


def _read_hierarchy(path: Path) -> Any:
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: not a tree of classes: {error}") from error
    if not isinstance(tree, dict) or not isinstance(tree.get("LabelName"), str):
        raise DataError(f"{path}: not a tree of classes: its root has no LabelName")
    return tree
