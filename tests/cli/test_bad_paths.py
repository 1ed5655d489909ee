"""Every command that takes a path, and every kind of path that cannot be meant."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from helpers_data import draw_coco
from helpers_runs import fsod
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

# Imported before the clock runs: on a busy machine that takes longer than any refusal.
from fewshot_cli.augmentation import dataset  # noqa: F401
from fewshot_cli.verbs import evaluate, export, finetune, predict  # noqa: F401

SECONDS = 5
"""Longest that a refusal may take on a busy machine; most take a few hundredths of one."""

BAD: dict[str, Callable[[Path], str]] = {
    "a pipe": lambda here: _made(here / "pipe", os.mkfifo),
    "a pipe called like an image": lambda here: _made(here / "pipe.jpg", os.mkfifo),
    "a pipe called like weights": lambda here: _made(here / "pipe.pth", os.mkfifo),
    "a pipe called like a list": lambda here: _made(here / "pipe.txt", os.mkfifo),
    "a pipe called like labels": lambda here: _made(here / "pipe.json", os.mkfifo),
    "an endless device": lambda here: "/dev/zero",
    "an empty device": lambda here: "/dev/null",
    "a loop of links": lambda here: _made(here / "loop", lambda path: path.symlink_to(path)),
    "below a loop of links": lambda here: _made(here / "loop", lambda path: path.symlink_to(path)) + "/a.json",
    "a link to nothing": lambda here: _made(here / "dangling", lambda path: path.symlink_to(here / "gone")),
    "NUL": lambda here: "a\0b",
    "NUL in a folder": lambda here: "a\0b/c.json",
    "a name of 5,000 characters": lambda here: "x" * 5_000,
    "a path of 5,000 characters": lambda here: "/".join(["folder"] * 800),
    "a name of 300 characters": lambda here: "x" * 300 + ".pth",
    "an unknown user's home": lambda here: "~nobody-of-this-name/photos",
    "half a character": lambda here: "a\udc80\ud800b",
    "empty": lambda here: "",
    "the root": lambda here: "/",
    "a file of a process": lambda here: "/proc/self/mem",
    "a process": lambda here: "/proc/self",
    "nothing in /proc": lambda here: "/proc/x",
    "below a file": lambda here: f"{here / 'plain'}/inner",
}

INPUTS = [
    "fetch --class cat --source PATH",
    "fetch --class cat --source coco:PATH",
    "fetch --class cat --source voc:PATH",
    "fetch --class cat --source yolo:PATH",
    "fetch --class cat --source csv:PATH",
    "fetch --class cat --source labelme:PATH",
    "fetch --class cat --source labelstudio:PATH",
    "fetch --class cat --source cvat:PATH",
    "fetch --class cat --source DATA --test-source PATH",
    "fetch --class cat --config PATH",
    "augment PATH",
    "augment PATH --preview",
    "augment DATA --config PATH",
    "finetune --data PATH --weights none",
    "finetune --data DATA --detector yolox_nano --weights PATH",
    "finetune --resume PATH",
    "finetune --data DATA --config PATH",
    "eval PATH",
    "eval --detector yolox_nano --weights none --data PATH",
    "eval --detector yolox_nano --weights PATH --data DATA",
    "predict PATH DATA",
    "predict --detector yolox_nano --weights none PATH",
    "export PATH",
    "export yolox_nano --weights PATH",
    "inspect-layers PATH",
    "sweep --source PATH --class cat --dry-run",
    "sweep --config PATH",
]
OUTPUTS = [
    "fetch --class cat --shots 1 --test-images 1 --source SOURCE --root PATH",
    "fetch --class cat --shots 1 --test-images 1 --source SOURCE --name PATH",
    "augment DATA --copies 2 --out PATH",
    "augment DATA --preview --out PATH",
    "finetune --data DATA --weights none --runs PATH --iterations 1 --image-size 64 --copies 1 --no-report",
    "finetune --data DATA --weights none --name PATH --iterations 1 --image-size 64 --copies 1 --no-report",
    "predict --detector yolox_nano --weights none --image-size 64 DATA --out PATH",
    "export yolox_nano --weights none --format weights --out PATH",
    "sweep --source SOURCE --class cat --seeds 0 --weights none --iterations 1 --image-size 64 --copies 1 --out PATH",
]
WRITABLE = {"empty", "a link to nothing", "an unknown user's home", "half a character", "a process"}
"""Kinds that name a place which can be written, or where some commands write their default."""


ALLOWED = {
    ("eval --detector yolox_nano --weights PATH --data DATA", "empty"),
    ("export yolox_nano --weights PATH", "empty"),
    ("inspect-layers PATH", "empty"),
    ("predict --detector yolox_nano --weights none PATH", "a file of a process"),
    ("predict --detector yolox_nano --weights none PATH", "a process"),
    ("predict PATH DATA", "a process"),
    (OUTPUTS[0], "the root"),
    (OUTPUTS[4], "the root"),
    *((command, kind) for command in OUTPUTS for kind in WRITABLE),
}
"""Empty weights are the released ones; `predict` reports files that cannot be read in its result, and searches any
folder but the root; data sets and runs may be kept in the root."""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, with a data set, what it could be fetched from, and a plain file."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FSOD_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("FSOD_TRACEBACK", raising=False)
    for name in ("good/train", "good/test", "source"):
        draw_coco(tmp_path / name, [["cat"], ["cat"], ["cat"]])
    (tmp_path / "plain").write_text("plain\n")
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("kind", BAD)
def test_every_bad_path_is_refused_by_every_command(kind: str, here: Path) -> None:
    """Whatever stands at a path, each command ends with a message and a code, soon, and leaves nothing behind."""
    for command in INPUTS + OUTPUTS:
        if (command, kind) not in ALLOWED:
            _hold(command, kind, here)


@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(command=st.sampled_from(INPUTS + OUTPUTS), kind=st.sampled_from(sorted(BAD)))
def test_a_bad_path_is_refused(command: str, kind: str, here: Path) -> None:
    """A sample of the same."""
    assume((command, kind) not in ALLOWED)
    _hold(command, kind, here)


def _hold(command: str, kind: str, here: Path) -> None:
    path = BAD[kind](here)
    known = {"PATH": path, "DATA": str(here / "good"), "SOURCE": str(here / "source")}
    argv = [_filled(word, known) for word in command.split()]
    before = _listing(here)
    with _time_limit():
        result = fsod(*argv)
    assert result.exit_code in (2, 3, 4, 5), (
        f"{command} {kind}: {result.exit_code}: {result.output[-600:]} {result.exception!r}"
    )
    assert "Traceback" not in result.output and "bug:" not in result.output
    assert before == _listing(here), command


def _filled(word: str, known: dict[str, str]) -> str:
    for name, value in known.items():
        if word == name or word.endswith(f":{name}"):
            return word.removesuffix(name) + value
    return word


def _listing(folder: Path) -> list[str]:
    return sorted(str(path) for path in folder.rglob("*") if "cache" not in path.relative_to(folder).parts)


def _made(path: Path, make: Callable[[Path], Any]) -> str:
    if not os.path.lexists(path):
        make(path)
    return str(path)


@contextmanager
def _time_limit() -> Iterator[None]:
    def stop(*_: object) -> None:
        raise AssertionError(f"no answer within {SECONDS} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
