"""`--source openimages`: the public photographs, through FiftyOne.

Two phases: read the box CSV of a split, leave out what the options say, choose images by the seed; then
download just those. As in the paper, an image with an occluded, truncated, group-of, depicted or inside box of
an asked class is left out; so is one where nobody looked (−1), or that lies on its side.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

from fewshot_cli.datasets.classes import match_classes
from fewshot_cli.datasets.images import image_size, upright_corners
from fewshot_cli.datasets.sampling import rank, take_turns
from fewshot_cli.datasets.types import ImageRecord, Split
from fewshot_cli.errors import DataError, NetworkError, Problem, UsageError, closest
from fewshot_cli.sources.openimages.boxes import FLAGS, UNKNOWN, Box, Survey, read_boxes, survey
from fewshot_cli.sources.openimages.facts import ROTATED, read_facts, rotated_ids
from fewshot_cli.sources.openimages.pull import HINT, image_path, name_of, pull
from fewshot_cli.sources.openimages.release import SPLITS, VERSION
from fewshot_cli.sources.openimages.zoo import Zoo
from fewshot_cli.sources.registry import Candidates, Query, SourceOptions

ALLOWABLE = (*FLAGS, UNKNOWN, ROTATED)
"""What `--allow` takes."""


def candidates(query: Query) -> Candidates:
    """Choose and download the images that the shots and the test set will be made of, and no others.

    Raises:
        UsageError: an argument, which this source does not take; an unknown split or mark; an impossible number.
        DataError: an unknown class, too few images, or damaged metadata.
        NetworkError: a download failed; the same call goes on where it stopped.
        ConfigError: FiftyOne is not installed.
        StorageError: the disk refuses.
    """
    options = _checked(query)
    zoo = Zoo(mirror=(options.mirror or "").rstrip("/") or None, offline=bool(options.offline), reporter=query.reporter)
    label_of = zoo.classes()
    names = match_classes(query.classes, tuple(label_of))
    search = _Search(zoo, names, [label_of[name] for name in names], options)
    shots = _choose_shots(search, query) if query.shots else _Chosen(search.part(options.split))
    test = _choose_test(search, query, shots) if query.test_images else None
    query.reporter.say("Every image has an author and a licence of its own; dataset.json lists them.")
    return _offer(search, shots, test)


def _checked(query: Query) -> SourceOptions:
    """The options, if they can be meant; raises UsageError."""
    options = query.options
    if query.argument:
        raise UsageError("--source openimages takes no argument", hint="Write --source openimages.")
    for option, split in (("--split", options.split), ("--test-split", options.test_split)):
        if split not in SPLITS:
            raise UsageError(f"{option} {split} is not possible", hint=closest(str(split), SPLITS))
    for mark in options.allow or ():
        if mark not in ALLOWABLE:
            raise UsageError(f"--allow {mark} is not possible", hint=closest(mark, ALLOWABLE))
    if not 0 <= (options.smallest_box or 0.0) < 1:
        raise UsageError(
            f"--smallest-box {options.smallest_box} is not possible",
            hint="Give a share of the image's width and height, 0 or more and below 1.",
        )
    if options.mirror and (urlsplit(options.mirror).scheme not in ("http", "https") or not urlsplit(options.mirror)[1]):
        raise UsageError(f"--mirror {options.mirror} is not an address", hint="Give http://HOST/PATH or https://….")
    return options


# --- phase one: which images ---


@dataclass(slots=True)
class _Part:
    """One split, as far as the asked classes go.

    Attributes:
        name: of the split.
        surveys: one a class, in the order asked.
        good: one a class: the ids that may be drawn.
        reasons: mark → images that have it and were left out; an image may have several.
    """

    name: str
    surveys: list[Survey]
    good: list[NDArray[np.uint64]]
    reasons: dict[str, int]

    def lines(self) -> tuple[str, ...]:
        """For the record: what was left out, and why."""
        return tuple(f"{self.name}: {reason}: {count} images left out" for reason, count in self.reasons.items())


@dataclass(slots=True)
class _Search:
    """Splits, each surveyed once."""

    zoo: Zoo
    names: tuple[str, ...]
    labels: list[str]
    options: SourceOptions
    parts: dict[str, _Part] = field(default_factory=dict)

    @property
    def allow(self) -> tuple[str, ...]:
        return self.options.allow or ()

    def part(self, split: str | None) -> _Part:
        """A split surveyed; its metadata is downloaded if need be."""
        assert split is not None  # the defaults of the source name one
        if split not in self.parts:
            self.parts[split] = self._survey(split)
        return self.parts[split]

    def _survey(self, split: str) -> _Part:
        path = self.zoo.boxes(split)
        smallest = self.options.smallest_box or 0.0
        surveys = survey(path, self.labels, smallest=smallest, reporter=self.zoo.reporter)
        rotated = np.zeros(0, dtype=np.uint64)
        if ROTATED not in self.allow:
            rotated = rotated_ids(self.zoo.images(split))
        shown = np.unique(np.concatenate([each.ids for each in surveys]))
        turned = shown[np.isin(shown, rotated)]
        bad = np.concatenate([turned, *(each.ids[each.bad(self.allow)] for each in surveys)])
        reasons: dict[str, int] = {}
        for each in surveys:
            for reason, count in each.reasons(self.allow).items():
                reasons[reason] = reasons.get(reason, 0) + count
        if len(turned):
            reasons[ROTATED] = len(turned)
        good = [each.ids[~np.isin(each.ids, bad)] for each in surveys]
        for name, each, usable in zip(self.names, surveys, good, strict=True):
            self.zoo.reporter.say(f"Open Images {split}: {len(each.ids)} images show {name}, {len(usable)} are usable.")
        return _Part(split, surveys, good, reasons)


@dataclass(slots=True)
class _Chosen:
    """Images drawn from one split.

    Attributes:
        part: the split.
        ids: in the order of the draw.
        boxes: id → its boxes.
        problems: images that others stand in for.
    """

    part: _Part
    ids: list[int] = field(default_factory=list)
    boxes: dict[int, list[Box]] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)


def _choose_shots(search: _Search, query: Query) -> _Chosen:
    part = search.part(search.options.split)

    def pick(banned: set[int]) -> list[int]:
        queues = [_first(ids, f"{query.seed}", query.shots, banned) for ids in part.good]
        for name, ids, found in zip(search.names, part.good, queues, strict=True):
            if len(found) < query.shots:
                raise _too_few(search, part, name, len(ids) - len(banned & set(ids.tolist())), query.shots)
        return take_turns(queues)

    return _bring(search, part, pick, query)


def _choose_test(search: _Search, query: Query, shots: _Chosen) -> _Chosen:
    part = search.part(search.options.test_split)
    used = set(shots.ids) | {int(problem.record, 16) for problem in shots.problems} if part is shots.part else set()

    def pick(banned: set[int]) -> list[int]:
        out = banned | used
        queues = [_first(ids, f"{query.seed}.test", query.test_images, out) for ids in part.good]
        return take_turns(queues)[: query.test_images]

    found = pick(set())
    if not found:
        raise _too_few(search, part, search.names[0], 0, 1)
    if len(found) < query.test_images:
        query.reporter.warn(
            f"Open Images {part.name} has {len(found)} images for the test set, {query.test_images} are asked for"
        )
    return _bring(search, part, pick, query)


def _first(ids: NDArray[np.uint64], key: str, count: int, banned: set[int]) -> list[int]:
    """The `count` ids of the lowest rank: the ones that `sampling` will draw, which knows them by `coco_id`."""
    allowed = (number for number in ids.tolist() if number not in banned)
    return heapq.nsmallest(count, allowed, key=lambda number: rank(coco_id(number), key))


def coco_id(image: int) -> int:
    """The first 13 of the 16 hex digits: an id that JSON readers and NumPy hold exactly."""
    return image >> 12


def _too_few(search: _Search, part: _Part, name: str, found: int, wanted: int) -> DataError:
    shown = len(part.surveys[search.names.index(name)].ids)
    left_out = ", ".join(f"{count} {reason}" for reason, count in part.reasons.items())
    why = f"; {shown} show it, left out because of their boxes: {left_out}" if left_out else f"; {shown} show it"
    number = f"{found} usable images" if found != 1 else "1 usable image"
    return DataError(
        f"Open Images {VERSION}, {part.name}: {number} of {name!r} for --shots {wanted}{why}"
        if part.name == search.options.split
        else f"Open Images {VERSION}, {part.name}: no usable image of {name!r} for the test set{why}",
        hint=_which_would_do(search, part, name, wanted),
    )


def _which_would_do(search: _Search, part: _Part, name: str, wanted: int) -> str:
    """Other splits with their counts, as far as they are here, and marks that could be allowed."""
    option = "--split" if part.name == search.options.split else "--test-split"
    advice = []
    for split, files in SPLITS.items():
        if split == part.name:
            continue
        other = _if_at_hand(search, split)
        if other:
            count = len(other.good[search.names.index(name)])
            advice.append(f"{option} {split} has {count}{'' if count >= wanted else ', which is not enough'}.")
        else:
            times = files.count / SPLITS[part.name].count
            advice.append(f"{option} {split} is not here ({files.download}; {times:.2g} times as many images).")
    if marks := [mark for mark in part.reasons if mark in ALLOWABLE]:
        advice.append(f"Or take more with --allow {','.join(marks)}.")
    return " ".join(advice)


def _if_at_hand(search: _Search, split: str) -> _Part | None:
    """A split whose lists are here or would be needed anyway; None otherwise, and where they cannot be had."""
    needed = (search.options.split, search.options.test_split)
    if split not in needed and not search.zoo.has_boxes(split):
        return None
    try:
        return search.part(split)
    except NetworkError:
        return None


# --- phase two: bring them ---


def _bring(search: _Search, part: _Part, pick: Callable[[set[int]], list[int]], query: Query) -> _Chosen:
    """Download what was picked; with `skip_invalid` the next in the draw stands in for what cannot be had.

    Raises:
        NetworkError: an image is missing on the server or damaged there.
    """
    lost: dict[int, str] = {}
    while True:
        ids = pick(set(lost))
        boxes, rows = read_boxes(search.zoo.boxes(part.name), part.surveys, ids)
        found = pull(search.zoo, part.name, ids, rows)
        lost.update(found)
        if not found:
            problems = [_problem(part.name, image, reason) for image, reason in lost.items()]
            return _Chosen(part, ids, boxes, problems)
        if not query.skip_invalid:
            raise _lost_error(part.name, found)


def _problem(split: str, image: int, reason: str) -> Problem:
    return Problem(f"open-images-{VERSION}/{split}", name_of(image), reason)


def _lost_error(split: str, lost: Mapping[int, str]) -> NetworkError:
    lines = [f"  {name_of(image)}: {reason}" for image, reason in list(lost.items())[:20]]
    count = "1 image" if len(lost) == 1 else f"{len(lost)} images"
    return NetworkError(
        "\n".join([f"{count} of Open Images {split} cannot be had:", *lines]),
        hint=f"Let the next in the draw stand in with --skip-invalid, or try again later. {HINT}",
    )


# --- what is offered ---


def _offer(search: _Search, shots: _Chosen, test: _Chosen | None) -> Candidates:
    drawn = [each for each in (shots, test) if each]
    facts: dict[Path, Mapping[str, Any]] = {}
    for each in drawn:
        facts.update(_facts(search.zoo, each) if each.ids else {})
    splits = {"train": shots.part.name, "test": test.part.name if test else None}
    return Candidates(
        pool=_split(search, shots, facts),
        test=_split(search, test, facts) if test else None,
        filters=tuple(line for part in _distinct(each.part for each in drawn) for line in part.lines()),
        origin={
            "name": "Open Images",
            "version": VERSION,
            "splits": splits,
            "classes": dict(zip(search.names, search.labels, strict=True)),
            "left_out_when": [mark for mark in ALLOWABLE if mark not in search.allow],
            "metadata_sha256": dict(sorted(search.zoo.checksums.items())),
        },
        facts=facts,
    )


def _distinct(parts: Iterable[_Part]) -> list[_Part]:
    return list({part.name: part for part in parts}.values())


def _facts(zoo: Zoo, chosen: _Chosen) -> dict[Path, Mapping[str, Any]]:
    known = read_facts(zoo.images(chosen.part.name), chosen.ids)
    return {
        image_path(zoo, chosen.part.name, image): {
            "image_id": name_of(image),
            "split": chosen.part.name,
            **known.get(image, {}),
        }
        for image in chosen.ids
    }


def _split(search: _Search, chosen: _Chosen, facts: Mapping[Path, Mapping[str, Any]]) -> Split:
    records: dict[int, ImageRecord] = {}
    for image in chosen.ids:
        # Of two ids with the same beginning the first drawn stays; in all of Open Images that is a rare pair.
        records.setdefault(coco_id(image), _image(search, chosen, image))
    licences = {facts[record.path].get("licence") for record in records.values()}
    return Split(
        annotations=Path(f"open-images-{VERSION}") / chosen.part.name,
        classes=search.names,
        images=tuple(sorted(records.values(), key=lambda record: record.id)),
        licences=tuple(sorted(licence for licence in licences if licence)),
        skipped=tuple(chosen.problems),
    )


def _image(search: _Search, chosen: _Chosen, image: int) -> ImageRecord:
    path = image_path(search.zoo, chosen.part.name, image)
    width, height = image_size(path, decode=False)
    boxes = chosen.boxes[image]
    corners = [upright_corners(path, box.corners) for box in boxes]
    return ImageRecord(
        id=coco_id(image),
        path=path,
        width=width,
        height=height,
        boxes=_pixels(corners, width, height),
        labels=np.array([search.labels.index(box.label) for box in boxes], dtype=np.int64),
        crowd=np.array([box.group for box in boxes], dtype=np.bool_),
    )


def _pixels(corners: Sequence[Sequence[float]], width: int, height: int) -> NDArray[np.float32]:
    shares = np.array(corners, dtype=np.float64).reshape(-1, 4)
    return (shares * [width, height, width, height]).astype(np.float32)
