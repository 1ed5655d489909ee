"""The draw: exactly K images a class, from the seed and the ids alone. And class names as people type them."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fewshot_cli.datasets.classes import match_class, match_classes
from fewshot_cli.datasets.sampling import boxes_per_class, images_per_class, order_test, restrict, sample_shots
from fewshot_cli.datasets.types import ImageRecord, Split
from fewshot_cli.errors import DataError, UsageError

CLASSES = ("cat", "dog", "coffee cup")


def split_of(contents: dict[int, list[int]], crowd: tuple[int, ...] = ()) -> Split:
    """A split without files: image id → labels of its boxes; all boxes of the ids in `crowd` are crowds."""
    images = tuple(
        ImageRecord(
            id=number,
            path=Path(f"{number}.jpg"),
            width=100,
            height=100,
            boxes=np.array([[place, 0, place + 1, 9] for place in range(len(labels))], np.float32).reshape(-1, 4),
            labels=np.array(labels, np.int64),
            crowd=np.full(len(labels), number in crowd),
        )
        for number, labels in contents.items()
    )
    return Split(annotations=Path("annotations.json"), classes=CLASSES, images=images)


def ids(split: Split) -> list[int]:
    return [image.id for image in split.images]


pools = st.dictionaries(st.integers(0, 10**12), st.lists(st.integers(0, 2), max_size=4), min_size=1, max_size=40)
seeds = st.integers(-5, 10**9)
common = settings(max_examples=150, deadline=None, derandomize=True)


@common
@given(pools, seeds, st.integers(1, 12))
def test_one_class_gets_exactly_k_or_a_count(pool: dict[int, list[int]], seed: int, shots: int) -> None:
    """A draw has exactly K images, all of the class; where there are fewer, the error says how many."""
    split = split_of(pool)
    having = {number for number, labels in pool.items() if 0 in labels}
    if len(having) < shots:
        with pytest.raises(DataError, match=rf"too few images for {shots} shots \(cat: {len(having)}\)"):
            sample_shots(split, ["cat"], shots, seed)
        return
    drawn = sample_shots(split, ["cat"], shots, seed)
    assert shots == len(set(ids(drawn)))
    assert set(ids(drawn)) <= having


@common
@given(pools, seeds, st.integers(1, 6))
def test_draws_are_nested(pool: dict[int, list[int]], seed: int, shots: int) -> None:
    """The K-shot sample of a seed is contained in its (K+1)-shot sample."""
    split = split_of({**pool, **{-number: [0] for number in range(1, 9)}})
    fewer, more = (set(ids(sample_shots(split, ["cat"], count, seed))) for count in (shots, shots + 1))
    assert fewer < more


@common
@given(pools, seeds, st.randoms(use_true_random=False))
def test_draws_do_not_depend_on_the_order_of_the_file(
    pool: dict[int, list[int]], seed: int, shuffler: random.Random
) -> None:
    """The same ids in any order, and any state of the global generator, give the same draw."""
    whole = {**pool, -1: [0, 1], -2: [1], -3: [0], -4: [0, 1, 2]}
    order = list(whole)
    shuffler.shuffle(order)
    random.seed(seed)
    first = sample_shots(split_of(whole), ["cat", "dog"], 2, seed)
    second = sample_shots(split_of({number: whole[number] for number in order}), ["cat", "dog"], 2, seed)
    tests = [order_test(split_of(some), ["cat", "dog"], seed) for some in (whole, dict.fromkeys(order) | whole)]
    assert ids(first) == ids(second)
    assert ids(tests[0]) == ids(tests[1])


@common
@given(pools, seeds, st.integers(1, 5))
def test_several_classes_get_exactly_k_where_each_has_images_of_its_own(
    pool: dict[int, list[int]], seed: int, shots: int
) -> None:
    """With K images of its own, every class gets exactly K, however many shared images there are besides."""
    own = {-(10 * label + place): [label] for label in range(3) for place in range(1, shots + 1)}
    drawn = sample_shots(split_of({**pool, **own}), CLASSES, shots, seed)
    assert dict.fromkeys(CLASSES, shots) == images_per_class(drawn)


@common
@given(pools, seeds, st.integers(1, 4))
def test_several_classes_never_get_fewer_than_k(pool: dict[int, list[int]], seed: int, shots: int) -> None:
    """Where classes share all their images a class may get more than K, never fewer."""
    split = split_of(pool)
    if min(images_per_class(split).values()) < shots:
        with pytest.raises(DataError, match="too few images"):
            sample_shots(split, CLASSES, shots, seed)
        return
    drawn = images_per_class(sample_shots(split, CLASSES, shots, seed))
    assert all(count >= shots for count in drawn.values())


def test_an_image_of_two_classes_counts_for_both() -> None:
    """Two images that hold both classes are a 2-shot sample of both."""
    drawn = sample_shots(split_of({1: [0, 1], 2: [1, 0], 3: [2]}), ["cat", "dog"], 2, 0)
    assert [1, 2] == ids(drawn)


def test_seeds_differ() -> None:
    """Ten seeds draw at least nine different samples of five from forty."""
    split = split_of({number: [0] for number in range(40)})
    assert len({tuple(ids(sample_shots(split, ["cat"], 5, seed))) for seed in range(10)}) >= 9


def test_every_image_can_be_drawn() -> None:
    """Over many seeds each of ten images is drawn about equally often."""
    split = split_of({number: [0] for number in range(10)})
    drawn = [number for seed in range(400) for number in ids(sample_shots(split, ["cat"], 1, seed))]
    counts = [drawn.count(number) for number in range(10)]
    assert 20 <= min(counts) and max(counts) <= 65


def test_a_known_draw_stays() -> None:
    """The draw of a seed is a promise to every later version: published tables depend on it."""
    split = split_of({number: [0] for number in range(1, 61)})
    assert [15, 20, 36, 44, 46] == ids(sample_shots(split, ["cat"], 5, 0))


def test_crowds_are_no_shots_but_stay_as_boxes() -> None:
    """An image with only crowd boxes of the class is not a shot; a crowd box in a shot is kept and marked."""
    with pytest.raises(DataError, match="cat: 1"):
        sample_shots(split_of({1: [0], 2: [0]}, crowd=(2,)), ["cat"], 2, 0)
    assert {"cat": 2} == boxes_per_class(restrict(split_of({1: [0], 2: [0]}, crowd=(2,)), ["cat"]))


def test_labels_follow_the_order_asked() -> None:
    """Only boxes of the chosen classes stay, relabelled in the order in which the classes were asked for."""
    drawn = sample_shots(split_of({7: [0, 1, 2, 0]}), ["Coffee_Cups", "cat"], 1, 0)
    (image,) = drawn.images
    assert (("coffee cup", "cat"), [1, 0, 1]) == (drawn.classes, image.labels.tolist())
    assert [0, 2, 3] == image.boxes[:, 0].tolist()


@common
@given(pools, seeds)
def test_the_test_order_holds_every_other_image_once(pool: dict[int, list[int]], seed: int) -> None:
    """The test order is all images of the classes that are not shots, each once."""
    split = split_of({**pool, -1: [0]})
    shots = frozenset(ids(sample_shots(split, ["cat"], 1, seed)))
    ordered = ids(order_test(split, ["cat", "dog"], seed, without=shots))
    having = {image.id for image in split.images if {0, 1} & set(image.labels.tolist())}
    assert having - shots == set(ordered)
    assert len(ordered) == len(set(ordered))


def test_classes_take_turns_in_the_test_order() -> None:
    """A rare class is not lost among a common one: both lead the order in turn."""
    split = split_of({number: [1 if number < 5 else 0] for number in range(100)})
    first = order_test(split, ["cat", "dog"], 0).images[:10]
    assert 5 == sum(image.id < 5 for image in first)


@pytest.mark.parametrize("shots", [0, -1])
def test_less_than_one_shot_is_a_usage_error(shots: int) -> None:
    """Zero shots is no request."""
    with pytest.raises(UsageError, match="--shots"):
        sample_shots(split_of({1: [0]}), ["cat"], shots, 0)


def test_no_class_is_a_usage_error() -> None:
    """A draw needs at least one class."""
    with pytest.raises(UsageError, match="no class"):
        sample_shots(split_of({1: [0]}), [], 1, 0)


# Class names


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ("coffee cup", "coffee cup"),
        ("Coffee-Cup", "coffee cup"),
        ("COFFEE_CUPS", "coffee cup"),
        ("coffeecup", "coffee cup"),
        ("bus", "bus"),
        ("buses", "bus"),
        ("cherry", "cherries"),
        ("Dogs", "Dogs"),
        ("dogs", "Dogs"),
        ("dog", "dog"),
        ("glass", "glass"),
        ("glasses", "glasses"),
    ],
)
def test_class_names_match_leniently(wanted: str, found: str) -> None:
    """Case, separators and a simple plural do not matter; an exact match wins."""
    available = ["coffee cup", "bus", "cherries", "Dogs", "dog", "glass", "glasses"]
    assert found == match_class(wanted, available)


def test_unknown_classes_get_a_suggestion() -> None:
    """A misspelt class names the closest one and the others."""
    with pytest.raises(DataError, match="unknown class 'helmt'") as raised:
        match_class("helmt", ["fish", "helmet"])
    assert "Did you mean helmet? Valid: fish, helmet." == raised.value.hint


def test_long_lists_are_counted_not_printed() -> None:
    """With hundreds of classes the hint gives the closest one and the number."""
    with pytest.raises(DataError) as raised:
        match_class("class7x", [f"class{number}" for number in range(600)])
    assert "There are 600 classes." in (raised.value.hint or "") and len(raised.value.hint or "") < 80


def test_ambiguous_and_doubled_classes_are_errors() -> None:
    """Two classes that fit equally well, or one asked for twice, are not guessed at."""
    with pytest.raises(DataError, match="fits several: hard hat, hard-hat"):
        match_class("Hard_Hat", ["hard hat", "hard-hat"])
    with pytest.raises(DataError, match="asked for twice"):
        match_classes(["cat", "Cats"], ["cat", "dog"])
