"""`fsod sweep`: the grid, resumption, failures, shared features, processes."""

from __future__ import annotations

import json
import re
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers_data import draw_coco
from helpers_runs import browse, fsod, needs_browser, start_fsod
from PIL import Image

from fewshot_cli.errors import ConfigError, ModelError
from fewshot_cli.sweeps.engine import Sweep, open_sweep, remaining_seconds, run_sweep
from fewshot_cli.sweeps.forecast import Costs, seconds_of
from fewshot_cli.sweeps.grid import PRESETS, SweepConfig

TINY = {"iterations": 2, "copies": 2, "image_size": 64, "batch_size": 2}


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A source with two classes."""
    folder = tmp_path_factory.mktemp("photos")
    for name in ("cat", "dog"):
        draw_coco(folder / name, [[name]] * 8, classes=(name,))
    return f"coco:{folder}/{{class}}"


def config_of(source: str, **changes: Any) -> SweepConfig:
    tiny = {
        "classes": ("cat", "dog"),
        "source": source,
        "budgets": (2,),
        "shots": (2,),
        "seeds": 1,
        "test_images": 3,
        "weights": "none",
        "eval_every": 1,
        "options": TINY,
    }
    return SweepConfig(**{**tiny, **changes})  # type: ignore[arg-type]


def setups(**changes: Any) -> list[str]:
    config = config_of("coco:x", **changes)
    return [str(setup) for setup in config.setups(config.detectors[0])]


# --- the grid ---


def test_table1_is_the_seven_setups_of_the_paper_and_the_baselines() -> None:
    """On a head of five layers: last 1 to 4, symmetric 2 to 4, with zero-shot, all and full beside."""
    preset = {key: PRESETS["table1"][key] for key in ("policies", "budgets")}
    seven = ["last 1", "last 2", "symmetric 2", "last 3", "symmetric 3", "last 4", "symmetric 4"]
    assert ["none", *seven, "all", "full"] == setups(**preset, detectors=("retinanet_mini",))


def test_what_a_head_cannot_spend_is_left_out() -> None:
    """On a head of four layers a budget of four is `all`; symmetric needs two."""
    assert ["last 1", "last 3", "symmetric 3"] == setups(budgets=(1, 3, 4), baselines=False)


def test_cells_come_seed_by_seed() -> None:
    """A sweep that is stopped early has whole seeds."""
    seeds = [cell.group.seed for cell in config_of("coco:x", seeds=3).cells()]
    assert sorted(seeds) == seeds


def test_every_cell_has_a_run_of_its_own() -> None:
    """No two cells share a folder, whatever the class is called."""
    config = config_of(
        "coco:x", classes=("a b", "a/b", "ab"), shots=(1, 2), seeds=2, detectors=("yolox_nano", "yolox_s")
    )
    names = [cell.run_name for cell in config.cells() if cell.group.class_name != "a/b"]
    assert len(names) == len(set(names))
    assert all("/" not in cell.run_name for cell in config.cells())


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"classes": ()}, "classes is empty"),
        ({"classes": ("cat", "cat")}, "classes is cat, cat"),
        ({"seeds": 0}, "counted from 1"),
        ({"policies": ("full",)}, "policy full takes no budget"),
        ({"policies": ("simmetric",)}, "unknown policy"),
        ({"options": {"itterations": 3}}, "unknown option 'itterations'"),
        ({"options": {"lr": -1}}, "lr is -1"),
        ({"budgets": (9,), "baselines": False}, "no policy can spend"),
    ],
)
def test_an_impossible_grid_is_told_before_anything_runs(changes: dict[str, Any], said: str) -> None:
    """Every dimension is checked when the grid is built."""
    with pytest.raises(ConfigError, match=re.escape(said)):
        config_of("coco:x", **changes)


def test_an_unknown_detector_is_told() -> None:
    """With the valid ones."""
    with pytest.raises(ModelError, match="unknown detector"):
        config_of("coco:x", detectors=("yolo",))


# --- running ---


def finished(sweep: Sweep) -> dict[str, float]:
    return {str(cell): result["ap"] for cell, result in sweep.results()}


def test_a_sweep_does_every_cell_once(photos: str, tmp_path: Path) -> None:
    """All cells are finished; a second call touches no run; the estimate is then zero."""
    sweep = open_sweep(tmp_path / "sweep", config_of(photos))
    assert remaining_seconds(sweep) is None
    assert [] == run_sweep(sweep)
    assert 2 * 5 == len(finished(sweep))
    times = {path: path.stat().st_mtime_ns for path in tmp_path.glob("sweep/runs/*/result.json")}
    assert [] == run_sweep(open_sweep(tmp_path / "sweep", config_of(photos)))
    assert times == {path: path.stat().st_mtime_ns for path in tmp_path.glob("sweep/runs/*/result.json")}
    assert 0 == remaining_seconds(sweep)


def test_only_what_is_missing_is_done(photos: str, tmp_path: Path) -> None:
    """A cell whose run is gone, or was stopped half-way, is done again, and no other; more seeds add cells."""
    sweep = open_sweep(tmp_path / "sweep", config_of(photos))
    run_sweep(sweep)
    before = finished(sweep)
    victim = sweep.run(next(sweep.config.cells()))
    victim.result_file.unlink()
    assert [victim.folder] == [sweep.run(cell).folder for cell in sweep.missing()]
    run_sweep(sweep)
    assert before == finished(sweep)
    more = open_sweep(tmp_path / "sweep", config_of(photos, seeds=2))
    assert 10 == len(more.missing())


def test_shared_features_change_no_number(photos: str, tmp_path: Path) -> None:
    """Losses and mAP are the same with shared caches, without, and in two processes."""
    found = []
    for name, how in (("shared", {}), ("apart", {"share": False}), ("processes", {"jobs": 2})):
        sweep = open_sweep(tmp_path / name, config_of(photos, options={**TINY, "precision": "fp32"}))
        assert [] == run_sweep(sweep, **how)  # type: ignore[arg-type]
        found.append(
            {
                str(cell): [
                    json.loads(line)["losses"] for line in sweep.run(cell).metrics_file.read_text().splitlines()
                ]
                for cell, _ in sweep.results()
            }
        )
    assert 10 == len(found[0])
    assert found[0] == found[1]
    for cell, lines in found[0].items():
        for ours, theirs in zip(lines, found[2][cell], strict=True):
            assert ours == pytest.approx(theirs, rel=1e-3)


def test_cells_with_the_same_cut_share_their_features(
    photos: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """symmetric 2, symmetric 3 and all fill one cache; last 2 and full one each of their own."""
    from fewshot_cli.training.cache import FeatureCache

    filled: list[str] = []
    fill = FeatureCache.fill

    def counted(self: Any, reporter: Any = None, description: str = "") -> Any:
        filled.append(description)
        return fill(self, reporter, description)

    monkeypatch.setattr(FeatureCache, "fill", counted)
    config = config_of(photos, classes=("cat",), budgets=(2, 3))
    run_sweep(open_sweep(tmp_path / "sweep", config))
    assert ["none", "last 2", "symmetric 2", "last 3", "symmetric 3", "all", "full"] == setups(budgets=(2, 3))
    # none, last 2, last 3, the three that begin at the first layer, full
    assert 5 == sum("variants" in description for description in filled)
    assert 5 == sum("test" in description for description in filled)


def children(process: int) -> set[int]:
    return {int(child) for child in Path(f"/proc/{process}/task/{process}/children").read_text().split()}


def is_alive(process: int) -> bool:
    """Whether it runs; one that has ended and that nobody has asked about does not."""
    try:
        status = Path(f"/proc/{process}/status").read_text()
    except FileNotFoundError:
        return False
    return "\nState:\tZ" not in status


def wait_until(condition: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} seconds"
        time.sleep(0.05)


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="looks for processes under /proc")
@pytest.mark.parametrize(("sign", "code"), [(signal.SIGTERM, 143), (signal.SIGKILL, -signal.SIGKILL)])
def test_a_stopped_sweep_leaves_no_process_behind(sign: signal.Signals, code: int, photos: str, tmp_path: Path) -> None:
    """Its workers end with it, or they would go on beside the call that takes over."""
    process = start_fsod(
        "sweep", "--class", "cat", "--class", "dog", "--source", photos, "--policy", "last", "--budget", "1", "--seeds",
        "1", "--shots", "2", "--no-baselines", "--weights", "none", "--jobs", "2", "--eval-every", "0",
        *(part for name, value in {**TINY, "iterations": 10**5}.items() for part in ("--set", f"{name}={value}")),
        "--out", tmp_path / "sweep",
    )  # fmt: skip
    try:
        wait_until(lambda: len(list(tmp_path.glob("sweep/runs/*/state.pt"))) == 2, 90)
        workers = children(process.pid)
        assert len(workers) >= 2
        process.send_signal(sign)
        process.communicate(timeout=20)
        assert code == process.returncode
        wait_until(lambda: not any(map(is_alive, workers)), 10)
    finally:
        process.kill()


def test_a_failed_cell_stops_no_other(photos: str, tmp_path: Path) -> None:
    """A class that cannot be drawn and a run that cannot be written fail alone, with reason and exit code."""
    sweep = open_sweep(tmp_path / "sweep", config_of(photos, classes=("cat", "cow")))
    blocked = sweep.run(next(cell for cell in sweep.config.cells() if cell.setup.policy == "last"))
    blocked.folder.write_text("a file where the run should be")
    failures = run_sweep(sweep)
    assert {"cow", "cat"} == {failure.cell.group.class_name for failure in failures}
    assert 1 + 5 == len(failures)
    assert {3} == {failure.exit_code for failure in failures}
    assert 4 == len(finished(sweep))
    blocked.folder.unlink()
    assert {"cow"} == {failure.cell.group.class_name for failure in run_sweep(sweep)}
    assert 5 == len(finished(sweep))


def test_a_folder_is_not_used_for_another_sweep(photos: str, tmp_path: Path) -> None:
    """What would change cells that are done is refused, and said."""
    open_sweep(tmp_path / "sweep", config_of(photos))
    with pytest.raises(ConfigError, match="eval_every 1 .now 0."):
        open_sweep(tmp_path / "sweep", config_of(photos, eval_every=0))
    (tmp_path / "sweep" / "sweep.json").write_text("{")
    with pytest.raises(ConfigError, match="cannot be read"):
        open_sweep(tmp_path / "sweep", config_of(photos))


# --- the command ---


def argv(source: str, folder: Path, *more: str) -> list[str]:
    sets = [word for name, value in TINY.items() for word in ("--set", f"{name}={value}")]
    grid = ["--class", "cat", "--source", source, "--budget", "2", "--shots", "2", "--seeds", "2", "--weights", "none"]
    return ["sweep", *grid, "--test-images", "3", *sets, "--eval-every", "1", "--out", str(folder), *more]


@pytest.fixture(scope="module")
def swept(photos: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The folder of a finished sweep, and what the command said of it."""
    folder = tmp_path_factory.mktemp("swept") / "sweep"
    result = fsod(*argv(photos, folder, "--json"))
    assert 0 == result.exit_code, result.stderr
    return folder, json.loads(result.stdout)


