"""The grid of a sweep and its configuration: which cells there are, and what is refused before anything runs."""

from __future__ import annotations

import dataclasses
import itertools
import json
import pickle
import re
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from helpers_sweeps import TINY, sweep_config

from fewshot_cli.errors import ConfigError, FsodError, ModelError, PolicyError, UsageError
from fewshot_cli.sweeps.config import SweepConfig
from fewshot_cli.sweeps.folder import open_sweep
from fewshot_cli.sweeps.presets import PRESETS, configure
from fewshot_cli.sweeps.requests import check_cells, features_key, fetch_request, finetune_config


def setups(**changes: Any) -> list[str]:
    config = sweep_config(**changes)
    return [str(setup) for setup in config.grid.setups(config.detectors[0])]


def test_table1_is_the_seven_setups_of_the_paper_and_the_baselines() -> None:
    """On a head of five layers: last 1 to 4, symmetric 2 to 4, with zero-shot, all and full beside."""
    preset = {key: PRESETS["table1"][key] for key in ("policies", "budgets")}
    seven = ["last 1", "last 2", "symmetric 2", "last 3", "symmetric 3", "last 4", "symmetric 4"]
    assert ["none", *seven, "all", "full"] == setups(**preset, detectors=("retinanet_mini",))


def test_budgets_that_a_head_cannot_take_are_left_out() -> None:
    """On a head of four layers a budget of four is `all`; symmetric needs two."""
    assert ["last 1", "last 3", "symmetric 3"] == setups(budgets=(1, 3, 4), baselines=False)


def test_a_budget_in_parameters_is_that_of_each_policy() -> None:
    """On yolox_nano 60,000 parameters are symmetric 3 and last 2; a setup that is there already is not added again."""
    plain = {"baselines": False, "budgets": ("60k",)}
    assert ["last 2", "symmetric 3"] == setups(**plain)
    assert ["last 2", "symmetric 2", "symmetric 3"] == setups(**{**plain, "budgets": ("60k", 2, "31k")})
    assert ["last 1"] == setups(**{**plain, "budgets": ("0.2%",)})
    assert ["last 4", "symmetric 4"] == setups(**{**plain, "budgets": ("300k",)}, detectors=("retinanet_mini",))


BUILT = {"detectors": ("retinanet_mobilenet_v2_fpn",), "weights": "none"}


def test_setups_are_those_of_the_head_that_is_built() -> None:
    """A budget of all M layers is `all`; parameters, named layers and cuts are of what is built, in every cell."""
    shallow = {**BUILT, "options": {"head_depth": 3, "head_channels": 32}}
    budgets = (1, 2, 3, 4)
    assert ["last 1", "last 2", "symmetric 2"] == setups(**shallow, budgets=budgets, baselines=False)
    assert ["last 1", "last 2", "symmetric 2", "last 3", "symmetric 3", "last 4", "symmetric 4"] == setups(
        **BUILT, budgets=budgets, baselines=False
    )
    # The predictor of one class has 32 · 9 · (9 · (1 + 4)) + 45 parameters, a layer of both towers 2 · (32² · 9 + 32).
    assert ["last 2"] == setups(**shallow, policies=("last",), budgets=("32k",), baselines=False)
    with pytest.raises(PolicyError, match="no layer 'head.4'"):
        setups(**shallow, layers=("head.4",))
    config = sweep_config(**shallow)
    found = {finetune_config(config, cell, data="x").architecture for cell in config.grid.cells()}
    assert {config.architecture} == found and (3, 32, None) == dataclasses.astuple(config.architecture)
    cells = sorted(config.grid.cells_of(next(config.grid.groups())), key=partial(features_key, config))
    assert ["full", "none"] == [str(cells[index].setup) for index in (0, -1)]


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({**BUILT, "options": {"head_depth": 1}}, ConfigError),
        ({**BUILT, "options": {"neck": "pan"}}, ConfigError),
        ({"weights": "none", "options": {"head_depth": 3}}, ModelError),
    ],
)
def test_a_size_that_cannot_be_built_is_an_error(changes: dict[str, Any], error: type[FsodError]) -> None:
    """Before anything runs: a bad value, and a detector whose size cannot be chosen."""
    with pytest.raises(error):
        check_cells(sweep_config(**changes))


