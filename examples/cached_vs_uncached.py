"""What the feature cache saves: the same fine-tune with and without it, side by side, and the same losses.

    python examples/cached_vs_uncached.py data/helmet --weights yolox_nano_coco.pth

Without the cache every iteration decodes and augments its images and runs the frozen layers again, as an ordinary
training loop does. Times include everything but loading the weights: the cached run pays for filling its cache.
"""

from __future__ import annotations

import argparse
import json
import platform
import shutil
import tempfile
from pathlib import Path

import torch

from fewshot_cli.runs.config import FinetuneConfig
from fewshot_cli.runs.folder import Run
from fewshot_cli.training.finetune import finetune

SETUPS = {"symmetric 3": ("symmetric", 3), "last 1": ("last", 1)}


def run_once(options: argparse.Namespace, setup: str, cached: bool, folder: Path) -> dict:
    """One fine-tune; its result, with the losses of its last evaluation."""
    policy, budget = SETUPS[setup]
    config = FinetuneConfig(
        data=str(options.data),
        detector=options.detector,
        weights=options.weights,
        policy=policy,
        budget=budget,
        average=1.0,
        eval_every=0,
        **options.options,
        **({} if cached else {"cache_memory": 0.0, "cache_disk": 0.0}),
    )
    run = Run(folder)
    folder.mkdir()
    run.write_config(config)
    result = finetune(config, run)
    last = json.loads(run.metrics_file.read_text().splitlines()[-1])
    return {**result, "loss": last["losses"]["loss"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="a data set made by fsod fetch")
    parser.add_argument("--detector", default="yolox_nano")
    parser.add_argument("--weights", default="default")
    parser.add_argument("--options", type=json.loads, default={}, help="further options of the fine-tunes, as JSON")
    options = parser.parse_args()

    print(f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    print("| setup | cached, s | uncached, s | ratio | last loss, cached | uncached | mAP, cached | uncached |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    scratch = Path(tempfile.mkdtemp())
    for setup in SETUPS:
        name = setup.replace(" ", "")
        cached, uncached = (run_once(options, setup, on, scratch / f"{name}-{on}") for on in (True, False))
        counted = ("features", "training", "evaluation")
        seconds = [sum(result["seconds"][step] for step in counted) for result in (cached, uncached)]
        print(
            f"| {setup} | {seconds[0]:.1f} | {seconds[1]:.1f} | **{seconds[1] / seconds[0]:.1f}** "
            f"| {cached['loss']:.4f} | {uncached['loss']:.4f} | {cached['ap']:.4f} | {uncached['ap']:.4f} |",
            flush=True,
        )
    shutil.rmtree(scratch)


if __name__ == "__main__":
    main()
