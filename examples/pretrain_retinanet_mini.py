"""Pretrain `retinanet_mini` on the base classes of the miniature world: how the weights in the package were made.

    python examples/pretrain_retinanet_mini.py --out pretraining --processes 2

Draws the images, trains, measures on 500 held-out images and writes OUT/retinanet_mini.safetensors (float16).
Stopped at any moment, the same command goes on from the last saved step; OUT/log.jsonl keeps what was seen.
`--start FILE` goes on from weights that were made before, when the world has changed.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from itertools import chain
from pathlib import Path

import torch
from safetensors.torch import save_file

from fewshot_cli.augmentation.config import Augmentation
from fewshot_cli.augmentation.operations import load_sample, make_variant
from fewshot_cli.datasets.formats import read_split
from fewshot_cli.datasets.types import Split
from fewshot_cli.detectors.canvas import batch_of
from fewshot_cli.detectors.chain import Activations, Detector, Target
from fewshot_cli.detectors.device import choose_device, computes_in_bf16
from fewshot_cli.detectors.registry import build_detector
from fewshot_cli.evaluation.measure import score
from fewshot_cli.files import write_atomically
from fewshot_cli.inference.placed import PlacedDetector
from fewshot_cli.sources.miniature.world import HELD_OUT, PRETRAIN, draw_base_split
from fewshot_cli.training.loop import Batches, StepOptions, make_optimizer, train
from fewshot_cli.training.objectives import DetectorLosses
from fewshot_cli.training.rates import learning_rates
from fewshot_cli.training.schedule import Rates, batch_order

DETECTOR = "retinanet_mini"
SAVE_EVERY, LOG_EVERY = 250, 50
FLIPS = Augmentation(ops=("flip",))


def drawn(folder: Path, part: str, count: int, processes: int) -> Split:
    """The images of a part, drawn if they are not there."""
    if not (folder / "annotations.json").exists():
        started = time.perf_counter()
        draw_base_split(folder, part, count, processes=processes)
        print(f"{count} images drawn into {folder} in {time.perf_counter() - started:.0f} s", flush=True)
    return read_split(folder, decode_images=False)


def batches_of(detector: Detector, split: Split, order: list[int], seed: int, device: torch.device) -> Batches:
    """Sample numbers → the input of the chain and targets, functions of seed and number: so runs resume."""

    def load(numbers: Sequence[int]) -> tuple[Activations, list[Target]]:
        canvases, targets = [], []
        for number in numbers:
            sample = make_variant(load_sample(split.images[order[number]]), FLIPS, (seed, number))
            canvas = detector.make_canvas(sample.image)
            canvases.append(canvas)
            targets.append(Target((sample.boxes * canvas.box_scale).to(device), sample.labels.to(device)))
        return tuple(part.to(device) for part in batch_of(canvases)), targets

    return load


def train_all(detector: Detector, split: Split, options: argparse.Namespace) -> None:
    """Train everything, norm statistics too, from the last saved step."""
    device = choose_device(options.device)
    detector.place(device)
    detector.network.train()
    optimizer = make_optimizer("adamw", learning_rates(detector), lr=options.lr, weight_decay=options.weight_decay)
    start, spent = resume(detector, optimizer, options.out / "state.pt")
    began = time.perf_counter()
    losses: list[float] = []

    def after_step(step: int, found: dict[str, float]) -> None:
        losses.append(found["loss"])
        seconds = spent + time.perf_counter() - began
        if step % LOG_EVERY == 0:
            log(options.out, step=step, loss=round(sum(losses) / len(losses), 4), seconds=round(seconds))
            losses.clear()
        if step % SAVE_EVERY == 0 or step == options.steps:
            save(detector, optimizer, step, seconds, options.out / "state.pt")

    order = list(chain(*batch_order(len(split.images), options.batch_size, options.steps, options.seed)))
    numbers = range(len(order))
    train(
        DetectorLosses(detector, 0),
        batches_of(detector, split, order, options.seed, device),
        [numbers[i : i + options.batch_size] for i in range(0, len(order), options.batch_size)],
        optimizer,
        Rates(iterations=options.steps, peak=options.lr, warmup=0.03),
        StepOptions(clip=10.0, bf16=computes_in_bf16("auto", device, detector)),
        start=start,
        after_step=after_step,
    )


def resume(detector: Detector, optimizer: torch.optim.Optimizer, path: Path) -> tuple[int, float]:
    """Steps done and seconds spent so far."""
    if not path.exists():
        return 0, 0.0
    state = torch.load(path, weights_only=True)
    detector.network.load_state_dict(state["network"])
    optimizer.load_state_dict(state["optimizer"])
    return state["step"], state["seconds"]


def save(detector: Detector, optimizer: torch.optim.Optimizer, step: int, seconds: float, path: Path) -> None:
    state = {
        "network": detector.network.state_dict(),
        "optimizer": optimizer.state_dict(),
        "step": step,
        "seconds": seconds,
    }
    write_atomically(path, lambda temporary: torch.save(state, temporary))


def log(folder: Path, **values: object) -> None:
    line = json.dumps(values)
    print(line, flush=True)
    with (folder / "log.jsonl").open("a") as file:
        file.write(line + "\n")


def export(detector: Detector, path: Path) -> None:
    """Half precision is enough to store; it is measured as stored."""
    state = {name: tensor for name, tensor in detector.network.state_dict().items() if "num_batches" not in name}
    halves = {name: tensor.cpu().half().contiguous() for name, tensor in state.items()}
    write_atomically(path, lambda temporary: save_file(halves, temporary))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("pretraining"))
    parser.add_argument("--start", default="none", help="weights to start from: none (random), default, or a file")
    parser.add_argument("--images", type=int, default=24_000)
    parser.add_argument("--held-out", type=int, default=500)
    parser.add_argument("--steps", type=int, default=8_000)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--weight-decay", type=float, default=0.05)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--processes", type=int, default=1, help="that draw the images")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)

    held_out = drawn(options.out / HELD_OUT, HELD_OUT, options.held_out, options.processes)
    images = drawn(options.out / PRETRAIN, PRETRAIN, options.images, options.processes)
    train_all(build_detector(DETECTOR, weights=options.start, seed=options.seed), images, options)

    path = options.out / f"{DETECTOR}.safetensors"
    trained = build_detector(DETECTOR, weights="none")
    trained.network.load_state_dict(
        torch.load(options.out / "state.pt", weights_only=True, map_location="cpu")["network"]
    )
    export(trained, path)
    detector = build_detector(DETECTOR, weights=path)
    metrics, _ = score(
        PlacedDetector.place(detector, "cpu", "fp32").detect([image.path for image in held_out.images]),
        held_out,
        detector.classes,
    )
    log(options.out, held_out=metrics.numbers, per_class=metrics.per_class, megabytes=path.stat().st_size / 1e6)


if __name__ == "__main__":
    main()
