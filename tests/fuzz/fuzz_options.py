"""Options of every command, `--set`, configuration files: values of the wrong type or out of bounds."""

from __future__ import annotations

import json
from collections.abc import Iterator
from random import Random
from typing import Any

from fuzz_harness import Case
from fuzz_values import BROKEN, NO_NUMBER, NO_WORD, OUT_OF_BOUNDS, content
from fuzz_world import AUTO, DATA, DONE, GRID, LAST, PHOTO, POOL, TINY

CALLS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "fetch": (("--source", "coco:pool/train", "--class", "square", "--shots", "2", "--test-images", "2"), (POOL,)),
    "augment": ((DATA, "--copies", "2", "--threads", "1"), (DATA,)),
    "finetune": (("--data", DATA, *LAST), (DATA,)),
    "eval": ((DONE, "--threads", "1"), (DATA, DONE)),
    "predict": ((DONE, PHOTO, "--threads", "1"), (DATA, DONE, PHOTO)),
    "export": ((DONE, "--format", "weights", "--threads", "1"), (DATA, DONE)),
    "inspect-layers": (("yolox_nano", "--weights", "none", "--threads", "1"), ()),
    "sweep": ((*GRID[1:], "--dry-run"), (POOL,)),
    "demo": (("--threads", "1"), ()),
    "compare": ((DONE, AUTO), (DATA, DONE, AUTO)),
    "report": ((DONE,), (DATA, DONE)),
}
"""A quick call of each command, and the parts of the world that it needs."""

PATHS = {
    "data", "out", "weights", "config", "runs", "root", "resume", "source", "sources", "test_source", "predictions", "run", "words", "page",
    "targets", "against", "plot", "fiftyone", "folders", "folder",
}  # fmt: skip
"""Parameters that are paths, which `fuzz_paths` gives what is none, or that start a data base."""
FREE = {"name", "classes", "class_names", "address", "mirror", "fiftyone"}
"""Parameters that take words of the person's own."""
GENEROUS = {
    "test_images",
    "eval_every",
    "max_detections",
    "cache_disk",
    "cache_memory",
    "small_object_lr",
    "lr",
    "backbone_lr",
    "weight_decay",
    "clip",
}
"""Parameters for which a huge number means something, if nothing useful."""
LISTS = {"layers", "candidates", "tracker", "ops", "allow"}
"""Parameters that may be empty."""


def options() -> Iterator[Case]:
    """Each option of each command with some values that it cannot take."""
    from fewshot_cli.cli.commands import Commands

    commands = Commands()
    for command in commands:
        call, parts = CALLS.get(command, ((), ()))
        for parameter in commands[command].params:
            option = max(parameter.opts, key=len)
            if not option.startswith("--") or parameter.name in PATHS or getattr(parameter, "is_flag", False):
                continue
            for name, value in _wrong_values(command, parameter):
                harmless = (
                    parameter.name in FREE
                    or (name == "10^20" and parameter.name in GENEROUS)
                    or (name in ("empty", "space") and parameter.name in LISTS)
                )
                yield Case(
                    kind="option", name=f"option: {command} {option} {name}",
                    argv=(command, *call, *[f"{option}={value}"] * 1) if parameter.nargs == 1 else (command, *call, option, *[value] * parameter.nargs),
                    parts=parts, harmless=harmless,
                )  # fmt: skip


def _wrong_values(command: str, parameter: Any) -> list[tuple[str, str]]:
    """Some of the values, each time the same."""
    chance = Random(f"{command} {parameter.name}")
    kind = str(parameter.type_descriptor.annotation)
    if "int" in kind or "float" in kind or parameter.name == "threads":
        return [*chance.sample(sorted(NO_NUMBER.items()), 5), *OUT_OF_BOUNDS.items()]
    return chance.sample(sorted(NO_WORD.items()), 7)


