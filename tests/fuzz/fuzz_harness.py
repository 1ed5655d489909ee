"""Running `fsod` on malformed input, each case in a forked child of a process that has imported everything once.

A case is data: arguments, the parts of a small world that it needs, and what is damaged there. It runs in a folder that
is made anew for it, always under the same path, because a run records absolute paths.
"""

from __future__ import annotations

import atexit
import contextlib
import io
import os
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import weakref
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, NoReturn

SECONDS = 20
"""Of computing, or of waiting: more is a fault."""
PATIENCE = 3
"""A busy machine gives a process a part of a core: so many times SECONDS are waited for one that computes."""
MEMORY = 2 << 30
"""Bytes beyond those of the parent: more is a fault."""
LONGEST_MESSAGE = 8_000
"""Characters on stderr; 20 problems of a data set fit."""
REFUSALS, DIVERGED = {2, 3, 4, 5, 7}, 6

Change = Callable[[Path], None]
"""Damages or replaces what is at a path."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """One call of `fsod`.

    Attributes:
        kind: class of malformed input.
        name: unique; the same in every campaign.
        argv: without the program's name.
        parts: of the world, by the paths that they make.
        changes: path in the working folder → what is done to it before the call.
        harmless: exit 0 is right too.
        leaves: patterns of paths that a refused call may have made or changed.
    """

    kind: str
    name: str
    argv: tuple[str, ...]
    parts: tuple[str, ...] = ()
    changes: Mapping[str, Change] = field(default_factory=dict)
    harmless: bool = False
    leaves: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a call ended: exit code (minus a signal), its streams, what it used, and the paths that it made or changed."""

    code: int
    stdout: str
    stderr: str
    seconds: float
    memory: int
    changed: tuple[str, ...]
    waited: bool = False
    """Whether it was ended because it took too long."""


def faults(case: Case, outcome: Outcome) -> list[str]:
    """What is wrong with how a case ended; empty if it ended well."""
    # A rate that may work may also lead nowhere.
    refused = outcome.code in REFUSALS or (outcome.code == DIVERGED and case.harmless)
    left = [path for path in outcome.changed if not any(fnmatch(path, pattern) for pattern in case.leaves)]
    checks = {
        f"over {SECONDS} s": outcome.waited,
        f"{outcome.memory >> 20} MB": outcome.memory > MEMORY,
        "accepted": outcome.code == 0 and not case.harmless,
        f"exit code {outcome.code}": outcome.code != 0 and not refused and not outcome.waited,
        "a traceback": "Traceback (most recent call last)" in outcome.stderr,
        "a warning of Python": re.search(r"^\S+:\d+: \w*Warning: ", outcome.stderr, re.MULTILINE) is not None,
        "a control character on stderr": re.search(r"[\x00-\x08\x0b-\x1f\x7f]", outcome.stderr) is not None,
        "a message without an end": len(outcome.stderr) > LONGEST_MESSAGE,
        "no message that names something": refused and not _names_something(case, outcome.stderr),
        f"left behind: {', '.join(left[:4])}": refused and bool(left),
    }
    return [fault for fault, found in checks.items() if found]


def _names_something(case: Case, stderr: str) -> bool:
    """Whether an error says more than that there is one: an option, a path, a value, a word of the call.

    A sweep has a warning for each cause of a failure. What is empty cannot be named.
    """
    message = re.split(r"^(?:error|warning): ", stderr, maxsplit=1, flags=re.MULTILINE)
    words = [word[-40:] for word in re.split(r"[:=/\s]", " ".join(case.argv[1:])) if word]
    nothing = any(not word.strip() for word in case.argv)
    return len(message) > 1 and (
        nothing
        or re.search(r"--\w|['\"`/\\\d]|\w\.\w", message[1]) is not None
        or any(word in message[1] for word in words)
    )


