"""Fine-tune: one call from a data set to a measured run on disk."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import pytest
import torch
from helpers_data import write_document
from helpers_runs import LEARNING, SIDE, TINY, argv_of, config_of, draw_shapes, fine_tune, fsod, metrics_of, score
from safetensors.torch import load_file

from fewshot_cli.datasets.store import open_dataset
from fewshot_cli.datasets.types import ImageRecord
from fewshot_cli.detectors.chain import Detections
from fewshot_cli.detectors.registry import build_detector
from fewshot_cli.errors import DataError, DivergedError, ModelError
from fewshot_cli.inference.placed import PlacedDetector
from fewshot_cli.runs.checkpoint import read_checkpoint, restore
from fewshot_cli.runs.folder import Run
from fewshot_cli.training import cache as cache_module
from fewshot_cli.training.cache import FeatureCache
from fewshot_cli.training.class_init import choose_inits, similar_classes
from fewshot_cli.training.variants import Examples

RETINANET = {**TINY, "detector": "retinanet_mini", "iterations": 3, "eval_every": 0}
NOWHERE, ON_DISK = {"cache_memory": 0.0, "cache_disk": 0.0}, {"cache_memory": 0.0, "cache_disk": 1.0}


def losses_of(run: Run) -> list[float]:
    return [value for record in metrics_of(run) for value in record["losses"].values()]


# --- the feature cache ---


class Prefix:
    """Activations that say which item they are of; remembers what was asked of it."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def __call__(self, items: Sequence[int]) -> tuple[tuple[torch.Tensor, ...], list[str]]:
        self.asked += items
        maps = torch.stack([torch.full((2, 3, 3), item / 7) for item in items])
        return (maps, torch.tensor([[item] for item in items])), [f"note {item}" for item in items]


MAPS = 2 * 3 * 3 * 4 + 8
"""Bytes of one of its items in float32."""


@pytest.mark.parametrize(
    ("memory", "disk", "places"),
    [
        (99 * MAPS, 99 * MAPS, (20, 0, 0)),
        (5 * MAPS, 9 * MAPS, (5, 9, 6)),
        (0, 99 * MAPS, (0, 20, 0)),
        (0, 3 * MAPS, (0, 3, 17)),
        (0, 0, (0, 0, 20)),
    ],
)
def test_a_cache_gives_the_same_wherever_an_item_lives(
    tmp_path: Path, memory: int, disk: int, places: tuple[int, int, int]
) -> None:
    """Memory first, then disk, then recomputation, within the budgets; a batch is the same in all cases."""
    prefix = Prefix()
    cache = FeatureCache(prefix, 20, memory=memory, disk=disk, folder=tmp_path).fill()
    assert places == (cache.in_memory, cache.on_disk, cache.recomputed)
    prefix.asked.clear()
    wanted = [19, 3, 3, 12, 0, 7]
    (maps, numbers), notes = cache.batch(wanted)
    assert wanted == numbers.flatten().tolist() and [f"note {item}" for item in wanted] == notes
    assert torch.equal(torch.tensor(wanted) / 7, maps[:, 0, 0, 0])
    assert [item for item in wanted if item >= places[0] + places[1]] == prefix.asked


def test_what_is_computed_again_is_rounded_as_what_is_stored(tmp_path: Path) -> None:
    """With bf16 storage a recomputed item equals a stored one, and both differ from fp32; integers are left alone."""
    stored = FeatureCache(Prefix(), 20, memory=9999, disk=0, folder=tmp_path, dtype=torch.bfloat16).fill()
    again = FeatureCache(Prefix(), 20, memory=0, disk=0, folder=tmp_path, dtype=torch.bfloat16).fill()
    (first, numbers), (second, _) = stored.batch([5, 19])[0], again.batch([5, 19])[0]
    assert torch.equal(first, second) and torch.float32 == first.dtype
    assert not torch.equal(torch.tensor([5, 19]) / 7, first[:, 0, 0, 0])
    assert torch.int64 == numbers.dtype