def syntax() -> Iterator[Case]:
    """What is no command, no option, or too much of either."""
    lines = {
        "an unknown command": ("trian",), "an unknown option": ("finetune", "--budgets", "3"), "an option without a value": ("finetune", "--lr"),
        "a word too many": ("eval", "a", "b"), "no class": ("fetch", "--source", "coco:pool/train"), "no source": ("sweep", "--class", "x"),
        "NUL": ("fetch", "\0"), "a surrogate": ("finetune", "--\udcff"), "a long command": ("x" * 5000,), "an empty word": ("",),
        "an option with NUL": ("finetune", "--l\0r", "1"), "an escape": ("\x1b[31m",), "nothing to detect": ("predict",), "empty input": ("predict", ""),
        "a value for a switch": ("finetune", "--train-neck=maybe"), "json and stdout": ("predict", "x.png", "--out", "-", "--json"),
        "a list of options": ("finetune", *["--iterations=1"] * 3000, "--lr=x"), "a thousand classes": ("fetch", *["--class=x"] * 1000),
    }  # fmt: skip
    for name, argv in lines.items():
        yield Case(kind="option", name=f"syntax: {name}", argv=argv)


# --- --set, --fetch-set and configuration files ---

FINETUNE_SETS = (
    "NO=WORD",
    "",
    "=",
    "iterations",
    "=1",
    "iterations=",
    "lr==1",
    "a.b=1",
    "iterations=1=2",
    "data=x",
    "seed=1",
    "weights=none",
)


def sets() -> Iterator[Case]:
    """`sweep --set` and `--fetch-set`: wrong values of all options, before anything is fetched."""
    from fewshot_cli.runs.config import FinetuneConfig
    from fewshot_cli.settings import fields_of

    for word in FINETUNE_SETS:
        for option in ("--set", "--fetch-set"):
            yield _set(option, word, f"{option} {word}")
    for name, field in fields_of(FinetuneConfig).items():
        values = dict(_wrong(name, field))
        for label in Random(name).sample(sorted(values), min(4, len(values))):
            yield _set("--set", f"{name}={values[label]}", f"--set {name} {label}")
    for name in (
        "mirror",
        "offline",
        "skip_invalid",
        "split",
        "test_split",
        "allow",
        "smallest_box",
        "seed",
        "shots",
        "root",
        "name",
    ):
        for label, value in {**NO_WORD, "maybe": "maybe", "-1": "-1"}.items():
            if label in Random(name).sample([*NO_WORD, "maybe", "-1"], 4):
                yield _set("--fetch-set", f"{name}={value}", f"--fetch-set {name} {label}")


def _set(option: str, word: str, name: str) -> Case:
    # Which base classes there are is known when the weights are read, in the cell.
    leaves = ("sweep*",) if word.startswith("init_class") else ()
    key, _, value = word.partition("=")
    harmless = key in LISTS and not value.strip()
    argv = (*GRID, option, word)
    return Case(kind="set", name=f"set: {name}", argv=argv, parts=(POOL,), harmless=harmless, leaves=leaves)


def _wrong(name: str, field: Any) -> Iterator[tuple[str, str]]:
    """Label → text that a field of FinetuneConfig does not take."""
    if field.type is bool:
        yield from {"maybe": "maybe", "2": "2", "empty": "", "NUL": "\0"}.items()
    elif any(kind in (int, float) for kind in field.kinds) and not field.choices and str not in field.kinds:
        yield from {**NO_NUMBER, "-1": "-1", "-10^20": "-1" + "0" * 20}.items()
    elif name not in ("name", "data", "weights"):
        yield from NO_WORD.items()


