"""Which images become shots, and which the test set: a function of the seed and the image ids alone.

Every image gets a rank from a hash of seed and id. No random generator is involved, so the draw does not depend on the
order of the file, on the version of a library, or on what was drawn before. Everything here works on ids: class name →
ids of the images that show the class.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence, Set

from fewshot_cli.errors import DataError, UsageError

ATTEMPTS = 32
"""Draws compared when classes share images; the first draw is final if every class gets exactly K."""

ROUNDING = 1e-9
"""A third is 0.333…, and three of them are a whole."""

Members = Mapping[str, Set[int]]
"""Class name → ids of the images that show it, in label order."""


def sample_shots(members: Members, shots: int, seed: int) -> set[int]:
    """Draw K images per class.

    An image of two classes counts for both, so where classes share images a class may get more than K, never fewer;
    of ATTEMPTS draws the one with the smallest surplus is taken.

    Args:
        members: what to draw from.
        shots: K, images per class.
        seed: any integer.

    Returns:
        the ids. For a single class the K-shot sample is contained in the (K+1)-shot sample of the same seed.

    Raises:
        DataError: too few images; says how many each class has.
        UsageError: fewer than one shot, or no class.
    """
    if shots < 1 or not members:
        raise UsageError(f"{shots} shots of {len(members)} classes cannot be drawn", hint="Give 1 or more of each.")
    check_enough({name: len(ids) for name, ids in members.items()}, shots)
    groups = list(members.values())
    best = _draw(groups, shots, key_of_shots(seed))
    for attempt in range(1, ATTEMPTS):
        if _surplus(best, groups, shots) == 0:
            break
        # An equal surplus keeps the earlier draw.
        another = _draw(groups, shots, f"{key_of_shots(seed)}.{attempt}")
        best = min(best, another, key=lambda ids: _surplus(ids, groups, shots))
    return best


def order_test(members: Members, seed: int, *, without: Collection[int] = ()) -> list[int]:
    """All images but those in `without`, each once, in the order in which a test set takes them.

    The classes take turns, so that the first N images hold each about equally often.
    """
    key = key_of_test(seed)
    return take_turns([ranked(ids - set(without), key) for ids in members.values()])


def subsets_of(fraction: float) -> int:
    """How many disjoint subsets of that share of the images there are: ⌊1 / fraction⌋."""
    return math.floor(1 / fraction + ROUNDING)


def check_enough(counts: Mapping[str, int], shots: int) -> None:
    """Raise DataError, with the counts, unless every class has at least K images."""
    if min(counts.values()) >= shots:
        return
    listed = ", ".join(f"{name}: {count}" for name, count in counts.items())
    most = min(counts.values())
    hint = f"--shots {most} is the most that every class has; or add images." if most else "Add images."
    raise DataError(f"too few images for {shots} shots ({listed})", hint=hint)


def take_turns(queues: Iterable[Iterable[int]]) -> list[int]:
    """All ids of several queues, each once: the first of each queue, then the second of each, and so on."""
    waiting = [iter(ids) for ids in queues]
    taken: dict[int, None] = {}
    while waiting:
        for queue in tuple(waiting):
            image_id = next((image_id for image_id in queue if image_id not in taken), None)
            if image_id is None:
                waiting.remove(queue)
            else:
                taken[image_id] = None
    return list(taken)


# --- ranks ---


def key_of_shots(seed: int) -> str:
    """Key of the ranks by which shots are drawn."""
    return f"{seed}"


def key_of_test(seed: int) -> str:
    """Key of the ranks by which test images are drawn."""
    return f"{seed}.test"


def id_tag(image_id: int) -> str:
    """What stands for an image in its rank, where its id alone identifies it."""
    return f":{image_id}"


def rank(image_id: int, key: str, tag: Callable[[int], str] = id_tag) -> tuple[bytes, int]:
    """Where an image stands in a draw: the lowest ranks are taken."""
    return hashlib.sha256(f"{key}{tag(image_id)}".encode()).digest(), image_id


def ranked(ids: Iterable[int], key: str, tag: Callable[[int], str] = id_tag) -> list[int]:
    """The ids, lowest rank first."""
    return sorted(ids, key=lambda image_id: rank(image_id, key, tag))


# --- one draw ---


def _draw(groups: Sequence[Set[int]], shots: int, key: str) -> set[int]:
    """One greedy draw, the rarest class first, as it has the least choice."""
    drawn: set[int] = set()
    for label in sorted(range(len(groups)), key=lambda label: (len(groups[label]), label)):
        candidates = ranked(groups[label] - drawn, key)
        for _ in range(shots - len(drawn & groups[label])):
            full = [ids for ids in groups if len(drawn & ids) >= shots]
            # min takes the first of equals: of those that overfill the fewest classes, the best ranked.
            best = min(candidates, key=lambda image_id: sum(image_id in ids for ids in full))
            candidates.remove(best)
            drawn.add(best)
    return drawn


def _surplus(drawn: Set[int], groups: Sequence[Set[int]], shots: int) -> int:
    return sum(len(drawn & ids) - shots for ids in groups)
