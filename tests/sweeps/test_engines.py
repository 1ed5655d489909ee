"""Engines: the registry, an engine of one's own, and processes of this machine."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers_runs import REPOSITORY, start_fsod
from helpers_sweeps import GRID, TINY, draw_classes

from fewshot_cli.errors import ConfigError, UsageError
from fewshot_cli.sweeps.engines import ENGINES, get_engine
from fewshot_cli.sweeps.engines.contract import Done, Lost
from fewshot_cli.sweeps.run import sweep

BACKWARDS = '''
"""An engine that takes the last item first."""

from dataclasses import dataclass

from fewshot_cli.sweeps.engines.contract import Done

@dataclass(frozen=True, kw_only=True)
class BackwardsEngine:
    def run(self, work, items):
        return (Done(item, work(item)) for item in reversed(items))
'''


def test_a_new_engine_is_one_module_and_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sweep runs on it by its name: two cells, the last group first."""
    (tmp_path / "backwards.py").write_text(BACKWARDS)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(ENGINES, "backwards", "backwards:BackwardsEngine")
    grid = {**GRID, "policies": ("last",), "baselines": False}
    source = draw_classes(tmp_path)
    result = sweep(["cat", "dog"], source=source, out=tmp_path / "sweep", engine="backwards", **grid)
    assert () == result.failures
    times = {
        cell.group.class_name: result.folder.run(cell).result_file.stat().st_mtime_ns
        for cell, _ in result.folder.results()
    }
    assert times["dog"] < times["cat"]


def test_unknown_engines_and_options_of_others_are_refused() -> None:
    """By the library, with what would be right."""
    with pytest.raises(UsageError, match="unknown engine 'rai'") as unknown:
        get_engine("rai")
    assert "Did you mean ray? Valid: local, ray." == unknown.value.hint
    with pytest.raises(UsageError, match="--address does not go with --engine local") as foreign:
        get_engine("local", jobs=2, address="auto")
    assert "It goes with ray." == foreign.value.hint
    with pytest.raises(UsageError, match="jobs is 0"):
        get_engine("local", jobs=0)


def test_ray_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray is an extra."""
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match="Ray is not installed"):
        list(get_engine("ray").run(abs, [1]))


def kill_on_zero(item: int) -> int:
    """Twice the item; its process does not survive a zero."""
    if item == 0:
        time.sleep(1)
        os.kill(os.getpid(), signal.SIGKILL)
    return 2 * item


@pytest.mark.slow
def test_an_item_whose_process_is_killed_is_lost() -> None:
    """The reason names the way out; what was done before counts."""
    outcomes = list(get_engine("local", jobs=2).run(kill_on_zero, [3, 0]))
    assert Done(3, 6) in outcomes
    (lost,) = [outcome for outcome in outcomes if isinstance(outcome, Lost)]
    assert 0 == lost.item and "fewer --jobs" in lost.reason


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


needs_proc = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="looks for processes under /proc")

TWO_WORKERS = """
from fewshot_cli.sweeps.engines import get_engine
from test_engines import say_and_sleep
list(get_engine("local", jobs=2).run(say_and_sleep, {files}))
"""


def say_and_sleep(file: str) -> None:
    Path(file).touch()
    time.sleep(60)


@needs_proc
@pytest.mark.slow
def test_workers_end_with_the_process_that_started_them(tmp_path: Path) -> None:
    """Even if it is killed and can do nothing any more."""
    files = [str(tmp_path / name) for name in "ab"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(REPOSITORY), *sys.path])}
    process = subprocess.Popen([sys.executable, "-c", TWO_WORKERS.format(files=files)], env=environment)
    try:
        wait_until(lambda: len(list(tmp_path.iterdir())) == 2, 60)
        workers = children(process.pid)
        assert len(workers) >= 2
        process.kill()
        process.wait()
        wait_until(lambda: not any(map(is_alive, workers)), 10)
    finally:
        process.kill()


@pytest.mark.slow
@needs_proc
@pytest.mark.parametrize(("sign", "code"), [(signal.SIGTERM, 143), (signal.SIGKILL, -signal.SIGKILL)])
def test_a_stopped_sweep_leaves_no_process_behind(sign: signal.Signals, code: int, tmp_path: Path) -> None:
    """Its workers end with it, or they would go on beside the call that takes over."""
    process = start_fsod(
        "sweep", "--class", "cat", "--class", "dog", "--source", draw_classes(tmp_path), "--policy", "last", "--budget", "1",
        "--seeds", "1", "--shots", "2", "--no-baselines", "--weights", "none", "--jobs", "2", "--eval-every", "0",
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
