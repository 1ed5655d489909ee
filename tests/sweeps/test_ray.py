"""The Ray engine: a real cluster of two nodes on this machine."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from helpers_data import draw_coco
from helpers_runs import fsod

from fewshot_cli.errors import NetworkError
from fewshot_cli.sweeps.engine import Sweep, open_sweep, run_sweep
from fewshot_cli.sweeps.grid import SweepConfig

pytest.importorskip("ray", reason="Ray is not installed: pip install 'fsod[ray]'")
pytestmark = pytest.mark.slow


def sweep_in(folder: Path) -> Sweep:
    """Eight groups of two cells."""
    if not (folder / "cat").exists():
        draw_coco(folder / "cat", [["cat"]] * 8, classes=("cat",))
    config = SweepConfig(
        classes=("cat",),
        source=f"coco:{folder / 'cat'}",
        budgets=(2,),
        shots=(2,),
        seeds=8,
        test_images=3,
        weights="none",
        baselines=False,
        eval_every=1,
        options={"iterations": 2, "copies": 2, "image_size": 64, "batch_size": 2, "precision": "fp32"},
    )
    return open_sweep(folder / "sweep", config)


def losses(sweep: Sweep) -> dict[str, Any]:
    return {
        str(cell): [json.loads(line)["losses"] for line in sweep.run(cell).metrics_file.read_text().splitlines()]
        for cell, _ in sweep.results()
    }


@pytest.fixture
def cluster() -> Any:
    import ray
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    yield made
    ray.shutdown()
    made.shutdown()


def test_a_node_may_die_in_the_middle(cluster: Any, tmp_path: Path) -> None:
    """Every cell is done, none a second time, and the numbers are those of this process alone."""
    node = cluster.add_node(num_cpus=1)
    sweep = sweep_in(tmp_path / "ray")
    finished: dict[Path, int] = {}
    done_again: list[Path] = []
    over = threading.Event()

    def watch() -> None:
        killed = False
        while not over.is_set():
            for path in sweep.folder.glob("runs/*/result.json"):
                seen = finished.setdefault(path, path.stat().st_mtime_ns)
                done_again.extend([path] * (seen != path.stat().st_mtime_ns))
            if len(finished) >= 4 and not killed:
                cluster.remove_node(node, allow_graceful=False)
                killed = True
            time.sleep(0.05)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        assert [] == run_sweep(sweep, engine="ray", address=cluster.address)
    finally:
        over.set()
        watcher.join()
    assert [] == sweep.missing()
    assert [] == done_again
    alone = sweep_in(tmp_path / "alone")
    run_sweep(alone)
    ours, theirs = losses(sweep), losses(alone)
    assert 16 == len(ours)
    for cell, lines in ours.items():
        for line, other in zip(lines, theirs[cell], strict=True):
            assert line == pytest.approx(other, rel=1e-3)


def test_a_cluster_that_is_not_there_is_told(tmp_path: Path) -> None:
    """A network error with what to do."""
    with pytest.raises(NetworkError, match="no Ray cluster at 127.0.0.1:1"):
        run_sweep(sweep_in(tmp_path), engine="ray", address="127.0.0.1:1")


def test_an_address_needs_the_engine() -> None:
    """Usage errors, exit code 2."""
    grid = ("sweep", "--class", "cat", "--source", "miniature")
    assert 2 == fsod(*grid, "--address", "auto").exit_code
    assert 2 == fsod(*grid, "--engine", "dask").exit_code