def test_a_disk_without_room_costs_time_and_not_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the mapped file does not fit, its items are computed again; no file stays behind in any case."""
    with_room = FeatureCache(Prefix(), 20, memory=0, disk=9999, folder=tmp_path).fill()
    monkeypatch.setattr(cache_module, "DISK_RESERVE", 1 << 60)
    without = FeatureCache(Prefix(), 20, memory=0, disk=9999, folder=tmp_path).fill()
    assert (20, 0) == (with_room.on_disk, without.on_disk)
    assert torch.equal(with_room.batch([4, 2])[0][0], without.batch([4, 2])[0][0])
    assert [] == list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "base",
    [
        pytest.param({**LEARNING, "iterations": 10, "eval_every": 2}, id="yolox"),
        pytest.param(RETINANET, id="retinanet", marks=pytest.mark.slow),
    ],
)
def test_the_cache_does_not_change_the_losses(base: dict, shapes: Path, tmp_path: Path) -> None:
    """From memory, from a mapped file, or without a cache: the same loss curve and the same mAP."""
    base = {**base, "precision": "fp32"}
    cached = fine_tune(tmp_path / "memory", config_of(shapes, base))
    mapped = fine_tune(tmp_path / "mapped", config_of(shapes, base, **ON_DISK))
    computed = fine_tune(tmp_path / "computed", config_of(shapes, base, **NOWHERE))
    assert len(losses_of(cached)) >= 3
    assert losses_of(cached) == losses_of(mapped)
    assert losses_of(cached) == pytest.approx(losses_of(computed), rel=1e-3)
    assert cached.read_result()["ap"] == pytest.approx(computed.read_result()["ap"], abs=1e-3)


@pytest.mark.slow
def test_half_precision_trains_from_cache_as_without(shapes: Path, tmp_path: Path) -> None:
    """In bf16 too, cached and recomputed features give the same losses, within what bf16 can tell apart."""
    base = {**TINY, "precision": "bf16", "eval_every": 1}
    cached = fine_tune(tmp_path / "memory", config_of(shapes, base))
    computed = fine_tune(tmp_path / "computed", config_of(shapes, base, **NOWHERE))
    assert losses_of(cached) == pytest.approx(losses_of(computed), rel=0.02)
    assert "bf16" == cached.read_result()["precision"]


# --- what a run leaves behind ---


@pytest.mark.slow
def test_hundreds_of_images_need_bounded_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 240 images in 24 variants each, those that the run sees are made, and the cache keeps what it may; same losses."""
    draw_shapes(tmp_path / "data" / "train", 240, seed=1)
    draw_shapes(tmp_path / "data" / "test", 4, seed=2)
    made: list[int] = []
    load = Examples.load
    monkeypatch.setattr(Examples, "load", lambda self, item: made.append(item) or load(self, item))
    small = {"iterations": 3, "eval_every": 0, "copies": 24}
    runs = []
    for name, places in (("bounded", {"cache_memory": 0.5 / 1024, "cache_disk": 1 / 1024}), ("roomy", {})):
        made.clear()
        runs.append(fine_tune(tmp_path / name, config_of(tmp_path / "data", **small, **places)))
        # The prefix of every image is computed twice at most: for the cache, and to measure without it.
        assert len([item for item in made if item % 24]) <= 2 * 3 * TINY["batch_size"] and len(made) <= 2 * (
            240 + 4 + 12
        )
    bounded, roomy = (run.read_result() for run in runs)
    assert 1.4 < bounded["cached_mb"] <= 1.6 < roomy["cached_mb"]
    assert losses_of(runs[0]) == losses_of(runs[1])
    assert (bounded["ap"], bounded["train_ap"]) == (roomy["ap"], roomy["train_ap"])


def test_a_run_folder_holds_what_it_promises(trained: Run) -> None:
    """Six files and nothing else: no state, no temporary files, no features."""
    names = {path.name for path in trained.folder.iterdir()}
    assert names == {
        "config.json",
        "metrics.jsonl",
        "checkpoint.safetensors",
        "checkpoint-best.safetensors",
        "predictions.json",
        "result.json",
    }


def test_the_result_says_what_was_done(trained: Run, shapes: Path) -> None:
    """result.json: what trained, out of how much, on what, how well on test and train, and the proof."""
    result = trained.read_result()
    detector, _ = restore(trained.checkpoint)
    own = {layer.name: sum(p.numel() for p in layer.parameters().values()) for layer in detector.layers}
    assert ["head.1", "head.2", "head.4"] == result["trained_layers"]
    assert {
        "trained": own["head.1"] + own["head.2"] + own["head.4"],
        "total": sum(own.values()),
    } == result["parameters"]
    assert (["square", "disc"], {"train": 4, "test": 6}) == (result["classes"], result["images"])
    assert (str(shapes), "symmetric", 3, 60) == tuple(result[key] for key in ("data", "policy", "budget", "iterations"))
    assert 0 == result["frozen"]["changed"] and result["frozen"]["tensors"] > 500
    assert 0.02 < result["train_ap"] and 0 < result["ap"] == result["metrics"]["numbers"]["AP"]
    assert {"square", "disc"} == set(result["metrics"]["per_class"])


