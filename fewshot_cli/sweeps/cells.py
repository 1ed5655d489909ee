"""The cells of a sweep: class × shots × seed × detector × setup × what else is varied, each cell one fine-tune."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from typing import TYPE_CHECKING, Any, NamedTuple

from fewshot_cli.detectors.architecture import Architecture
from fewshot_cli.detectors.registry import depth_in, select_in
from fewshot_cli.errors import PolicyError
from fewshot_cli.policies import AUTO, CUSTOM, get_policy, short_name
from fewshot_cli.sweeps.axes import Choices, choices_slug, choices_text, drawing_fields

if TYPE_CHECKING:
    from fewshot_cli.detectors.chain import Detector
    from fewshot_cli.training.plan import Plan

CLASSES = 1
"""Each class of a sweep is fine-tuned on its own."""


class Setup(NamedTuple):
    """What trains: a policy and its budget (None for a policy that takes none), or, with policy `custom`, layers."""

    policy: str
    budget: int | None
    layers: tuple[str, ...] = ()

    def __str__(self) -> str:
        named = " + ".join(self.layers) or self.policy
        return f"{named} {self.budget}" if self.budget else named


BASELINES = (Setup("none", None), Setup("all", None), Setup("full", None))
"""Zero-shot, the whole head, the whole detector: run beside the policies of every sweep."""


class Group(NamedTuple):
    """Cells over the same shots and detector: those with the same cut can share their features.

    shots: of each class; None: a share of the images, or all. drawn: options of fetch that are varied.
    """

    class_name: str
    shots: int | None
    seed: int
    detector: str
    drawn: Choices = ()

    @property
    def data_name(self) -> str:
        """Folder of its data set; groups that differ in the detector alone share it."""
        shots = "" if self.shots is None else f"-{self.shots}shots"
        return f"{_slug(self.class_name)}{shots}-seed{self.seed}{choices_slug(self.drawn)}"


class Cell(NamedTuple):
    """One fine-tune; options: those of finetune that are varied."""

    group: Group
    setup: Setup
    options: Choices = ()

    @property
    def run_name(self) -> str:
        """Folder of its run."""
        setup = short_name(*self.setup) if self.setup.layers else str(self.setup)
        return f"{self.group.data_name}-{self.group.detector}-{_slug(setup)}{choices_slug(self.options)}"

    @property
    def varied(self) -> dict[str, Any]:
        """What it has of each option that is varied."""
        return dict((*self.group.drawn, *self.options))

    def __str__(self) -> str:
        group = self.group
        shots = "" if group.shots is None else f", {group.shots} shots"
        varied = choices_text((*group.drawn, *self.options))
        return f"{group.class_name}{shots}, {group.detector}, {self.setup}, seed {group.seed}{varied}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """What a sweep varies, and how detectors are built in all of it; the fields are those of SweepConfig."""

    classes: tuple[str, ...]
    shots: tuple[int, ...]
    seeds: int
    detectors: tuple[str, ...]
    policies: tuple[str, ...]
    budgets: tuple[int | str, ...]
    layers: tuple[str, ...]
    baselines: bool
    vary: Mapping[str, tuple[Any, ...]]
    architecture: Architecture

    def setups(self, detector: str) -> tuple[Setup, ...]:
        """What is run on a detector, each setup once, in the order of the table.

        First `none`; then policies with budgets, by budget, then by policy as given; then named layers; then policies
        that take no budget, `auto` last.

        Budgets that a policy cannot spend on the detector's head are left out; so is a budget of all M layers, which
        is the baseline `all`.

        Raises:
            ModelError: an unknown detector.
            PolicyError: a layer that the detector does not have.
        """
        depth = depth_in(detector, self.architecture)
        spenders = [policy for policy in self.policies if get_policy(policy).takes_budget]
        spent = {_spent(policy, budget, detector, self.architecture) for budget in self.budgets for policy in spenders}
        budgeted = [setup for setup in spent if setup and setup.budget != depth]
        budgeted.sort(key=lambda setup: (setup.budget, spenders.index(setup.policy)))
        named = [_named(layers, detector, self.architecture) for layers in self.layers]
        others = [*BASELINES] if self.baselines else []
        others += [Setup(policy, None) for policy in self.policies if policy not in spenders]
        others.sort(key=lambda setup: setup.policy == AUTO)
        none = [setup for setup in others if setup.policy == "none"]
        return tuple(dict.fromkeys([*none, *budgeted, *named, *others]))

    def groups(self) -> Iterator[Group]:
        """Seed by seed, so that a sweep that is stopped early has whole seeds."""
        drawn = self._choices(drawing=True)
        shots = self.shots or (None,)
        for seed in range(self.seeds):
            for values in product(shots, drawn, self.classes, self.detectors):
                yield Group(values[2], values[0], seed, values[3], values[1])

    def cells_of(self, group: Group) -> list[Cell]:
        return [
            Cell(group, setup, options)
            for setup in self.setups(group.detector)
            for options in self._choices(drawing=False)
        ]

    def cells(self) -> Iterator[Cell]:
        for group in self.groups():
            yield from self.cells_of(group)

    def _choices(self, *, drawing: bool) -> list[Choices]:
        """Every combination of the varied options of fetch, or of finetune; one empty one where none is varied."""
        axes = {name: values for name, values in self.vary.items() if (name in drawing_fields()) == drawing}
        return [tuple(zip(axes, values, strict=True)) for values in product(*axes.values())]


# Cached, because a detector's setups are listed for each group, and whenever the folder is read.
@lru_cache
def _spent(policy: str, budget: int | str, detector: str, architecture: Architecture) -> Setup | None:
    """A policy with its budget in layers; None if the policy cannot spend it on the detector's head."""
    try:
        if isinstance(budget, str):
            from fewshot_cli.training.outline import spend

            budget = spend(detector, policy, budget, CLASSES, architecture).layers
        return Setup(policy, select_in(detector, policy, budget, architecture=architecture).budget)
    except PolicyError:
        return None


@lru_cache
def _named(layers: str, detector: str, architecture: Architecture) -> Setup:
    """A setup of layers that are named, in the order of the chain."""
    from fewshot_cli.training.plan import planned_layers

    setup = Setup(CUSTOM, None, tuple(name.strip() for name in layers.split(",") if name.strip()))
    return setup._replace(layers=planned_layers(*_planned(setup, detector, architecture)))


def _planned(setup: Setup, detector: str, architecture: Architecture) -> tuple[Detector, Plan]:
    """The chain of a detector, and what a setup trains in it."""
    from fewshot_cli.training.outline import outline
    from fewshot_cli.training.plan import plan_chain

    chain = outline(detector, CLASSES, architecture)
    selection = select_in(detector, setup.policy, setup.budget, layers=setup.layers, architecture=architecture)
    return chain, plan_chain(chain, selection)


def _slug(text: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in text.casefold()).strip(".")
