"""What a study says of its source's claims, for results that are made so that each holds, fails, or is open."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from helpers_sweeps import made_results

from fewshot_cli.errors import ConfigError
from fewshot_cli.report.study import draw
from fewshot_cli.sweeps.cells import Cell
from fewshot_cli.sweeps.config import SweepConfig
from fewshot_cli.sweeps.presets import configure
from fewshot_cli.sweeps.studies import STUDIES, get_study
from fewshot_cli.sweeps.studies.contract import FAILS, HOLDS, UNCLEAR, Verdict

NOISE = (0.0, 0.004, -0.003)
"""What a seed adds, so that intervals are not of zero width."""


def study(name: str) -> SweepConfig:
    return configure("all", source="coco:x", preset=name, detectors=("retinanet_mobilenet_v2_fpn",))


def judged(name: str, ap: Callable[[Cell], float], **further: Callable[[Cell], Any]) -> list[Verdict]:
    return list(get_study(name).judge(made_results(study(name), ap, **further)))


def moved(cell: Cell, factor: float) -> float:
    """Noise that is of another size in each cell, so that paired differences have an interval too."""
    return NOISE[cell.group.seed] * factor


def by_stages(sign: float) -> Callable[[Cell], float]:
    """mAP that rises (or falls) with the stages that train, the more the more data there is."""

    def ap(cell: Cell) -> float:
        stages, fraction = cell.varied["backbone_stages"], cell.varied["fraction"]
        return 0.3 + sign * 0.03 * stages * fraction + moved(cell, stages)

    return ap


def test_claims_on_stages_hold_where_more_stages_and_more_data_are_better() -> None:
    """And training time grows with them."""
    seconds = {"seconds": lambda cell: {"training": 10.0 + cell.varied["backbone_stages"] + moved(cell, 1)}}
    gains = {"decay_gain": lambda cell: 0.1 * cell.varied["fraction"] + moved(cell, cell.varied["fraction"])}
    found = judged("stages", by_stages(1), **seconds, **gains)
    assert [each.verdict for each in found[:2]] == [HOLDS, HOLDS] and found[3].verdict == HOLDS
    assert "+0.152" in found[0].measured and "1.5× (1.5 to 1.5)" in found[3].measured and found[4].verdict == HOLDS


def test_claims_on_stages_fail_where_more_stages_are_worse() -> None:
    """The same numbers with the other sign."""
    assert [each.verdict for each in judged("stages", by_stages(-1))[:2]] == [FAILS, FAILS]


def test_claims_within_chance_cannot_be_told() -> None:
    """Nothing but noise: no claim holds or fails, except for the time, which is equal."""
    found = judged("stages", lambda cell: 0.3 + moved(cell, cell.varied["backbone_stages"]))
    assert {each.verdict for each in found[:2]} == {UNCLEAR}


def test_what_was_not_measured_is_said() -> None:
    """Two seeds have no interval, and without a second step there is no gain."""
    config = study("stages")
    results = made_results(config, by_stages(1), decay_gain=lambda _: None)
    two = {cell: result for cell, result in results.items() if cell.group.seed < 2}
    found = list(get_study("stages").judge(two))
    assert found[0].verdict == UNCLEAR and found[4].measured.endswith("not measured")


@pytest.mark.parametrize(("sign", "verdict"), [(-1, HOLDS), (1, FAILS)])
def test_claims_on_frozen_convolutions_are_rank_correlations(sign: int, verdict: str) -> None:
    """mAP that falls (or rises) with the number of frozen convolutions."""
    found = judged(
        "freeze-depth",
        lambda cell: 0.4 + sign * 0.004 * cell.varied["freeze_first"] + moved(cell, 0.1),
    )
    assert [each.verdict for each in found[1:]] == [verdict, verdict]
    assert ("ρ = −1.00" if sign < 0 else "ρ = +1.00") in found[1].measured


def test_claims_on_a_frozen_backbone_depend_on_the_capacity() -> None:
    """Frozen is better with the large neck, worse with the small one, and cheaper."""

    def ap(cell: Cell) -> float:
        large = cell.varied["neck"] == "bifpn" and cell.varied["head_channels"] == 256
        frozen = cell.varied["backbone_stages"] == 0
        return 0.3 + (0.05 if large else -0.05) * frozen + moved(cell, frozen)

    found = judged(
        "frozen-backbone",
        ap,
        peak_memory_mb=lambda cell: (
            100.0 + 10 * cell.varied["backbone_stages"] + moved(cell, cell.varied["backbone_stages"])
        ),
        seconds=lambda cell: {"training": 15.0 - cell.varied["backbone_stages"] + moved(cell, 1)},
    )
    assert [each.verdict for each in found] == [HOLDS, HOLDS, FAILS, HOLDS]


def test_drift_is_that_of_the_backbone_alone() -> None:
    """Where one pretraining brings a head and another does not, what the head moves says nothing about the backbone."""
    better = lambda cell: cell.varied["weights"] == "default"  # noqa: E731
    found = judged(
        "freeze-depth",
        lambda cell: 0.1 + 0.4 * better(cell) + moved(cell, 0.1),
        drift=lambda cell: {"backbone.1": 0.1 if better(cell) else 0.2, "head.1": 0.9 if better(cell) else 0.0},
    )
    assert found[0].verdict == HOLDS and "ρ = −" in found[0].measured


def test_levels_of_classes_do_not_hide_a_rank_correlation() -> None:
    """Two classes, one far easier than the other: within each, the mAP falls with every frozen convolution."""
    config = configure(
        ("easy", "hard"), source="coco:x", preset="freeze-depth", detectors=("ssd_mobilenet_v2_fpnlite",)
    )
    level = {"easy": 0.8, "hard": 0.1}
    results = made_results(
        config,
        lambda cell: level[cell.group.class_name] - 0.001 * cell.varied["freeze_first"],
    )
    found = list(get_study("freeze-depth").judge(results))
    assert [each.verdict for each in found[1:]] == [HOLDS, HOLDS] and "ρ = −1.00" in found[1].measured


@pytest.mark.parametrize(("spread", "verdict"), [(0.05, HOLDS), (0.0, UNCLEAR)])
def test_subsets_are_told_apart_where_they_differ_by_more_than_repeats(spread: float, verdict: str) -> None:
    """All seeds draw the same subsets, so that what a seed adds is the repeat's."""
    assert study("subsets").draw_seed == 0
    found = judged("subsets", lambda cell: 0.3 + spread * cell.varied["subset"] + moved(cell, cell.varied["subset"]))
    assert [each.verdict for each in found] == [verdict]


