"""The grid of a sweep: class × shots × seed × detector × setup, each cell one fine-tune."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, NamedTuple

from fewshot_cli.detectors.registry import get_spec, head_depths
from fewshot_cli.errors import ConfigError, PolicyError, UsageError, closest
from fewshot_cli.policies import POLICIES, get_policy, select
from fewshot_cli.runs.config import FinetuneConfig
from fewshot_cli.sources.fetch import FetchRequest

PRESETS: dict[str, dict[str, Any]] = {
    "table1": {"policies": ("last", "symmetric"), "budgets": (1, 2, 3, 4), "shots": (10,), "seeds": 5},
}
"""`table1`: the seven setups of the paper, where the head has five layers; what a shallower head allows otherwise."""

BASELINES = ("none", "all", "full")
"""Beside every sweep: zero-shot, the whole head, the whole detector."""

_OWN = {"data", "device", "detector", "weights", "policy", "budget", "seed", "eval_every"}
"""Fields of a fine-tune that the sweep itself decides."""


class Setup(NamedTuple):
    """Where a budget goes."""

    policy: str
    budget: int | None

    def __str__(self) -> str:
        return f"{self.policy} {self.budget}" if self.budget else self.policy


class Group(NamedTuple):
    """Cells over the same shots and detector: those with the same cut can share their features."""

    class_name: str
    shots: int
    seed: int
    detector: str

    @property
    def data_name(self) -> str:
        return f"{_slug(self.class_name)}-{self.shots}shots-seed{self.seed}"


class Cell(NamedTuple):
    """One fine-tune."""

    group: Group
    setup: Setup

    @property
    def run_name(self) -> str:
        return f"{self.group.data_name}-{self.group.detector}-{_slug(str(self.setup))}"

    def __str__(self) -> str:
        group = self.group
        return f"{group.class_name}, {group.shots} shots, {group.detector}, {self.setup}, seed {group.seed}"


@dataclass(frozen=True, kw_only=True)
class SweepConfig:
    """What a sweep varies and what it holds fixed.

    Raises:
        ConfigError: an empty or impossible dimension, a policy that takes no budget, an unknown option.
        ModelError: an unknown detector.
    """

    classes: tuple[str, ...]
    """Each class is fine-tuned on its own, as in the paper."""
    source: str
    """As `fsod fetch --source`; `{class}` in it stands for the class."""
    test_source: str | None = None
    """As `fsod fetch --test-source`; `{class}` likewise."""
    policies: tuple[str, ...] = ("last", "symmetric")
    """That take a budget; `none`, `all` and `full` are always beside them."""
    budgets: tuple[int, ...] = (1, 2, 3, 4)
    """Head layers; those that a policy cannot spend on a head are left out."""
    shots: tuple[int, ...] = (10,)
    """Training images."""
    seeds: int = 5
    """Seeds 0, 1, …: each draws shots, variants and batches."""
    test_images: int = 100
    """Test images at most."""
    detectors: tuple[str, ...] = ("yolox_nano",)
    """Names in the registry."""
    weights: str = "default"
    """Of every detector."""
    baselines: bool = True
    """Whether `none`, `all` and `full` are run too."""
    eval_every: int = 50
    """Iterations between two measurements, for the curves; 0 for the end alone."""
    options: dict[str, Any] = field(default_factory=dict)
    """Further options of `fsod finetune`, the same in every cell."""
    fetch_options: dict[str, Any] = field(default_factory=dict)
    """Further options of `fsod fetch`, the same for every data set: those of the source, and `skip_invalid`."""

    def __post_init__(self) -> None:
        for name in ("classes", "policies", "budgets", "shots", "detectors"):
            values = tuple(getattr(self, name))
            object.__setattr__(self, name, values)
            if not values or len(set(values)) < len(values):
                raise ConfigError(f"{name} is {', '.join(map(str, values)) or 'empty'}", hint="Give each once.")
        if self.seeds < 1 or min(self.shots) < 1 or self.test_images < 1:
            raise ConfigError("seeds, shots and test images are counted from 1", hint="Give 1 or more.")
        for policy in self.policies:
            if not get_policy(policy).takes_budget:
                takers = [name for name, rule in POLICIES.items() if rule.takes_budget]
                raise ConfigError(f"policy {policy} takes no budget", hint=f"Valid: {', '.join(takers)}.")
        known = {entry.name for entry in fields(FinetuneConfig)} - _OWN
        for name in self.options:
            if name not in known:
                raise ConfigError(f"unknown option {name!r} of finetune", hint=closest(name, sorted(known)))
        try:
            self.fetch_request(next(self.groups()), Path())
        except UsageError as error:
            raise ConfigError(error.message, hint=error.hint) from error
        for detector in self.detectors:
            if not self.setups(detector):
                raise ConfigError(f"no policy can spend any of the budgets on {detector}", hint="Give other budgets.")
        self.finetune_options(next(self.cells()), data="")

    def setups(self, detector: str) -> tuple[Setup, ...]:
        """What is run on a detector, in the order of the table: by budget, `last` before the others.

        A budget of all M layers is `all`, and left to that baseline.
        """
        depth = get_spec(detector).head_depth
        spent = [
            Setup(policy, budget)
            for budget in sorted(self.budgets)
            for policy in self.policies
            if budget < depth and _possible(policy, budget, depth)
        ]
        if not self.baselines:
            return tuple(spent)
        return (Setup("none", None), *spent, Setup("all", None), Setup("full", None))

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

    def finetune_options(self, cell: Cell, *, data: str, device: str = "auto") -> FinetuneConfig:
        """The fine-tune that a cell is; raises ConfigError."""
        return FinetuneConfig.from_json(
            {
                **self.options,
                "data": data,
                "device": device,
                "detector": cell.group.detector,
                "weights": self.weights,
                "policy": cell.setup.policy,
                "budget": cell.setup.budget,
                "seed": cell.group.seed,
                "eval_every": self.eval_every,
            }
        )

    def fetch_request(self, group: Group, root: Path) -> FetchRequest:
        """The data set of a group, under `root`; raises UsageError."""
        options = dict(self.fetch_options)
        skip_invalid = bool(options.pop("skip_invalid", False))
        return FetchRequest(
            source=self.source.replace("{class}", group.class_name),
            test_source=self.test_source.replace("{class}", group.class_name) if self.test_source else None,
            classes=(group.class_name,),
            shots=group.shots,
            test_images=self.test_images,
            seed=group.seed,
            name=group.data_name,
            root=root,
            skip_invalid=skip_invalid,
            options=options,
        )

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def _possible(policy: str, budget: int, depth: int) -> bool:
    try:
        select(policy, budget, depth, depths=head_depths())
    except PolicyError:
        return False
    return True


def _slug(text: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in text.casefold()).strip(".")
