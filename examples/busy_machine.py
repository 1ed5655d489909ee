"""One fine-tune beside other work: how long it takes when busy processes need the same cores.

    python examples/busy_machine.py data/helmet --weights yolox_nano_coco.pth

Beside 0, 1 and 2 busy processes (`--others`), two ways in turn: `--threads auto`, the default, which uses the cores
that are free and limits how long OpenMP's threads spin while they wait; and as many threads as cores, with the spinning
that OpenMP has by itself. Start of the process included. Further arguments are options of `fsod finetune`.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

DEFAULT_SPINS = "300000"
"""Loops that libgomp lets a waiting thread spin by default."""


@contextmanager
def busy(count: int) -> Iterator[None]:
    """So many processes that compute without a pause."""
    processes = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def run_once(command: list[str], environment: dict[str, str], limit: float) -> tuple[float, int | None]:
    """(seconds, threads used) of one fine-tune; (limit, None) if it takes longer."""
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        try:
            done = subprocess.run(
                command, cwd=folder, env=environment, check=True, stdout=subprocess.PIPE, text=True, timeout=limit
            )
        except subprocess.TimeoutExpired:
            return limit, None
        return time.perf_counter() - started, json.loads(done.stdout)["threads"]


def shown(taken: list[tuple[float, int | None]]) -> str:
    """Each run's seconds, with its threads."""
    return ", ".join(f"{s:.1f} ({n} thread{'s' * (n > 1)})" if n else f"over {s:.0f}" for s, n in taken)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="a data set made by fsod fetch")
    parser.add_argument("--weights", default="default")
    parser.add_argument("--others", type=int, nargs="+", default=[0, 1, 2], help="numbers of busy processes")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--limit", type=float, default=120.0, help="seconds after which a run is stopped")
    options, further = parser.parse_known_args()
    weights = str(Path(options.weights).resolve()) if Path(options.weights).is_file() else options.weights
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

    command = [sys.executable, "-m", "fewshot_cli", "finetune", "--json", "--quiet", "--no-report", "--eval-every", "0"]
    command += ["--data", str(options.data.resolve()), "--weights", weights, *further]
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_"))}
    kinds = {
        "auto": (command, plain),
        "all cores, spinning not limited": (
            [*command, "--threads", str(cores)],
            {**plain, "GOMP_SPINCOUNT": DEFAULT_SPINS},
        ),
    }
    print(f"{platform.processor() or platform.machine()}, {cores} cores; seconds of each run, and the median")
    print(f"| busy processes | {' | '.join(kinds)} | auto: ratio to the first row |\n| --- | --- | --- | --- |")
    idle = 0.0
    for others in options.others:
        taken: dict[str, list[tuple[float, int | None]]] = {kind: [] for kind in kinds}
        for _ in range(options.repeats):
            for kind, (arguments, environment) in kinds.items():
                with busy(others):
                    taken[kind].append(run_once(arguments, environment, options.limit))
        medians = {kind: statistics.median(seconds for seconds, _ in runs) for kind, runs in taken.items()}
        idle = idle or medians["auto"]
        cells = [f"{shown(runs)}: **{medians[kind]:.1f}**" for kind, runs in taken.items()]
        print(f"| {others} | {' | '.join(cells)} | {medians['auto'] / idle:.2f} |", flush=True)


if __name__ == "__main__":
    main()