class Place:
    """The folder in which cases run, one after the other, and the parts of the world that they share.

    Args:
        base: a folder of its own.
        parts: path in the working folder → builds it there, given `call`; the parts that it needs.
    """

    def __init__(self, base: Path, parts: Mapping[str, tuple[Callable[[Place], None], tuple[str, ...]]]) -> None:
        self.work, self.temporary = base / "case" / "work", base / "case" / "tmp"
        self._logs, self._store, self._parts = base / "case" / "logs", base / "parts", parts

    def run(self, case: Case) -> Outcome:
        """Prepare the folder and call."""
        self.prepare(case.parts)
        for path, change in case.changes.items():
            change(self.work / path)
        return self.call(*case.argv)

    def call(self, *argv: str, main: Callable[[], None] | None = None, watch: Watch | None = None) -> Outcome:
        """Call `fsod`, or `main`, in a child in the working folder; `watch` may look at it while it runs."""
        before = self._listing()
        child = os.fork()
        if not child:
            self._become(argv, main)
        code, used, waited = _wait(child, watch)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)  # what it started
        listing = self._listing()
        return Outcome(
            code=code,
            stdout=self._log("stdout"),
            stderr=self._log("stderr"),
            seconds=used.ru_utime + used.ru_stime,
            memory=max(0, used.ru_maxrss - _resident_kb()) << 10,
            changed=tuple(sorted({path for path, _ in before.items() ^ listing.items()})),
            waited=waited,
        )

    def build(self, part: str) -> None:
        """Build a part of the world and store it, if that was not done before."""
        if (self._store / part).exists():
            return
        make, needs = self._parts[part]
        self.prepare(needs)
        make(self)
        (self._store / part).parent.mkdir(parents=True, exist_ok=True)
        (self.work / part).rename(self._store / part)

    def succeed(self, *argv: str) -> None:
        """Call for what the world is made of."""
        outcome = self.call(*argv)
        assert outcome.code == 0, f"fsod {' '.join(argv)}: {outcome.code}\n{outcome.stderr}"

    def prepare(self, parts: tuple[str, ...]) -> None:
        """Make the working folder anew, with these parts of the world."""
        for part in parts:
            self.build(part)
        shutil.rmtree(self.work.parent, ignore_errors=True)
        for folder in (self.work, self.temporary, self._logs):
            folder.mkdir(parents=True)
        for part in parts:
            source, target = self._store / part, self.work / part
            target.parent.mkdir(parents=True, exist_ok=True)
            # With times: a data set and its record know each other by them.
            shutil.copytree(source, target) if source.is_dir() else shutil.copy2(source, target)

    def _listing(self) -> dict[str, tuple[int, int, int]]:
        """Path → kind, size and time of each file under the working and the temporary folder; of folders the kind."""
        return {
            os.path.relpath(path, self.work): status
            for top in (self.work, self.temporary)
            for path, status in _statuses(str(top))
        }

    def _log(self, name: str) -> str:
        return (self._logs / name).read_text(encoding="utf-8", errors="replace")

    def _become(self, argv: tuple[str, ...], main: Callable[[], None] | None) -> NoReturn:
        """What the child does instead of going on."""
        code = 1
        try:
            self._settle()
            sys.argv = ["fsod", *argv]
            (main or _fsod)()
            code = 0
        except SystemExit as leaving:
            code = leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
        except BaseException:
            traceback.print_exc()
        finally:
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # the call is over
            with contextlib.suppress(BaseException):
                atexit._run_exitfuncs()
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(code)

    def _settle(self) -> None:
        """As a process of its own: streams, folder, environment, signals."""
        logs = [os.open(self._logs / name, os.O_WRONLY | os.O_CREAT) for name in ("stdout", "stderr")]
        for number, stream in enumerate([os.open(os.devnull, os.O_RDONLY), *logs]):
            os.dup2(stream, number)
        sys.stdout, sys.stderr = (
            io.TextIOWrapper(io.FileIO(number, "w", closefd=False), encoding="utf-8") for number in (1, 2)
        )
        # What was to be done at the end of the parent is none of its business.
        atexit._clear()
        weakref.finalize._registry.clear()  # type: ignore[attr-defined]
        weakref.finalize._registered_with_atexit = False  # type: ignore[attr-defined]
        os.setsid()
        os.chdir(self.work)
        os.environ.update(_environment(self.temporary, self._logs.parent))
        tempfile.tempdir = None
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _fsod() -> None:
    from fewshot_cli.cli.app import main

    main()


def _environment(temporary: Path, home: Path) -> dict[str, str]:
    """Nothing of the person who runs the campaign, and nothing of the internet."""
    return {
        "TMPDIR": str(temporary),
        "HOME": str(home),
        "FSOD_CACHE": str(home / "cache"),
        "FIFTYONE_DATABASE_DIR": str(home / "fiftyone"),
        "FIFTYONE_DATASET_ZOO_DIR": str(home / "zoo"),
        "COLUMNS": "120",
        **dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9"),
    }


def _statuses(folder: str) -> Iterator[tuple[str, tuple[int, int, int]]]:
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            status = entry.stat(follow_symlinks=False)
            if entry.is_dir(follow_symlinks=False):
                yield entry.path, (status.st_mode, 0, 0)
                yield from _statuses(entry.path)
            else:
                yield entry.path, (status.st_mode, status.st_size, status.st_mtime_ns)


Watch = Callable[[int, float], Any]
"""Called with a child's id and the seconds since it began, again and again while it runs."""


def _wait(child: int, watch: Watch | None) -> tuple[int, resource.struct_rusage, bool]:
    """Exit code (minus the signal), what was used, and whether it was ended because it took too long."""
    begun, over = time.monotonic(), False
    limit = _resident_kb() * 1024 + MEMORY * 3 // 2
    while True:
        ended, status, used = os.wait4(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status), used, over
        passed = time.monotonic() - begun
        if watch:
            watch(child, passed)
        seconds, resident = _used(child)
        waits = passed > SECONDS and seconds < SECONDS / 10
        if seconds > SECONDS or passed > PATIENCE * SECONDS or waits or resident > limit:
            over = over or resident <= limit
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child, signal.SIGKILL)
        time.sleep(min(0.02, passed / 10 + 0.001))


def computed(process: int) -> float:
    """Seconds of computing so far."""
    return _used(process)[0]


def _used(process: int) -> tuple[float, int]:
    """Seconds of computing and resident bytes so far."""
    try:
        times = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        resident = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    except (OSError, IndexError):
        return 0.0, 0
    return (int(times[11]) + int(times[12])) / os.sysconf("SC_CLK_TCK"), resident * resource.getpagesize()


def _resident_kb() -> int:
    return _used(os.getpid())[1] >> 10
