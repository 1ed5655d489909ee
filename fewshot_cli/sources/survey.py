"""The types that pass between fetch and a source: a query, its survey, and the images that were brought."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fewshot_cli.datasets.sampling import id_tag
from fewshot_cli.errors import Problem
from fewshot_cli.progress import Reporter, SilentReporter

if TYPE_CHECKING:
    from fewshot_cli.datasets.types import ImageRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """A request to a source.

    Attributes:
        name: of the source.
        argument: what follows the colon in `--source NAME:ARGUMENT`.
        classes: names as the user typed them.
        pool: whether images to draw shots from are wanted.
        test: whether images to draw a test set from are wanted.
        skip_invalid: leave faulty records out instead of raising.
        partial: classes that the source does not have are no error: another source may have them.
        options: an instance of the source's `Options`.
        reporter: receives downloads and remarks.
    """

    name: str
    argument: str
    classes: tuple[str, ...]
    pool: bool = True
    test: bool = True
    skip_invalid: bool = False
    partial: bool = False
    options: Any = None
    reporter: Reporter = field(default_factory=SilentReporter, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Brought:
    """The outcome of `Candidates.bring(ids)`. Ids that are not in `images` cannot be used; others are drawn.

    Attributes:
        images: id → the image, with its boxes of the requested classes, labelled in their order; its file exists.
        left_out: reason → images that were left out for it; an image may have several reasons, or none to count.
        problems: images that should exist and cannot be had (only with `skip_invalid`).
        facts: an image's file → facts about it, for the record: author, licence.
        licences: of these images, one line each.
    """

    images: Mapping[int, ImageRecord]
    left_out: Mapping[str, int] = field(default_factory=Counter)
    problems: Sequence[Problem] = ()
    facts: Mapping[Path, Mapping[str, Any]] = field(default_factory=dict)
    licences: Sequence[str] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidates:
    """The images of one split that a source offers, as far as they are known without their files.

    Attributes:
        place: names the split, in messages and in the record; the annotation file if there is one.
        ids: class name → ids of the images that show it, or may; in the order requested, which is the label order.
        bring: ids → these images; raises DataError, NetworkError or StorageError.
        at_hand: bringing costs nothing, so that all images are compared when shots are drawn.
        tag: id → what stands for the image in its rank (see `sampling.rank`).
        left_out: reason → images that were left out for it; an image may have several.
        problems: faulty records that were left out (only with `skip_invalid`).
        advice: class name and number of images wanted → where there are more, one sentence; empty if unknown.
        vocabulary: the names of all classes of the split; empty if they are too many to list.
        used: those of them that were requested.
        background: images without any box; they are neither shots nor test images.
        remarks: what else the split holds and is not used, one sentence each.
    """

    place: Path
    ids: Mapping[str, Sequence[int]]
    bring: Callable[[Sequence[int]], Brought]
    at_hand: bool = False
    tag: Callable[[int], str] = id_tag
    left_out: Mapping[str, int] = field(default_factory=dict)
    problems: Sequence[Problem] = ()
    advice: Callable[[str, int], str] = lambda name, wanted: ""
    vocabulary: Sequence[str] = ()
    used: Sequence[str] = ()
    background: int = 0
    remarks: Sequence[str] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """The images that a source has.

    Attributes:
        pool: shots are drawn from here; None: not requested.
        test: the source's own test split; None: not requested, or the test set comes from what the shots leave.
        origin: facts about the source, for the record: version, splits, checksums; called after the last `bring`.
    """

    pool: Candidates | None = None
    test: Candidates | None = None
    origin: Callable[[], Mapping[str, Any]] = dict
