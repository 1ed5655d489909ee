"""Options that are varied: which axes there are, what is refused, and the cells that follow."""

from __future__ import annotations

import itertools
import json
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from helpers_sweeps import TINY, sweep_config
from hypothesis import given
from hypothesis import strategies as st

from fewshot_cli.errors import ConfigError, FsodError, PolicyError, UsageError
from fewshot_cli.sweeps.axes import choices_slug, parse_axes, value_text
from fewshot_cli.sweeps.config import SweepConfig
from fewshot_cli.sweeps.folder import SweepFolder, open_sweep
from fewshot_cli.sweeps.presets import configure
from fewshot_cli.sweeps.requests import check_cells, features_key, finetune_config
from fewshot_cli.sweeps.run import batches_of
from fewshot_cli.sweeps.studies import STUDIES


def varied(**vary: Any) -> SweepConfig:
    """One setup, everything else varied."""
    return sweep_config(policies=("all",), baselines=False, vary=vary)


def test_values_have_the_type_of_their_option() -> None:
    """Also of options with hyphens, and of options of fetch."""
    given = ["backbone-stages=0,2", "lr=0.001,0.01", "train_neck=yes,no", "fraction=0.25,1", "weights=none, a.pth"]
    found = parse_axes(given)
    assert found["backbone_stages"] == (0, 2) and found["lr"] == (0.001, 0.01) and found["train_neck"] == (True, False)
    assert found["fraction"] == (0.25, 1.0) and found["weights"] == ("none", "a.pth")


def test_values_with_commas_are_separated_by_bars() -> None:
    """`steps:0.6,0.8` is one value."""
    assert parse_axes(["schedule=cosine|steps:0.6,0.8"]) == {"schedule": ("cosine", "steps:0.6,0.8")}


@pytest.mark.parametrize(
    ("texts", "words"),
    [(["lr"], "no values"), (["lr="], "no values"), (["lr=1,2", "lr=3,4"], "given twice")],
)
def test_axes_without_values_are_refused(texts: list[str], words: str) -> None:
    """And an axis that is given twice."""
    with pytest.raises(UsageError, match=words):
        parse_axes(texts)


@pytest.mark.parametrize(
    ("vary", "words", "hint"),
    [
        ({"lrr": (1, 2)}, "no option 'lrr'", "lr"),
        ({"lr": (0.1,)}, "over one value", "--set"),
        ({"lr": (0.1, 0.1)}, "each value once", "Drop"),
        ({"seed": (0, 1)}, "cannot be varied", "--seeds"),
        ({"policy": ("last", "all")}, "cannot be varied", "--policy"),
        ({"shots": (5, 10)}, "cannot be varied", "--shots"),
        ({"iterations": (1, 2)}, "fixed at 2", "Drop one"),
    ],
)
def test_impossible_axes_are_refused(vary: dict[str, Any], words: str, hint: str) -> None:
    """An axis that does not exist, has one value, or that the sweep sets itself."""
    with pytest.raises(ConfigError, match=words) as error:
        varied(**vary)
    assert hint in str(error.value.hint)


def test_a_wrong_value_of_an_axis_is_refused_before_anything_runs() -> None:
    """With the words of the option itself."""
    with pytest.raises(FsodError, match="lr is -1"):
        check_cells(varied(lr=(0.1, -1.0)))
    with pytest.raises(PolicyError, match="backbone-stages 9"):
        check_cells(varied(backbone_stages=(0, 9)))
    with pytest.raises(FsodError, match="fraction"):
        varied(fraction=(0.5, 2.0))


def test_every_combination_is_a_cell() -> None:
    """Options of fetch decide the data set, those of finetune the run."""
    config = configure(
        ("cat", "dog"),
        source="coco:x",
        policies=("all",),
        seeds=2,
        vary={"fraction": (0.5, 1.0), "backbone_stages": (0, 1, 2), "lr": (0.1, 0.2)},
    )
    cells = list(config.grid.cells())
    assert len(cells) == len(set(cells)) == len({cell.run_name for cell in cells}) == 2 * 2 * 2 * 3 * 2
    assert len({cell.group.data_name for cell in cells}) == 2 * 2 * 2
    assert config.shots == () and cells[0].group.shots is None and not config.baselines
    chosen = finetune_config(config, cells[-1], data="x")
    assert (chosen.backbone_stages, chosen.lr) == (2, 0.2)


def test_shots_and_fraction_exclude_each_other() -> None:
    """Both say how many images are drawn."""
    with pytest.raises(ConfigError, match="shots and fraction"):
        configure("cat", source="coco:x", shots=(5,), vary={"fraction": (0.5, 1.0)})