def test_policies_without_a_budget_are_one_setup_each() -> None:
    """`full` alone; `auto` last; those that are baselines too are there once."""
    assert ["full"] == setups(policies=("full",), baselines=False)
    assert ["none", "last 2", "all", "full", "auto"] == setups(policies=("auto", "full", "last"))
    assert ["none", "all", "auto"] == setups(policies=("auto", "all", "none"), baselines=False)


def test_named_layers_are_setups() -> None:
    """In the order of the chain, each once, after the policies with budgets."""
    given = ("head.4,head.1", "neck, head.4", "head.1,head.4")
    expected = ["none", "last 2", "symmetric 2", "head.1 + head.4", "neck + head.4", "all", "full"]
    assert expected == setups(layers=given)
    assert setups(layers=("head.1,head.4",)) == setups(layers=(" head.1, head.4,",))


def test_setups_are_plain_values() -> None:
    """They can be pickled and hashed, name different runs, and tell a fine-tune what trains."""
    config = sweep_config(policies=("last", "auto"), layers=("head.1,head.4", "neck,head.4"))
    cells = config.grid.cells_of(next(config.grid.groups()))
    assert cells == pickle.loads(pickle.dumps(cells))
    assert len({cell.run_name for cell in cells}) == len(set(cells)) == 7
    found = {str(cell.setup): finetune_config(config, cell, data="x") for cell in cells}
    named, last, auto = found["head.1 + head.4"], found["last 2"], found["auto"]
    assert ("custom", None, ("head.1", "head.4")) == (named.policy, named.budget, named.layers)
    assert ("last", 2, ()) == (last.policy, last.budget, last.layers)
    assert ("auto", None, ()) == (auto.policy, auto.budget, auto.layers)


def test_cells_with_the_same_cut_follow_each_other() -> None:
    """Named layers too; what `auto` trains is not known, so it comes last."""
    config = sweep_config(policies=("last", "symmetric", "auto"), layers=("head.1,head.4", "backbone.stem", "neck"))
    key = partial(features_key, config)
    cells = sorted(config.grid.cells_of(next(config.grid.groups())), key=key)
    grouped = {cut: sorted(str(cell.setup) for cell in part) for cut, part in itertools.groupby(cells, key=key)}
    expected = [["backbone.stem", "full"], ["neck"], ["all", "head.1 + head.4", "symmetric 2"], ["last 2"], ["none"]]
    assert [*expected, ["auto"]] == list(grouped.values())


def test_a_recorded_sweep_comes_back() -> None:
    """Through JSON: with budgets in parameters and named layers."""
    config = sweep_config(budgets=(2, "60k", "5%"), layers=("head.1,head.4",))
    assert config == SweepConfig(**json.loads(json.dumps(config.to_json())))


def test_cells_come_seed_by_seed() -> None:
    """A sweep that is stopped early has whole seeds."""
    seeds = [cell.group.seed for cell in sweep_config(seeds=3).grid.cells()]
    assert sorted(seeds) == seeds


def test_every_cell_has_a_run_of_its_own() -> None:
    """No two cells share a folder, and a class name cannot lead out of it."""
    config = sweep_config(classes=("a b", "a/b", "ab"), shots=(1, 2), seeds=2, detectors=("yolox_nano", "yolox_s"))
    names = [cell.run_name for cell in config.grid.cells() if cell.group.class_name != "a/b"]
    assert len(names) == len(set(names))
    assert all("/" not in cell.run_name for cell in config.grid.cells())


