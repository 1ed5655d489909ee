"""Commands killed at random moments and called again as a person would: the end is that of an undisturbed call.

    PYTHONPATH=.:tests:tests/fuzz python tests/fuzz/kill_campaign.py --count 50

prints one JSON line a kill. Moments are shares of the computing time of the undisturbed call, not of the clock, so that
a busy machine is hit at the same places.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import signal
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")

from fuzz_harness import Outcome, Place, computed
from fuzz_world import AUTO_OPTIONS, DATA, DONE, GRID, PARTS, PHOTO, POOL, TINY, import_everything

SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
VARYING = {"created", "seconds", "median_seconds", "images_per_second", "peak_memory_mb", "environment"}
"""Keys of JSON documents that differ between two undisturbed calls."""

Again = Callable[[Path], tuple[str, ...]]
"""From the working folder after the kill: what a person calls then."""


@dataclass(frozen=True, kw_only=True)
class Killed:
    """A command, the parts of the world that it needs, and what is called after a kill; default: the same."""

    argv: tuple[str, ...]
    parts: tuple[str, ...]
    again: Again | None = None


def _fine_tune(*options: str) -> Killed:
    argv = ("finetune", "--data", DATA, *TINY, "--iterations", "12", *options, "--no-report", "--name", "run")

    def again(work: Path) -> tuple[str, ...]:
        return ("finetune", "--resume", "runs/run", "--no-report") if (work / "runs/run").exists() else argv

    return Killed(argv=argv, parts=(DATA,), again=again)


def _replacing(parts: tuple[str, ...], *argv: str) -> Killed:
    """What exists already, if the kill came late, is replaced."""
    return Killed(argv=argv, parts=parts, again=lambda _: (*argv, "--force"))


def _emptied(folder: str, parts: tuple[str, ...], *argv: str) -> Killed:
    """What was written is removed before the same call: it wants an empty folder."""

    def again(work: Path) -> tuple[str, ...]:
        shutil.rmtree(work / folder, ignore_errors=True)
        return argv

    return Killed(argv=argv, parts=parts, again=again)


COMMANDS: dict[str, Killed] = {
    "fetch": _replacing((POOL,), "fetch", "--source", "coco:pool/train", "--test-source", "coco:pool/test", "--class", "square", "--shots", "4", "--name", "set"),
    "augment": _replacing((DATA,), "augment", DATA, "--out", "more", "--copies", "20", "--threads", "1"),
    "finetune symmetric": _fine_tune("--policy", "symmetric", "--budget", "3"),
    "finetune full": _fine_tune("--policy", "full"),
    "finetune auto": _fine_tune(*AUTO_OPTIONS),
    "finetune cross-validated": _fine_tune("--policy", "last", "--budget", "2", "--cross-validate", "2"),
    "sweep": Killed(argv=(*GRID, "--seeds", "2", "--policy", "symmetric"), parts=(POOL,)),
    "predict": _emptied("out", (DATA, DONE, PHOTO, POOL), "predict", DONE, PHOTO, "pool", "--out", "out", "--threads", "1"),
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Kill:
    """One kill: of which command, after which share of its computing, by which signal."""

    command: str
    share: float
    signal: int

    @property
    def name(self) -> str:
        return f"{self.command} at {self.share:.3f} by {signal.Signals(self.signal).name}"


def kills(count: int) -> list[Kill]:
    """That many, spread over the commands and over their time; always the same."""
    chance, names = Random(19), list(COMMANDS)
    order = [names[number % len(names)] for number in range(count)]
    return [Kill(command=name, share=chance.uniform(0.02, 0.98), signal=chance.choice(SIGNALS)) for name in order]


@dataclass
class Campaign:
    """Undisturbed calls, made once each, and kills that are compared with them."""

    place: Place
    _undisturbed: dict[str, tuple[float, dict[str, Any]]] = field(default_factory=dict)

    def faults(self, kill: Kill) -> tuple[str, list[str]]:
        """What came of the killed call, and in what the end differs from the undisturbed one."""
        command = COMMANDS[kill.command]
        seconds, expected = self._expected(kill.command)
        self.place.prepare(command.parts)
        killed = self.place.call(*command.argv, watch=_killer(kill, seconds))
        argv = command.again(self.place.work) if command.again else command.argv
        repeated = self.place.call(*argv)
        how = f"{killed.code}, then {' '.join(argv[:3])}: {repeated.code}"
        if repeated.code:
            return how, [f"exit code {repeated.code}: {repeated.stderr[-500:]}"]
        return how, [*_differences(expected, _contents(self.place.work)), *_fault_of_stopping(kill, killed)]

    def _expected(self, name: str) -> tuple[float, dict[str, Any]]:
        """Seconds of computing, and the content of every file afterwards."""
        if name not in self._undisturbed:
            command = COMMANDS[name]
            self.place.prepare(command.parts)
            outcome = self.place.call(*command.argv)
            assert outcome.code == 0, outcome.stderr
            self._undisturbed[name] = outcome.seconds, _contents(self.place.work)
        return self._undisturbed[name]


def _killer(kill: Kill, seconds: float) -> Callable[[int, float], None]:
    def watch(child: int, _passed: float) -> None:
        if computed(child) >= kill.share * seconds:
            os.kill(child, kill.signal)

    return watch


def _fault_of_stopping(kill: Kill, killed: Outcome) -> list[str]:
    """SIGTERM and Ctrl-C end with their codes, or came too late; SIGTERM also before anything was parsed."""
    codes = {signal.SIGKILL: (0, -9), signal.SIGTERM: (0, 143, -15), signal.SIGINT: (0, 130)}[
        signal.Signals(kill.signal)
    ]
    return [] if killed.code in codes else [f"stopped with {killed.code}: {killed.stderr[-300:]}"]


def _contents(folder: Path) -> dict[str, Any]:
    """Path → what is in it: a digest, or the JSON documents without VARYING."""
    return {str(path.relative_to(folder)): _stable(path) for path in sorted(folder.rglob("*")) if path.is_file()}


def _stable(path: Path) -> Any:
    if path.suffix in (".html", ".png") and path.parent.name != "images":
        return "a page"  # which shows how long things took
    if path.suffix in (".json", ".jsonl"):
        text = path.read_text("utf-8")
        return [
            _without_varying(json.loads(each)) for each in ([text] if path.suffix == ".json" else text.splitlines())
        ]
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _without_varying(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_varying(each) for key, each in value.items() if key not in VARYING}
    return [_without_varying(each) for each in value] if isinstance(value, list) else value


def _differences(expected: dict[str, Any], actual: dict[str, Any]) -> list[str]:
    return [
        f"{path} {'is missing' if path not in actual else 'is left' if path not in expected else f'differs: {_first_difference(expected[path], actual[path])}'}"
        for path in sorted({*expected, *actual})
        if expected.get(path) != actual.get(path)
    ]


def _first_difference(expected: Any, actual: Any) -> str:
    """The way to it in two JSON documents, and the values there."""
    if isinstance(expected, dict) and isinstance(actual, dict) and expected.keys() == actual.keys():
        inner: Any = expected
    elif isinstance(expected, list) and isinstance(actual, list) and len(expected) == len(actual):
        inner = range(len(expected))
    else:
        return f"{str(expected)[:60]} instead of {str(actual)[:60]}"
    key = next(key for key in inner if expected[key] != actual[key])
    return f"{key} {_first_difference(expected[key], actual[key])}"


def main() -> None:
    """Run that many kills."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=50)
    parser.add_argument("--only", default="")
    parser.add_argument("--folder", type=Path)
    given = parser.parse_args()
    import_everything()
    base = given.folder or Path(tempfile.mkdtemp())
    try:
        campaign = Campaign(Place(base.resolve(), PARTS))
        for kill in kills(given.count):
            if given.only in kill.name:
                how, faults = campaign.faults(kill)
                print(json.dumps({"name": kill.name, "how": how, "faults": faults}), flush=True)
    finally:
        if not given.folder:
            shutil.rmtree(base, ignore_errors=True)


if __name__ == "__main__":
    main()
