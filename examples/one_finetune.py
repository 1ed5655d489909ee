"""How long one fine-tune takes on this machine, process start included.

    python examples/one_finetune.py data/helmet --weights yolox_nano_coco.pth

Two commands in turn: one measurement at the end and no page, and the default of four measurements and the page. A
virtual machine shares its cores; the seconds of computing that its host gave to others meanwhile ("steal", Linux only)
are listed beside. Further options are passed to `fsod finetune`.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

KINDS = {"one measurement, no page": ["--eval-every", "0", "--no-report"], "default": []}


def stolen() -> float:
    """Seconds of computing, over all cores, that the host has withheld so far; 0 where nobody counts them."""
    try:
        # proc(5), the line of all cores: cpu user nice system idle iowait irq softirq steal …
        ticks = Path("/proc/stat").read_text().split(maxsplit=9)[8]
    except OSError:
        return 0.0
    return int(ticks) / os.sysconf("SC_CLK_TCK")


def run_once(options: argparse.Namespace, extra: list[str]) -> tuple[float, float]:
    """One fine-tune: (seconds from start to end, seconds stolen meanwhile)."""
    command = [sys.executable, "-m", "fewshot_cli", "finetune", "--quiet", "--data", str(options.data.resolve())]
    command += ["--weights", options.weights, "--policy", "symmetric", "--budget", "3", *options.further, *extra]
    with tempfile.TemporaryDirectory() as folder:
        before, started = stolen(), time.perf_counter()
        subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
        return time.perf_counter() - started, stolen() - before


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="a data set made by fsod fetch")
    parser.add_argument("--weights", default="default")
    parser.add_argument("--repeats", type=int, default=8)
    options, options.further = parser.parse_known_args()
    if Path(options.weights).is_file():
        options.weights = str(Path(options.weights).resolve())

    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores")
    print("| command | seconds | stolen, s |\n| --- | --- | --- |")
    taken: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for _ in range(options.repeats):
        for kind, extra in KINDS.items():
            seconds, withheld = run_once(options, extra)
            taken[kind].append(seconds)
            print(f"| {kind} | {seconds:.1f} | {withheld:.1f} |", flush=True)
    for kind, seconds_of_kind in taken.items():
        print(f"{kind}: median {statistics.median(seconds_of_kind):.1f} s of {options.repeats}")


if __name__ == "__main__":
    main()