WRONG: dict[str, tuple[dict[str, Any], type[FsodError], str]] = {
    "no class": ({"classes": ()}, ConfigError, "classes is empty"),
    "a class twice": ({"classes": ("cat", "cat")}, ConfigError, "classes is cat, cat: give each once"),
    "a class without a name": ({"classes": (" ",)}, ConfigError, "classes has an empty name"),
    "no seed": ({"seeds": 0}, ConfigError, "seeds is 0: give a number"),
    "a word for a number": ({"seeds": "two"}, ConfigError, "seeds is 'two': give"),
    "no test image": ({"test_images": 0}, ConfigError, "test_images is 0"),
    "no shot": ({"shots": (5, 0)}, ConfigError, "shots is (5, 0): give a number that is at least 1"),
    "several": ({"seeds": 0, "eval_every": -1}, ConfigError, "eval_every is -1"),
    "layers without names": ({"policies": ("custom",)}, PolicyError, "policy custom needs layers"),
    "an unknown layer": ({"layers": ("head.1,haed.4",)}, PolicyError, "yolox_nano has no layer 'haed.4'"),
    "a layer of another detector": ({"layers": ("head.5",), "detectors": ("retinanet_mini", "yolox_nano")}, PolicyError, "yolox_nano has no layer 'head.5'"),
    "parameters without a unit": ({"budgets": (2, "60p")}, ConfigError, "budgets is (2, '60p'): give a number of head layers"),
    "a search for a budget": ({"budgets": ("auto",)}, ConfigError, "give bounds; policy auto is run without one"),
    "parameters for no layer": ({"budgets": ("1k",), "baselines": False}, ConfigError, "no policy can spend"),
    "layers for every cell": ({"options": {"layers": "head.1"}}, ConfigError, "the sweep sets it itself"),
    "an unknown policy": ({"policies": ("simmetric",)}, ConfigError, "unknown policy"),
    "an unknown detector": ({"detectors": ("yolo",)}, ModelError, "unknown detector"),
    "a budget for no head": ({"budgets": (9,), "baselines": False}, ConfigError, "no policy can spend"),
    "an unknown source": ({"source": "minature"}, UsageError, "unknown source"),
    "an unknown option of finetune": ({"options": {"itterations": 3}}, ConfigError, "itterations"),
    "an option that the sweep sets": ({"options": {"seed": 3}}, ConfigError, "the sweep sets it itself"),
    "a value out of bounds": ({"options": {"lr": -1}}, ConfigError, "lr is -1"),
    "an unknown option of fetch": ({"fetch_options": {"splitt": "x"}}, ConfigError, "unknown option 'splitt'"),
}  # fmt: skip


@pytest.mark.parametrize(("changes", "kind", "message"), WRONG.values(), ids=list(WRONG))
def test_a_sweep_that_cannot_work_is_refused_before_anything_runs(
    changes: dict[str, Any], kind: type[FsodError], message: str
) -> None:
    """Every dimension, and every option of finetune and fetch, is checked when the configuration is built."""
    with pytest.raises(kind, match=re.escape(message)):
        sweep_config(**changes)


def test_options_take_precedence_over_a_preset_and_over_the_detector_of_the_source() -> None:
    """Without options, the preset decides the grid and the source the detector."""
    plain = configure("bird", source="miniature", preset="table1")
    assert (("bird",), 5, ("retinanet_mini",)) == (plain.classes, plain.seeds, plain.detectors)
    given = configure(["bird"], source="miniature", preset="table1", seeds=2, detectors=["yolox_nano"])
    assert (2, (10,), ("yolox_nano",)) == (given.seeds, given.shots, given.detectors)


def test_a_weights_file_is_recorded_with_its_whole_path() -> None:
    """Cells may run in another folder; names of weights stay names."""
    assert str(Path("own.pth").resolve()) == configure("cat", source="coco:x", weights="own.pth").weights
    assert "none" == configure("cat", source="coco:x", weights="none").weights


