"""What fetching, and checking without writing, return."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from typing_extensions import Doc, TypedDict

from fewshot_cli.datasets.record import Stratified
from fewshot_cli.datasets.splits import boxes_per_class, images_per_class
from fewshot_cli.datasets.store import Dataset
from fewshot_cli.datasets.suspects import Suspect
from fewshot_cli.datasets.types import Split
from fewshot_cli.errors import Problem
from fewshot_cli.schemas import schema_of


class SplitCounts(TypedDict):
    """How large a split is."""

    images: Annotated[int, Doc("Images.")]
    boxes: Annotated[int, Doc("Boxes.")]
    images_per_class: Annotated[dict[str, int], Doc("Class → images that show it.")]
    boxes_per_class: Annotated[dict[str, int], Doc("Class → boxes.")]


class Fetched(TypedDict):
    """What `fsod fetch --json` prints."""

    schema: Annotated[Literal["fsod/fetch/1"], Doc("Kind and version.")]
    path: Annotated[str | None, Doc("The data set; null with --check.")]
    classes: Annotated[list[str], Doc("In label order.")]
    reused: Annotated[bool, Doc("Whether the data set was there already.")]
    train: Annotated[SplitCounts, Doc("The shots.")]
    stratified: Annotated[Stratified | None, Doc("How they compare with all images; null without --fraction.")]
    test: Annotated[SplitCounts | None, Doc("Null: no test set.")]
    duplicates: Annotated[list[str], Doc("Left out of the test set, their content being that of a shot.")]
    skipped: Annotated[list[str], Doc("Faulty images and boxes, with --skip-invalid.")]
    warnings: Annotated[list[Suspect], Doc("What looks wrong and is no fault.")]
    background: Annotated[int | None, Doc("Images without any box, which are not drawn; null: not counted.")]


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
            "schema": schema_of(Fetched),
            "path": str(self.path),
            "classes": list(self.dataset.classes),
            "reused": self.reused,
            **_found(self, self.dataset.train, self.dataset.test, self.dataset.record.get("stratified")),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckResult:
    """What `fetch` would do; nothing was written.

    Attributes:
        train, test: the images that would be drawn; `test` is None where there would be no test set.
        duplicates, skipped, warnings, background: as in FetchResult.
        stratified: of a share of all images: how it compares with them.
    """

    train: Split
    test: Split | None
    duplicates: tuple[Path, ...]
    skipped: tuple[Problem, ...]
    warnings: tuple[Suspect, ...]
    background: int
    stratified: Stratified | None

    def to_json(self) -> dict[str, Any]:
        """For `--json`, with the keys of a FetchResult; `path` is null."""
        return {
            "schema": schema_of(Fetched),
            "path": None,
            "classes": list(self.train.classes),
            "reused": False,
            **_found(self, self.train, self.test, self.stratified),
        }


def _found(
    result: FetchResult | CheckResult, train: Split, test: Split | None, stratified: Stratified | None
) -> dict[str, Any]:
    """What both results say in JSON."""
    return {
        "train": _counts(train),
        "stratified": stratified,
        "test": _counts(test) if test else None,
        "duplicates": [str(path) for path in result.duplicates],
        "skipped": [str(problem) for problem in result.skipped],
        "warnings": [asdict(warning) for warning in result.warnings],
        "background": result.background,
    }


def _counts(split: Split) -> dict[str, Any]:
    return {
        "images": len(split.images),
        "boxes": sum(len(image.boxes) for image in split.images),
        "images_per_class": images_per_class(split),
        "boxes_per_class": boxes_per_class(split),
    }
