"""The cells of a sweep: class × shots × seed × detector × setup, each cell one fine-tune."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from fewshot_cli.detectors.registry import get_spec, select_in
from fewshot_cli.errors import PolicyError
from fewshot_cli.policies import Selection


class Setup(NamedTuple):
    """What trains: a policy and its budget (None for a policy that takes none)."""

    policy: str
    budget: int | None

    def __str__(self) -> str:
        return f"{self.policy} {self.budget}" if self.budget else self.policy


BASELINES = (Setup("none", None), Setup("all", None), Setup("full", None))
"""Zero-shot, the whole head, the whole detector: run beside the policies of every sweep."""


class Group(NamedTuple):
    """Cells over the same shots and detector: those with the same cut can share their features."""

    class_name: str
    shots: int
    seed: int
    detector: str

    @property
    def data_name(self) -> str:
        """Folder of its data set; groups that differ in the detector alone share it."""
        return f"{_slug(self.class_name)}-{self.shots}shots-seed{self.seed}"


class Cell(NamedTuple):
    """One fine-tune."""

    group: Group
    setup: Setup

    @property
    def run_name(self) -> str:
        """Folder of its run."""
        return f"{self.group.data_name}-{self.group.detector}-{_slug(str(self.setup))}"

    def __str__(self) -> str:
        group = self.group
        return f"{group.class_name}, {group.shots} shots, {group.detector}, {self.setup}, seed {group.seed}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """What a sweep varies; the fields are those of SweepConfig."""

    classes: tuple[str, ...]
    shots: tuple[int, ...]
    seeds: int
    detectors: tuple[str, ...]
    policies: tuple[str, ...]
    budgets: tuple[int, ...]
    baselines: bool

    def setups(self, detector: str) -> tuple[Setup, ...]:
        """What is run on a detector, in the order of the table: by budget, then by policy as given.

        Budgets that a policy cannot spend on the detector's head are left out; so is a budget of all M layers, which
        is the baseline `all`.

        Raises:
            ModelError: an unknown detector.
        """
        depth = get_spec(detector).head_depth
        asked = [Setup(policy, budget) for budget in sorted(self.budgets) for policy in self.policies]
        spent = [setup for setup in asked if setup.budget != depth and _is_possible(setup, detector)]
        none, *whole = BASELINES
        return (none, *spent, *whole) if self.baselines else tuple(spent)

    def groups(self) -> Iterator[Group]:
        """Seed by seed, so that a sweep that is stopped early has whole seeds."""
        for seed in range(self.seeds):
            for shots in self.shots:
                for class_name in self.classes:
                    for detector in self.detectors:
                        yield Group(class_name, shots, seed, detector)

    def cells_of(self, group: Group) -> list[Cell]:
        return [Cell(group, setup) for setup in self.setups(group.detector)]

    def cells(self) -> Iterator[Cell]:
        for group in self.groups():
            yield from self.cells_of(group)


def by_cut(cell: Cell) -> tuple[int, bool]:
    """First head layer that trains, and the neck: equal for cells that start from the same activations."""
    selection = _selection(cell.setup, cell.group.detector)
    return min(selection.head_layers, default=99), selection.neck


def _is_possible(setup: Setup, detector: str) -> bool:
    try:
        _selection(setup, detector)
    except PolicyError:
        return False
    return True


def _selection(setup: Setup, detector: str) -> Selection:
    return select_in(detector, setup.policy, setup.budget)


def _slug(text: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in text.casefold()).strip(".")