TOML_VALUES = {
    "text": '"x"', "minus": "-1", "nan": "nan", "infinity": "inf", "list": "[1, 2]", "object": "{a = 1}", "true": "true", "date": "1979-05-27",
    "10^20": "100000000000000000000", "empty": '""', "nested": "[[1]]", "NUL": '"a\\u0000b"', "half": "1.5", "long": f'"{"x" * 5000}"',
}  # fmt: skip
JSON_TEXTS = {
    "text": '"x"', "minus": "-1", "NaN": "NaN", "list": "[1, 2]", "object": "{}", "true": "true", "10^20": "100000000000000000000",
    "1e400": "1e400", "nested": "[[1]]", "NUL": '"a\\u0000b"', "half": "1.5", "surrogate": '"\\ud800"',
}  # fmt: skip
BROKEN_TOML = {
    "no value": "lr =", "no key": "= 1", "twice": "lr = 1\nlr = 2", "deep": "lr = " + "[" * 100_000, "open": 'name = "x', "no table": "[finetune",
    "an unknown table": "[train]\nlr = 1", "an unknown key": "learning_rate = 1", "a table for a value": "[finetune.lr]\na = 1", "NUL": "lr = \0",
    "a list of tables": "[[finetune]]\nlr = 1", "digits": "iterations = " + "9" * 100_000, "config": 'config = "x.toml"', "data of another type": "data = 7",
    "a thousand keys": "\n".join(f"key{number} = 1" for number in range(1000)), "long": f'{"k" * 100_000} = 1',
}  # fmt: skip


def config_files() -> Iterator[Case]:
    """`--config`: what is no configuration, and values that the options do not take."""
    from fewshot_cli.runs.config import FinetuneConfig
    from fewshot_cli.settings import fields_of

    def case(name: str, file: str, text: str | bytes, command: str = "finetune", harmless: bool = False) -> Case:
        call, parts = CALLS[command]
        argv = (command, "--config", file, *(() if command == "finetune" else call))
        return Case(
            kind="config",
            name=f"config: {name}",
            argv=argv,
            parts=parts,
            changes={file: content(text)},
            harmless=harmless,
        )

    for name, broken in BROKEN_TOML.items():
        yield case(f"TOML text {name}", "x.toml", broken)
    for name, data in BROKEN.items():
        yield case(f"TOML {name}", "broken.toml", data, "export", harmless=name == "empty")
        yield case(f"JSON {name}", "broken.json", data, "export", harmless=name in ("object", "BOM"))
    base = _as_toml(TINY)
    for name, field in fields_of(FinetuneConfig).items():
        if field.type is bool or str in field.kinds or field.choices or field.option.words:
            texts = {
                label: value for label, value in TOML_VALUES.items() if label in ("object", "nested", "NUL", "long")
            }
            texts_json = {label: JSON_TEXTS[label] for label in ("object", "nested", "surrogate", "NUL")}
        else:
            texts, texts_json = TOML_VALUES, JSON_TEXTS
        large, real = field.name in GENEROUS, float in field.kinds
        fits = {*["10^20"] * large, *["half", "true"] * real}
        chosen = Random(name).sample(sorted(texts), min(4, len(texts)))
        for label in chosen:
            lines = {**base, "data": json.dumps(DATA), "report": "false", name: texts[label]}
            text = "[finetune]\n" + "\n".join(f"{key} = {value}" for key, value in lines.items())
            yield case(f"TOML {name} {label}", "x.toml", text, harmless=label in fits)
        for label in Random(name).sample(sorted(texts_json), 3):
            run = {"command": "finetune", "options": {**_as_json(TINY), "data": DATA, "report": False, name: "@"}}
            text = json.dumps(run).replace('"@"', texts_json[label])
            yield case(f"JSON {name} {label}", "x.json", text, harmless=label in fits)


def _as_toml(words: tuple[str, ...]) -> dict[str, str]:
    return {key: json.dumps(value) for key, value in _as_json(words).items()}


def _as_json(words: tuple[str, ...]) -> dict[str, Any]:
    """Options of a command line as a file has them."""
    return {
        key.removeprefix("--").replace("-", "_"): int(value) if value.isdecimal() else value
        for key, value in zip(words[::2], words[1::2], strict=True)
    }
