"""What a sweep varies and what it holds fixed, checked before anything runs."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any

from fewshot_cli.bounds import EVERY, SEED, SEEDS, SHOTS, TEST_IMAGES
from fewshot_cli.detectors.architecture import Architecture
from fewshot_cli.errors import ConfigError, PolicyError, UsageError, closest
from fewshot_cli.panels import AXES as AXES_PANEL
from fewshot_cli.panels import DATA, LAYERS, TRAINING
from fewshot_cli.policies import AUTO, CUSTOM
from fewshot_cli.runs.config import FinetuneConfig, layers_or_text
from fewshot_cli.runs.trainable import with_architecture
from fewshot_cli.settings import Option, to_json, validate
from fewshot_cli.sweeps.axes import check_axes
from fewshot_cli.sweeps.cells import Grid
from fewshot_cli.sweeps.requests import fetch_request, finetune_config
from fewshot_cli.sweeps.studies import STUDIES, get_study

_OWN = ("data", "device", "detector", "weights", "policy", "budget", "layers", "seed", "eval_every")
"""Fields of FinetuneConfig that the sweep itself sets."""
AXES = ("setup", "class", "shots", "detector")
"""What a table can have in rows, columns and panels, besides the options that are varied."""


def _in_layers_or_parameters(budgets: tuple[int | str, ...]) -> tuple[int | str | None, ...]:
    kept = tuple(layers_or_text(budget) for budget in budgets)
    if AUTO in kept:
        raise ValueError(f"give bounds; policy {AUTO} is run without one")
    return kept


@dataclass(frozen=True, kw_only=True)
class SweepConfig:
    """A grid of fine-tunes.

    Raises:
        ConfigError: a value of the wrong type, an empty or impossible dimension, or an option of fine-tuning or
            fetching that does not exist or has a wrong value.
        PolicyError: an unknown policy, or layers that a detector does not have.
        ModelError: an unknown detector.
        UsageError: an unknown source.
    """

    classes: Annotated[tuple[str, ...], Option("Class; each is fine-tuned on its own.", DATA, "NAME")]
    policies: Annotated[
        tuple[str, ...],
        Option("Policy that places the budgets, or one that takes none, such as full or auto.", LAYERS, "NAME"),
    ] = ("last", "symmetric")
    budgets: Annotated[
        tuple[int | str, ...],
        Option(
            "Head layers that train, or parameters (60k, 5%).",
            LAYERS,
            "N|60k|5%",
            check=_in_layers_or_parameters,
        ),
    ] = (1, 2, 3, 4)
    layers: Annotated[
        tuple[str, ...],
        Option("Further setup: names of the layers that train, with commas.", LAYERS, "NAMES"),
    ] = ()
    shots: Annotated[
        tuple[int, ...],
        Option("Training images of the class; with --vary or --fetch-set fraction: none.", DATA, "N", within=SHOTS),
    ] = (10,)
    seeds: Annotated[
        int, Option("Number of seeds 0, 1, …; each draws other shots, variants and batches.", TRAINING, within=SEEDS)
    ] = 5
    draw_seed: Annotated[
        int | None,
        Option(
            "Random seed of the draw for every seed: all train on the same images. Default: each draws its own.",
            DATA,
            within=SEED,
        ),
    ] = None
    detectors: Annotated[tuple[str, ...], Option("Name of a detector.", TRAINING, "NAME")] = ("yolox_nano",)
    baselines: Annotated[bool, Option("Also run the policies none, all and full.", LAYERS)] = True
    source: Annotated[
        str,
        Option(
            "Where images come from, as in fetch: miniature, or coco:my/{class}/pool.",
            DATA,
            "SOURCE",
        ),
    ]
    test_source: Annotated[
        str | None,
        Option("Where test images come from, as in fetch; {class} is the class.", DATA, "SOURCE"),
    ] = None
    test_images: Annotated[
        int, Option("Largest number of test images, at least 1.", DATA, within=TEST_IMAGES._replace(least=1))
    ] = 100
    fetch_options: Annotated[
        dict[str, Any],
        Option("Option of fetch for every data set, e.g. mirror=URL.", DATA, "NAME=VALUE"),
    ] = field(default_factory=dict)
    weights: Annotated[
        str, Option("Weights of every detector: default (COCO), imagenet, none, or a file.", TRAINING)
    ] = "default"
    eval_every: Annotated[
        int, Option("Iterations between two points of a learning curve; 0: the end only.", TRAINING, within=EVERY)
    ] = 50
    options: Annotated[
        dict[str, Any],
        Option(
            "Option of finetune for every cell, e.g. iterations=100; average is 1 unless given.", TRAINING, "NAME=VALUE"
        ),
    ] = field(default_factory=dict)
    vary: Annotated[
        dict[str, Any],
        Option(
            "Option of finetune or fetch that takes one value after the other, e.g. backbone_stages=0,1,2.",
            AXES_PANEL,
            "NAME=V1,V2",
        ),
    ] = field(default_factory=dict)
    rows: Annotated[
        str | None,
        Option("What is in the rows of the table: a varied option, setup, class, shots or detector.", AXES_PANEL),
    ] = None
    columns: Annotated[str | None, Option("What is in its columns; without any: what is measured.", AXES_PANEL)] = None
    panels: Annotated[
        tuple[str, ...],
        Option("What has a table for each value; over the rest is averaged.", AXES_PANEL, "NAME"),
    ] = ()
    study: Annotated[str | None, Option("Study whose figures and claims the page shows.", AXES_PANEL)] = None

    def __post_init__(self) -> None:
        # As they come from JSON, values are lists, which cannot be compared or told apart.
        axes = {name: _values(values) for name, values in self.vary.items()}
        object.__setattr__(self, "vary", axes)
        validate(self, hint="See `fsod sweep --help`.")
        problems = [problem for problem, found in self._problems() if found]
        if problems:
            raise ConfigError("; ".join(problems), hint="See `fsod sweep --help`.")
        weights = {"weights": self.weights} if self.weights != "default" else {}
        axes_of_study = get_study(self.study).preset["vary"] if self.study in STUDIES else ()
        check_axes(self.vary, {**self.options, **self.fetch_options, **weights}, axes_of_study)
        _check_shown(self)
        if CUSTOM in self.policies:
            raise PolicyError(f"policy {CUSTOM} needs layers", hint="Give --layers NAMES instead of the policy.")
        for detector in self.detectors:
            if not self.grid.setups(detector):
                raise ConfigError(f"no policy can spend any of the budgets on {detector}", hint="Give other budgets.")
        _check_options(self)
        _check_fetch_options(self)

    def _problems(self) -> list[tuple[str, bool]]:
        several = {name: getattr(self, name) for name in ("classes", "policies", "budgets", "shots", "detectors")}
        return [
            *(
                (f"{name} is empty: give at least one", not values)
                for name, values in several.items()
                if not (name == "shots" and self.draws_fraction)
            ),
            ("shots and fraction are both given: give one of them", bool(self.shots) and self.draws_fraction),
            *(
                (f"{name} is {', '.join(map(str, values))}: give each once", len(set(values)) < len(values))
                for name, values in several.items()
            ),
            (
                f"budgets is {', '.join(map(str, self.budgets))}: give 1 or more",
                any(isinstance(value, int) and value < 1 for value in self.budgets),
            ),
            ("classes has an empty name: give names", not all(name.strip() for name in self.classes)),
        ]

    @property
    def draws_fraction(self) -> bool:
        """Whether shares of all images are drawn, and no number of shots."""
        return "fraction" in self.vary or "fraction" in self.fetch_options

    @property
    def axes(self) -> dict[str, tuple[Any, ...]]:
        """Everything that has several values, but the seeds: name → values; what is varied first."""
        setups = tuple(dict.fromkeys(setup for name in self.detectors for setup in self.grid.setups(name)))
        own = {"setup": setups, "detector": self.detectors, "shots": self.shots, "class": self.classes}
        return {**self.vary, **{name: values for name, values in own.items() if len(values) > 1}}

    @property
    def grid(self) -> Grid:
        """The cells, in order."""
        return Grid(**{each.name: getattr(self, each.name) for each in fields(Grid)})

    @property
    def architecture(self) -> Architecture:
        """The size of neck and head in every cell."""
        named = {each.name: self.options[each.name] for each in fields(Architecture) if each.name in self.options}
        return with_architecture(FinetuneConfig(data="", weights=self.weights, **named)).architecture

    def to_json(self) -> dict[str, Any]:
        """Every field by name."""
        return to_json(self)


def _values(values: Any) -> tuple[Any, ...]:
    """The values of an axis, each of which can be hashed."""
    parts = values if isinstance(values, list | tuple) else (values,)
    return tuple(tuple(part) if isinstance(part, list) else part for part in parts)


def _check_options(config: SweepConfig) -> None:
    own = [name for name in config.options if name in _OWN]
    if own:
        raise ConfigError(
            f"{', '.join(own)} cannot be an option of every fine-tune: the sweep sets it itself",
            hint="See `fsod sweep --help` for the sweep's own options.",
        )
    finetune_config(config, next(config.grid.cells()), data="")


def _check_shown(config: SweepConfig) -> None:
    """Raise ConfigError for rows, columns or panels that are nothing that the sweep varies."""
    chosen = [*filter(None, (config.rows, config.columns)), *config.panels]
    for name in chosen:
        known = [*config.vary, *AXES]
        if name not in known:
            raise ConfigError(f"a table cannot have {name!r} in rows, columns or panels", hint=closest(name, known))
    if len(set(chosen)) < len(chosen):
        raise ConfigError("rows, columns and panels name something twice", hint="Give each once.")


def _check_fetch_options(config: SweepConfig) -> None:
    from fewshot_cli.sources.registry import parse_source

    group = next(config.grid.groups())
    for source in filter(None, (config.source, config.test_source)):
        parse_source(source.replace("{class}", group.class_name))
    try:
        for drawn in dict.fromkeys(group.drawn for group in config.grid.groups()):
            fetch_request(config, group._replace(drawn=drawn), Path())
    except UsageError as error:
        raise ConfigError(f"options of fetch: {error.message}", hint=error.hint) from error