def test_the_command_writes_tables_and_curves(swept: tuple[Path, dict[str, Any]]) -> None:
    """--json lists the tables and the files; each file is there and of its kind."""
    _, document = swept
    assert ["none", "last 2", "symmetric 2", "all", "full"] == [row["setup"] for row in document["tables"][0]["rows"]]
    endings = {Path(file).suffix for file in document["files"]}
    assert {".html", ".md", ".tex", ".csv", ".json", ".png"} == endings
    for file in document["files"]:
        if file.endswith(".png"):
            with Image.open(file) as image:
                assert image.width > 400
        else:
            assert Path(file).read_text().strip()


def test_a_dry_run_lists_the_cells_and_runs_none(photos: str, tmp_path: Path) -> None:
    """All are missing, a rehearsal says how long they take, and no folder is made."""
    plan = json.loads(fsod(*argv(photos, tmp_path / "sweep", "--dry-run", "--json")).stdout)
    assert (10, 10) == (len(plan["cells"]), plan["missing"])
    assert 0.1 < plan["seconds"] < 600
    assert not (tmp_path / "sweep").exists()


def test_a_forecast_counts_what_will_be_done() -> None:
    """Steps, measurements as a share of them, and features once for the cells that share them; a second seed anew."""
    config = config_of("coco:x", classes=("cat",), seeds=2, options={"iterations": 20, "copies": 3}, eval_every=5)
    sweep, costs, cached = Sweep(Path("x"), config), Costs(image=1.0, step=10.0, once=100.0), set()  # type: ignore[var-annotated]
    seconds = [
        seconds_of(sweep, cell, costs, cached)
        for cell in config.cells()
        if cell.setup.policy in ("last", "symmetric", "all")
    ]
    once_and_steps, images = 100 + 10 * (20 + 4 * 3 / 8), 2 * 3 + 3
    first, shared = once_and_steps + images, once_and_steps
    assert [first, first, shared] * 2 == seconds


