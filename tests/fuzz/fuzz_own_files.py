"""Every file that fsod wrote itself, damaged or edited."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import Any

from fuzz_harness import Case, Change
from fuzz_values import BROKEN, JSON_VALUES, SPECIAL, content, cut, edited, flipped, replaced, replaced_at, without
from fuzz_world import AUTO, DATA, DONE, GRID, LAST, PHOTO, POOL, STOPPED, SWEEP

EVAL, PREDICT = ("eval", DONE, "--threads", "1"), ("predict", DONE, PHOTO, "--threads", "1")
EXPORT = ("export", DONE, "--format", "weights", "--threads", "1")
REPORT, COMPARE = ("report", DONE), ("compare", DONE, AUTO)
RESUME, AGAIN = ("finetune", "--resume", STOPPED), ("finetune", "--resume", DONE)
RUN = (DATA, DONE, PHOTO)

FILES: dict[str, tuple[tuple[tuple[str, ...], ...], tuple[str, ...]]] = {
    f"{DONE}/config.json": ((EVAL, PREDICT, EXPORT, AGAIN, ("inspect-layers", DONE), ("finetune", "--config", DONE, "--name", "again"), COMPARE), RUN),
    f"{DONE}/result.json": ((AGAIN, PREDICT, EXPORT, REPORT, COMPARE, ("eval", "--threads", "1")), RUN),
    f"{DONE}/metrics.jsonl": ((REPORT, COMPARE, AGAIN), RUN),
    f"{DONE}/predictions.json": ((REPORT, COMPARE), RUN),
    f"{DONE}/folds.json": ((REPORT, COMPARE), RUN),
    f"{STOPPED}/config.json": ((RESUME,), (DATA, STOPPED)),
    f"{STOPPED}/state.pt": ((RESUME,), (DATA, STOPPED)),
    f"{STOPPED}/metrics.jsonl": ((RESUME,), (DATA, STOPPED)),
    f"{AUTO}/search.json": ((("report", AUTO), ("finetune", "--resume", AUTO)), (DATA, AUTO)),
    f"{AUTO}/result.json": ((("report", AUTO), ("predict", AUTO, PHOTO, "--threads", "1")), (DATA, AUTO, PHOTO)),
    f"{DATA}/dataset.json": ((("finetune", "--data", DATA, *LAST), ("finetune", *LAST), EVAL, ("augment", "--copies", "2", "--threads", "1")), RUN),
    f"{DATA}/train/annotations.json": ((("finetune", "--data", DATA, *LAST), ("augment", DATA, "--copies", "2", "--threads", "1")), (DATA,)),
    f"{DATA}/test/annotations.json": ((("finetune", "--data", DATA, *LAST), EVAL), RUN),
    f"{SWEEP}/sweep.json": ((GRID, (*GRID, "--dry-run")), (POOL, SWEEP)),
    f"{SWEEP}/runs/*/result.json": ((GRID, (*GRID, "--dry-run")), (POOL, SWEEP)),
    f"{SWEEP}/runs/*/metrics.jsonl": ((GRID,), (POOL, SWEEP)),
    f"{SWEEP}/runs/*/predictions.json": ((GRID,), (POOL, SWEEP)),
    f"{SWEEP}/data/*/dataset.json": ((GRID,), (POOL, SWEEP)),
}  # fmt: skip
"""File → calls that read it, and the parts of the world that they need; `*` is the only folder there."""

VITAL: dict[str, tuple[str, ...]] = {
    f"{DONE}/config.json": (
        "options", "options budget", "options policy", "options detector", "options weights", "options image_size", "options seed", "options data",
        "options iterations", "options lr", "options copies", "options scale", "options precision", "options layers", "options average",
    ),
    f"{STOPPED}/config.json": ("options", "options budget", "options policy", "options detector", "options image_size", "options iterations", "options batch_size"),
    f"{DONE}/result.json": ("thresholds", "ap", "detector", "classes", "policy", "seconds"),
    f"{DATA}/dataset.json": ("format", "classes", "splits", "splits train", "splits train files", "splits train files 0 sha256", "splits train files 0 file_name"),
    f"{DATA}/train/annotations.json": ("images", "annotations", "categories", "annotations 0 bbox", "annotations 0 category_id", "annotations 0 image_id", "images 0 width", "images 0 file_name"),
    f"{SWEEP}/sweep.json": ("source", "options", "weights", "eval_every", "fetch_options"),
}  # fmt: skip
"""File → places that decide what is computed."""
LEAVES = (f"{SWEEP}*", "predictions*", f"{STOPPED}/.lock")
"""A sweep keeps the cells that could be run, predict the images that could be read; a lock of a killed process goes."""


def own_files() -> Iterator[Case]:
    """Each file: no document, damaged, and with one value of another kind."""
    for file, (calls, parts) in FILES.items():
        for name, change in _damages(file).items():
            yield _case(file, Random(f"{file} {name}").choice(calls), parts, name, change)
        for seed in range(14 if file.endswith((".json", ".jsonl")) else 0):
            yield _case(file, calls[seed % len(calls)], parts, f"edited {seed}", replaced_at(seed))
    for file, places in VITAL.items():
        calls, parts = FILES[file]
        for place in places:
            way: Any = tuple(int(word) if word.isdecimal() else word for word in place.split())
            for name in Random(place).sample(sorted({*JSON_VALUES} - {"empty", "zero"}), 5):
                change = edited(lambda value, way=way, name=name: replaced(value, way, JSON_VALUES[name]))
                yield _case(file, Random(f"{place} {name}").choice(calls[:5]), parts, f"{place}: {name}", change)
            change = edited(lambda value, way=way: without(value, way))
            yield _case(file, Random(place).choice(calls), parts, f"{place}: missing", change)


def _damages(file: str) -> dict[str, Change]:
    broken = {name: content(data) for name, data in BROKEN.items()}
    flips = {f"flipped {seed}": flipped(seed, 3) for seed in range(3)}
    return {**broken, **SPECIAL, **flips, "the first half": cut(0.5), "all but the end": cut(0.98)}


def _case(file: str, argv: tuple[str, ...], parts: tuple[str, ...], name: str, change: Change) -> Case:
    first, _, rest = file.partition("*")
    return Case(
        kind="own file", name=f"own file: {file} {name}: {' '.join(argv[:2])}", argv=argv, parts=(*parts, *[AUTO] * (argv[0] == "compare" and AUTO not in parts)),
        changes={first or file: change} if not rest else {first: _within(rest.lstrip("/"), change)}, harmless=True, leaves=LEAVES,
    )  # fmt: skip


def _within(rest: str, change: Change) -> Change:
    """Done to that file of the only folder there."""
    return lambda folder: change(next(each for each in folder.iterdir() if each.is_dir()) / rest)
