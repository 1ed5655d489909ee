"""The Ray engine: a real cluster of two nodes on this machine, one of which is killed."""

from __future__ import annotations

import shutil
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers_sweeps import GRID, TINY, draw_classes, losses

from fewshot_cli.errors import NetworkError
from fewshot_cli.sweeps.run import SweepResult, sweep

SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",  # sends nothing to anybody
    "RAY_memory_monitor_refresh_ms": "0",  # a machine full of other tests is no reason to kill a worker
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # every address is 127.0.0.1, which firewalls do not ask about
}
NODE = {"num_cpus": 1, "object_store_memory": 80_000_000, "include_dashboard": False, "node_ip_address": "127.0.0.1"}


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A node of one core that listens on 127.0.0.1; its files and processes are gone afterwards."""
    for name, value in SETTINGS.items():
        monkeypatch.setenv(name, value)
    # Not tmp_path: the path of a socket is at most 107 characters long.
    files = tempfile.mkdtemp(prefix="ray")
    monkeypatch.setenv("RAY_TMPDIR", files)
    import ray
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args=NODE)
    yield made
    ray.shutdown()
    made.shutdown()
    shutil.rmtree(files, ignore_errors=True)


def run(folder: Path, seeds: int, **engine: Any) -> SweepResult:
    """Groups of two cells, one a seed."""
    grid = {**GRID, "seeds": seeds, "baselines": False, "options": {**TINY, "precision": "fp32"}}
    return sweep("cat", source=draw_classes(folder), out=folder / "sweep", **grid, **engine)


class Watcher(threading.Thread):
    """Calls `kill` when three cells are finished, and notes cells that are finished a second time."""

    def __init__(self, folder: Path, kill: Any) -> None:
        super().__init__(daemon=True)
        self.folder, self.kill = folder, kill
        self.finished: dict[Path, int] = {}
        self.again: list[Path] = []
        self.killed = False
        self.over = threading.Event()

    def run(self) -> None:
        while not self.over.wait(0.05):
            for path in self.folder.glob("sweep/runs/*/result.json"):
                written = path.stat().st_mtime_ns
                if self.finished.setdefault(path, written) != written:
                    self.again.append(path)
            if len(self.finished) >= 3 and not self.killed:
                self.kill()
                self.killed = True


@pytest.mark.slow
def test_a_node_may_die_in_the_middle(cluster: Any, tmp_path: Path) -> None:
    """Every cell is done, none a second time, and the numbers are those of this process alone."""
    node = cluster.add_node(**NODE)
    watcher = Watcher(tmp_path / "ray", lambda: cluster.remove_node(node, allow_graceful=False))
    watcher.start()
    try:
        result = run(tmp_path / "ray", 5, engine="ray", address=cluster.address)
    finally:
        watcher.over.set()
        watcher.join()
    assert watcher.killed
    assert ((), []) == (result.failures, result.folder.missing())
    assert [] == watcher.again
    ours, theirs = losses(result.folder), losses(run(tmp_path / "alone", 2).folder)
    assert (10, 4) == (len(ours), len(theirs))
    for cell, lines in theirs.items():
        for line, other in zip(lines, ours[cell], strict=True):
            assert line == pytest.approx(other, rel=1e-3)


def test_an_address_without_a_cluster_is_a_network_error(tmp_path: Path) -> None:
    """With the address in the message."""
    with pytest.raises(NetworkError, match="no Ray cluster at 127.0.0.1:1"):
        run(tmp_path, 1, engine="ray", address="127.0.0.1:1")
