"""Pretrain `retinanet_mini` on the base classes of the miniature world: how the weights in the package were made.

    python examples/pretrain_retinanet_mini.py --out pretraining --processes 2

Draws the pictures, trains, measures on 500 held-out pictures and writes OUT/retinanet_mini.safetensors (float16).
Stopped at any moment, the same command goes on from the last saved step; OUT/log.jsonl keeps what was seen.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import torch
from safetensors.torch import save_file

from fewshot_cli.data.augment import load_sample
from fewshot_cli.data.coco import Split
from fewshot_cli.data.coco_reader import read_split
from fewshot_cli.data.miniature.world import HELD_OUT, PRETRAIN, draw_base_split
from fewshot_cli.detectors.chain import Detector, Target
from fewshot_cli.detectors.device import choose_device, computes_in_half
from fewshot_cli.detectors.registry import build_detector
from fewshot_cli.evaluation.detect import detect_split, score
from fewshot_cli.files import write_atomically
from fewshot_cli.training.loop import make_optimizer
from fewshot_cli.training.schedule import learning_rate

DETECTOR = "retinanet_mini"
SAVE_EVERY, LOG_EVERY = 250, 50


def drawn(folder: Path, part: str, count: int, processes: int) -> Split:
    """The pictures of a part, drawn if they are not there."""
    if not (folder / "annotations.json").exists():
        started = time.perf_counter()
        draw_base_split(folder, part, count, processes=processes)
        print(f"{count} pictures drawn into {folder} in {time.perf_counter() - started:.0f} s", flush=True)
    return read_split(folder, decode_images=False)


def load_batch(detector: Detector, split: Split, step: int, options: argparse.Namespace) -> tuple:
    """Canvases (B, 3, S, S) uint8 and targets of one step: a pure function of seed and step, so that runs resume."""
    generator = torch.Generator().manual_seed(options.seed * 10_000_019 + step)
    numbers = torch.randint(len(split.pictures), (options.batch_size,), generator=generator).tolist()
    flips = torch.rand(options.batch_size, generator=generator) < 0.5
    canvases, targets = [], []
    for number, flip in zip(numbers, flips.tolist(), strict=True):
        sample = load_sample(split.pictures[number])
        image, boxes = sample.image, sample.boxes
        if flip:
            image = image.flip(-1)
            boxes = torch.stack(
                [image.shape[-1] - boxes[:, 2], boxes[:, 1], image.shape[-1] - boxes[:, 0], boxes[:, 3]], 1
            )
        canvas = detector.make_canvas(image)
        canvases.append(canvas.pixels)
        targets.append(Target(boxes * canvas.scale, sample.labels))
    return torch.stack(canvases), targets


def train(detector: Detector, split: Split, options: argparse.Namespace) -> None:
    """Train everything, norm statistics too, from the last saved step."""
    device = choose_device(options.device)
    half = computes_in_half("auto", device, detector)
    detector.place(device)
    detector.network.train()
    optimizer = make_optimizer("adamw", detector.parameters(), lr=options.lr, weight_decay=options.weight_decay)
    start, spent = resume(detector, optimizer, options.out / "state.pt")
    began, sums = time.perf_counter(), []
    for step in range(start, options.steps):
        rate = learning_rate(step, options.steps, options.lr, 0.03)
        for group in optimizer.param_groups:
            group["lr"] = rate
        canvases, targets = load_batch(detector, split, step, options)
        targets = [Target(target.boxes.to(device), target.labels.to(device)) for target in targets]
        with torch.autocast(device.type, torch.bfloat16, enabled=half):
            outputs = detector.run((canvases.to(device),), 0)
        loss = torch.stack(list(detector.loss(tuple(output.float() for output in outputs), targets).values())).sum()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(detector.parameters(), 10.0)
        optimizer.step()
        sums.append(float(loss))
        seconds = spent + time.perf_counter() - began
        if (step + 1) % LOG_EVERY == 0:
            log(options.out, step=step + 1, loss=round(sum(sums) / len(sums), 4), lr=rate, seconds=round(seconds))
            sums.clear()
        if (step + 1) % SAVE_EVERY == 0 or step + 1 == options.steps:
            save(detector, optimizer, step + 1, seconds, options.out / "state.pt")


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
    parser.add_argument("--pictures", type=int, default=24_000)
    parser.add_argument("--held-out", type=int, default=500)
    parser.add_argument("--steps", type=int, default=8_000)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--weight-decay", type=float, default=0.05)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--processes", type=int, default=1, help="that draw the pictures")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)

    held_out = drawn(options.out / HELD_OUT, HELD_OUT, options.held_out, options.processes)
    pictures = drawn(options.out / PRETRAIN, PRETRAIN, options.pictures, options.processes)
    train(build_detector(DETECTOR, weights="none", seed=options.seed), pictures, options)

    path = options.out / f"{DETECTOR}.safetensors"
    trained = build_detector(DETECTOR, weights="none")
    trained.network.load_state_dict(
        torch.load(options.out / "state.pt", weights_only=True, map_location="cpu")["network"]
    )
    export(trained, path)
    detector = build_detector(DETECTOR, weights=path)
    metrics, _ = score(detect_split(detector, held_out, device=torch.device("cpu")), held_out, detector.classes)
    log(options.out, held_out=metrics.numbers, per_class=metrics.per_class, megabytes=path.stat().st_size / 1e6)


if __name__ == "__main__":
    main()
