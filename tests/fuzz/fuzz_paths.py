"""Paths that are none: pipes, devices, loops, folders for files, files for folders, names that no disk takes."""

from __future__ import annotations

from collections.abc import Iterator

from fuzz_harness import Case
from fuzz_options import CALLS
from fuzz_values import SPECIAL, content
from fuzz_world import AUTO, DATA, DONE, GRID, LAST, PHOTO, POOL

NAMES = {
    "empty": "", "NUL": "a\0b", "long": "x" * 5000, "deep": "a/" * 2500, "dot": ".", "root": "/", "proc": "/proc/x", "below a file": "file/x",
    "home": "~nobody/x", "newline": "a\nb", "escape": "\x1b[31m", "surrogate": "\udcff", "memory": "/proc/self/mem", "zeros": "/dev/zero",
    "input": "/dev/stdin", "tags": "[bold]x[/bold]", "braces": "{class}", "pattern": "**/*", "range": "[a", "space": " ", "up": "../" * 50,
}  # fmt: skip
"""Name → text; `file` is a text file."""

READ: dict[str, tuple[str, ...]] = {
    "finetune --data": ("finetune", *LAST, "--data", "@"),
    "finetune --weights": ("finetune", "--data", DATA, *LAST, "--weights", "@"),
    "finetune --config": ("finetune", "--config", "@"),
    "finetune --resume": ("finetune", "--resume", "@"),
    "fetch --source": ("fetch", "--class", "square", "--shots", "2", "--test-images", "2", "--source", "@"),
    "fetch --source coco:": ("fetch", "--class", "square", "--shots", "2", "--test-images", "2", "--source", "coco:@"),
    "fetch --source yolo:": ("fetch", "--class", "square", "--shots", "2", "--test-images", "2", "--source", "yolo:@"),
    "fetch --test-source": ("fetch", *CALLS["fetch"][0], "--test-source", "@"),
    "augment": ("augment", "@"),
    "eval": ("eval", "@"),
    "eval --data": ("eval", DONE, "--threads", "1", "--data", "@"),
    "eval --weights": ("eval", "--detector", "yolox_nano", "--threads", "1", "--data", DATA, "--weights", "@"),
    "predict": ("predict", DONE, "@", "--threads", "1"),
    "predict run": ("predict", "@", PHOTO, "--threads", "1"),
    "predict list": ("predict", DONE, "list.txt", "--threads", "1"),
    "export": ("export", "@", "--threads", "1"),
    "inspect-layers": ("inspect-layers", "@"),
    "inspect-layers --data": ("inspect-layers", "yolox_nano", "--weights", "none", "--threads", "1", "--data", "@"),
    "sweep --source": (*GRID[:3], "--source", "@", *GRID[5:], "--dry-run"),
    "sweep --weights": (*GRID, "--weights", "@"),
    "sweep --config": (*GRID, "--config", "@"),
    "compare": ("compare", DONE, "@"),
    "report": ("report", "@"),
}
"""What is read → the call, with `@` for the path."""
WRITTEN: dict[str, tuple[str, ...]] = {
    "fetch --root": ("fetch", *CALLS["fetch"][0], "--root", "@"),
    "fetch --name": ("fetch", *CALLS["fetch"][0], "--name", "@"),
    "augment --out": ("augment", *CALLS["augment"][0], "--out", "@"),
    "finetune --runs": ("finetune", "--data", DATA, *LAST, "--runs", "@"),
    "finetune --name": ("finetune", "--data", DATA, *LAST, "--name", "@"),
    "eval --predictions": ("eval", DONE, "--threads", "1", "--predictions", "@"),
    "predict --out": ("predict", DONE, PHOTO, "--threads", "1", "--out", "@"),
    "export --out": ("export", DONE, "--format", "weights", "--threads", "1", "--out", "@"),
    "sweep --out": (*GRID, "--out", "@"),
    "compare --page": ("compare", DONE, AUTO, "--page", "@"),
    "report --out": ("report", DONE, "--out", "@"),
    "demo --out": ("demo", "--threads", "1", "--out", "@"),
}
"""What is written → the call."""

PARTS = (POOL, DATA, DONE, PHOTO)
ELSEWHERE = {
    "root",
    "up",
    "home",
    "space",
    "newline",
    "escape",
    "tags",
    "braces",
    "pattern",
    "range",
    "surrogate",
    "dot",
    "input",
}
"""Names under which a folder or file can be made (or must not be tried: the campaign writes nothing elsewhere)."""
SPECIAL_FOLDERS = ("folder", "nothing", "dangling", "huge")
"""Where something can be written, or that is a plain file."""
NAMED = {"fetch --name": "data/", "finetune --name": "runs/"}
"""Where a plain name is."""
FOUND = {
    "fetch --source": ("dot", "root", "up", "pattern"), "augment": ("dot",), "predict": ("dot", "root", "up", "pattern", "folder"),
    "predict run": ("pattern",), "sweep --source": ("dot", "braces"), "eval": (), "report": (), "compare": (),
}  # fmt: skip
"""Where a name may be what is looked for."""


def paths() -> Iterator[Case]:
    """Every path of every command."""
    changes = {"file": content("a file\n")}
    for what, argv in READ.items():
        for name, text in NAMES.items():
            if text in ("/", "../" * 50) and what in ("predict", "fetch --source", "predict list", "sweep --source"):
                continue  # all of this machine's images would be searched
            listed = (
                {**changes, "list.txt": content(text.replace("\0", "\0\n") + "\n")}
                if what == "predict list"
                else changes
            )
            yield _case(what, argv, name, text, listed, harmless=name in FOUND.get(what, ()) or what == "predict list")
        for name, change in SPECIAL.items():
            listed = (
                {"special": change, "list.txt": content("special\n")} if what == "predict list" else {"special": change}
            )
            yield _case(what, argv, name, "special", listed, harmless=name in FOUND.get(what, ()))
    for what, argv in WRITTEN.items():
        for name, text in NAMES.items():
            if name in ("root", "up") or (what.startswith("demo") and name in ELSEWHERE):
                continue
            yield _case(what, argv, name, text, changes, harmless=name in ELSEWHERE or name == "empty")
        for name, change in SPECIAL.items():
            if not (what.startswith("demo") and name in SPECIAL_FOLDERS):
                place = NAMED.get(what, "") + "special"
                yield _case(what, argv, name, "special", {place: change}, harmless=name in SPECIAL_FOLDERS)


def _case(what: str, argv: tuple[str, ...], name: str, text: str, changes: dict, harmless: bool) -> Case:
    words = tuple(word.replace("@", text) for word in argv)
    # What could be read, and what a sweep drew before its cells failed.
    leaves = {"predict": ("predictions*",), "sweep": ("sweep*",)}.get(argv[0], ())
    return Case(
        kind="path",
        name=f"path: {what} {name}",
        argv=words,
        parts=(*PARTS, *[AUTO] * (argv[0] == "compare")),
        changes=changes,
        harmless=harmless,
        leaves=leaves,
    )
