"""How long one fine-tune takes on this machine, process start included.

    python examples/one_finetune.py data/helmet --weights yolox_nano_coco.pth

Two commands in turn: one measurement at the end and no page, and the default of four measurements and the page; with
--beside DETECTOR=FILE, the same of further detectors. A virtual machine shares its cores; the seconds of computing that
its host gave to others meanwhile ("steal", Linux only) are listed beside. Further options are passed to `fsod
finetune`.
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


def run_once(options: argparse.Namespace, detector: str, weights: str, extra: list[str]) -> tuple[float, float]:
    """One fine-tune: (seconds from start to end, seconds stolen meanwhile)."""
    command = [sys.executable, "-m", "fewshot_cli", "finetune", "--quiet", "--data", str(options.data.resolve())]
    command += ["--detector", detector, "--weights", weights, "--policy", "symmetric", "--budget", "3"]
    command += [*options.further, *extra]
    with tempfile.TemporaryDirectory() as folder:
        before, started = stolen(), time.perf_counter()
        subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
        return time.perf_counter() - started, stolen() - before


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="a data set made by fsod fetch")
    parser.add_argument("--weights", default="default", help="of yolox_nano")
    parser.add_argument("--beside", metavar="DETECTOR=FILE", action="append", default=[])
    parser.add_argument("--repeats", type=int, default=8)
    options, options.further = parser.parse_known_args()
    named = dict(each.partition("=")[::2] for each in (f"yolox_nano={options.weights}", *options.beside))
    # Whole paths, because the commands run in folders of their own.
    detectors = {name: str(Path(file).resolve()) if Path(file).is_file() else file for name, file in named.items()}

    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores")
    print("| detector | command | seconds | stolen, s |\n| --- | --- | --- | --- |")
    taken: dict[tuple[str, str], list[float]] = {(name, kind): [] for name in detectors for kind in KINDS}
    for _ in range(options.repeats):
        for name, kind in taken:
            seconds, withheld = run_once(options, name, detectors[name], KINDS[kind])
            taken[name, kind].append(seconds)
            print(f"| {name} | {kind} | {seconds:.1f} | {withheld:.1f} |", flush=True)
    for (name, kind), of_kind in taken.items():
        print(f"{name}, {kind}: median {statistics.median(of_kind):.1f} s of {options.repeats}")


if __name__ == "__main__":
    main()
