"""Several sources as one: `--source A --source B`, joined by class name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from fewshot_cli.datasets.classes import match_class
from fewshot_cli.errors import Problem
from fewshot_cli.sources.survey import Brought, Candidates

Part = tuple[str, Candidates]
"""A source as it is written, and what it offers."""


def join(parts: Sequence[Part], wanted: Sequence[str]) -> Candidates:
    """The images of all parts under new ids, 1 … N: those of the first part, then those of the second, and so on.

    The record of each image says which source it is from.

    Args:
        parts: one or more; a single one is returned as it is.
        wanted: class names as the user typed them; every part lists them in this order, whatever it calls them.

    Raises:
        DataError: a class that no part has.
    """
    if len(parts) == 1:
        return parts[0][1]
    offers = [offer for _, offer in parts]
    homes = [(place, image_id) for place, offer in enumerate(offers) for image_id in _ids(offer)]
    numbers = {home: number for number, home in enumerate(homes, start=1)}
    members = [list(offer.ids.values()) for offer in offers]
    return Candidates(
        place=Path(f"{len(parts)} sources"),
        ids={
            name: [numbers[part, image_id] for part, each in enumerate(members) for image_id in each[place]]
            for place, name in enumerate(_names(offers, wanted))
        },
        bring=lambda ids: _bring(parts, [homes[number - 1] for number in ids], numbers),
        # Images that cost nothing are still brought one by one where others have to be downloaded.
        at_hand=all(offer.at_hand for offer in offers),
        tag=lambda number: offers[homes[number - 1][0]].tag(homes[number - 1][1]),
        left_out=sum((Counter(offer.left_out) for offer in offers), Counter()),
        problems=[problem for offer in offers for problem in offer.problems],
        advice=lambda name, count: " ".join(filter(None, (offer.advice(name, count) for offer in offers))),
        vocabulary=tuple(dict.fromkeys(name for offer in offers for name in offer.vocabulary)),
        used=[name for offer in offers for name in offer.used],
        background=sum(offer.background for offer in offers),
        remarks=[f"{source}: {remark}" for source, offer in parts for remark in offer.remarks],
    )


def _ids(offer: Candidates) -> list[int]:
    return sorted(set().union(*offer.ids.values()))


def _names(offers: Sequence[Candidates], wanted: Sequence[str]) -> list[str]:
    """What the classes are called: as the first part that knows them does."""
    everything = [name for offer in offers for name in offer.vocabulary]
    return [
        next(filter(None, (_known(offer, place) for offer in offers)), None) or match_class(name, everything)
        for place, name in enumerate(wanted)
    ]


def _known(offer: Candidates, place: int) -> str | None:
    name = list(offer.ids)[place]
    return name if name in offer.used or not offer.vocabulary else None


def _bring(parts: Sequence[Part], homes: Sequence[tuple[int, int]], numbers: Mapping[tuple[int, int], int]) -> Brought:
    images, licences = {}, {}
    left_out: Counter[str] = Counter()
    problems: list[Problem] = []
    facts: dict[Path, Mapping[str, Any]] = {}
    for place, (source, offer) in enumerate(parts):
        ids = [image_id for part, image_id in homes if part == place]
        if not ids:
            continue
        brought = offer.bring(ids)
        for image_id, image in brought.images.items():
            number = numbers[place, image_id]
            images[number] = replace(image, id=number)
            facts[image.path] = {**brought.facts.get(image.path, {}), "source": source}
        left_out.update(brought.left_out)
        problems.extend(brought.problems)
        licences.update(dict.fromkeys(brought.licences))
    return Brought(images=images, left_out=left_out, problems=problems, facts=facts, licences=list(licences))
