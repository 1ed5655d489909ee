"""The draw: exactly K images a class, a function of the seed and the ids alone."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fewshot_cli.datasets.sampling import check_enough, order_test, rank, ranked, sample_shots, take_turns
from fewshot_cli.errors import DataError, UsageError

CLASSES = ("cat", "dog", "cup")
Members = dict[str, set[int]]


def members_of(contents: dict[int, set[str]]) -> Members:
    """Image id → its classes, turned round."""
    return {name: {image_id for image_id, names in contents.items() if name in names} for name in CLASSES}


def counts(drawn: set[int], members: Members) -> dict[str, int]:
    return {name: len(drawn & ids) for name, ids in members.items()}


ids = st.integers(0, 10**12)
pools = st.dictionaries(ids, st.sets(st.sampled_from(CLASSES)), min_size=1, max_size=40).map(members_of)
seeds = st.integers(-5, 10**9)
common = settings(max_examples=150)


@common
@given(st.sets(ids, max_size=30), seeds, st.integers(1, 12))
def test_one_class_gets_the_k_lowest_ranks_or_an_error(cats: set[int], seed: int, shots: int) -> None:
    """For one class the shots are the K images with the lowest hashes; fewer than K are an error with the count."""
    if len(cats) < shots:
        with pytest.raises(DataError, match=rf"too few images for {shots} shots \(cat: {len(cats)}\)") as raised:
            sample_shots({"cat": cats}, shots, seed)
        assert (f"--shots {len(cats)} is the most" if cats else "Add images.") in (raised.value.hint or "")
        return
    expected = sorted(cats, key=lambda image_id: rank(image_id, f"{seed}"))[:shots]
    assert set(expected) == sample_shots({"cat": cats}, shots, seed)


@common
@given(pools, seeds, st.integers(1, 4))
def test_no_class_gets_fewer_than_k(members: Members, seed: int, shots: int) -> None:
    """Where classes share images a class may get more than K, never fewer; every image drawn shows a class."""
    if min(map(len, members.values())) < shots:
        with pytest.raises(DataError, match="too few images"):
            sample_shots(members, shots, seed)
        return
    drawn = sample_shots(members, shots, seed)
    assert all(count >= shots for count in counts(drawn, members).values())
    assert drawn <= set().union(*members.values())


@common
@given(pools, seeds, st.integers(1, 5))
def test_classes_get_exactly_k_where_each_has_images_of_its_own(members: Members, seed: int, shots: int) -> None:
    """With K images of its own, every class gets exactly K, however many shared images there are besides."""
    with_own = {
        name: members[name] | {-(10 * label + place) for place in range(1, shots + 1)}
        for label, name in enumerate(CLASSES)
    }
    assert dict.fromkeys(CLASSES, shots) == counts(sample_shots(with_own, shots, seed), with_own)


@common
@given(st.sets(ids, min_size=10, max_size=30), seeds, st.integers(1, 9))
def test_draws_are_nested(cats: set[int], seed: int, shots: int) -> None:
    """The K-shot sample of a seed is contained in its (K+1)-shot sample."""
    assert sample_shots({"cat": cats}, shots, seed) < sample_shots({"cat": cats}, shots + 1, seed)


@common
@given(pools, seeds)
def test_the_global_generator_does_not_matter(members: Members, seed: int) -> None:
    """Whatever was drawn from Python's generator before, a draw is the same and leaves it alone."""
    orders = []
    for state in (seed, seed + 1):
        random.seed(state)
        before = random.getstate()
        orders.append(order_test(members, seed))
        assert before == random.getstate()
    assert orders[0] == orders[1]


@common
@given(pools, seeds)
def test_the_test_order_holds_every_other_image_once(members: Members, seed: int) -> None:
    """The test order is all images of the classes without the excluded ones, each once."""
    everything = set().union(*members.values())
    without = {image_id for image_id in everything if image_id % 3 == 0}
    ordered = order_test(members, seed, without=without)
    assert everything - without == set(ordered)
    assert len(ordered) == len(set(ordered))


def test_classes_take_turns_in_the_test_order() -> None:
    """A rare class is not lost among a common one: both lead the order in turn."""
    first = order_test({"cat": set(range(5, 100)), "dog": set(range(5))}, 0)[:10]
    assert 5 == sum(image_id < 5 for image_id in first)


@pytest.mark.parametrize(
    ("queues", "taken"),
    [
        ([], []),
        ([[1, 2, 3]], [1, 2, 3]),
        ([[1, 2], [3, 4]], [1, 3, 2, 4]),
        ([[1, 2], [1, 2, 3]], [1, 2, 3]),
        ([[1], [], [2, 3]], [1, 2, 3]),
    ],
)
def test_turns(queues: list[list[int]], taken: list[int]) -> None:
    """The first of each queue, then the second; an id of two queues is taken once; empty queues are left out."""
    assert taken == take_turns(queues)


def test_an_image_of_two_classes_counts_for_both() -> None:
    """Two images that show both classes are a 2-shot sample of both."""
    assert {1, 2} == sample_shots({"cat": {1, 2}, "dog": {1, 2}}, 2, 0)


def test_seeds_differ() -> None:
    """Ten seeds draw at least nine different samples of five from forty."""
    drawn = {tuple(sorted(sample_shots({"cat": set(range(40))}, 5, seed))) for seed in range(10)}
    assert len(drawn) >= 9


def test_every_image_can_be_drawn() -> None:
    """Over many seeds each of ten images is drawn about equally often."""
    drawn = [image_id for seed in range(400) for image_id in sample_shots({"cat": set(range(10))}, 1, seed)]
    often = [drawn.count(image_id) for image_id in range(10)]
    assert 20 <= min(often) and max(often) <= 65


def test_a_known_draw_stays() -> None:
    """The draw of a seed is a promise to every later version: published tables depend on it."""
    assert [15, 20, 36, 44, 46] == sorted(sample_shots({"cat": set(range(1, 61))}, 5, 0))


def test_a_source_may_say_what_stands_for_an_image() -> None:
    """With a tag of its own an image ranks by the hash of key and tag: here all are alike, and the id decides."""
    assert [1, 2, 3] == ranked([3, 1, 2], "0", lambda image_id: "same")
    assert rank(7, "0") == rank(7, "0", lambda image_id: f":{image_id}")


@pytest.mark.parametrize(("members", "shots"), [({"cat": {1}}, 0), ({"cat": {1}}, -1), ({}, 1)])
def test_nothing_to_draw_is_a_usage_error(members: Members, shots: int) -> None:
    """Less than one shot, or no class, is no request."""
    with pytest.raises(UsageError, match="cannot be drawn"):
        sample_shots(members, shots, 0)


def test_enough_is_enough() -> None:
    """Exactly K images of every class are enough; the error lists all counts."""
    check_enough({"cat": 2, "dog": 3}, 2)
    with pytest.raises(DataError, match=r"for 3 shots \(cat: 2, dog: 3\)"):
        check_enough({"cat": 2, "dog": 3}, 3)