def test_a_failure_is_told_and_leaves_its_exit_code(
    photos: str, swept: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    """The table of what could be done is printed all the same, and the page says what is missing."""
    folder = shutil.copytree(swept[0], tmp_path / "sweep")
    result = fsod(*argv(photos, folder, "--class", "cow"))
    page = (folder / "report.html").read_text("utf-8")
    assert "cells are missing" in page and "cow, 2 shots" in page
    assert 3 == result.exit_code
    assert "cow" in result.stderr
    assert "symmetric 2" in result.stdout


def test_class_and_source_are_needed(tmp_path: Path) -> None:
    """Usage errors, exit code 2."""
    assert 2 == fsod("sweep", "--source", "miniature").exit_code
    assert 2 == fsod("sweep", "--class", "cat").exit_code
    assert 2 == fsod("sweep", "--class", "cat", "--source", "miniature", "--preset", "table2").exit_code
    assert 2 == fsod("sweep", "--class", "cat", "--source", "miniature", "--set", "lr").exit_code


def test_the_page_of_a_sweep_holds_all_of_it(swept: tuple[Path, dict[str, Any]]) -> None:
    """Table, comparison, curves, drift and images in one file that needs no other."""
    page = (swept[0] / "report.html").read_text("utf-8")
    assert not re.search(r"https?://|<script|<link|url\(", page)
    for text in ("symmetric 2 − last 2", "symmetric 2 − full", "head.1", "MB at most", "full"):
        assert text in page
    texts = re.findall(r'<img [^>]*alt="([^"]+)"', page)
    # curves, precision and recall, three test images in five setups, two shots
    assert page.count("<img") == len(set(texts)) == 2 + 3 * 5 + 2
    assert page.count("F1 0.") + page.count("F1 1.") == 3 * 5


@needs_browser
def test_a_browser_shows_the_page_of_a_sweep(swept: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    """Headless Chromium, without a network, draws table, curves and images: nothing is empty or cut short."""
    pixels = np.asarray(browse(swept[0] / "report.html", tmp_path / "page.png", 2000).convert("L"))
    for top in range(0, 2000, 400):
        assert pixels[top : top + 400].std() > 5, top


def test_options_of_fetch_reach_every_data_set(photos: str, tmp_path: Path) -> None:
    """--fetch-set: an option that fetch or the source does not take is refused before the first cell."""
    result = fsod(*argv(photos, tmp_path / "sweep", "--fetch-set", "split=test"))
    assert 4 == result.exit_code
    assert "--split does not go with --source coco" in result.stderr
    assert 4 == fsod(*argv(photos, tmp_path / "other", "--fetch-set", "splitt=test")).exit_code
    assert 2 == fsod(*argv(photos, tmp_path / "other", "--fetch-set", "split")).exit_code


def test_where_images_come_from_may_change_and_what_is_drawn_may_not(tmp_path: Path) -> None:
    """Another mirror goes on with the sweep; another split does not."""
    open_sweep(tmp_path / "sweep", config_of("openimages", fetch_options={"split": "train", "mirror": "http://a"}))
    open_sweep(tmp_path / "sweep", config_of("openimages", fetch_options={"split": "train", "mirror": "http://b"}))
    with pytest.raises(ConfigError, match="split train .now test."):
        open_sweep(tmp_path / "sweep", config_of("openimages", fetch_options={"split": "test"}))