def test_subsets_that_were_trained_on_once_say_nothing() -> None:
    """Without repeats there is nothing to compare their spread with."""
    results = made_results(study("subsets"), lambda cell: 0.1 * cell.varied["subset"])
    once = {cell: result for cell, result in results.items() if cell.group.seed == 0}
    assert [(each.verdict, each.measured) for each in get_study("subsets").judge(once)] == [(UNCLEAR, "not measured")]


def test_pretraining_is_compared_with_random_weights() -> None:
    """At the largest and at the smallest amount of data."""
    found = judged(
        "pretraining",
        lambda cell: 0.1 + 0.2 * (cell.varied["weights"] != "none") + moved(cell, cell.varied["fraction"]),
    )
    assert len(found) == 2 and "+0.200" in found[0].measured


@pytest.mark.parametrize("name", STUDIES)
def test_every_figure_of_a_study_is_drawn(name: str) -> None:
    """With lines in every panel that has cells."""
    config = study(name)
    results = made_results(config, lambda cell: 0.3, convolution_drift=lambda _: [0.0, 0.1], decay_gain=lambda _: 0.1)
    lines = [{"iteration": 10, "ap": 0.1, "train_ap": 0.2}, {"iteration": 20, "ap": 0.2, "train_ap": 0.4}]
    for figure in get_study(name).figures:
        axes = [each for each in draw(figure, results, lambda _: lines).axes if each.get_visible()]
        assert axes and all(each.lines or each.containers for each in axes), figure.title


@pytest.mark.parametrize(
    ("name", "axis"), [(name, axis) for name in STUDIES for axis in get_study(name).preset["vary"]]
)
def test_an_axis_of_a_study_may_be_held_at_one_value(name: str, axis: str) -> None:
    """Then claims on that axis cannot be told, and every figure is drawn of what there is."""
    last = get_study(name).preset["vary"][axis][-1]
    config = configure(
        "all", source="coco:x", preset=name, detectors=("retinanet_mobilenet_v2_fpn",), vary={axis: (last,)}
    )
    results = made_results(config, lambda cell: 0.3 + moved(cell, 1))
    verdicts = list(get_study(name).judge(results))
    assert {last} == {cell.varied[axis] for cell in results}
    assert verdicts and all(each.verdict in (HOLDS, FAILS, UNCLEAR) for each in verdicts)
    assert UNCLEAR == verdicts[0].verdict


def test_an_axis_of_a_study_that_is_fixed_otherwise_is_refused_with_the_option_that_holds_it() -> None:
    """Weights too, which have an option of their own."""
    for given in ({"options": {"freeze_first": 5}}, {"weights": "none"}):
        with pytest.raises(ConfigError, match="is varied, and fixed") as error:
            configure("all", source="coco:x", preset="freeze-depth", **given)
        assert "--vary" in str(error.value.hint)


@pytest.mark.parametrize(("axis", "values"), [("weights", ("imagenet", "none")), ("backbone_lr", (0.1, 0.02))])
def test_an_axis_takes_the_place_of_what_a_preset_fixes(axis: str, values: tuple[object, ...]) -> None:
    """A person cannot drop an option that the preset gives."""
    detectors = ("retinanet_mobilenet_v2_fpn",)
    config = configure("all", source="coco:x", preset="frozen-backbone", detectors=detectors, vary={axis: values})
    assert values == config.vary[axis] and "head_channels" in config.vary