@given(st.lists(st.text(max_size=40) | st.integers() | st.floats(allow_nan=False), min_size=2, unique=True))
def test_different_values_have_different_folders(values: list[Any]) -> None:
    """Whatever they are: also such as differ in case alone, or in what cannot be in a name."""
    texts = {str(value) for value in values}
    names = {choices_slug((("x", value),)).casefold() for value in values}
    assert len(names) == len(texts)
    assert all("/" not in name and len(name) < 60 for name in names)


def test_cells_that_share_features_follow_each_other() -> None:
    """Those with the same canvas and cut; the rate of learning does not matter."""
    vary = {"lr": (0.1, 0.2), "copies": (2, 3), "backbone_stages": (0, 1)}
    config = sweep_config(policies=("all",), baselines=False, options={"iterations": 2}, vary=vary)
    key = partial(features_key, config)
    cells = sorted(config.grid.cells_of(next(config.grid.groups())), key=key)
    sizes = [len(list(part)) for _, part in itertools.groupby(cells, key=key)]
    assert sizes == [2, 2, 2, 2]


@pytest.mark.parametrize(("share", "sizes"), [(True, [4, 4]), (False, [1] * 8)])
def test_cells_that_share_nothing_may_run_at_the_same_time(tmp_path: Path, share: bool, sizes: list[int]) -> None:
    """Another number of variants is other features; without sharing each cell may run in a process of its own."""
    vary = {"lr": (0.1, 0.2), "copies": (2, 3), "backbone_stages": (0, 1)}
    config = sweep_config(policies=("all",), baselines=False, options={"iterations": 2}, vary=vary)
    group = next(config.grid.groups())
    batches = list(batches_of(SweepFolder(tmp_path, config), group, share=share))
    assert sizes == [len(batch) for batch in batches]
    assert set(config.grid.cells_of(group)) == {cell for batch in batches for cell in batch}


def test_a_recorded_sweep_with_axes_comes_back() -> None:
    """Through JSON, where values are lists."""
    config = varied(lr=(0.1, 0.2), schedule=("cosine", "steps:0.5,0.75"), scale=((0.5, 1.0), (0.5, 2.0)))
    assert config == SweepConfig(**json.loads(json.dumps(config.to_json())))


def test_files_of_weights_are_shown_by_their_name() -> None:
    """Not by their whole path, which no column holds."""
    assert value_text("weights", "/a/b/mobilenet.pth") == "mobilenet" and value_text("fraction", 0.25) == "0.25"


def test_a_teacher_is_compared_with_none(tmp_path: Path) -> None:
    """`none` is a value; a file is shown by its name."""
    file = tmp_path / "mobile.pth"
    config = configure("cat", source="coco:x", vary={"distil": ("none", f"backbone:mobilenet_v2:{file}")})
    cells = config.grid.cells_of(next(config.grid.groups()))
    assert {finetune_config(config, cell, data="x").distil for cell in cells} == {None, f"backbone:mobilenet_v2:{file}"}
    assert value_text("distil", f"backbone:mobilenet_v2:{file}") == "backbone:mobilenet_v2:mobile"


def test_tables_can_only_show_what_is_varied() -> None:
    """Rows, columns and panels: each an axis, each another."""
    with pytest.raises(ConfigError, match="'lrr'"):
        sweep_config(vary={"lr": (0.1, 0.2)}, rows="lrr")
    with pytest.raises(ConfigError, match="twice"):
        sweep_config(vary={"lr": (0.1, 0.2)}, rows="lr", columns="lr")


def test_ten_thousand_cells_are_listed_in_seconds(tmp_path: Path) -> None:
    """What is missing is found without opening a file of each cell."""
    rates = tuple(0.001 * (1 + number) for number in range(100))
    config = sweep_config(
        policies=("all",), baselines=False, seeds=25, options={**TINY}, vary={"lr": rates, "clip": (1.0, 2.0)}
    )
    folder = open_sweep(tmp_path / "sweep", config)
    started = time.perf_counter()
    check_cells(config)
    missing = SweepFolder(folder.path, config).missing()
    names = {cell.run_name for cell in missing}
    seconds = time.perf_counter() - started
    assert len(missing) == len(names) == 2 * 25 * 200
    assert seconds < 10


@pytest.mark.parametrize("name", STUDIES)
def test_every_study_is_a_sweep_that_can_run(name: str) -> None:
    """Its options and axes exist, and its cells are checked, on a detector that has all of them."""
    config = configure("all", source="coco:x", preset=name, detectors=("retinanet_mobilenet_v2_fpn",))
    check_cells(config)
    assert config.study == name and config.grid.seeds == 3
