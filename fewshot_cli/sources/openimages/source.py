"""The images of Open Images that may be drawn: those whose boxes have no mark that the options do not allow.

The box CSV of a split is read, images are left out by the marks of their boxes; drawn images are downloaded. As in the
paper, an image with an occluded, truncated, group-of, depicted or inside box of a requested class is left out; so is
one whose marks were not checked (−1), or that lies on its side.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewshot_cli.datasets.classes import match_classes
from fewshot_cli.datasets.images import image_size, upright_corners
from fewshot_cli.datasets.types import ImageRecord
from fewshot_cli.errors import NetworkError, Problem
from fewshot_cli.sources.openimages.boxes import Box, ClassRows, find_rows, read_boxes
from fewshot_cli.sources.openimages.facts import read_facts, rotated_ids
from fewshot_cli.sources.openimages.options import OpenImagesOptions
from fewshot_cli.sources.openimages.pull import HINT, image_path, name_of, pull
from fewshot_cli.sources.openimages.release import ALLOWABLE, ROTATED, SPLITS, VERSION
from fewshot_cli.sources.openimages.zoo import Zoo
from fewshot_cli.sources.survey import Brought, Candidates, Query, Survey


def survey_splits(query: Query) -> Survey:
    """The usable images of the splits that the options name; their metadata is downloaded if need be, no images.

    Raises:
        DataError: an unknown class, or damaged metadata.
        NetworkError: a download failed; the same call continues where it stopped.
        StorageError: the cache cannot be written.
    """
    options: OpenImagesOptions = query.options
    mirror = options.mirror.rstrip("/") if options.mirror else None
    zoo = Zoo(mirror=mirror, offline=options.offline, reporter=query.reporter)
    label_of = zoo.classes()
    names = match_classes(query.classes, tuple(label_of))
    release = _Release(zoo, {name: label_of[name] for name in names}, options, query.skip_invalid)
    # With one split for both, the test set comes from what the shots leave of it.
    apart = query.test and not (query.pool and options.test_split == options.split)
    found = Survey(
        pool=_candidates(release, options.split, "--split") if query.pool else None,
        test=_candidates(release, options.test_split, "--test-split") if apart else None,
        origin=partial(_origin, release, query),
    )
    query.reporter.say("Every image has an author and a licence of its own; dataset.json lists them.")
    return found


@dataclass(slots=True)
class _Split:
    """One split, as far as the requested classes go.

    Attributes:
        name: of the split.
        rows: one a class, in the order requested.
        good: (P,) uint64 for each class, sorted: the images that may be drawn.
        left_out: mark → images that have it and were left out; an image may have several.
    """

    name: str
    rows: list[ClassRows]
    good: list[NDArray[np.uint64]]
    left_out: dict[str, int]


@dataclass(slots=True)
class _Release:
    """Open Images for some classes; each split is read once.

    Attributes:
        zoo: its files.
        labels: class name → label, in the order requested.
        options: what is left out.
        skip_invalid: name images that cannot be had instead of raising.
        splits: those read so far.
    """

    zoo: Zoo
    labels: dict[str, str]
    options: OpenImagesOptions
    skip_invalid: bool
    splits: dict[str, _Split] = field(default_factory=dict)

    def split(self, name: str) -> _Split:
        """A split; its metadata is downloaded if need be."""
        if name not in self.splits:
            self.splits[name] = _read_split(self, name)
        return self.splits[name]


def _read_split(release: _Release, name: str) -> _Split:
    zoo, allow = release.zoo, release.options.allow
    labels = list(release.labels.values())
    rows = find_rows(zoo.boxes(name), labels, smallest=release.options.smallest_box, reporter=zoo.reporter)
    shown = np.unique(np.concatenate([each.ids for each in rows]))
    rotated = np.zeros(0, dtype=np.uint64) if ROTATED in allow else rotated_ids(zoo.images(name))
    turned = shown[np.isin(shown, rotated)]
    bad = np.concatenate([turned, *(each.ids[each.bad(allow)] for each in rows)])
    left_out: Counter[str] = Counter()
    for each in rows:
        left_out.update(each.reasons(allow))
    if len(turned):
        left_out[ROTATED] = len(turned)
    good = [each.ids[~np.isin(each.ids, bad)] for each in rows]
    for class_name, each, usable in zip(release.labels, rows, good, strict=True):
        zoo.reporter.say(f"Open Images {name}: {len(each.ids)} images show {class_name}, {len(usable)} are usable.")
    return _Split(name, rows, good, left_out)


def _candidates(release: _Release, name: str, option: str) -> Candidates:
    split = release.split(name)
    return Candidates(
        place=_place(name),
        ids={
            class_name: np.unique(_coco_ids(good)).tolist()
            for class_name, good in zip(release.labels, split.good, strict=True)
        },
        bring=partial(_bring, release, split),
        left_out=split.left_out,
        advice=partial(_advice, release, name, option),
    )


def _place(split: str) -> Path:
    return Path(f"open-images-{VERSION}") / split


def _coco_ids(images: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The first 13 of the 16 hex digits: ids that JSON readers and NumPy hold exactly."""
    return images >> np.uint64(12)


