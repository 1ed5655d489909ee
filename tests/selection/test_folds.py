"""Folds: which shots are left out together."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fewshot_cli.datasets.types import ImageRecord, Split
from fewshot_cli.selection.folds import divided_classes, make_folds

CLASSES = ("cat", "dog", "owl")


def shots_of(*contents: str) -> Split:
    """Shots that show the classes with these initials: `"cd"` a cat and a dog, `""` nothing."""
    labels = [[("cdo").index(letter) for letter in content] for content in contents]
    images = tuple(
        ImageRecord(
            id=number * 10,
            path=Path(f"{number}.png"),
            width=40,
            height=40,
            boxes=np.tile(np.array([1, 1, 9, 9], np.float32), (len(found), 1)),
            labels=np.array(found, np.int64),
            crowd=np.zeros(len(found), bool),
        )
        for number, found in enumerate(labels)
    )
    return Split(annotations=Path("shots"), classes=CLASSES, images=images)


@given(st.lists(st.sets(st.sampled_from("cdo")).map("".join), min_size=2, max_size=14), st.data())
def test_every_shot_is_left_out_once(contents: list[str], data: st.DataObject) -> None:
    """Whatever the shots show, also nothing: the folds are a partition of them, none is empty, and it repeats."""
    shots = shots_of(*contents)
    count, seed = data.draw(st.integers(2, len(contents))), data.draw(st.integers(0, 2**63 - 1))
    folds = make_folds(shots, count, seed)
    assert list(range(len(contents))) == sorted(number for fold in folds for number in fold)
    assert len(folds) <= count and all(folds)
    assert folds == make_folds(shots, count, seed)


@pytest.mark.parametrize(("images", "count"), [(10, 5), (10, 3), (12, 5), (5, 2)])
def test_folds_of_one_class_are_of_one_size(images: int, count: int) -> None:
    """They differ by one shot at most."""
    sizes = [len(fold) for fold in make_folds(shots_of(*["c"] * images), count, seed=3)]
    assert (count, images) == (len(sizes), sum(sizes)) and max(sizes) - min(sizes) <= 1


def test_each_fold_holds_each_class() -> None:
    """Ten cats, five dogs, five without anything, in five folds: two, one and one in each."""
    contents = [*["c"] * 10, *["d"] * 5, *[""] * 5]
    for fold in make_folds(shots_of(*contents), 5, seed=0):
        assert ["", "c", "c", "d"] == sorted(contents[number] for number in fold)


def test_another_seed_makes_other_folds() -> None:
    """The folds are drawn."""
    shots = shots_of(*["c"] * 10)
    assert 1 < len({str(sorted(make_folds(shots, 5, seed))) for seed in range(5)})


def test_as_many_folds_as_shots_leave_out_one_each() -> None:
    """Leave-one-out, in order."""
    assert [[0], [1], [2]] == make_folds(shots_of("c", "d", "cd"), 3, seed=0)


def test_a_class_in_one_fold_is_not_validated() -> None:
    """One owl, or two in the same fold: the others cannot learn what an owl is."""
    shots = shots_of("c", "cd", "do", "d", "o")
    assert ("cat", "dog") == divided_classes(shots, [[0], [1, 3], [2, 4]])
    assert CLASSES == divided_classes(shots, [[0, 2], [1, 3], [4]])
    assert () == divided_classes(shots, [])