def test_metrics_hold_a_line_an_evaluation(trained: Run) -> None:
    """metrics.jsonl: every 20 iterations, with losses that add up; its last line is the result, its best the best."""
    records, result = metrics_of(trained), trained.read_result()
    assert [20, 40, 60] == [record["iteration"] for record in records]
    for record in records:
        parts = [value for name, value in record["losses"].items() if name != "loss"]
        assert record["losses"]["loss"] == pytest.approx(sum(parts), abs=1e-4)
    assert result["ap"] == records[-1]["ap"] == records[-1]["numbers"]["AP"]
    best = max(records, key=lambda record: record["ap"])
    assert {"ap": best["ap"], "iteration": best["iteration"]} == result["best"]
    assert best["iteration"] == read_checkpoint(trained.best_checkpoint)[1].iteration
    assert records[0]["losses"]["loss"] > records[-1]["losses"]["loss"]


def test_a_result_says_how_much_is_known_by_heart(trained: Run) -> None:
    """The gap is the mAP on the training images less that on the test images; features and seconds are counted."""
    result = trained.read_result()
    assert result["train_ap"] - result["ap"] == pytest.approx(result["generalisation_gap"])
    steps = [result["seconds"][name] for name in ("features", "training", "evaluation")]
    assert all(step > 0 for step in steps) and sum(steps) <= result["seconds"]["total"] + 0.02
    # 4 shots in 4 variants and 6 test images: symmetric 3 caches the three maps before the head, float32.
    maps = sum((SIDE // stride) ** 2 * channels for stride, channels in ((8, 64), (16, 128), (32, 256)))
    assert (4 * 4 + 6) * maps * 4 / 1e6 == pytest.approx(result["cached_mb"], abs=0.06)


def test_training_images_are_measured_on_the_way(shapes: Path, tmp_path: Path, trained: Run) -> None:
    """With --measure-train each line has the mAP on the shots, the last that of the result; without, none has."""
    run = fine_tune(tmp_path / "run", config_of(shapes, LEARNING, measure_train=True))
    lines, plain = metrics_of(run), metrics_of(trained)
    assert run.read_result()["train_ap"] == lines[-1]["train_ap"] == trained.read_result()["train_ap"]
    assert plain == [{key: value for key, value in line.items() if key != "train_ap"} for line in lines]
    assert len({line["train_ap"] for line in lines}) > 1


def test_the_mean_loss_is_that_of_the_iterations_since_the_last_measurement(shapes: Path, tmp_path: Path) -> None:
    """Measured after every iteration it is the loss itself; after every third the mean of three."""
    every, third = (
        metrics_of(fine_tune(tmp_path / f"{number}", config_of(shapes, eval_every=number))) for number in (1, 3)
    )
    losses = [line["losses"]["loss"] for line in every]
    assert losses == pytest.approx([line["mean_loss"] for line in every], abs=1e-6)
    assert [sum(losses[:3]) / 3, sum(losses[3:]) / 3] == pytest.approx([line["mean_loss"] for line in third], abs=1e-5)


def test_pycocotools_alone_finds_the_same_map(trained: Run, shapes: Path) -> None:
    """predictions.json against the data set's own annotations.json gives the mAP of the result."""
    own = score(shapes / "test" / "annotations.json", trained.predictions_file)
    assert 0 < own == pytest.approx(trained.read_result()["ap"], abs=1e-12)


def test_predictions_speak_the_category_ids_of_the_annotations(tmp_path: Path) -> None:
    """A file whose categories are 30 and 70 gets predictions for 30 and 70, or other tools cannot score them."""
    for name, seed in (("train", 1), ("test", 2)):
        document = draw_shapes(tmp_path / "odd" / name, 3, seed)
        for record in document["annotations"]:
            record["category_id"] = {1: 30, 2: 70}[record["category_id"]]
        document["categories"] = [{"id": 30, "name": "square"}, {"id": 70, "name": "disc"}]
        write_document(tmp_path / "odd" / name, document)
    run = fine_tune(tmp_path / "run", config_of(tmp_path / "odd", LEARNING, iterations=30))
    found = json.loads(run.predictions_file.read_text())
    assert found and {result["category_id"] for result in found} <= {30, 70}


def test_a_checkpoint_holds_only_what_trained(trained: Run) -> None:
    """Its tensors are the parameters of the chosen layers, no more; so it is a small part of the detector."""
    detector, info = restore(trained.checkpoint)
    chosen = {name for layer in detector.layers if layer.name in info.trained_layers for name in layer.parameters()}
    assert chosen == set(load_file(trained.checkpoint))
    whole = sum(tensor.numel() * tensor.element_size() for tensor in detector.network.state_dict().values())
    assert trained.checkpoint.stat().st_size < 0.1 * whole
    assert ("yolox_nano", "none", ("square", "disc"), 60) == (info.detector, info.weights, info.classes, info.iteration)


def test_the_config_is_what_was_asked(trained: Run, shapes: Path) -> None:
    """config.json gives the configuration back, and says by which command and version it was made."""
    document = json.loads(trained.config_file.read_text())
    assert config_of(shapes, LEARNING) == trained.read_config()
    assert "finetune" == document["command"] and document["fsod"] and document["torch"]


# --- seeds and policies ---


def test_the_same_seed_gives_the_same_run(shapes: Path, tmp_path: Path) -> None:
    """Twice the same configuration: the same metrics and checkpoint, bit for bit; another seed gives another run."""
    first = fine_tune(tmp_path / "first", config_of(shapes))
    torch.manual_seed(1234)  # Whatever the program around it draws has no influence.
    again = fine_tune(tmp_path / "again", config_of(shapes))
    other = fine_tune(tmp_path / "other", config_of(shapes, seed=1))
    assert first.metrics_file.read_bytes() == again.metrics_file.read_bytes()
    assert first.checkpoint.read_bytes() == again.checkpoint.read_bytes()
    assert losses_of(first) != losses_of(other)


def test_none_trains_nothing_and_still_measures(shapes: Path, base_weights: Path, tmp_path: Path) -> None:
    """The zero-shot control: no layer, no iteration, a result; its checkpoint holds the new predictor alone."""
    run = fine_tune(tmp_path / "run", config_of(shapes, policy="none", weights=str(base_weights)))
    result = run.read_result()
    assert ([], 0, 0) == (result["trained_layers"], result["parameters"]["trained"], result["iterations"])
    assert [0] == [record["iteration"] for record in metrics_of(run)] and "AP" in result["metrics"]["numbers"]
    assert {f"head.cls_preds.{level}.{kind}" for level in range(3) for kind in ("weight", "bias")} == set(
        load_file(run.checkpoint)
    )


def test_full_trains_everything(shapes: Path, tmp_path: Path) -> None:
    """The baseline: all parameters train, only buffers are frozen, and the checkpoint holds every parameter."""
    run = fine_tune(tmp_path / "run", config_of(shapes, policy="full", iterations=2))
    result = run.read_result()
    network = build_detector("yolox_nano", weights="none").network
    assert result["parameters"]["total"] == result["parameters"]["trained"]
    assert len(dict(network.named_buffers())) == result["frozen"]["tensors"]
    assert {name for name, _ in network.named_parameters()} == set(load_file(run.checkpoint))


@pytest.mark.parametrize(
    ("option", "slower", "others"),
    [
        ("backbone_lr", "backbone.backbone.", "head.obj_preds."),
        ("small_object_lr", "head.reg_convs.0.", "head.reg_convs.1."),
    ],
)
def test_a_share_of_the_rate_concerns_its_part_alone(
    option: str, slower: str, others: str, shapes: Path, tmp_path: Path
) -> None:
    """One SGD step of `full` with a tenth moves the backbone, or the finest level, a tenth as far, and nothing else."""
    base = {
        **TINY,
        "policy": "full",
        "iterations": 1,
        "optimizer": "sgd",
        "lr": 100.0,
        "weight_decay": 0.0,
        "warmup": 0.0,
    }
    start = build_detector("yolox_nano", weights="none").network.state_dict()
    ends = [fine_tune(tmp_path / f"{n}", config_of(shapes, base, **{option: n})).checkpoint for n in (1.0, 0.1)]
    whole, tenth = (load_file(path) for path in ends)
    for part, share in ((others, 1.0), (slower, 0.1)):
        names = [name for name in whole if name.startswith(part)]
        moved, less = (torch.cat([(end[name] - start[name]).flatten() for name in names]) for end in (whole, tenth))
        assert moved.norm() > 1e-4 and (share * moved - less).norm() < 0.01 * less.norm(), part


@pytest.mark.parametrize(("init_class", "rows"), [("Cat", [15]), ("mean", range(80)), ("none", [])])
def test_a_class_starts_where_it_is_told(
    init_class: str, rows: Sequence[int], shapes: Path, base_weights: Path, tmp_path: Path
) -> None:
    """The predictor of a class is that of the named base class, the mean of all for an unknown one, or fresh."""
    run = fine_tune(
        tmp_path / "run", config_of(shapes, policy="none", weights=str(base_weights), init_class=init_class)
    )
    base = build_detector("yolox_nano", weights=str(base_weights)).network.state_dict()["head.cls_preds.1.weight"]
    started = load_file(run.checkpoint)["head.cls_preds.1.weight"]
    for row in started:
        assert bool(rows) == torch.allclose(row, base[list(rows) or [0]].mean(dim=0))


def in_vain() -> NoReturn:
    pytest.fail("the shots were looked at in vain")


def test_auto_finds_the_base_class_of_the_same_name() -> None:
    """Case, spaces and hyphens do not matter; torchvision's empty places are no classes; random weights have none."""
    known = ["__background__", "cat", "N/A", "coffee cup"]
    assert [(3,), (1,)] == choose_inits(["Coffee-Cup", "CAT"], known, "auto", in_vain)
    assert [(3,), (1,), (1, 3)] == choose_inits(["Coffee-Cup", "CAT", "helmet"], known, "mean", in_vain)
    assert [(3,), (3,)] == choose_inits(["a", "b"], known, "coffee_cup", in_vain)
    assert [(), ()] == choose_inits(["cat", "b"], known, "none", in_vain)
    assert [()] == choose_inits(["cat"], [], "auto", in_vain)
    with pytest.raises(ModelError, match="no base class 'cats'") as caught:
        choose_inits(["a"], known, "cats", in_vain)
    assert str(caught.value.hint).startswith("Did you mean cat?") and "N/A" not in str(caught.value.hint)


def test_auto_gives_an_unknown_class_what_the_detector_takes_its_objects_for() -> None:
    """A known name keeps its class; what the detector does not see starts from the mean of all."""
    known = ["__background__", "cat", "N/A", "coffee cup", "dog"]
    taken_for = [(4, 1), (4,), ()]
    assert [(1,), (4,), (1, 3, 4)] == choose_inits(["cat", "fox", "helmet"], known, "auto", lambda: taken_for)


def test_similar_classes_are_those_that_hit_most_if_most_objects_are_hit(
    shapes: Path, base_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against a count by hand: IoU of 0.5, score of 0.3, more than half of the average image's objects, the three
    strongest classes; over many draws, in which some classes are seen and others not."""
    shots = open_dataset(shapes).train
    detector = build_detector("yolox_nano", weights=str(base_weights), image_size=SIDE)
    chance = random.Random(0)
    outcomes = set()
    for _ in range(100):
        found = [see(image.boxes.tolist(), chance) for image in shots.images]
        monkeypatch.setattr(PlacedDetector, "detect", lambda *_, found=found, **__: found)
        wanted = [taken_for(label, shots.images, found) for label in range(len(shots.classes))]
        assert wanted == similar_classes(detector, shots)
        outcomes |= {len(origin) for origin in wanted}
    assert {0, 1, 2, 3} <= outcomes


def test_of_many_images_some_are_looked_at(shapes: Path, base_weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 250 images that show a class, 84 in even steps: every third; of an image without an object none."""
    shots = open_dataset(shapes).train
    one = shots.images[0]
    empty = {"boxes": one.boxes[:0], "labels": one.labels[:0], "crowd": one.crowd[:0]}
    images = [
        replace(one, id=number, path=Path(f"{number}"), **(empty if number > 250 else {})) for number in range(1, 300)
    ]
    asked: list[str] = []

    def detect(self: PlacedDetector, paths: Sequence[Path], *_: object) -> list[Detections]:
        asked.extend(path.name for path in paths)
        return [see([], random.Random(0)) for _ in paths]

    monkeypatch.setattr(PlacedDetector, "detect", detect)
    detector = build_detector("yolox_nano", weights=str(base_weights), image_size=SIDE)
    assert [()] * len(shots.classes) == similar_classes(detector, replace(shots, images=tuple(images)))
    assert [str(number) for number in range(1, 251, 3)] == asked


def see(boxes: list[list[float]], chance: random.Random) -> Detections:
    """Detections near some of the boxes, of a few classes, with scores down to nothing."""
    near = [[side + chance.uniform(-4, 4) for side in box] for box in boxes for _ in range(chance.randrange(5))]
    scores = [chance.choice([0.1, 0.3, 0.6, 0.9]) * chance.uniform(0.9, 1.1) for _ in near]
    labels = [chance.choice([3, 5, 7, 79]) for _ in near]
    return Detections(torch.tensor(near).reshape(-1, 4), torch.tensor(scores), torch.tensor(labels, dtype=torch.int64))


def taken_for(label: int, images: Sequence[ImageRecord], found: Sequence[Detections]) -> tuple[int, ...]:
    """The same answer in plain loops."""
    shares, strengths = [], dict.fromkeys(range(80), 0.0)
    for image, detections in zip(images, found, strict=True):
        boxes = [box.tolist() for box, other in zip(image.boxes, image.labels, strict=True) if other == label]
        seen = 0
        for box in boxes:
            best: dict[int, float] = {}
            for other, sure, base in zip(*(part.tolist() for part in detections), strict=True):
                if sure >= 0.3 and iou_of(box, other) >= 0.5:
                    best[base] = max(sure, best.get(base, 0.0))
            seen += bool(best)
            for base, sure in best.items():
                strengths[base] += sure
        if boxes:
            shares.append(seen / len(boxes))
    if not shares or sum(shares) / len(shares) <= 0.5:
        return ()
    ranked = sorted((base for base in strengths if strengths[base] > 0), key=lambda base: -strengths[base])
    return tuple(ranked[:3])


def iou_of(first: list[float], second: list[float]) -> float:
    """IoU of two xyxy boxes, by hand."""
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    shared = max(0.0, width) * max(0.0, height)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (first, second)]
    return shared / (sum(areas) - shared)


def test_an_augmented_data_set_is_used_as_it_is(shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What `fsod augment` wrote is not varied again: --copies changes nothing, and every variant is trained on."""
    monkeypatch.chdir(tmp_path)
    assert 0 == fsod("augment", shapes, "--copies", 2, "--out", "written").exit_code
    runs = [fine_tune(tmp_path / f"{n}", config_of(tmp_path / "written", copies=n, eval_every=1)) for n in (1, 5)]
    assert losses_of(runs[0]) == losses_of(runs[1])
    assert 8 == runs[0].read_result()["images"]["train"]


# --- when it goes wrong ---


def test_a_diverging_run_stops_and_keeps_what_was_saved(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A loss that is no number ends the run with 6, naming iteration and losses; earlier files stay whole."""
    monkeypatch.chdir(tmp_path)
    wild = {"optimizer": "sgd", "lr": 1e30, "clip": 0.0, "eval_every": 1, "name": "wild"}
    result = fsod(*argv_of(shapes, **wild))
    run = Run(tmp_path / "runs" / "wild")
    assert 6 == result.exit_code
    assert "error: the loss is nan at iteration 2 (box" in result.stderr and "hint: Lower --lr" in result.stderr
    assert [1] == [record["iteration"] for record in metrics_of(run)]
    assert 1 == read_checkpoint(run.best_checkpoint)[1].iteration
    assert not run.finished and run.read_state() is not None


def test_weights_that_overflow_in_the_last_step_are_no_result(shapes: Path, tmp_path: Path) -> None:
    """A finite loss whose step leaves infinite weights is an error too, and not a run with mAP 0."""
    with pytest.raises(DivergedError, match="is not finite after iteration 1"):
        fine_tune(
            tmp_path / "run", config_of(shapes, iterations=1, optimizer="sgd", lr=1e30, weight_decay=1e30, clip=0.0)
        )
    assert not Run(tmp_path / "run").finished


def test_shots_without_a_box_are_refused(shapes: Path, tmp_path: Path) -> None:
    """Training images without any box teach nothing: a data error, before anything is computed."""
    for name in ("train", "test"):
        document = draw_shapes(tmp_path / "empty" / name, 2, seed=3)
        write_document(tmp_path / "empty" / name, {**document, "annotations": []})
    with pytest.raises(DataError, match="no training image has a box"):
        fine_tune(tmp_path / "run", config_of(tmp_path / "empty"))