def _origin(release: _Release, query: Query) -> Mapping[str, Any]:
    options = release.options
    return {
        "name": "Open Images",
        "version": VERSION,
        "splits": {
            "train": options.split if query.pool else None,
            "test": options.test_split if query.test else None,
        },
        "classes": release.labels,
        "left_out_when": [mark for mark in ALLOWABLE if mark not in options.allow],
        "metadata_sha256": dict(sorted(release.zoo.checksums.items())),
    }


# --- where there are more ---


def _advice(release: _Release, split: str, option: str, class_name: str, wanted: int) -> str:
    """Other splits with their counts, as far as their lists are here, and marks that could be allowed."""
    advice = []
    for name, files in SPLITS.items():
        if name == split:
            continue
        other = _if_at_hand(release, name)
        if other:
            count = len(other.good[list(release.labels).index(class_name)])
            advice.append(f"{option} {name} has {count}{'' if count >= wanted else ', which is not enough'}.")
        else:
            times = files.count / SPLITS[split].count
            advice.append(f"{option} {name} is not here ({files.download}; {times:.2g} times as many images).")
    if marks := [mark for mark in release.split(split).left_out if mark in ALLOWABLE]:
        advice.append(f"Or take more with --allow {','.join(marks)}.")
    return " ".join(advice)


def _if_at_hand(release: _Release, name: str) -> _Split | None:
    """A split whose lists are here or would be needed anyway; None otherwise, and where they cannot be had."""
    needed = (release.options.split, release.options.test_split)
    if name not in needed and not release.zoo.has_boxes(name):
        return None
    try:
        return release.split(name)
    except NetworkError:
        return None


# --- downloading what was drawn ---


def _bring(release: _Release, split: _Split, ids: Sequence[int]) -> Brought:
    """Download images.

    Raises:
        NetworkError: a download failed, or the server does not have an image whole (not with `skip_invalid`).
        ConfigError: FiftyOne is not installed.
        StorageError: the cache cannot be written.
    """
    images = _images_of(split, ids)
    boxes, rows = read_boxes(release.zoo.boxes(split.name), split.rows, list(images.values()))
    lost = pull(release.zoo, split.name, list(images.values()), rows)
    if lost and not release.skip_invalid:
        raise _lost_error(split.name, lost)
    had = {coco_id: image for coco_id, image in images.items() if image not in lost}
    facts = _facts(release.zoo, split.name, list(had.values()))
    licences = {known["licence"] for known in facts.values() if "licence" in known}
    return Brought(
        images={coco_id: _record(release, split.name, coco_id, image, boxes[image]) for coco_id, image in had.items()},
        problems=[Problem(str(_place(split.name)), name_of(image), reason) for image, reason in lost.items()],
        facts=facts,
        licences=sorted(licences),
    )


def _images_of(split: _Split, ids: Sequence[int]) -> dict[int, int]:
    """COCO id → the image's own id; the lower one of two that begin alike, a rare pair in all of Open Images."""
    images = np.unique(np.concatenate(split.good))
    places = np.searchsorted(_coco_ids(images), np.array(ids, dtype=np.uint64))
    return dict(zip(ids, images[places].tolist(), strict=True))


def _lost_error(split: str, lost: Mapping[int, str]) -> NetworkError:
    lines = [f"  {name_of(image)}: {reason}" for image, reason in list(lost.items())[:20]]
    count = "1 image" if len(lost) == 1 else f"{len(lost)} images"
    return NetworkError(
        "\n".join([f"{count} of Open Images {split} cannot be had:", *lines]),
        hint=f"Draw others in their place with --skip-invalid, or try again later. {HINT}",
    )


def _facts(zoo: Zoo, split: str, images: Sequence[int]) -> dict[Path, Mapping[str, Any]]:
    """An image's file → its author, licence and so on."""
    known = read_facts(zoo.images(split), images) if images else {}
    return {
        image_path(zoo, split, image): {"image_id": name_of(image), "split": split, **known.get(image, {})}
        for image in images
    }


def _record(release: _Release, split: str, coco_id: int, image: int, boxes: Sequence[Box]) -> ImageRecord:
    path = image_path(release.zoo, split, image)
    width, height = image_size(path, decode=False)
    labels = list(release.labels.values())
    return ImageRecord(
        id=coco_id,
        path=path,
        width=width,
        height=height,
        boxes=_pixels([upright_corners(path, box.corners) for box in boxes], width, height),
        labels=np.array([labels.index(box.label) for box in boxes], dtype=np.int64),
        crowd=np.array([box.group for box in boxes], dtype=np.bool_),
    )


def _pixels(corners: Sequence[Sequence[float]], width: int, height: int) -> NDArray[np.float32]:
    """Shares of width and height → pixels; (N, 4) xyxy."""
    shares = np.array(corners, dtype=np.float64).reshape(-1, 4)
    return (shares * [width, height, width, height]).astype(np.float32)