def test_unknown_names_are_listed_with_the_closest() -> None:
    """A preset and a field of the grid."""
    with pytest.raises(UsageError, match="unknown preset 'table2'") as preset:
        configure("cat", source="miniature", preset="table2")
    assert "Did you mean table1?" in str(preset.value.hint)
    with pytest.raises(ConfigError, match="unknown option 'seed'") as field:
        configure("cat", source="miniature", seed=2)
    assert "Did you mean seeds?" in str(field.value.hint)


def test_a_folder_is_not_used_for_another_sweep(tmp_path: Path) -> None:
    """Changes that would make old and new cells differ are refused, each with both values."""
    open_sweep(tmp_path, sweep_config())
    open_sweep(tmp_path, sweep_config(classes=("cow",), seeds=3, budgets=(3, "60k"), layers=("head.1",)))
    finish_one_cell(tmp_path)
    with pytest.raises(ConfigError, match="finished cells of a sweep with eval_every 1 .now 0., copies 2 .now 3.,"):
        open_sweep(tmp_path, sweep_config(eval_every=0, options={**TINY, "copies": 3, "lr": 0.1}))
    for content in ("{", "[]", '{"source": 3}'):
        (tmp_path / "sweep.json").write_text(content)
        with pytest.raises(ConfigError, match="sweep.json is damaged"):
            open_sweep(tmp_path, sweep_config())


def finish_one_cell(folder: Path) -> None:
    (folder / "runs" / "one").mkdir(parents=True, exist_ok=True)
    (folder / "runs" / "one" / "result.json").write_text("{}")


def test_options_can_be_corrected_until_a_cell_is_finished(tmp_path: Path) -> None:
    """What was begun with other options is removed, data sets only if other images would be drawn."""
    open_sweep(tmp_path, sweep_config())
    for changes, kept in (({}, ["data", "runs"]), ({"eval_every": 0}, ["data"]), ({"test_images": 2}, [])):
        for name in ("data", "runs"):
            (tmp_path / name / "one").mkdir(parents=True, exist_ok=True)
        config = sweep_config(**changes)
        open_sweep(tmp_path, config)
        assert kept == sorted(path.parent.name for path in tmp_path.glob("*/one")), changes
        assert (
            json.loads(json.dumps(config.to_json())).items()
            <= json.loads((tmp_path / "sweep.json").read_text()).items()
        )
        open_sweep(tmp_path, sweep_config())


def test_seeds_repeat_the_training_alone_on_one_draw(tmp_path: Path) -> None:
    """With --draw-seed every seed has the same images; another draw is another sweep, also of a folder before it."""
    for draw_seed, seeds in ((None, {0, 1}), (7, {7})):
        config = sweep_config(seeds=2, draw_seed=draw_seed)
        groups = list(config.grid.groups())
        cells = [next(iter(config.grid.cells_of(group))) for group in groups]
        assert seeds == {fetch_request(config, group, tmp_path).seed for group in groups}
        assert {0, 1} == {finetune_config(config, cell, data="").seed for cell in cells}
    open_sweep(tmp_path, sweep_config())
    before = json.loads((tmp_path / "sweep.json").read_text())
    (tmp_path / "sweep.json").write_text(json.dumps({name: before[name] for name in before if name != "draw_seed"}))
    finish_one_cell(tmp_path)
    open_sweep(tmp_path, sweep_config())
    with pytest.raises(ConfigError, match="draw_seed None .now 7."):
        open_sweep(tmp_path, sweep_config(draw_seed=7))


def test_how_images_arrive_may_change_and_which_ones_may_not(tmp_path: Path) -> None:
    """Another mirror continues the sweep; another split does not."""
    source = "openimages"
    open_sweep(tmp_path, sweep_config(source, fetch_options={"split": "train", "mirror": "http://a"}))
    open_sweep(tmp_path, sweep_config(source, fetch_options={"split": "train", "mirror": "http://b"}))
    finish_one_cell(tmp_path)
    with pytest.raises(ConfigError, match="split train .now test."):
        open_sweep(tmp_path, sweep_config(source, fetch_options={"split": "test"}))
